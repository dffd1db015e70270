//! A server for the public Engine.IO 4 and Socket.IO 5 protocol test suites.
//!
//! `cargo run --release -p edge --example conformance -- --port 3000`
//!
//! `/engine.io/` echoes text and binary. `/socket.io/` serves the namespaces `/` and `/custom`: it emits `auth`
//! with the CONNECT payload, answers `message` by `message-back`, `message-with-ack` by an ack, and
//! `emit-with-ack` by an event that itself wants an ack, whose arguments it then emits. `/ws` speaks the plain
//! dialect likewise.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use edge::{
    BoxFuture, Client, ClientEvent, CloseReason, Edge, EdgeConfig, Event, Handled, Handler, Hello, Malformed,
    Message, Origins, Refusal, Reply, ServeConfig,
};

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn connect<'a>(&'a self, client: &'a Client<Self>, hello: Hello) -> BoxFuture<'a, Result<(), Refusal>> {
        client.set_authenticated();
        client.emit(&Event::new(
            "auth",
            hello.auth.map_or_else(|| "{}".to_owned(), |raw| raw.get().to_owned()),
        ));
        Box::pin(std::future::ready(Ok(())))
    }

    fn event<'a>(&'a self, client: &'a Client<Self>, event: ClientEvent) -> BoxFuture<'a, Handled> {
        let args = event.args.into_iter().map(|arg| String::from(Box::<str>::from(arg)).into());
        let reply = match event.name.as_str() {
            "message" => {
                client.emit(&Event::with_args("message-back", args, event.attachments));
                None
            }
            "message-with-ack" => Some(Reply::args(args, event.attachments)),
            "emit-with-ack" => {
                let answer =
                    client.emit_with_ack(&Event::with_args("emit-with-ack", args, event.attachments));
                let client = client.clone();
                tokio::spawn(async move {
                    if let Ok(ack) = answer.await {
                        let args = ack.args.into_iter().map(|arg| String::from(Box::<str>::from(arg)).into());
                        client.emit(&Event::with_args("emit-with-ack", args, ack.attachments));
                    }
                });
                None
            }
            _ => None,
        };
        Box::pin(std::future::ready(Handled::Done(reply)))
    }

    fn malformed(&self, client: &Client<Self>, problem: Malformed) {
        client.emit(&Event::new("error", format!("{{\"message\":\"{problem}\"}}")));
    }

    fn unauthenticated(&self, _client: &Client<Self>) {}

    fn disconnected(&self, _client: &Client<Self>, _reason: CloseReason) {}

    fn message<'a>(&'a self, client: &'a Client<Self>, message: Message) -> BoxFuture<'a, ()> {
        client.send(message);
        Box::pin(std::future::ready(()))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(port) = port() else {
        eprintln!("usage: conformance [--port PORT]");
        return ExitCode::FAILURE;
    };
    let config = EdgeConfig {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        max_payload: 1_000_000,
        namespaces: vec!["/".into(), "/custom".into()],
        origins: Origins::Any,
        ..EdgeConfig::default()
    };
    let edge = Edge::new(config, Arc::new(Echo));
    let mount = |answer: fn(Edge<Echo>, Request) -> BoxFuture<'static, axum::response::Response>| {
        let edge = edge.clone();
        any(move |request: Request| answer(edge, request))
    };
    let router = Router::new()
        .route("/socket.io", mount(|edge, request| Box::pin(async move { edge.socket_io(request).await })))
        .route("/socket.io/", mount(|edge, request| Box::pin(async move { edge.socket_io(request).await })))
        .route("/engine.io/", mount(|edge, request| Box::pin(async move { edge.engine_io(request).await })))
        .route("/ws", mount(|edge, request| Box::pin(async move { edge.plain(request).await })));
    let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let served = async {
        let listener = edge::listen(addr)?;
        edge::serve(listener, ServeConfig::default(), router, std::future::pending()).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve on {addr}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The port on the command line; 3000 if there is none.
fn port() -> Option<u16> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (None, _) => Some(3000),
        (Some("--port"), Some(port)) => port.parse().ok(),
        _ => None,
    }
}
