//! Uploaded files: their records, and the way through the public door.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[path = "../support/mod.rs"]
mod support;

mod door;
mod records;
