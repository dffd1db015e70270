//! A small service behind a real edge on a real port, and a WebSocket client that can misbehave byte by byte.
//!
//! Owns nothing that is tested; the facts are in the test files beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{any, get};
use edge::{
    BoxFuture, Client, ClientEvent, CloseReason, Edge, EdgeConfig, Event, Handled, Handler, Hello, Malformed,
    Message, Origins, Refusal, Reply, ServeConfig,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};

/// Generous, so that a busy machine fails no test; what is awaited comes in milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Service {
    /// A `later_held` is done when it gets one of these.
    pub(crate) permits: Arc<Semaphore>,
    /// `connect 1`, `event echo`, `gone 1 Client`, …, in the order the calls came.
    pub(crate) log: Mutex<Vec<String>>,
    /// Clients that are in.
    pub(crate) clients: Mutex<Vec<Client<Service>>>,
}

#[derive(Default)]
pub(crate) struct Session {
    pub(crate) token: Mutex<String>,
}

impl Service {
    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    pub(crate) fn noted(&self, line: &str) -> bool {
        self.log.lock().unwrap().iter().any(|known| known == line)
    }

    pub(crate) async fn wait_for(&self, what: &str) {
        let found = async {
            while !self.log.lock().unwrap().iter().any(|line| line.contains(what)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, found).await.is_err() {
            panic!("`{what}` never came: {:?}", self.log.lock().unwrap());
        }
    }
}

impl Handler for Service {
    type Session = Session;

    fn connect<'a>(&'a self, client: &'a Client<Self>, hello: Hello) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            self.note(format!("connect {} {}", hello.namespace, client.remote()));
            client.emit(&Event::new("auth", hello.auth.as_ref().map_or("{}", |raw| raw.get()).to_owned()));
            match hello.token().as_deref() {
                Some("good") => client.set_authenticated(),
                Some("slow") => tokio::time::sleep(Duration::from_millis(300)).await,
                Some(other) if other != "7|AbC" => {
                    return Err(Refusal::new("UNAUTHENTICATED", "The token is not valid."));
                }
                Some(token) => {
                    *client.session().token.lock().unwrap() = token.to_owned();
                    client.set_authenticated();
                }
                None => {}
            }
            self.clients.lock().unwrap().push(client.clone());
            Ok(())
        })
    }

    fn event<'a>(&'a self, client: &'a Client<Self>, event: ClientEvent) -> BoxFuture<'a, Handled> {
        Box::pin(async move {
            let number = || serde_json::from_str::<u64>(event.data()).unwrap_or(0);
            self.note(format!("event {} {}", event.name, event.data()));
            let reply = match event.name.as_str() {
                "echo" => Some(Reply::args(
                    event.args.iter().map(|arg| arg.get().to_owned().into()),
                    event.attachments.clone(),
                )),
                "message" => {
                    let args = event.args.iter().map(|arg| arg.get().to_owned().into());
                    client.emit(&Event::with_args("message-back", args, event.attachments.clone()));
                    None
                }
                "wait" => {
                    tokio::time::sleep(Duration::from_millis(number())).await;
                    self.note(format!("waited {}", event.data()));
                    Some(Reply::json(event.data().to_owned()))
                }
                "later" | "later_too" => {
                    let (time, text) = (number(), event.data().to_owned());
                    return Handled::Later(Box::pin(async move {
                        tokio::time::sleep(Duration::from_millis(time)).await;
                        Some(Reply::json(text))
                    }));
                }
                "later_held" => {
                    let (permits, text) = (Arc::clone(&self.permits), event.data().to_owned());
                    return Handled::Later(Box::pin(async move {
                        permits.acquire().await.unwrap().forget();
                        Some(Reply::json(text))
                    }));
                }
                "authenticate" => {
                    client.set_authenticated();
                    client.emit(&Event::new("authenticated", r#"{"user_id":1}"#));
                    Some(Reply::json(r#"{"success":true}"#))
                }
                "flood" => {
                    let event = Event::new("flood", format!("\"{}\"", "x".repeat(10_000)));
                    (0..number()).for_each(|_| client.emit(&event));
                    None
                }
                "kick" => {
                    client.emit(&Event::new("bye", "1"));
                    client.close(CloseReason::Kicked(4403));
                    client.emit(&Event::new("after", "1"));
                    None
                }
                "panic" => panic!("a handler that is broken"),
                _ => {
                    client.emit(&Event::new("error", r#"{"code":"BAD_REQUEST"}"#));
                    Some(Reply::json(r#"{"success":false}"#))
                }
            };
            Handled::Done(reply)
        })
    }

    fn may_overlap(&self, name: &str) -> bool {
        name.starts_with("later")
    }

    fn malformed(&self, client: &Client<Self>, problem: Malformed) {
        self.note(format!("malformed {problem:?}"));
        client.emit(&Event::new("error", format!("{{\"message\":\"{problem:?}\"}}")));
    }

    fn malformed_reply(&self, problem: Malformed) -> Option<Reply> {
        Some(Reply::json(format!("{{\"success\":false,\"problem\":\"{problem:?}\"}}")))
    }

    fn unauthenticated(&self, client: &Client<Self>) {
        client.emit(&Event::new("error", r#"{"code":"UNAUTHENTICATED"}"#));
    }

    fn disconnected(&self, client: &Client<Self>, reason: CloseReason) {
        self.note(format!("gone {} {reason:?}", client.namespace()));
        self.clients.lock().unwrap().retain(|known| known.id() != client.id());
    }

    fn message<'a>(&'a self, client: &'a Client<Self>, message: Message) -> BoxFuture<'a, ()> {
        client.send(message);
        Box::pin(std::future::ready(()))
    }
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) edge: Edge<Service>,
    pub(crate) service: Arc<Service>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) served: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub(crate) fn config() -> EdgeConfig {
    EdgeConfig {
        origins: Origins::List(vec!["http://app.example.test".into()]),
        namespaces: vec!["/".into(), "/custom".into()],
        // The test's clients do not hang up by themselves.
        close_timeout: Duration::from_millis(400),
        ..EdgeConfig::default()
    }
}

/// Short intervals, for tests about time.
pub(crate) fn hasty() -> EdgeConfig {
    EdgeConfig {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        auth_timeout: Duration::from_secs(30),
        ..config()
    }
}

pub(crate) fn router(edge: &Edge<Service>) -> Router {
    let mount = |edge: &Edge<Service>| {
        let edge = edge.clone();
        any(move |request: Request| async move { edge.socket_io(request).await })
    };
    let (plain, engine) = (edge.clone(), edge.clone());
    Router::new()
        .route("/socket.io", mount(edge))
        .route("/socket.io/", mount(edge))
        .route("/engine.io/", any(move |request: Request| async move { engine.engine_io(request).await }))
        .route("/ws", any(move |request: Request| async move { plain.plain(request).await }))
        .route(
            "/peer",
            get(|request: Request| async move { format!("{:?}", request.extensions().get::<edge::Peer>()) }),
        )
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                "done"
            }),
        )
}

impl Server {
    pub(crate) async fn start(config: EdgeConfig) -> Self {
        Self::start_with(config, ServeConfig::default()).await
    }

    pub(crate) async fn start_with(config: EdgeConfig, serve: ServeConfig) -> Self {
        let listener = edge::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let service = Arc::new(Service {
            permits: Arc::new(Semaphore::new(0)),
            log: Mutex::default(),
            clients: Mutex::default(),
        });
        let edge = Edge::new(config, Arc::clone(&service));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(edge::serve(listener, serve, router(&edge), async {
            let _ = stopped.await;
        }));
        Self { addr, edge, service, stop: Some(stop), served }
    }

    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Socket.IO by WebSocket, after its open packet.
    pub(crate) async fn socket_io(&self) -> Ws {
        let mut ws = self.ws("/socket.io/?EIO=4&transport=websocket").await;
        assert!(ws.text().await.starts_with("0{"));
        ws
    }

    /// The same, let in as authenticated.
    pub(crate) async fn socket_io_in(&self) -> Ws {
        let mut ws = self.socket_io().await;
        ws.send_text("40{\"token\":\"good\"}").await;
        assert!(ws.text().await.starts_with("40{\"sid\":\""));
        assert_eq!(ws.text().await, r#"42["auth",{"token":"good"}]"#);
        ws
    }

    /// The plain dialect, let in as authenticated.
    pub(crate) async fn plain_in(&self) -> Ws {
        let mut ws = self.ws("/ws?token=good").await;
        assert_eq!(ws.text().await, r#"{"event":"auth","data":{}}"#);
        ws
    }

    pub(crate) async fn ws(&self, path: &str) -> Ws {
        match Ws::open(self.addr, path, "").await {
            Ok(ws) => ws,
            Err(head) => panic!("no upgrade: {head}"),
        }
    }

    /// One HTTP exchange on a connection of its own: status and body.
    pub(crate) async fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let (status, _, body) = self.http_full(method, path, headers, body).await;
        (status, body)
    }

    pub(crate) async fn http_full(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer");
        read.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    pub(crate) async fn wait_until(&self, what: impl Fn(&edge::Stats) -> bool) {
        let found = async {
            while !what(&self.edge.stats()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, found).await.is_err() {
            panic!("it never came to that: {:?}", self.edge.stats());
        }
    }
}

/// One frame as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// TCP or TLS.
pub(crate) trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Io for T {}

/// A WebSocket client without manners: what it sends is up to the test.
pub(crate) struct Ws {
    pub(crate) stream: Box<dyn Io>,
    pub(crate) head: String,
    buffer: Vec<u8>,
}

impl Ws {
    /// `Err` holds the answer's head if it is no upgrade.
    pub(crate) async fn open(addr: SocketAddr, path: &str, headers: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).await.unwrap();
        Self::open_on(stream, path, headers, &[]).await
    }

    /// Like `open`, with bytes sent right behind the request.
    pub(crate) async fn open_on(
        stream: impl Io + 'static,
        path: &str,
        headers: &str,
        extra: &[u8],
    ) -> Result<Self, String> {
        let mut stream: Box<dyn Io> = Box::new(stream);
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
        .into_bytes();
        request.extend_from_slice(extra);
        stream.write_all(&request).await.unwrap();
        let mut buffer = Vec::new();
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = vec![0; 4096];
            let read =
                tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await.expect("an answer").unwrap();
            if read == 0 {
                return Err(String::from_utf8_lossy(&buffer).into_owned());
            }
            buffer.extend_from_slice(&chunk[..read]);
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(String::from_utf8_lossy(&buffer).into_owned());
        }
        Ok(Self { stream, head, buffer: buffer.split_off(end) })
    }

    pub(crate) async fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let bytes = frame(first, payload);
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes()).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(PATIENCE, self.next_slowly()).await.expect("a frame or the end in time")
    }

    async fn next_slowly(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                return Some(frame);
            }
            let mut chunk = vec![0; 65536];
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Some(Frame { opcode: 1, payload }) => String::from_utf8(payload).unwrap(),
            other => panic!("not a text: {other:?}"),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next frame is a close with this code, and then the server hangs up.
    pub(crate) async fn expect_close(&mut self, code: u16) {
        let frame = self.next().await.expect("a close frame");
        assert_eq!((frame.opcode, frame.payload.get(..2)), (8, Some(&code.to_be_bytes()[..])), "{frame:?}");
        assert_eq!(self.next().await, None);
    }

    /// The plain dialect's way: an `error` event that names the problem, then the close.
    pub(crate) async fn expect_error_and_close(&mut self, problem: &str, code: u16) {
        assert_eq!(
            self.text().await,
            format!("{{\"event\":\"error\",\"data\":{{\"message\":\"{problem}\"}}}}")
        );
        self.expect_close(code).await;
    }

    /// Nothing comes for a while.
    pub(crate) async fn expect_quiet(&mut self, time: Duration) {
        if let Ok(frame) = tokio::time::timeout(time, self.next_slowly()).await {
            panic!("it was not quiet: {frame:?}");
        }
    }
}

/// A masked frame of a client.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5A, 0x01, 0xFF, 0x33];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(first & 0xF0, 0x80, "servers send whole frames without reserved bits");
    assert_eq!(second & 0x80, 0, "servers do not mask");
    let (len, header) = match second {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize, 10),
        len => (len as usize, 2),
    };
    let payload = bytes.get(header..header + len)?.to_vec();
    Some((Frame { opcode: first & 0x0F, payload }, header + len))
}
