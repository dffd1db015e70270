//! The accept loop: sockets in, HTTP requests to the router, upgrades out to the edge.
//!
//! Owns sockets until hyper has read a request, and their limits in time and size. What requests mean is the
//! router's; an upgraded connection leaves here for `driver`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::tls::Tls;

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
    /// Speak TLS with this certificate; plain TCP if absent.
    pub tls: Option<Tls>,
    /// How often to look whether the certificate's files were written.
    pub tls_reload: Duration,
    /// How long a request's head may take, from the connection or the previous request on.
    pub header_timeout: Duration,
    /// How long a request's body may take, from its first wait on.
    pub body_timeout: Duration,
    /// How long what was sent may stay unread by the other side, before the kernel gives the connection up; live
    /// connections too. This ends readers that stall in the middle of an answer.
    pub unread_timeout: Duration,
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
            tls: None,
            tls_reload: Duration::from_secs(60),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            unread_timeout: Duration::from_secs(30),
            max_header_bytes: 16 * 1024,
            max_connections: 0,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// How many finished handshakes the kernel keeps until they are accepted; it may allow fewer (`somaxconn`).
///
/// The usual 128 overflow when thousands of clients come back at once. What overflows is not refused but
/// forgotten: the client believes itself connected and finds out by retransmissions, seconds later.
const BACKLOG: u32 = 4096;

/// A listener on that address with room for a crowd; the address may be in use by a connection that is ending.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves the router on the listener, best one made by [`listen`], until `shutdown` is done; then answers the
/// requests under way and returns.
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
    let acceptor = config.tls.as_ref().map(Tls::acceptor);
    let _reloading =
        config.tls.clone().map(|tls| AbortOnDrop(tokio::spawn(keep_fresh(tls, config.tls_reload))));
    let server = Arc::new(Server { config, router, acceptor });
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

/// Ends a task with the one that started it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_fresh(tls: Tls, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let reloading = tls.clone();
        match tokio::task::spawn_blocking(move || reloading.reload()).await {
            Ok(Ok(true)) => tracing::info!("the TLS certificate was replaced"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the new TLS certificate is no good; the old one stays")
            }
            Err(_) => return,
        }
    }
}

/// A request's body that ends in an error if it takes too long.
struct TimedBody {
    inner: Incoming,
    timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for TimedBody {
    type Data = bytes::Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        deadline.as_mut().poll(cx).map(|()| Some(Err("the body took too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

struct Server {
    config: ServeConfig,
    router: Router,
    acceptor: Option<TlsAcceptor>,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, addr: SocketAddr, stopping: watch::Receiver<()>) {
        // Until the first byte a connection is this small task and nothing else.
        let header_timeout = self.config.header_timeout;
        let first = tokio::time::timeout(header_timeout, stream.readable()).await;
        if !matches!(first, Ok(Ok(()))) || self.prepare(&stream).is_err() {
            return;
        }
        let Some(acceptor) = &self.acceptor else {
            return Box::pin(self.http(TokioIo::new(stream), Peer { addr, tls: false }, stopping)).await;
        };
        let accepting = tokio::time::timeout(header_timeout, Box::pin(acceptor.accept(stream)));
        match accepting.await {
            Ok(Ok(stream)) => {
                Box::pin(self.http(TokioIo::new(stream), Peer { addr, tls: true }, stopping)).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(stream).set_tcp_user_timeout(Some(self.config.unread_timeout))?;
        Ok(())
    }

    async fn http<S>(&self, io: S, peer: Peer, mut stopping: watch::Receiver<()>)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let body_timeout = self.config.body_timeout;
        let service = service_fn(move |request: http::Request<Incoming>| {
            let mut request = request.map(|body| match body.is_end_stream() {
                true => Body::empty(),
                false => Body::new(TimedBody { inner: body, timeout: body_timeout, deadline: None }),
            });
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
