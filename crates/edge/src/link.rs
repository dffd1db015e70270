//! The outbound side of one connection: a bounded queue of shared encodings and the wish to close.
//!
//! Owns what other tasks may touch of a connection; its own task (`driver`) takes from here and writes. Knows
//! no handler, so the clock and the registry can hold links of any service.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;

use bytes::Bytes;

use crate::event::Event;
use crate::handler::{CloseReason, Dialect};
use crate::shared::Shared;
use crate::sync::{Mutex, MutexGuard};
use crate::wheel::Alarm;

/// One thing to send, free of the transport it will leave by.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    /// A shared event, in the namespace `/` or on plain.
    Event(Event),
    /// An Engine.IO text packet, its type included.
    Text(Bytes),
    /// An Engine.IO binary message.
    Binary(Bytes),
    /// Whole WebSocket frames; never queued while the transport is polling.
    Frames(Bytes),
}

impl Outgoing {
    fn len(&self, dialect: Dialect) -> usize {
        match self {
            Self::Event(event) => event.frames(dialect).len(),
            Self::Text(bytes) | Self::Binary(bytes) | Self::Frames(bytes) => bytes.len(),
        }
    }

    /// How many Engine.IO packets it is.
    fn packets(&self) -> usize {
        match self {
            Self::Event(event) => 1 + event.attachments().len(),
            Self::Text(_) | Self::Binary(_) | Self::Frames(_) => 1,
        }
    }

    /// Engine.IO's close.
    fn is_close(&self) -> bool {
        matches!(self, Self::Text(text) if text.as_ref() == b"1")
    }
}

/// What is held back while a client is being let in: its CONNECT reply goes first.
#[derive(Debug)]
struct Held {
    client: u64,
    items: Vec<Outgoing>,
}

#[derive(Debug, Default)]
struct Outbound {
    queue: VecDeque<Outgoing>,
    /// Bytes queued or taken and not yet written.
    bytes: usize,
    held: Option<Box<Held>>,
    closing: Option<Ending>,
    /// The last words are queued; nothing comes after them.
    sealed: bool,
    /// Something other than the queue changed while nobody was there to wake.
    poked: bool,
    waker: Option<Waker>,
}

impl Outbound {
    /// Whether what the service emits is dropped: after a close, except while a shutdown still lets work under
    /// way finish.
    fn refuses(&self) -> bool {
        let winding_down =
            |ending: Ending| matches!(ending.reason, CloseReason::Shutdown | CloseReason::Restart);
        self.sealed || self.closing.is_some_and(|ending| !winding_down(ending))
    }

    /// Makes room for that many bytes, or gives the client up.
    fn make_room(&mut self, len: usize, limit: usize) -> bool {
        if self.bytes > 0 && self.bytes.saturating_add(len) > limit {
            self.closing.get_or_insert(CloseReason::SlowConsumer.into());
            self.sealed = true;
            self.poked = true;
            self.queue = VecDeque::new();
            self.held = None;
            return false;
        }
        self.bytes += len;
        true
    }
}

/// Why a connection ends and the WebSocket close code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) reason: CloseReason,
    pub(crate) code: u16,
}

impl From<CloseReason> for Ending {
    fn from(reason: CloseReason) -> Self {
        let code = match reason {
            CloseReason::Client | CloseReason::Transport => 1000,
            CloseReason::Protocol => 1002,
            CloseReason::TooBig => 1009,
            CloseReason::PingTimeout | CloseReason::Stalled => 1008,
            // "Try again later": the client may come back and catch up.
            CloseReason::SlowConsumer => 1013,
            CloseReason::Unauthenticated | CloseReason::Refused => 4401,
            CloseReason::Kicked(code) => code,
            CloseReason::Restart => 1012,
            CloseReason::Shutdown => 1001,
        };
        Self { reason, code }
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
    alarm: Alarm,
    out: Mutex<Outbound>,
    pub(crate) id: u64,
    pub(crate) remote: IpAddr,
    pub(crate) dialect: Dialect,
    standing: AtomicU8,
}

/// Let in and not authenticated yet, authenticated, gone.
const WAITING: u8 = 0;
const AUTHENTICATED: u8 = 1;
const GONE: u8 = 2;

impl Link {
    pub(crate) fn new(shared: Arc<Shared>, id: u64, remote: IpAddr, dialect: Dialect) -> Self {
        Self {
            shared,
            alarm: Alarm::default(),
            out: Mutex::default(),
            id,
            remote,
            dialect,
            standing: AtomicU8::new(WAITING),
        }
    }

    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Queues something of that client; over the limit, the connection is closed instead.
    pub(crate) fn push(&self, client: u64, item: Outgoing) {
        let len = item.len(self.dialect);
        let mut out = self.out.lock();
        if out.refuses() {
            return;
        }
        if out.make_room(len, self.shared.config.queue_bytes) {
            match &mut out.held {
                Some(held) if held.client == client => {
                    held.items.push(item);
                    return;
                }
                _ => out.queue.push_back(item),
            }
        }
        wake(out);
    }

    /// Queues something that the connection's own task has to say; it needs no waking.
    pub(crate) fn push_own(&self, item: Outgoing) {
        let len = item.len(self.dialect);
        let mut out = self.out.lock();
        if !out.sealed && out.make_room(len, self.shared.config.queue_bytes) {
            out.queue.push_back(item);
        }
    }

    /// Holds back what is pushed for that client until [`Link::release`].
    pub(crate) fn hold(&self, client: u64) {
        self.out.lock().held = Some(Box::new(Held { client, items: Vec::new() }));
    }

    /// Queues `first`, then what was held back, or drops that.
    pub(crate) fn release(&self, first: Outgoing, keep: bool) {
        let mut out = self.out.lock();
        let held = out.held.take();
        if out.sealed {
            return;
        }
        out.bytes += first.len(self.dialect);
        out.queue.push_back(first);
        for item in held.into_iter().flat_map(|held| held.items) {
            if keep {
                out.queue.push_back(item);
            } else {
                out.bytes = out.bytes.saturating_sub(item.len(self.dialect));
            }
        }
    }

    /// Asks the connection to end once what is queued has gone out. The first reason stays.
    pub(crate) fn close(&self, ending: Ending) {
        let mut out = self.out.lock();
        if out.closing.is_none() {
            out.closing = Some(ending);
            out.poked = true;
            wake(out);
        }
    }

    pub(crate) fn wake(&self) {
        let mut out = self.out.lock();
        out.poked = true;
        wake(out);
    }

    /// Whether and why the connection is to end.
    pub(crate) fn closing(&self) -> Option<Ending> {
        self.out.lock().closing
    }

    /// The connection's task begins a turn: until [`Link::rest`] it need not be woken.
    pub(crate) fn begin(&self) {
        let mut out = self.out.lock();
        out.waker = None;
        out.poked = false;
    }

    /// The task wants to rest until woken. False if something came during its turn that it must look at first;
    /// `blocked` says that what is queued waits for the socket, not for the task.
    pub(crate) fn rest(&self, waker: &Waker, blocked: bool) -> bool {
        let mut out = self.out.lock();
        if out.poked || !(blocked || out.queue.is_empty()) {
            return false;
        }
        out.waker = Some(waker.clone());
        true
    }

    /// Accounts for `written` bytes, takes up to `items` things or about `bytes` bytes, and says how many bytes
    /// those have.
    pub(crate) fn take(
        &self,
        written: usize,
        mut items: usize,
        bytes: usize,
        mut each: impl FnMut(Outgoing),
    ) -> usize {
        let mut out = self.out.lock();
        out.bytes = out.bytes.saturating_sub(written);
        let mut taken = 0;
        while items > 0 && taken < bytes {
            let Some(item) = out.queue.pop_front() else { break };
            taken += item.len(self.dialect);
            items -= 1;
            each(item);
        }
        if out.queue.is_empty() && out.queue.capacity() > 0 {
            out.queue = VecDeque::new();
        }
        taken
    }

    /// Takes what one polling body carries: up to `packets` packets or about `bytes` bytes. Says how many bytes it took.
    ///
    /// The close of the connection never stands behind anything in one body: JavaScript's client closes as soon as
    /// it reads it, and drops the events before it that it has not handed on yet.
    pub(crate) fn take_body(
        &self,
        mut packets: usize,
        bytes: usize,
        mut each: impl FnMut(Outgoing),
    ) -> usize {
        let mut out = self.out.lock();
        let mut taken = 0;
        while taken < bytes {
            let Some(item) = out.queue.front() else { break };
            let weight = item.packets();
            if taken > 0 && (weight > packets || item.is_close()) {
                break;
            }
            let Some(item) = out.queue.pop_front() else { break };
            taken += item.len(self.dialect);
            packets = packets.saturating_sub(weight);
            each(item);
        }
        if out.queue.is_empty() && out.queue.capacity() > 0 {
            out.queue = VecDeque::new();
        }
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out.lock().queue.is_empty()
    }

    /// Lets nothing more in, and forgets what is queued unless it shall still go out.
    pub(crate) fn shut(&self, ending: Ending, keep_queue: bool) {
        let mut out = self.out.lock();
        out.closing.get_or_insert(ending);
        out.held = None;
        if !keep_queue {
            out.queue = VecDeque::new();
        }
    }

    /// Queues the last words of a connection that lets nothing more in.
    pub(crate) fn push_last(&self, words: Vec<Outgoing>) {
        let mut out = self.out.lock();
        out.sealed = true;
        out.queue.extend(words);
    }

    /// Bytes queued and not yet written.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.out.lock().bytes
    }

    /// Marks the connection authenticated, unless it is or is gone.
    pub(crate) fn authenticate(&self) {
        let changed =
            self.standing.compare_exchange(WAITING, AUTHENTICATED, Ordering::AcqRel, Ordering::Relaxed);
        if changed.is_ok() {
            self.shared.addresses.authenticated(self.remote);
        }
    }

    /// Marks the connection gone and frees what it held; says whether it was authenticated.
    pub(crate) fn retire(&self) -> bool {
        let mut out = self.out.lock();
        out.closing.get_or_insert(CloseReason::Transport.into());
        out.sealed = true;
        out.queue = VecDeque::new();
        out.held = None;
        out.bytes = 0;
        out.waker = None;
        self.standing.swap(GONE, Ordering::AcqRel) == AUTHENTICATED
    }
}

/// Wakes after the lock is gone, so that the woken task does not run into it.
fn wake(mut out: MutexGuard<'_, Outbound>) {
    let waker = out.waker.take();
    drop(out);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::EdgeConfig;

    const LIMIT: usize = 100;

    /// What may be done to a link, by others and by its own task.
    #[derive(Debug, Clone)]
    enum Act {
        Push { client: u64, len: usize },
        PushOwn { len: usize },
        Hold { client: u64 },
        Release { keep: bool },
        Take { items: usize },
        Close,
        ShutDown,
        LastWords,
    }

    fn acts() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (1..3_u64, 1..40_usize).prop_map(|(client, len)| Act::Push { client, len }),
            3 => (1..40_usize).prop_map(|len| Act::PushOwn { len }),
            2 => (1..3_u64).prop_map(|client| Act::Hold { client }),
            2 => any::<bool>().prop_map(|keep| Act::Release { keep }),
            6 => (1..5_usize).prop_map(|items| Act::Take { items }),
            1 => Just(Act::Close),
            1 => Just(Act::ShutDown),
            1 => Just(Act::LastWords),
        ]
    }

    /// The same rules, written down plainly: a queue of numbered things with their lengths.
    #[derive(Debug, Default)]
    struct Model {
        queue: Vec<(u8, usize)>,
        held: Option<(u64, Vec<(u8, usize)>)>,
        taken: usize,
        closing: Option<CloseReason>,
        sealed: bool,
    }

    impl Model {
        fn bytes(&self) -> usize {
            let held = self.held.iter().flat_map(|(_, items)| items);
            self.queue.iter().chain(held).map(|(_, len)| len).sum::<usize>() + self.taken
        }

        fn fits(&mut self, len: usize) -> bool {
            let bytes = self.bytes();
            let fits = bytes == 0 || bytes + len <= LIMIT;
            if !fits {
                self.closing.get_or_insert(CloseReason::SlowConsumer);
                self.sealed = true;
                self.queue.clear();
                self.held = None;
            }
            fits
        }
    }

    fn item(number: u8, len: usize) -> Outgoing {
        Outgoing::Frames(vec![number; len].into())
    }

    proptest! {
        /// Things leave in the order they came, what is held comes after its release, what is over the limit ends
        /// it, and nothing follows the last words.
        #[test]
        fn the_queue_does_what_its_model_does(acts in prop::collection::vec(acts(), 0..60)) {
            let config = EdgeConfig { queue_bytes: LIMIT, ..EdgeConfig::default() };
            let shared = Arc::new(Shared::new(config));
            let link = Link::new(shared, 1, [127, 0, 0, 1].into(), Dialect::Plain);
            let mut model = Model::default();
            // After a slow consumer was cut off, bytes no longer mean anything.
            let mut counted = true;
            for (number, act) in acts.into_iter().enumerate() {
                let number = number as u8;
                match act {
                    Act::Push { client, len } => {
                        link.push(client, item(number, len));
                        let winding_down = model.closing == Some(CloseReason::Shutdown);
                        let refused = model.sealed || (model.closing.is_some() && !winding_down);
                        if !refused && model.fits(len) {
                            match &mut model.held {
                                Some((held, items)) if *held == client => items.push((number, len)),
                                _ => model.queue.push((number, len)),
                            }
                        }
                    }
                    Act::PushOwn { len } => {
                        link.push_own(item(number, len));
                        if !model.sealed && model.fits(len) {
                            model.queue.push((number, len));
                        }
                    }
                    Act::Hold { client } if model.held.is_none() && !model.sealed => {
                        link.hold(client);
                        model.held = Some((client, Vec::new()));
                    }
                    Act::Release { keep } if model.held.is_some() => {
                        link.release(item(number, 1), keep);
                        let (_, items) = model.held.take().unwrap();
                        if !model.sealed {
                            model.queue.push((number, 1));
                            model.queue.extend(items.into_iter().filter(|_| keep));
                        }
                    }
                    Act::Take { items } => {
                        let mut got = Vec::new();
                        let done = std::mem::take(&mut model.taken);
                        let cost = link.take(done, items, usize::MAX, |item| match item {
                            Outgoing::Frames(bytes) => got.push((bytes[0], bytes.len())),
                            other => panic!("{other:?}"),
                        });
                        let wanted: Vec<_> = model.queue.drain(..items.min(model.queue.len())).collect();
                        prop_assert_eq!(&got, &wanted);
                        model.taken = wanted.iter().map(|(_, len)| len).sum();
                        prop_assert_eq!(cost, model.taken);
                    }
                    Act::Close => {
                        link.close(CloseReason::Kicked(4000).into());
                        model.closing.get_or_insert(CloseReason::Kicked(4000));
                    }
                    Act::ShutDown => {
                        link.close(CloseReason::Shutdown.into());
                        model.closing.get_or_insert(CloseReason::Shutdown);
                    }
                    Act::LastWords => {
                        link.push_last(vec![item(number, 1)]);
                        model.sealed = true;
                        model.queue.push((number, 1));
                        counted = false;
                    }
                    Act::Hold { .. } | Act::Release { .. } => {}
                }
                prop_assert_eq!(link.closing().map(|ending| ending.reason), model.closing);
                prop_assert_eq!(link.is_empty(), model.queue.is_empty());
                counted &= model.closing != Some(CloseReason::SlowConsumer);
                if counted && !model.sealed {
                    prop_assert_eq!(link.queued_bytes(), model.bytes());
                }
            }
        }
    }

    #[test]
    fn nothing_that_comes_during_a_turn_is_slept_through() {
        let shared = Arc::new(Shared::new(EdgeConfig::default()));
        let link = Link::new(shared, 1, [127, 0, 0, 1].into(), Dialect::Plain);
        let waker = Waker::noop();
        link.begin();
        assert!(link.rest(waker, false));
        link.begin();
        link.push(1, item(1, 1));
        assert!(!link.rest(waker, false), "something is queued");
        assert!(link.rest(waker, true), "but the socket is full");
        link.begin();
        link.wake();
        assert!(!link.rest(waker, true), "woken during its turn");
        link.begin();
        link.close(CloseReason::Restart.into());
        assert!(!link.rest(waker, true), "asked to close during its turn");
    }
}
