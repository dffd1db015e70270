//! The wire as clients see it: WebSocket frames, the two dialects, the events' shapes, one socket.
//!
//! Knows the contract and nothing of the service behind it; shares no code with the service, so that a
//! mistake there is not made here a second time. Who talks with whom is in `crate::user`.

pub mod event;
pub mod frame;
pub mod http;
pub mod link;
pub mod packet;
pub mod target;
