//! Who is connected here, and how events reach them in the order of their logs.
//!
//! Knows users, connections and encoded events, nothing of conversations. What an event says is
//! decided in `chat`; how it travels over a wire, in the crate `edge`.

pub mod bus;
pub mod hub;
pub mod leases;
pub mod receiver;
