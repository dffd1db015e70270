//! The accept loop: sockets in, HTTP requests to the router, upgrades out to the edge.
//!
//! Owns sockets until hyper has read a request, and their limits in time and size. What requests mean is the
//! router's; an upgraded connection leaves here for `driver`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

/// The socket a request came by; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the socket: the client, or a proxy before it.
    pub addr: SocketAddr,
    /// Whether the socket speaks TLS.
    pub tls: bool,
}

/// The limits of [`serve()`].
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// How long a request's head may take, from the connection or the previous request on.
    pub header_timeout: Duration,
    /// Bytes of a request's head.
    pub max_header_bytes: usize,
    /// Connections that speak HTTP; live ones no longer count, [`crate::EdgeConfig`] limits those. Zero: no limit.
    pub max_connections: usize,
    /// How long requests under way may take after the shutdown began.
    pub drain_timeout: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            max_header_bytes: 16 * 1024,
            max_connections: 0,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves the router on the listener until `shutdown` is done; then answers the requests under way and returns.
///
/// Live connections are not waited for: shut the [`crate::Edge`] down first or beside this.
pub async fn serve(
    listener: TcpListener,
    config: ServeConfig,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (stop, stopping) = watch::channel(());
    let places = Arc::new(match config.max_connections {
        0 => Semaphore::new(Semaphore::MAX_PERMITS),
        limit => Semaphore::new(limit.min(Semaphore::MAX_PERMITS)),
    });
    let server = Arc::new(Server { config, router });
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Out of descriptors or memory: connections under way must end before this gets better, so wait
                // instead of spinning; the kernel keeps the newcomers.
                tracing::warn!(%error, "accepting connections pauses for 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (server, stopping) = (Arc::clone(&server), stopping.clone());
        tokio::spawn(async move {
            let _place = place;
            server.connection(stream, addr, stopping).await;
        });
    }
    drop(listener);
    drop(stopping);
    let drain_timeout = server.config.drain_timeout;
    stop.send_replace(());
    // Done when every connection has dropped its receiver.
    let _ = tokio::time::timeout(drain_timeout, stop.closed()).await;
    Ok(())
}

/// Errors of accept(2) that concern the one connection only.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

struct Server {
    config: ServeConfig,
    router: Router,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, addr: SocketAddr, stopping: watch::Receiver<()>) {
        // Until the first byte a connection is this small task and nothing else.
        let first = tokio::time::timeout(self.config.header_timeout, stream.readable()).await;
        if !matches!(first, Ok(Ok(()))) || stream.set_nodelay(true).is_err() {
            return;
        }
        Box::pin(self.http(TokioIo::new(stream), Peer { addr, tls: false }, stopping)).await;
    }

    async fn http<S>(self: Arc<Self>, io: S, peer: Peer, mut stopping: watch::Receiver<()>)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.header_timeout)
            .max_header_size(self.config.max_header_bytes)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                done = connection.as_mut() => {
                    if let Err(error) = done {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                Ok(()) = stopping.changed() => connection.as_mut().graceful_shutdown(),
            }
        }
    }
}
