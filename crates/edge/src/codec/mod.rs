//! The wire formats, free of I/O: WebSocket frames, Socket.IO packets and the plain dialect's JSON.
//!
//! Owns what is sound and what is not, byte by byte. Public so that fuzzers and other tools reach it; a service
//! needs none of it.

pub mod frame;
pub mod packet;
pub mod payload;
pub mod plain;
