//! What a service mounts: the requests that become live connections, and all of those together.
//!
//! Owns handshakes (who is let in, how refusals look) and shutdown. How a connection is then driven is in
//! `driver`; long-polling requests of a session are in `polling`.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode, header};

use crate::config::EdgeConfig;
use crate::driver;
use crate::handler::{CloseReason, Dialect, Handler};
use crate::handshake::{self, Introduction};
use crate::polling::{Session, Sessions};
use crate::serve::Peer;
use crate::shared::{Admission, Full, Shared};

/// The live connections of a service. Cheap to clone.
pub struct Edge<H: Handler>(pub(crate) Arc<Core<H>>);

pub(crate) struct Core<H: Handler> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handler: Arc<H>,
    pub(crate) sessions: Sessions,
}

/// How things stand, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live connections.
    pub connections: u64,
    /// Those that speak Socket.IO.
    pub socket_io: u64,
    /// Those that speak the plain dialect.
    pub plain: u64,
    /// Those that speak bare Engine.IO.
    pub engine_io: u64,
    /// Those that are on long-polling now.
    pub polling: u64,
    /// Bytes queued for clients and not yet written.
    pub queued_bytes: u64,
    /// Connections let in since the start.
    pub accepted: u64,
    /// Handshakes refused for want of room since the start.
    pub refused: u64,
    /// Handshakes refused for their origin since the start.
    pub forbidden: u64,
    /// Clients closed as slow consumers since the start.
    pub slow_consumers: u64,
    /// Clients closed for breaking the protocol since the start.
    pub protocol_errors: u64,
    /// Clients closed for not answering pings since the start.
    pub ping_timeouts: u64,
    /// Events taken from clients since the start.
    pub events_in: u64,
}

impl<H: Handler> Edge<H> {
    /// An edge with these limits in front of that service.
    pub fn new(config: EdgeConfig, handler: Arc<H>) -> Self {
        let shared = Arc::new(Shared::new(config));
        Self(Arc::new(Core { shared, handler, sessions: Sessions::default() }))
    }

    /// The service behind it.
    pub fn handler(&self) -> &Arc<H> {
        &self.0.handler
    }

    /// Whether the request wants to become a WebSocket, so that `/` can serve a page to those that do not.
    pub fn is_upgrade(request: &Request) -> bool {
        handshake::is_upgrade(request)
    }

    /// Answers any request to `/socket.io` or `/socket.io/`: Socket.IO by WebSocket or long-polling.
    pub async fn socket_io(&self, request: Request) -> Response {
        self.engine(request, Dialect::SocketIo).await
    }

    /// Answers any request to `/engine.io/`: bare Engine.IO messages.
    pub async fn engine_io(&self, request: Request) -> Response {
        self.engine(request, Dialect::EngineIo).await
    }

    /// Answers any request to `/` or `/ws` that should become a plain WebSocket; 426 if it does not want to.
    pub async fn plain(&self, request: Request) -> Response {
        if !handshake::is_upgrade(&request) {
            return handshake::refusal(StatusCode::UPGRADE_REQUIRED, 3, "This address speaks WebSocket");
        }
        if let Some(response) = self.refuse_origin(&request) {
            return response;
        }
        self.open_websocket(request, Dialect::Plain)
    }

    async fn engine(&self, request: Request, dialect: Dialect) -> Response {
        if let Some(response) = self.refuse_origin(&request) {
            return response;
        }
        let cors = handshake::Cors::of(&request);
        let mut response = match request.method() {
            &Method::OPTIONS => handshake::preflight(),
            _ => self.engine_answer(request, dialect).await,
        };
        if let Some(cors) = cors {
            cors.apply(&mut response);
        }
        response
    }

    async fn engine_answer(&self, mut request: Request, dialect: Dialect) -> Response {
        let query = request.uri().query().unwrap_or("");
        if handshake::query_value(query, "EIO") != Some("4") {
            return handshake::refusal(StatusCode::BAD_REQUEST, 5, "Unsupported protocol version");
        }
        let polling = match handshake::query_value(query, "transport") {
            Some("polling") => true,
            Some("websocket") => false,
            _ => return handshake::refusal(StatusCode::BAD_REQUEST, 0, "Transport unknown"),
        };
        let wants_websocket = handshake::is_upgrade(&request);
        let Some(sid) = handshake::query_value(query, "sid").filter(|sid| !sid.is_empty()) else {
            // Dart's client asks for `transport=polling` with an upgrade header: that is a WebSocket.
            return match *request.method() {
                Method::GET if wants_websocket => self.open_websocket(request, dialect),
                Method::GET if polling => match self.open_polling(&request, dialect) {
                    // The first poll carries the open packet.
                    Ok(session) => {
                        drop(request);
                        session.poll().await
                    }
                    Err(response) => *response,
                },
                Method::GET => handshake::refusal(StatusCode::BAD_REQUEST, 3, "Bad request"),
                _ => handshake::refusal(StatusCode::BAD_REQUEST, 2, "Bad handshake method"),
            };
        };
        let session = self.0.sessions.get(sid).filter(|session| session.link.dialect == dialect);
        let Some(session) = session else {
            return handshake::refusal(StatusCode::BAD_REQUEST, 1, "Session ID unknown");
        };
        if !wants_websocket {
            return match polling {
                true => session.answer(request).await,
                false => handshake::refusal(StatusCode::BAD_REQUEST, 3, "Bad request"),
            };
        }
        match handshake::accept_key(request.headers()) {
            Ok(accept) => {
                tokio::spawn(session.upgrade(hyper::upgrade::on(&mut request)));
                handshake::switching(accept)
            }
            Err(problem) => problem.refusal(),
        }
    }

    fn open_polling(&self, request: &Request, dialect: Dialect) -> Result<Arc<Session>, Box<Response>> {
        let admission = self.admit(request, dialect)?;
        let session = Arc::new(Session::new(handshake::random_id(), Arc::clone(&admission.link)));
        self.0.sessions.insert(&session);
        self.0.shared.counters.polling.fetch_add(1, Relaxed);
        let introduction = Box::new(Introduction::of(request));
        tokio::spawn(driver::run_polling(Arc::clone(&self.0), admission, introduction, Arc::clone(&session)));
        Ok(session)
    }

    fn refuse_origin(&self, request: &Request) -> Option<Response> {
        let origin = request.headers().get(header::ORIGIN)?;
        if origin.to_str().is_ok_and(|origin| self.0.shared.config.origins.allows(origin)) {
            return None;
        }
        self.0.shared.counters.forbidden.fetch_add(1, Relaxed);
        Some(handshake::refusal(StatusCode::FORBIDDEN, 4, "Forbidden"))
    }

    fn open_websocket(&self, mut request: Request, dialect: Dialect) -> Response {
        let accept = match handshake::accept_key(request.headers()) {
            Ok(accept) => accept,
            Err(problem) => return problem.refusal(),
        };
        let admission = match self.admit(&request, dialect) {
            Ok(admission) => admission,
            Err(response) => return *response,
        };
        let introduction = Box::new(Introduction::of(&request));
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(driver::run_websocket(Arc::clone(&self.0), admission, introduction, upgrade));
        handshake::switching(accept)
    }

    pub(crate) fn admit(&self, request: &Request, dialect: Dialect) -> Result<Admission, Box<Response>> {
        self.0.shared.start_clock();
        let remote = self.remote(request);
        self.0.shared.admit(remote, dialect).map_err(|full| {
            Box::new(match full {
                Full::Stopping => {
                    handshake::refusal(StatusCode::SERVICE_UNAVAILABLE, 3, "The service is shutting down")
                }
                Full::Connections => {
                    handshake::refusal(StatusCode::SERVICE_UNAVAILABLE, 3, "Too many connections")
                }
                Full::Address => handshake::refusal(
                    StatusCode::TOO_MANY_REQUESTS,
                    3,
                    "Too many connections from this address",
                ),
            })
        })
    }

    /// Whose request it is: the peer's address, or what a trusted proxy says.
    pub fn remote(&self, request: &Request) -> IpAddr {
        let peer =
            request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.addr.ip());
        self.0.shared.config.trusted_proxies.client_ip(peer, request.headers())
    }

    /// How things stand now.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.shared.counters;
        let [socket_io, plain, engine_io] = [0, 1, 2].map(|n: usize| counters.by_dialect[n].load(Relaxed));
        Stats {
            connections: counters.live.load(Relaxed),
            socket_io,
            plain,
            engine_io,
            polling: counters.polling.load(Relaxed),
            queued_bytes: self.0.shared.links().iter().map(|link| link.queued_bytes() as u64).sum(),
            accepted: counters.accepted.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            forbidden: counters.forbidden.load(Relaxed),
            slow_consumers: counters.slow_consumers.load(Relaxed),
            protocol_errors: counters.protocol_errors.load(Relaxed),
            ping_timeouts: counters.ping_timeouts.load(Relaxed),
            events_in: counters.events_in.load(Relaxed),
        }
    }

    /// Lets nobody in any more (503) and closes the live ones, spread over that time so that they do not all come
    /// back elsewhere at once. Returns when they are gone, or soon after twice `close_timeout`.
    ///
    /// Transports are closed without a DISCONNECT, so that clients reconnect by themselves; plain: code 1001.
    pub async fn shutdown(&self, spread: Duration) {
        let shared = &self.0.shared;
        shared.stopping.store(true, Relaxed);
        let links = shared.links();
        // A wave every 20 ms at most: sleeping is coarser than that anyway.
        let waves = (spread.as_millis() / 20).clamp(1, 10_000) as usize;
        let wave = links.len().div_ceil(waves).max(1);
        for (n, links) in links.chunks(wave).enumerate() {
            if n > 0 {
                tokio::time::sleep(spread / waves as u32).await;
            }
            links.iter().for_each(|link| link.close(CloseReason::Shutdown.into()));
        }
        drop(links);
        // Those that were let in between the mark and the list.
        shared.links().iter().for_each(|link| link.close(CloseReason::Shutdown.into()));
        let patience = 2 * shared.config.close_timeout + 4 * shared.wheel.tick();
        let gone = async {
            while shared.counters.live.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Whoever is still here after that is cut off when the process ends.
        let _ = tokio::time::timeout(patience, gone).await;
    }
}

impl<H: Handler> Clone for Edge<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> std::fmt::Debug for Edge<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
