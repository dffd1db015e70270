//! One connection's task: reads, calls the service, writes, keeps time, and ends.
//!
//! Owns the life of a connection, as a hand-written future so that an idle one is a few hundred bytes. Bytes are
//! in `socket`, the meaning of messages in `read`, the queue that others push to in [`crate::link`].

mod read;
mod socket;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, Stream as _};
use hyper::upgrade::OnUpgrade;

use crate::client::Client;
use crate::codec::frame::{self, FrameError, Incoming, Limits, Opcode};
use crate::codec::payload::{Encoder, Packet};
use crate::config::EdgeConfig;
use crate::edge::Core;
use crate::event::{Event, Reply, json_string};
use crate::handler::{ClientEvent, CloseReason, Dialect, Handled, Handler, Hello, Malformed, Refusal};
use crate::handshake::{self, Introduction};
use crate::link::{Ending, Link, Outgoing};
use crate::polling::Session;
use crate::shared::Admission;
use read::{Answer, Assembly, Step};
use socket::ReadError;
pub(crate) use socket::Socket;

/// How many messages are taken before others get their turn on the thread.
const TURN: u32 = 64;
const NEVER: u64 = u64::MAX;
/// How many things, and about how many bytes, one poll carries.
const POLL_ITEMS: usize = 1000;
const POLL_BYTES: usize = 256 * 1024;

/// Waits for hyper to hand the stream over, then drives it to its end.
pub(crate) async fn run_websocket<H: Handler>(
    core: Arc<Core<H>>,
    admission: Admission,
    introduction: Box<Introduction>,
    upgrade: OnUpgrade,
) {
    let Ok(upgraded) = upgrade.await else { return };
    let Some(socket) = Socket::from_upgraded(upgraded) else {
        tracing::error!("a live connection came by a stream that is neither TCP nor TLS of this crate");
        return;
    };
    Driver::new(core, admission, introduction, Some(socket), None).await;
}

/// Drives a session that begins with long-polling.
pub(crate) async fn run_polling<H: Handler>(
    core: Arc<Core<H>>,
    admission: Admission,
    introduction: Box<Introduction>,
    session: Arc<Session>,
) {
    Driver::new(core, admission, introduction, None, Some(session)).await;
}

/// Reads `2probe`, answers, tells `probed`, reads `5`: then the WebSocket takes its session over. Anything else
/// ends it.
pub(crate) async fn await_probe(
    upgrade: OnUpgrade,
    config: &EdgeConfig,
    probed: impl FnOnce(),
) -> Option<Box<Socket>> {
    let mut socket = Box::new(Socket::from_upgraded(upgrade.await.ok()?)?);
    if next_text(&mut socket, config).await? != "2probe" {
        return None;
    }
    socket.write_text(b"3probe").await.ok()?;
    probed();
    (next_text(&mut socket, config).await? == "5").then_some(socket)
}

async fn next_text(socket: &mut Socket, config: &EdgeConfig) -> Option<String> {
    let limits = limits(config);
    loop {
        let read = std::future::poll_fn(|cx| {
            socket.poll_message(cx, limits, |incoming| match incoming {
                Incoming::Text(text) => Some(text.into_owned()),
                Incoming::Ping(_) | Incoming::Pong => Some(String::new()),
                Incoming::Binary(_) | Incoming::Close(_) => None,
            })
        });
        let text = read.await.ok()??;
        if !text.is_empty() {
            return Some(text);
        }
    }
}

fn limits(config: &EdgeConfig) -> Limits {
    Limits { max_payload: config.max_payload, max_fragments: config.max_fragments }
}

struct Driver<H: Handler> {
    core: Arc<Core<H>>,
    admission: Admission,
    /// The transport, unless it is long-polling.
    socket: Option<Socket>,
    /// Where requests meet this task, if it began with long-polling.
    session: Option<Arc<Session>>,
    stage: Stage,
    /// The call to the service that is under way.
    work: Option<BoxFuture<'static, Done<H>>>,
    /// Replies under way, in the order of their events.
    later: Option<Box<FuturesOrdered<BoxFuture<'static, Answered>>>>,
    /// An event that must wait: for earlier replies.
    parked: Option<Box<Parked>>,
    assembly: Option<Box<Assembly>>,
    introduction: Option<Box<Introduction>>,
    /// The client, and on Socket.IO perhaps more, of other namespaces.
    client: Option<Client<H>>,
    others: Vec<Client<H>>,
    // Deadlines, in the wheel's milliseconds.
    heartbeat_due: u64,
    /// Until then CONNECT must come, or once let in, authentication.
    admit_due: u64,
    message_due: u64,
    write_due: u64,
    /// The rate limit lets more in then.
    resume_due: u64,
    /// What the wheel was told last.
    alarm: u64,
    /// When the bucket of events was filled last, and what is in it.
    filled_at: u64,
    tokens: u32,
    awaiting_pong: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Replies under way are awaited, then the goodbye is queued.
    Draining {
        ending: Ending,
        until: u64,
    },
    /// What is queued, the goodbye last, is written.
    Closing {
        reason: CloseReason,
        until: u64,
    },
    /// All is written; the other side may still be talking, and must be read so that it gets our last words.
    Lingering {
        reason: CloseReason,
        until: u64,
    },
    /// The stream is closed; a call to the service may still be under way.
    Gone {
        reason: CloseReason,
    },
}

/// What a call to the service came to.
enum Done<H: Handler> {
    Asked { client: Client<H>, result: Result<(), Refusal> },
    Handled { handled: Handled, namespace: u16, answer: Answer },
    Message,
}

struct Answered {
    namespace: u16,
    answer: Answer,
    reply: Option<Reply>,
}

struct Parked {
    namespace: u16,
    event: ClientEvent,
    answer: Answer,
}

impl<H: Handler> Driver<H> {
    fn new(
        core: Arc<Core<H>>,
        admission: Admission,
        introduction: Box<Introduction>,
        socket: Option<Socket>,
        session: Option<Arc<Session>>,
    ) -> Self {
        let config = &core.shared.config;
        let now = core.shared.wheel.now();
        let mut driver = Self {
            admission,
            socket,
            session,
            stage: Stage::Open,
            work: None,
            later: None,
            parked: None,
            assembly: None,
            introduction: Some(introduction),
            client: None,
            others: Vec::new(),
            heartbeat_due: after(now, config.ping_interval),
            admit_due: after(now, config.connect_timeout),
            message_due: NEVER,
            write_due: NEVER,
            resume_due: NEVER,
            alarm: NEVER,
            filled_at: now,
            tokens: config.events_burst.max(1),
            awaiting_pong: false,
            core,
        };
        match driver.link().dialect {
            Dialect::SocketIo => driver.send_open(),
            Dialect::EngineIo => {
                driver.send_open();
                driver.ask_in(0, None);
            }
            Dialect::Plain => driver.ask_in(0, None),
        }
        driver
    }

    fn link(&self) -> &Arc<Link> {
        &self.admission.link
    }

    fn config(&self) -> &EdgeConfig {
        &self.core.shared.config
    }

    fn now(&self) -> u64 {
        self.core.shared.wheel.now()
    }

    fn clients(&self) -> impl Iterator<Item = &Client<H>> {
        self.client.iter().chain(&self.others)
    }

    fn client_in(&self, namespace: u16) -> Option<&Client<H>> {
        self.clients().find(|client| client.namespace_index() == namespace)
    }

    /// Queues something of the connection itself: acks and heartbeats go out even while it is closing.
    fn send(&self, item: Outgoing) {
        self.link().push_own(item);
    }

    fn send_open(&self) {
        let config = self.config();
        let (sid, upgrades) = match &self.session {
            Some(session) => (session.sid.clone(), "\"websocket\""),
            None => (handshake::random_id(), ""),
        };
        let text = format!(
            "0{{\"sid\":\"{sid}\",\"upgrades\":[{upgrades}],\"pingInterval\":{},\"pingTimeout\":{},\"maxPayload\":{}}}",
            config.ping_interval.as_millis(),
            config.ping_timeout.as_millis(),
            config.max_payload,
        );
        self.send(Outgoing::Text(text.into()));
    }

    // ---- the turn of the loop ----

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.link().begin();
            if self.work_through(cx).is_ready() {
                return Poll::Ready(());
            }
            let blocked = self.write_due != NEVER || matches!(self.stage, Stage::Gone { .. });
            if self.link().rest(cx.waker(), blocked) {
                return Poll::Pending;
            }
        }
    }

    fn work_through(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        if let Err(ending) = self.check_deadlines(now) {
            self.end(ending);
        }
        let mut left = TURN;
        while self.stage == Stage::Open {
            // In this order: what the work leaves for later must be polled before the task may rest.
            let busy = self.poll_work(cx).is_pending();
            self.poll_later(cx);
            // Asked anew each time: after a close, nothing more is taken from the client.
            if let Some(ending) = self.link().closing() {
                self.end(ending);
                break;
            }
            if busy {
                break;
            }
            if left == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            left -= 1;
            match self.poll_next(cx, now) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ending)) => self.end(ending),
            }
        }
        self.poll_end(cx, now)
    }

    /// Writes what is queued and, once the connection is to end, takes it from stage to stage.
    fn poll_end(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<()> {
        loop {
            if let Stage::Draining { ending, until } = self.stage {
                let working = self.poll_work(cx).is_pending();
                self.poll_later(cx);
                let busy = working || self.later.is_some();
                if !busy || now >= until {
                    self.say_goodbye(ending);
                    let until = after(now, self.config().close_timeout);
                    self.stage = Stage::Closing { reason: ending.reason, until };
                }
            }
            let flushed = self.poll_flush(cx, now);
            match self.stage {
                Stage::Open => match flushed {
                    Poll::Ready(Err(())) => self.end(CloseReason::Transport.into()),
                    _ => break,
                },
                Stage::Draining { ending, .. } => match flushed {
                    Poll::Ready(Err(())) => self.stage = Stage::Gone { reason: ending.reason },
                    _ => break,
                },
                Stage::Closing { reason, until } => match flushed {
                    Poll::Ready(Ok(())) => self.stage = Stage::Lingering { reason, until },
                    Poll::Ready(Err(())) => self.stage = Stage::Gone { reason },
                    Poll::Pending if now >= until => self.stage = Stage::Gone { reason },
                    Poll::Pending => break,
                },
                Stage::Lingering { reason, until } => {
                    let done = self.socket.as_mut().is_none_or(|socket| {
                        let _ = socket.poll_shutdown(cx);
                        socket.poll_discard(cx).is_ready()
                    });
                    if !done && now < until {
                        break;
                    }
                    self.stage = Stage::Gone { reason };
                }
                Stage::Gone { reason } => {
                    self.drop_transport();
                    self.later = None;
                    self.parked = None;
                    ready!(self.poll_work(cx));
                    self.part(reason);
                    return Poll::Ready(());
                }
            }
        }
        self.set_alarm();
        Poll::Pending
    }

    /// Ready when nothing is queued any more.
    fn poll_flush(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<Result<(), ()>> {
        let slow_after = self.core.shared.config.slow_after;
        let Some(socket) = &mut self.socket else { return self.flush_poll(now) };
        match socket.poll_flush(cx, &self.admission.link, || self.write_due = after(now, slow_after)) {
            Poll::Ready(done) => {
                self.write_due = NEVER;
                Poll::Ready(done.map_err(drop))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The same while long-polling: what is queued goes with the poll that waits, if one does.
    fn flush_poll(&mut self, now: u64) -> Poll<Result<(), ()>> {
        let Some(session) = &self.session else { return Poll::Ready(Err(())) };
        let link = &self.admission.link;
        let has_packets = !link.is_empty();
        let poll = session.take_poll(has_packets);
        if !has_packets {
            self.write_due = NEVER;
            return Poll::Ready(Ok(()));
        }
        let Some(poll) = poll else {
            if self.write_due == NEVER {
                self.write_due = after(now, self.core.shared.config.slow_after);
            }
            return Poll::Pending;
        };
        self.write_due = NEVER;
        let mut payload = Encoder::default();
        let taken = link.take(0, POLL_ITEMS, POLL_BYTES, |item| match item {
            Outgoing::Event(event) => {
                payload.text(frame::payload(event.frames(Dialect::SocketIo)));
                event.attachments().iter().for_each(|attachment| payload.binary(attachment));
            }
            Outgoing::Text(text) => payload.text(&text),
            Outgoing::Binary(bytes) => payload.binary(&bytes),
            // WebSocket's own frames have no meaning here and are not made while polling.
            Outgoing::Frames(_) => {}
        });
        link.take(taken, 0, 0, drop);
        if poll.send(payload.finish()).is_err() {
            // Its client is gone, and with it what it should have carried.
            return Poll::Ready(Err(()));
        }
        self.flush_poll(now)
    }

    fn set_alarm(&mut self) {
        if let Some(session) = &self.session {
            let overdue = if self.awaiting_pong {
                self.heartbeat_due
            } else {
                after(self.heartbeat_due, self.config().ping_timeout)
            };
            session.alive_until.store(overdue, Ordering::Release);
        }
        let due = match self.stage {
            Stage::Open => {
                [self.heartbeat_due, self.admit_due, self.message_due, self.write_due, self.resume_due]
                    .into_iter()
                    .min()
                    .unwrap_or(NEVER)
            }
            Stage::Draining { until, .. } | Stage::Closing { until, .. } | Stage::Lingering { until, .. } => {
                until
            }
            Stage::Gone { .. } => NEVER,
        };
        if due != self.alarm {
            self.alarm = due;
            self.core.shared.wheel.wake_at(&self.admission.link, due);
        }
    }

    // ---- time ----

    fn check_deadlines(&mut self, now: u64) -> Result<(), Ending> {
        // The wheel has spent its entry if it woke us; asking again is cheap.
        if now >= self.alarm {
            self.alarm = NEVER;
        }
        if self.stage != Stage::Open {
            return Ok(());
        }
        if now >= self.write_due {
            return Err(CloseReason::SlowConsumer.into());
        }
        if now >= self.message_due {
            return Err(CloseReason::Stalled.into());
        }
        if now >= self.resume_due {
            self.resume_due = NEVER;
        }
        if now >= self.admit_due {
            self.admit_due = NEVER;
            self.check_admission()?;
        }
        if now >= self.heartbeat_due {
            self.heartbeat(now)?;
        }
        Ok(())
    }

    fn check_admission(&self) -> Result<(), Ending> {
        if self.client.is_none() {
            // Nobody was let in; while the service still thinks about it, its time is its own.
            return if self.work.is_some() { Ok(()) } else { Err(CloseReason::Stalled.into()) };
        }
        let late: Vec<_> = self.clients().filter(|client| !client.is_authenticated()).collect();
        if late.is_empty() {
            return Ok(());
        }
        late.iter().for_each(|client| self.core.handler.unauthenticated(client));
        Err(CloseReason::Unauthenticated.into())
    }

    fn heartbeat(&mut self, now: u64) -> Result<(), Ending> {
        let config = &self.core.shared.config;
        if self.awaiting_pong {
            // The answer may lie behind what we do not read now, or behind a message that is still arriving and
            // has a deadline of its own.
            let blocked = self.work.is_some() || self.parked.is_some() || self.message_due != NEVER;
            if !blocked {
                return Err(CloseReason::PingTimeout.into());
            }
            self.heartbeat_due = after(now, config.ping_timeout);
            return Ok(());
        }
        self.awaiting_pong = true;
        // From when the ping was due, not from when the coarse clock got to it.
        let due = after(self.heartbeat_due, config.ping_timeout);
        self.heartbeat_due = if due > now { due } else { after(now, config.ping_timeout) };
        self.send(match self.link().dialect {
            Dialect::Plain => Outgoing::Frames(Bytes::from_static(&[0x80 | Opcode::Ping as u8, 0])),
            Dialect::SocketIo | Dialect::EngineIo => Outgoing::Text(Bytes::from_static(b"2")),
        });
        Ok(())
    }

    // ---- incoming ----

    fn poll_next(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<Result<(), Ending>> {
        if let Some(parked) = self.parked.take() {
            if self.later.is_some() {
                self.parked = Some(parked);
                return Poll::Pending;
            }
            let Parked { namespace, event, answer } = *parked;
            return Poll::Ready(self.hand_in(namespace, event, answer));
        }
        if self.later.as_ref().is_some_and(|later| later.len() >= self.config().max_later) {
            return Poll::Pending;
        }
        if !self.may_take(now) {
            return Poll::Pending;
        }
        let step = match self.read_step(cx, now) {
            Poll::Ready(Ok(step)) => step,
            Poll::Ready(Err(ending)) => return Poll::Ready(Err(ending)),
            Poll::Pending => return Poll::Pending,
        };
        self.tokens = self.tokens.saturating_sub(1);
        Poll::Ready(self.take(step, now))
    }

    /// What the next message asks for.
    fn read_step(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<Result<Step, Ending>> {
        let config = &self.core.shared.config;
        let dialect = self.admission.link.dialect;
        let assembly = &mut self.assembly;
        if self.socket.is_none()
            && let Some(session) = &self.session
        {
            match session.next_posted() {
                Some(Packet::Text(text)) => {
                    return Poll::Ready(read::read_text(dialect, config, assembly, &text));
                }
                Some(Packet::Binary(bytes)) => {
                    return Poll::Ready(read::read_binary(dialect, config, assembly, bytes));
                }
                // Only after all that was posted: the WebSocket goes on where polling stopped.
                None => match session.take_socket() {
                    Some(socket) => {
                        self.socket = Some(*socket);
                        self.core.shared.counters.polling.fetch_sub(1, Relaxed);
                        self.write_due = NEVER;
                    }
                    None => return Poll::Pending,
                },
            }
        }
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(CloseReason::Transport.into())) };
        let read = socket
            .poll_message(cx, limits(config), |incoming| read::read(dialect, config, assembly, incoming));
        let begun = socket.in_message() || self.assembly.is_some();
        match read {
            Poll::Pending => {
                if !begun {
                    self.message_due = NEVER;
                } else if self.message_due == NEVER {
                    self.message_due = after(now, self.config().frame_timeout);
                }
                Poll::Pending
            }
            Poll::Ready(Ok(step)) => {
                if !begun {
                    self.message_due = NEVER;
                }
                Poll::Ready(step)
            }
            Poll::Ready(Err(ReadError::Gone)) => Poll::Ready(Err(CloseReason::Transport.into())),
            Poll::Ready(Err(ReadError::Bad(error))) => {
                let reason = match error {
                    FrameError::TooBig => CloseReason::TooBig,
                    FrameError::Protocol | FrameError::NotUtf8 => CloseReason::Protocol,
                };
                Poll::Ready(Err(Ending { reason, code: error.close_code() }))
            }
        }
    }

    /// Whether the rate limit lets a message in now; if not, sets when it will.
    fn may_take(&mut self, now: u64) -> bool {
        let config = &self.core.shared.config;
        let rate = u64::from(config.events_per_second);
        if rate == 0 {
            self.tokens = u32::MAX;
            return true;
        }
        if self.tokens == 0 {
            let earned = now.saturating_sub(self.filled_at).saturating_mul(rate) / 1000;
            let burst = config.events_burst.max(1);
            self.tokens = u32::try_from(earned).unwrap_or(u32::MAX).min(burst);
            if self.tokens > 0 {
                self.filled_at = now;
            }
        }
        if self.tokens == 0 {
            self.resume_due = now + 1000 / rate + 1;
        }
        self.tokens > 0
    }

    fn take(&mut self, step: Step, now: u64) -> Result<(), Ending> {
        const OUT_OF_PLACE: Ending = Ending { reason: CloseReason::Protocol, code: 1002 };
        match step {
            Step::Nothing => {}
            Step::Pong => {
                if std::mem::take(&mut self.awaiting_pong) {
                    self.heartbeat_due = after(now, self.config().ping_interval);
                }
            }
            Step::Ping(payload) => {
                let mut pong = Vec::new();
                frame::put(&mut pong, Opcode::Pong, &[&payload]);
                self.send(Outgoing::Frames(pong.into()));
            }
            Step::Goodbye(code) => {
                return Err(Ending { reason: CloseReason::Client, code: code.unwrap_or(1000) });
            }
            Step::Connect { namespace, auth } => {
                if self.client_in(namespace).is_some() {
                    return Err(OUT_OF_PLACE);
                }
                self.ask_in(namespace, auth);
            }
            Step::Unserved { namespace } => {
                let text = format!("44{namespace},{{\"message\":\"Invalid namespace\"}}");
                self.send(Outgoing::Text(text.into()));
            }
            Step::Leave { namespace } => {
                let client = self.take_client(namespace).ok_or(OUT_OF_PLACE)?;
                client.forget_acks();
                self.core.handler.disconnected(&client, CloseReason::Client);
                if self.client.is_none() {
                    self.admit_due = after(now, self.config().connect_timeout);
                }
            }
            Step::Ack { namespace, id, ack } => {
                self.client_in(namespace).ok_or(OUT_OF_PLACE)?.acknowledged(id, ack);
            }
            Step::Event { namespace, event, answer } => return self.hand_in(namespace, event, answer),
            Step::Malformed { namespace, problem } => {
                let client = self.client_in(namespace).ok_or(OUT_OF_PLACE)?;
                self.core.handler.malformed(client, problem);
                if problem.is_fatal() {
                    let code = if problem == Malformed::Binary { 1003 } else { 1007 };
                    return Err(Ending { reason: CloseReason::Protocol, code });
                }
            }
            Step::Message(message) => {
                let client = self.client.clone().ok_or(OUT_OF_PLACE)?;
                let handler = Arc::clone(&self.core.handler);
                self.count_event();
                self.work = Some(Box::pin(async move {
                    handler.message(&client, message).await;
                    Done::Message
                }));
            }
        }
        Ok(())
    }

    fn count_event(&self) {
        self.core.shared.counters.events_in.fetch_add(1, Relaxed);
    }

    /// Asks the service whether the client may come in.
    fn ask_in(&mut self, namespace: u16, auth: Option<Box<serde_json::value::RawValue>>) {
        let link = self.link();
        let client = Client::<H>::new(Arc::clone(link), namespace);
        let hello = Hello {
            dialect: link.dialect,
            namespace: client.namespace().to_owned(),
            auth,
            query: self.introduction.as_ref().and_then(|it| it.query.as_deref()).map(str::to_owned),
            authorization: self
                .introduction
                .as_ref()
                .and_then(|it| it.authorization.as_deref())
                .map(str::to_owned),
            remote: link.remote,
        };
        if link.dialect == Dialect::SocketIo {
            link.hold(client.id());
        }
        self.admit_due = if self.client.is_some() { self.admit_due } else { NEVER };
        let handler = Arc::clone(&self.core.handler);
        self.work = Some(Box::pin(async move {
            let result = handler.connect(&client, hello).await;
            Done::Asked { client, result }
        }));
    }

    /// Hands an event to the service, or parks it until earlier replies are out.
    fn hand_in(&mut self, namespace: u16, event: ClientEvent, answer: Answer) -> Result<(), Ending> {
        if self.later.is_some() && !self.core.handler.may_overlap(&event.name) {
            self.parked = Some(Box::new(Parked { namespace, event, answer }));
            return Ok(());
        }
        let Some(client) = self.client_in(namespace).cloned() else {
            return Err(CloseReason::Protocol.into());
        };
        self.count_event();
        let handler = Arc::clone(&self.core.handler);
        self.work = Some(Box::pin(async move {
            let handled = handler.event(&client, event).await;
            Done::Handled { handled, namespace, answer }
        }));
        Ok(())
    }

    // ---- the service's answers ----

    /// Ready when no call to the service is under way.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let done = ready!(work.as_mut().poll(cx));
        self.work = None;
        match done {
            Done::Asked { client, result: Ok(()) } => self.let_in(client),
            Done::Asked { client, result: Err(refusal) } => self.turn_away(&client, refusal),
            Done::Message => {}
            Done::Handled { handled: Handled::Done(reply), namespace, answer } => {
                let answered = Answered { namespace, answer, reply };
                match &mut self.later {
                    Some(later) => later.push_back(Box::pin(std::future::ready(answered))),
                    None => self.answer(answered),
                }
            }
            Done::Handled { handled: Handled::Later(reply), namespace, answer } => {
                let later = self.later.get_or_insert_default();
                later.push_back(Box::pin(async move { Answered { namespace, answer, reply: reply.await } }));
            }
        }
        Poll::Ready(())
    }

    fn poll_later(&mut self, cx: &mut Context<'_>) {
        while let Some(later) = &mut self.later {
            match Pin::new(&mut **later).poll_next(cx) {
                Poll::Ready(Some(answered)) => self.answer(answered),
                Poll::Ready(None) => self.later = None,
                Poll::Pending => return,
            }
        }
    }

    fn answer(&self, answered: Answered) {
        let Some(reply) = answered.reply else { return };
        match answered.answer {
            Answer::None => {}
            Answer::Ref(reference) => self.send(Outgoing::Frames(reply.plain_frame(&reference))),
            Answer::Id(id) => {
                let Some(client) = self.client_in(answered.namespace) else { return };
                self.send(Outgoing::Text(reply.packet(client.namespace(), id).into()));
                for attachment in reply.attachments() {
                    self.send(Outgoing::Binary(attachment.clone()));
                }
            }
        }
    }

    fn let_in(&mut self, client: Client<H>) {
        if self.link().dialect == Dialect::SocketIo {
            let sid = handshake::random_id();
            let prefix = prefix(client.namespace());
            self.link().release(Outgoing::Text(format!("40{prefix}{{\"sid\":\"{sid}\"}}").into()), true);
        }
        let auth_timeout = self.config().auth_timeout;
        if !client.is_authenticated() && !auth_timeout.is_zero() && self.link().dialect != Dialect::EngineIo {
            self.admit_due = self.admit_due.min(after(self.now(), auth_timeout));
        }
        if self.client.is_none() {
            self.client = Some(client);
        } else {
            self.others.push(client);
        }
        if self.link().dialect != Dialect::SocketIo || self.config().namespaces.len() <= 1 {
            self.introduction = None;
        }
    }

    fn turn_away(&mut self, client: &Client<H>, refusal: Refusal) {
        let message = json_string(&refusal.message);
        let code = json_string(&refusal.code);
        if self.link().dialect == Dialect::SocketIo {
            let prefix = prefix(client.namespace());
            let text = format!("44{prefix}{{\"message\":{message},\"data\":{{\"code\":{code}}}}}");
            self.link().release(Outgoing::Text(text.into()), false);
            if self.client.is_none() {
                self.admit_due = after(self.now(), self.config().connect_timeout);
            }
        } else {
            if self.link().dialect == Dialect::Plain {
                let farewell = refusal.farewell.unwrap_or_else(|| {
                    Event::new("error", format!("{{\"message\":{message},\"code\":{code}}}"))
                });
                self.send(Outgoing::Event(farewell));
            }
            self.link().close(Ending { reason: CloseReason::Refused, code: refusal.close_code });
        }
    }

    fn take_client(&mut self, namespace: u16) -> Option<Client<H>> {
        if self.client.as_ref().is_some_and(|client| client.namespace_index() == namespace) {
            return std::mem::replace(&mut self.client, self.others.pop());
        }
        let place = self.others.iter().position(|client| client.namespace_index() == namespace)?;
        Some(self.others.swap_remove(place))
    }

    // ---- the end ----

    /// Begins the end, for that reason.
    fn end(&mut self, ending: Ending) {
        if self.stage != Stage::Open {
            return;
        }
        self.core.shared.counters.closed(ending.reason);
        self.parked = None;
        self.assembly = None;
        let keep_queue = !matches!(
            ending.reason,
            CloseReason::Client
                | CloseReason::Transport
                | CloseReason::SlowConsumer
                | CloseReason::PingTimeout
        );
        self.link().shut(ending, keep_queue);
        let answered = matches!(
            ending.reason,
            CloseReason::Shutdown
                | CloseReason::Restart
                | CloseReason::Kicked(_)
                | CloseReason::Unauthenticated
        );
        if !answered {
            self.later = None;
        }
        if let Some(session) = &self.session
            && !answered
            && ending.reason != CloseReason::Refused
        {
            session.close();
        }
        let until = after(self.now(), self.config().close_timeout);
        self.stage = if ending.reason == CloseReason::Transport {
            Stage::Gone { reason: ending.reason }
        } else if answered {
            Stage::Draining { ending, until }
        } else {
            self.say_goodbye(ending);
            Stage::Closing { reason: ending.reason, until }
        };
    }

    /// Queues the last words: DISCONNECT where clients should not come back by themselves, then the close frame.
    fn say_goodbye(&mut self, ending: Ending) {
        self.later = None;
        let mut words = Vec::new();
        let kicked = matches!(ending.reason, CloseReason::Kicked(_) | CloseReason::Unauthenticated);
        if kicked && self.link().dialect == Dialect::SocketIo {
            for client in self.clients() {
                words.push(Outgoing::Text(format!("41{}", prefix(client.namespace())).into()));
            }
        }
        words.push(if self.socket.is_some() {
            let mut close = Vec::new();
            frame::put(&mut close, Opcode::Close, &[&ending.code.to_be_bytes()]);
            Outgoing::Frames(close.into())
        } else if ending.reason == CloseReason::Client {
            // The client knows; its poll only has to come home.
            Outgoing::Text(Bytes::from_static(b"6"))
        } else {
            Outgoing::Text(Bytes::from_static(b"1"))
        });
        self.link().push_last(words);
    }

    fn drop_transport(&mut self) {
        if let Some(session) = self.session.take() {
            self.core.sessions.remove(&session.sid);
            session.end();
            if self.socket.is_none() {
                self.core.shared.counters.polling.fetch_sub(1, Relaxed);
            }
        }
        self.socket = None;
    }

    /// Tells the service that its clients are gone.
    fn part(&mut self, reason: CloseReason) {
        for client in self.client.take().into_iter().chain(std::mem::take(&mut self.others)) {
            client.forget_acks();
            self.core.handler.disconnected(&client, reason);
        }
    }
}

impl<H: Handler> Future for Driver<H> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.turn(cx)
    }
}

impl<H: Handler> Drop for Driver<H> {
    /// A panic of the service or the end of the runtime must not leave it with clients that are gone.
    fn drop(&mut self) {
        self.drop_transport();
        self.part(CloseReason::Transport);
    }
}

fn after(now: u64, time: Duration) -> u64 {
    now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}
