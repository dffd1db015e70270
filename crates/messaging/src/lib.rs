//! Rented Messaging: the service that carries every conversation of a rental marketplace.
//!
//! `ARCHITECTURE.md` has the picture; imports point downward only:
//! `http` and `socket` → `chat` → `storage`, `delivery`, `identity`.

pub mod chat;
pub mod clock;
pub mod config;
pub mod content;
pub mod context;
pub mod delivery;
pub mod demo;
pub mod documents;
pub mod errors;
pub mod files;
pub mod http;
pub mod identity;
pub mod ids;
pub mod import;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod outbound;
pub mod probe;
pub mod quiet_hours;
pub mod reports;
pub mod server;
pub mod shared;
pub mod socket;
pub mod storage;
pub mod traces;
pub mod webhooks;
