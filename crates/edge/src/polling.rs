//! Sessions that began with long-polling: their requests, and the hand-over to a WebSocket.
//!
//! Owns what HTTP requests and the session's driver share: packets posted, the poll that waits, the probe. The
//! driver does everything else, as for a WebSocket; who is let in is decided in [`crate::edge`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::codec::payload::{self, Packet};
use crate::driver::{Socket, await_probe};
use crate::handler::CloseReason;
use crate::handshake::refusal;
use crate::link::Link;

/// The sessions that requests can name, by `sid`.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    pub(crate) fn get(&self, sid: &str) -> Option<Arc<Session>> {
        self.0.lock().get(sid).cloned()
    }

    pub(crate) fn insert(&self, session: &Arc<Session>) {
        self.0.lock().insert(session.sid.clone(), Arc::clone(session));
    }

    pub(crate) fn remove(&self, sid: &str) {
        self.0.lock().remove(sid);
    }
}

pub(crate) struct Session {
    pub(crate) sid: String,
    pub(crate) link: Arc<Link>,
    /// When the client is overdue with its pong, in the wheel's milliseconds: to the millisecond, since the
    /// wheel that closes the session is coarse and a request may come in between.
    pub(crate) alive_until: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Packets that the driver has not taken yet.
    posted: VecDeque<Packet>,
    /// A POST is being read or its packets are being handled.
    posting: bool,
    /// Told when all of them were.
    handled: Option<oneshot::Sender<()>>,
    /// The poll that waits for something to carry.
    poll: Option<oneshot::Sender<Bytes>>,
    /// Where the session goes on.
    socket: Option<Box<Socket>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Polling,
    /// A WebSocket has announced itself.
    Probing,
    /// It was found to work; polls are answered at once so that the client can let go of them.
    Probed,
    Upgraded,
    Closed,
}

impl Session {
    pub(crate) fn new(sid: String, link: Arc<Link>) -> Self {
        Self { sid, link, alive_until: AtomicU64::new(u64::MAX), state: Mutex::default() }
    }

    // ---- for requests ----

    /// Answers a request that names this session.
    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let overdue = self.link.shared.wheel.now() >= self.alive_until.load(Ordering::Acquire);
        if overdue || self.state.lock().phase == Phase::Closed {
            return refusal(StatusCode::BAD_REQUEST, 1, "Session ID unknown");
        }
        match *request.method() {
            Method::GET => self.poll().await,
            Method::POST => self.post(request).await,
            _ => refusal(StatusCode::BAD_REQUEST, 3, "Bad request"),
        }
    }

    pub(crate) async fn poll(self: Arc<Self>) -> Response {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.lock();
            match state.phase {
                Phase::Polling | Phase::Probing | Phase::Probed if state.poll.is_none() => {}
                Phase::Upgraded | Phase::Closed => {
                    return refusal(StatusCode::BAD_REQUEST, 3, "Bad request");
                }
                _ => {
                    drop(state);
                    // Two polls at a time would tear the order of packets apart.
                    self.link.close(CloseReason::Protocol.into());
                    return refusal(StatusCode::BAD_REQUEST, 3, "Bad request");
                }
            }
            state.poll = Some(sender);
        }
        self.link.wake();
        let mut parked = Parked { session: &self, answered: false };
        let answer = receiver.await;
        parked.answered = true;
        match answer {
            Ok(payload) => plain_text(payload),
            Err(_) => refusal(StatusCode::BAD_REQUEST, 1, "Session ID unknown"),
        }
    }

    async fn post(self: Arc<Self>, request: Request) -> Response {
        let bad = || refusal(StatusCode::BAD_REQUEST, 3, "Bad request");
        {
            let mut state = self.state.lock();
            if state.phase == Phase::Upgraded || state.phase == Phase::Closed {
                return bad();
            }
            if std::mem::replace(&mut state.posting, true) {
                drop(state);
                self.link.close(CloseReason::Protocol.into());
                return bad();
            }
        }
        let _posting = Posting(&self);
        let config = &self.link.shared.config;
        let body = Limited::new(request.into_body(), config.max_payload).collect();
        let body = match tokio::time::timeout(config.frame_timeout, body).await {
            Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, 3, "The body took too long"),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                self.link.close(CloseReason::TooBig.into());
                return refusal(StatusCode::PAYLOAD_TOO_LARGE, 3, "Payload too large");
            }
            Ok(Err(_)) => return bad(),
            Ok(Ok(body)) => body.to_bytes(),
        };
        let packets = std::str::from_utf8(&body)
            .map_err(|_| payload::BadPayload)
            .and_then(|body| payload::decode(body, config.max_packets_per_poll));
        let Ok(packets) = packets else {
            self.link.close(CloseReason::Protocol.into());
            return bad();
        };
        let (sender, handled) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.posted.extend(packets);
            state.handled = Some(sender);
        }
        self.link.wake();
        // Answering only now holds the client back to the pace of its events.
        let done = handled.await;
        let broken = self
            .link
            .closing()
            .is_some_and(|ending| matches!(ending.reason, CloseReason::Protocol | CloseReason::TooBig));
        if done.is_err() && broken { bad() } else { plain_text(Bytes::from_static(b"ok")) }
    }

    /// Takes a WebSocket on as the session's new transport, if the client says so on it; closes it otherwise.
    pub(crate) async fn upgrade(self: Arc<Self>, upgrade: OnUpgrade) {
        if !self.begin_probe() {
            // The handshake of a second WebSocket succeeds, and it ends at once, as clients expect.
            drop(upgrade.await);
            return;
        }
        let config = &self.link.shared.config;
        let probe = await_probe(upgrade, config, || {
            let mut state = self.state.lock();
            if state.phase == Phase::Probing {
                state.phase = Phase::Probed;
            }
            drop(state);
            self.link.wake();
        });
        let socket = tokio::time::timeout(config.upgrade_timeout, Box::pin(probe)).await.ok().flatten();
        let mut state = self.state.lock();
        match (state.phase, socket) {
            (Phase::Probed, Some(socket)) => {
                state.phase = Phase::Upgraded;
                state.socket = Some(socket);
                if let Some(poll) = state.poll.take() {
                    // It found nothing to carry and must not stay open beside the new transport. If the client
                    // has let go of it already, nothing is lost.
                    let _ = poll.send(NOOP);
                }
                drop(state);
                self.link.wake();
            }
            (Phase::Probing | Phase::Probed, _) => state.phase = Phase::Polling,
            _ => {}
        }
    }

    fn begin_probe(&self) -> bool {
        let mut state = self.state.lock();
        let free = state.phase == Phase::Polling;
        if free {
            state.phase = Phase::Probing;
        }
        free
    }

    // ---- for the driver ----

    /// The next packet to handle; once there is none, the POST that brought the last one is answered.
    pub(crate) fn next_posted(&self) -> Option<Packet> {
        let mut state = self.state.lock();
        let packet = state.posted.pop_front();
        if packet.is_none() {
            state.posted = VecDeque::new();
            if let Some(handled) = state.handled.take() {
                let _ = handled.send(());
            }
        }
        packet
    }

    /// The WebSocket to go on with, once there is one.
    pub(crate) fn take_socket(&self) -> Option<Box<Socket>> {
        self.state.lock().socket.take()
    }

    /// The poll to answer, if one waits and there is something to answer it with: packets, or, while a probe is
    /// under way, a noop.
    pub(crate) fn take_poll(&self, has_packets: bool) -> Option<oneshot::Sender<Bytes>> {
        let mut state = self.state.lock();
        if has_packets {
            return state.poll.take();
        }
        if state.phase == Phase::Probed
            && let Some(poll) = state.poll.take()
        {
            let _ = poll.send(NOOP);
        }
        None
    }

    /// Lets no further request in; one that waits can still be answered.
    pub(crate) fn close(&self) {
        self.state.lock().phase = Phase::Closed;
    }

    /// Forgets everything; requests that wait are answered with an error.
    pub(crate) fn end(&self) {
        *self.state.lock() = State { phase: Phase::Closed, ..State::default() };
    }
}

const NOOP: Bytes = Bytes::from_static(b"6");

/// A poll that waits. If its client goes away, packets handed to it would be lost, so the session ends.
struct Parked<'a> {
    session: &'a Session,
    answered: bool,
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.session.link.close(CloseReason::Transport.into());
        }
    }
}

struct Posting<'a>(&'a Session);

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().posting = false;
    }
}

fn plain_text(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
