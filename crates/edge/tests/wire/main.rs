//! The edge over real sockets: what clients of every kind see. One program, so that it is linked once.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be had may panic")]

mod limits;
mod plain;
mod polling;
mod serve;
mod socket_io;
mod support;
mod websocket;
