//! Clients of a messaging service by the thousand, and a checker that sees everything.
//!
//! `modes` decides what users do, `user` what one does, `wire` how it is said; `check` judges, `record` and
//! `report` tell. It knows the wire contract and shares no code with the service.

pub mod check;
pub mod cli;
pub mod marker;
pub mod modes;
pub mod pace;
pub mod record;
pub mod report;
pub mod usage;
pub mod user;
pub mod wire;
