//! One connection's task: reads, calls the service, writes, keeps time, and ends.
//!
//! Owns the life of a connection, as a hand-written future so that an idle one is a few hundred bytes: in this
//! file its state and its stages, in those beside it what happens in them. Bytes are in `socket`, the meaning of
//! messages in `read`, the queue that others push to in [`crate::link`].

mod calls;
mod ending;
mod incoming;
mod outgoing;
mod read;
mod socket;
mod time;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use hyper::upgrade::OnUpgrade;

use crate::client::Client;
use crate::codec::frame::{Incoming, Limits};
use crate::config::EdgeConfig;
use crate::edge::Core;
use crate::event::Reply;
use crate::handler::{ClientEvent, CloseReason, Dialect, Handled, Handler, Refusal};
use crate::handshake::Introduction;
use crate::link::{Ending, Link};
use crate::polling::Session;
use crate::shared::Admission;
use read::{Answer, Assembly};
pub(crate) use socket::Socket;

/// How many messages are taken before others get their turn on the thread.
const TURN: u32 = 64;
const NEVER: u64 = u64::MAX;

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
                if driver.config().bare_messages {
                    driver.heartbeat_due = NEVER;
                } else {
                    driver.send_open();
                }
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
        // After reading: what lay in the socket while this process did not run came in time.
        if let Err(ending) = self.check_deadlines(now, left == 0) {
            self.end(ending);
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
                    Poll::Pending if now >= self.write_due => self.end(CloseReason::SlowConsumer.into()),
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
