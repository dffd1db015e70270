//! Live connections: Engine.IO 4, Socket.IO 5 and plain WebSocket frames of `{"event","data"}`.
//!
//! This crate owns sockets, framing, heartbeats, queues and limits, and knows nothing of messaging: a service
//! implements [`Handler`] and mounts an [`Edge`] in its router. Start with [`handler`] for what a service
//! sees, [`edge`] for what it mounts, [`config`] for every limit and [`serve()`] for the accept loop.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use axum::{Router, extract::Request, routing::any};
//! use edge::{
//!     BoxFuture, Client, ClientEvent, CloseReason, Edge, EdgeConfig, Event, Handled, Handler, Hello, Malformed,
//!     Refusal, Reply, ServeConfig, listen, serve,
//! };
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Session = ();
//!
//!     fn connect<'a>(&'a self, client: &'a Client<Self>, hello: Hello) -> BoxFuture<'a, Result<(), Refusal>> {
//!         Box::pin(async move {
//!             if hello.token().is_none() {
//!                 return Err(Refusal::new("UNAUTHENTICATED", "A token is needed."));
//!             }
//!             client.set_authenticated();
//!             client.emit(&Event::new("authenticated", r#"{"user_id":1}"#));
//!             Ok(())
//!         })
//!     }
//!
//!     fn event<'a>(&'a self, _client: &'a Client<Self>, event: ClientEvent) -> BoxFuture<'a, Handled> {
//!         Box::pin(async move { Handled::Done(Some(Reply::json(event.data().to_owned()))) })
//!     }
//!
//!     fn malformed(&self, client: &Client<Self>, problem: Malformed) {
//!         client.emit(&Event::new("error", format!("{{\"message\":\"{problem}\"}}")));
//!     }
//!
//!     fn unauthenticated(&self, client: &Client<Self>) {
//!         client.emit(&Event::new("error", r#"{"code":"UNAUTHENTICATED"}"#));
//!     }
//!
//!     fn disconnected(&self, _client: &Client<Self>, _reason: CloseReason) {}
//! }
//!
//! # async fn run() -> std::io::Result<()> {
//! let edge = Edge::new(EdgeConfig::default(), Arc::new(Echo));
//! let router = Router::new().route(
//!     "/socket.io/",
//!     any(move |request: Request| async move { edge.socket_io(request).await }),
//! );
//! let listener = listen(([127, 0, 0, 1], 3001).into())?;
//! serve(listener, ServeConfig::default(), router, std::future::pending()).await
//! # }
//! ```

pub mod client;
pub mod codec;
pub mod config;
pub mod edge;
pub mod event;
pub mod handler;
pub mod origins;
pub mod proxies;
pub mod serve;
pub mod tls;

mod driver;
mod handshake;
mod link;
mod polling;
mod shared;
mod sync;
mod wheel;

pub use client::{Ack, Client, NoAck};
pub use config::EdgeConfig;
pub use edge::{Edge, Stats};
pub use event::{Event, Message, Reply};
pub use futures_util::future::BoxFuture;
pub use handler::{
    ClientEvent, CloseReason, Dialect, Handled, Handler, Hello, Malformed, Refusal, strip_bearer,
};
pub use origins::Origins;
pub use proxies::TrustedProxies;
pub use serve::{Peer, ServeConfig, listen, serve};
pub use tls::{Tls, TlsError};
