//! One simulated user: connects, sends, and checks everything that comes.
//!
//! Owns a user's state and what follows from each event. Numbers are judged by `check`, figures kept by
//! `record`; when users send is decided in `modes`.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, task::AbortHandle};

use crate::{
    check::{Counter, Place, Sequence},
    marker::Marker,
    record::Recorder,
    wire::{
        event::{Event, Received},
        frame::{self, Opcode},
        link::{Closed, Link, Reader},
        packet::{self, Dialect, Incoming},
        target::Target,
    },
};

/// What all users of a run share.
#[derive(Debug)]
pub struct Run {
    /// The service.
    pub target: Target,
    /// Tells this run's messages from others'.
    pub id: u32,
    /// How tokens look; `{id}` is the user's.
    pub token: String,
    /// Bytes a message has.
    pub size: usize,
    /// Whether messages carry a `client_message_id`.
    pub has_client_ids: bool,
    /// Whether the ack is the confirmation, instead of `message_sent`.
    pub by_ack: bool,
    /// Whether each confirmation is followed by the next message.
    pub is_closed_loop: AtomicBool,
    /// Whether connections may end now.
    pub is_over: AtomicBool,
    /// The figures.
    pub recorder: Recorder,
}

/// One user.
#[derive(Debug)]
pub struct User {
    /// The place among the run's users.
    pub index: u32,
    /// The main API's id.
    pub id: u64,
    /// The dialect spoken.
    pub dialect: Dialect,
    run: Arc<Run>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    task: Option<AbortHandle>,
    /// Told once the connection is authenticated, or why it is not.
    live: Option<oneshot::Sender<Result<(), String>>>,
    is_live: bool,
    live_since_ns: u64,
    /// Our own side ended the connection.
    is_leaving: bool,
    event_seq: Counter,
    threads: Vec<Thread>,
    unconfirmed: VecDeque<Pending>,
    acks: u64,
}

/// One conversation of a user.
#[derive(Debug)]
struct Thread {
    index: u32,
    other_id: u64,
    conversation_id: Option<u64>,
    seq: Counter,
    sent: u64,
    confirmed: Sequence,
    refused: BTreeSet<u64>,
    echoed: Sequence,
    received: Sequence,
}

/// A message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    place: usize,
    number: u64,
    scheduled_ns: u64,
}

thread_local! {
    static TEXTS: RefCell<(String, String, Vec<u8>)> = const { RefCell::new((String::new(), String::new(), Vec::new())) };
}

/// How long a token's check may take once the socket is there.
const LIVE_TIMEOUT: Duration = Duration::from_secs(60);

impl User {
    /// A user who is not connected and talks to nobody.
    pub fn new(run: &Arc<Run>, index: u32, id: u64, dialect: Dialect) -> Arc<Self> {
        Arc::new(Self { index, id, dialect, run: Arc::clone(run), state: Mutex::default() })
    }

    /// Gives the user a conversation; both of its users get it under the same index.
    pub fn add_thread(&self, index: u32, other_id: u64) {
        self.state.lock().threads.push(Thread {
            index,
            other_id,
            conversation_id: None,
            seq: Counter::default(),
            sent: 0,
            confirmed: Sequence::default(),
            refused: BTreeSet::new(),
            echoed: Sequence::default(),
            received: Sequence::default(),
        });
    }

    /// The token.
    pub fn token(&self) -> String {
        self.run.token.replace("{id}", &self.id.to_string())
    }

    /// Connects and returns once the connection is authenticated; comes back where it was if it was here before.
    pub async fn connect(self: &Arc<Self>) -> Result<(), String> {
        let since = self.state.lock().event_seq.last();
        let token = self.token();
        let opened = Link::open(&self.run.target, self.index, self.dialect, &token, since);
        let (link, reader) = Box::pin(opened).await?;
        let link = Arc::new(link);
        let (live, is_live) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.link = Some(Arc::clone(&link));
            state.live = Some(live);
            state.is_leaving = false;
            let task = tokio::spawn(Arc::clone(self).drive(link, reader));
            state.task = Some(task.abort_handle());
        }
        match tokio::time::timeout(LIVE_TIMEOUT, is_live).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("the connection ended before it was authenticated".into()),
            Err(_) => Err("the token was not accepted within a minute".into()),
        }
    }

    /// Ends the connection from this side. With `is_abrupt`, as a lost network does.
    pub fn leave(&self, is_abrupt: bool) {
        let mut state = self.state.lock();
        state.is_leaving = true;
        if let Some(link) = state.link.take()
            && is_abrupt
        {
            link.abort_on_close();
        }
        if let Some(task) = state.task.take() {
            task.abort();
        }
        if std::mem::take(&mut state.is_live) {
            self.run.recorder.connected(false);
        }
    }

    /// Whether the connection is live.
    pub fn is_live(&self) -> bool {
        self.state.lock().is_live
    }

    /// How many conversations there are.
    pub fn thread_count(&self) -> usize {
        self.state.lock().threads.len()
    }

    /// The places of conversations that have no message yet and are this user's to begin.
    pub fn beginnings(&self) -> Vec<usize> {
        let state = self.state.lock();
        let is_mine = |thread: &Thread| thread.conversation_id.is_none() && self.id < thread.other_id;
        (0..).zip(&state.threads).filter(|(_, thread)| is_mine(thread)).map(|(place, _)| place).collect()
    }

    /// The ids of the conversations that are known.
    pub fn conversation_ids(&self) -> Vec<u64> {
        self.state.lock().threads.iter().filter_map(|thread| thread.conversation_id).collect()
    }

    /// How many of the user's messages wait for their confirmation.
    pub fn unconfirmed(&self) -> usize {
        self.state.lock().unconfirmed.len()
    }

    /// The last entry of the log that came.
    pub fn last_event_seq(&self) -> Option<u64> {
        self.state.lock().event_seq.last()
    }

    /// Sends a message into a conversation, by its place among this user's. False: not connected.
    pub fn send(&self, place: usize, scheduled_ns: u64) -> bool {
        let mut state = self.state.lock();
        let Some(link) = state.link.clone().filter(|_| state.is_live) else { return false };
        let Some(frame) = self.next_frame(&mut state, place, scheduled_ns) else { return false };
        link.send(&frame);
        TEXTS.with_borrow_mut(|texts| texts.2 = frame);
        drop(state);
        self.run.recorder.sent(scheduled_ns, self.run.recorder.now_ns());
        true
    }

    async fn drive(self: Arc<Self>, link: Arc<Link>, mut reader: Reader) {
        let closed = link.read(&mut reader, |link, incoming, at| self.take(link, incoming, at)).await;
        self.ended(&closed);
    }

    fn ended(&self, closed: &Closed) {
        let mut state = self.state.lock();
        state.link = None;
        state.task = None;
        if std::mem::take(&mut state.is_live) {
            self.run.recorder.connected(false);
        }
        if let Some(live) = state.live.take() {
            // Whoever connects has given up if this is not heard; the fault is theirs to tell.
            let _ = live.send(Err(closed.to_string()));
        } else if !state.is_leaving && !self.run.is_over.load(Relaxed) {
            self.run
                .recorder
                .fault(|faults| *faults.disconnected.entry(closed.to_string()).or_default() += 1);
        }
    }

    fn take(&self, link: &Link, incoming: Incoming<'_>, at: Instant) -> Result<(), Closed> {
        match incoming {
            Incoming::Open => {
                let since = self.state.lock().event_seq.last();
                let mut payload = serde_json::json!({ "token": self.token() });
                if let (Some(since), Some(payload)) = (since, payload.as_object_mut()) {
                    payload.insert("since".into(), since.into());
                }
                link.send_text(&format!("40{payload}"));
                Ok(())
            }
            Incoming::Connected | Incoming::Ping | Incoming::Quiet => Ok(()),
            Incoming::Refused(refusal) => Err(Closed::Refused(refusal.code.into_owned())),
            Incoming::Disconnected => Err(Closed::ByService(None)),
            Incoming::Event(event) => self.event(link, event, self.run.recorder.ns_at(at)),
        }
    }

    fn event(&self, link: &Link, event: Event<'_>, at_ns: u64) -> Result<(), Closed> {
        let run = &*self.run;
        run.recorder.event(at_ns);
        match event {
            Event::Authenticated(authenticated) => {
                return self.authenticated(link, authenticated.user_id, at_ns);
            }
            Event::Received(received) => self.received(&received, at_ns),
            Event::Sent(sent) => {
                if sent.message_id != sent.message.id || sent.message.sender_id != self.id {
                    run.recorder.fault(|faults| {
                        faults.confirmed_wrong += 1;
                        faults.example(|| format!("user {} got another's message_sent", self.id));
                    });
                } else if !run.by_ack {
                    self.confirmed(link, &sent.message.content, at_ns);
                }
            }
            Event::Ack(_, ack) => {
                if let Some(content) =
                    ack.data.and_then(|data| data.content).filter(|_| ack.success && run.by_ack)
                {
                    self.confirmed(link, &content, at_ns);
                }
            }
            Event::Error(refusal) => {
                let mut state = self.state.lock();
                if state.live.is_some() {
                    return Err(Closed::Refused(refusal.code.into_owned()));
                }
                let named = refusal.client_message_id.and_then(|id| Marker::read_client_id(&id, run.id));
                self.refused(&mut state, named);
                run.recorder.refused(at_ns);
                let what = format!("{}: {}", refusal.code, refusal.message);
                run.recorder.fault(|faults| *faults.refused.entry(what).or_default() += 1);
                if run.is_closed_loop.load(Relaxed)
                    && let Some((thread, _)) = named
                    && let Some(place) = state.threads.iter().position(|found| found.index == thread)
                {
                    self.send_soon(link, &mut state, place);
                }
            }
            Event::SyncRequired(required) => run.recorder.fault(|faults| {
                *faults.sync_required.entry(required.reason.into_owned()).or_default() += 1;
            }),
            Event::Other(numbered) => {
                if let Some(event_seq) = numbered.event_seq {
                    let mut state = self.state.lock();
                    self.check_event_seq(&mut state, event_seq);
                }
            }
        }
        Ok(())
    }

    fn authenticated(&self, link: &Link, user_id: u64, at_ns: u64) -> Result<(), Closed> {
        if user_id != self.id {
            return Err(Closed::Protocol(format!("user {} was authenticated as {user_id}", self.id)));
        }
        let mut state = self.state.lock();
        let Some(live) = state.live.take() else { return Ok(()) };
        state.is_live = true;
        state.live_since_ns = at_ns;
        self.run.recorder.connected(true);
        // Whoever connects may have given up; the connection is live all the same.
        let _ = live.send(Ok(()));
        // What was on its way when the last connection ended may be stored or not: sent again under the same
        // client ids, both are answered alike.
        let again: Vec<_> = state.unconfirmed.iter().copied().collect();
        for pending in again {
            if let Some(frame) = self.frame(&mut state, pending) {
                link.send_soon(&frame);
                TEXTS.with_borrow_mut(|texts| texts.2 = frame);
            }
        }
        Ok(())
    }

    fn received(&self, received: &Received<'_>, at_ns: u64) {
        let (run, message) = (&*self.run, &received.message);
        let mut state = self.state.lock();
        match received.event_seq {
            Some(event_seq) => self.check_event_seq(&mut state, event_seq),
            None => run.recorder.fault(|faults| {
                faults.event_seq_broken += 1;
                faults.example(|| "a message_received has no event_seq".into());
            }),
        }
        let Some((marker, is_same)) = Marker::read(&message.content, run.size) else { return };
        if marker.run != run.id {
            return;
        }
        if !is_same {
            run.recorder.fault(|faults| faults.altered += 1);
        }
        let live_since_ns = state.live_since_ns;
        let thread = state.threads.iter_mut().find(|thread| thread.index == marker.thread).filter(|thread| {
            let is_ours = message.sender_id == self.id || message.sender_id == thread.other_id;
            let id = thread.conversation_id.unwrap_or(received.conversation_id);
            is_ours && id == received.conversation_id && id == message.conversation_id
        });
        let Some(thread) = thread else {
            run.recorder.fault(|faults| {
                faults.wrong_recipient += 1;
                faults.example(|| {
                    let (id, conversation_id) = (self.id, received.conversation_id);
                    format!("user {id} got a message of conversation {conversation_id}, which is not theirs")
                });
            });
            return;
        };
        thread.conversation_id = Some(received.conversation_id);
        let seq = thread.seq.accept(message.seq);
        let is_own = message.sender_id == self.id;
        let place = if is_own { &mut thread.echoed } else { &mut thread.received }.accept(marker.number);
        drop(state);
        if seq != Place::Next {
            run.recorder.fault(|faults| {
                faults.seq_broken += 1;
                faults.example(|| {
                    let (id, conversation_id, got) = (self.id, received.conversation_id, message.seq);
                    format!(
                        "user {id} got seq {got} of conversation {conversation_id} out of its place ({seq:?})"
                    )
                });
            });
        }
        match place {
            // What an early one overtook is late if it comes at all, and lost if not.
            Place::Next | Place::Early => {}
            Place::Late => run.recorder.fault(|faults| faults.out_of_order += 1),
            Place::Repeated => {
                run.recorder.fault(|faults| faults.repeated += 1);
                return;
            }
        }
        if is_own {
            run.recorder.echoed(at_ns);
        } else {
            run.recorder.delivered(marker.scheduled_ns, at_ns, marker.scheduled_ns >= live_since_ns);
        }
    }

    fn check_event_seq(&self, state: &mut State, event_seq: u64) {
        let before = state.event_seq.last();
        let place = state.event_seq.accept(event_seq);
        if place != Place::Next {
            self.run.recorder.fault(|faults| {
                faults.event_seq_broken += 1;
                faults.example(|| {
                    let (id, before) = (self.id, before.unwrap_or(0));
                    format!("user {id} got event_seq {event_seq} after {before}")
                });
            });
        }
    }

    fn confirmed(&self, link: &Link, content: &str, at_ns: u64) {
        let run = &*self.run;
        let Some((marker, _)) = Marker::read(content, run.size).filter(|(marker, _)| marker.run == run.id)
        else {
            return;
        };
        let mut state = self.state.lock();
        let Some(place) = state.threads.iter().position(|thread| thread.index == marker.thread) else {
            return;
        };
        let is_new = state.threads[place].confirmed.accept(marker.number) != Place::Repeated;
        let is_next = take_pending(&mut state, place, marker.number) == Some(0);
        if !is_new || !is_next {
            run.recorder.fault(|faults| {
                faults.confirmed_wrong += 1;
                faults.example(|| {
                    let what = if is_new { "before earlier ones" } else { "twice" };
                    format!("user {} was confirmed message {} {what}", self.id, marker.number)
                });
            });
        }
        if is_new {
            run.recorder.confirmed(marker.scheduled_ns, at_ns);
        }
        if is_new && run.is_closed_loop.load(Relaxed) {
            self.send_soon(link, &mut state, place);
        }
    }

    fn refused(&self, state: &mut State, named: Option<(u32, u64)>) {
        let Some((thread, number)) = named else { return };
        let Some(place) = state.threads.iter().position(|found| found.index == thread) else { return };
        take_pending(state, place, number);
        state.threads[place].confirmed.accept(number);
        state.threads[place].refused.insert(number);
    }

    /// The next message of a closed loop, written together with its neighbours.
    fn send_soon(&self, link: &Link, state: &mut State, place: usize) {
        let now_ns = self.run.recorder.now_ns();
        if let Some(frame) = self.next_frame(state, place, now_ns) {
            link.send_soon(&frame);
            TEXTS.with_borrow_mut(|texts| texts.2 = frame);
            self.run.recorder.sent(now_ns, now_ns);
        }
    }

    fn next_frame(&self, state: &mut State, place: usize, scheduled_ns: u64) -> Option<Vec<u8>> {
        let thread = state.threads.get_mut(place)?;
        let pending = Pending { place, number: thread.sent, scheduled_ns };
        thread.sent += 1;
        state.unconfirmed.push_back(pending);
        self.frame(state, pending)
    }

    fn frame(&self, state: &mut State, pending: Pending) -> Option<Vec<u8>> {
        let run = &*self.run;
        let Pending { place, number, scheduled_ns } = pending;
        state.acks += 1;
        let ack = run.by_ack.then_some(state.acks);
        let thread = state.threads.get(place)?;
        let marker = Marker { run: run.id, thread: thread.index, number, scheduled_ns };
        TEXTS.with_borrow_mut(|(data, text, out)| {
            use std::fmt::Write as _;
            data.clear();
            text.clear();
            out.clear();
            let written = match thread.conversation_id {
                Some(id) => write!(data, "{{\"conversation_id\":{id},\"content\":\""),
                None => write!(data, "{{\"receiver_id\":{},\"content\":\"", thread.other_id),
            };
            written.expect("writing into a String cannot fail");
            marker.write(data, run.size);
            if run.has_client_ids {
                data.push_str("\",\"client_message_id\":\"");
                marker.write_client_id(data);
            }
            data.push_str("\"}");
            packet::encode(text, self.dialect, "send_message", data, ack);
            frame::encode(out, Opcode::Text, &[text.as_bytes()]);
            Some(std::mem::take(out))
        })
    }
}

/// Takes a message off those on their way; answers how many were sent before it and still wait.
fn take_pending(state: &mut State, place: usize, number: u64) -> Option<usize> {
    let found =
        state.unconfirmed.iter().position(|pending| pending.place == place && pending.number == number)?;
    state.unconfirmed.remove(found);
    Some(found)
}

/// Says in the run's faults what never came, once nothing is on its way any more.
pub fn judge(run: &Run, users: &[Arc<User>]) {
    let by_id: HashMap<u64, &Arc<User>> = users.iter().map(|user| (user.id, user)).collect();
    let (mut lost, mut unanswered, mut examples) = (0, 0, Vec::new());
    for sender in users {
        let threads: Vec<_> = {
            let state = sender.state.lock();
            let gone = |thread: &Thread| {
                let numbers = 0..thread.sent;
                let (answered, open): (Vec<u64>, Vec<u64>) =
                    numbers.partition(|number| thread.confirmed.has(*number));
                unanswered += open.len() as u64;
                let stored: Vec<u64> =
                    answered.into_iter().filter(|number| !thread.refused.contains(number)).collect();
                let not_echoed = stored.iter().filter(|number| !thread.echoed.has(**number)).count();
                (thread.index, thread.other_id, stored, not_echoed)
            };
            state.threads.iter().map(gone).collect()
        };
        for (index, other_id, stored, not_echoed) in threads {
            let not_received = by_id.get(&other_id).map_or(0, |receiver| {
                let state = receiver.state.lock();
                let thread = state.threads.iter().find(|thread| thread.index == index);
                let has = |number: &&u64| thread.is_some_and(|thread| thread.received.has(**number));
                stored.iter().filter(|number| !has(number)).count()
            });
            if not_echoed + not_received > 0 {
                lost += (not_echoed + not_received) as u64;
                examples.push(format!(
                    "of the messages of user {} to user {other_id}, {not_received} did not reach the receiver and \
                     {not_echoed} the sender",
                    sender.id
                ));
            }
        }
    }
    run.recorder.fault(|faults| {
        faults.lost += lost;
        faults.unanswered += unanswered;
        for example in examples {
            faults.example(|| example);
        }
    });
}
