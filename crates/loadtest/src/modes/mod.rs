//! What can be done to a service. Each mode is one file: it makes users, lets them act, and answers a report.

pub mod connect;
pub mod echo;
pub mod figure;
pub mod flood;
pub mod main_api;
pub mod reconnect;
pub mod rest;
pub mod send;
pub mod soak;
pub mod stage;
pub mod start;
