//! A bare WebSocket echo for suites that test WebSocket itself (tests/interop/autobahn).
//!
//! `cargo run -p edge --example echo -- [--port 9001]`: every address echoes text and binary messages.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use edge::{
    BoxFuture, Client, ClientEvent, CloseReason, Edge, EdgeConfig, Handled, Handler, Hello, Malformed,
    Message, Origins, Refusal, ServeConfig,
};

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn connect<'a>(&'a self, client: &'a Client<Self>, _hello: Hello) -> BoxFuture<'a, Result<(), Refusal>> {
        client.set_authenticated();
        Box::pin(std::future::ready(Ok(())))
    }

    fn event<'a>(&'a self, _client: &'a Client<Self>, _event: ClientEvent) -> BoxFuture<'a, Handled> {
        Box::pin(std::future::ready(Handled::Done(None)))
    }

    fn malformed(&self, _client: &Client<Self>, _problem: Malformed) {}

    fn unauthenticated(&self, _client: &Client<Self>) {}

    fn disconnected(&self, _client: &Client<Self>, _reason: CloseReason) {}

    fn message<'a>(&'a self, client: &'a Client<Self>, message: Message) -> BoxFuture<'a, ()> {
        client.send(message);
        Box::pin(std::future::ready(()))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let port = args.iter().position(|arg| arg == "--port").and_then(|at| args.get(at + 1));
    let Ok(port) = port.map_or(Ok(9001), |port| port.parse()) else {
        eprintln!("usage: echo [--port PORT]");
        return ExitCode::FAILURE;
    };
    let config = EdgeConfig {
        // The largest messages of the suite have 16 MB.
        max_payload: 20 << 20,
        queue_bytes: 64 << 20,
        slow_after: Duration::from_secs(60),
        events_per_second: 0,
        origins: Origins::Any,
        bare_messages: true,
        ..EdgeConfig::default()
    };
    let edge = Edge::new(config, Arc::new(Echo));
    let router = Router::new().fallback(move |mut request: Request| {
        let edge = edge.clone();
        async move {
            *request.uri_mut() = Uri::from_static("/engine.io/?EIO=4&transport=websocket");
            edge.engine_io(request).await
        }
    });
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
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
