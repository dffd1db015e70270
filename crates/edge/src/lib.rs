//! Live connections: Engine.IO 4, Socket.IO 5 and plain WebSocket frames of `{"event","data"}`.
//!
//! This crate owns sockets, framing, heartbeats, queues and limits, and knows nothing of messaging: a service
//! implements [`Handler`] and mounts an [`Edge`] in its router. Start with [`handler`] for what a service
//! sees, [`edge`] for what it mounts, [`config`] for every limit and [`serve()`] for the accept loop.

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
pub use serve::{Peer, ServeConfig, serve};
pub use tls::{Tls, TlsError};
