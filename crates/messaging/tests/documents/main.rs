//! What the service says of itself: its documents against what it really answers, and its metrics.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod asyncapi;
mod contract;
mod metrics;
mod openapi;
mod service;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "these tests look at the database through the public door alone")]
mod support;
