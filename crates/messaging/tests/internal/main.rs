//! The main API's own calls and the import of its history, through the public door, on both databases.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod erase;
mod import;
mod keys;
mod posting;
mod service;
mod sessions;
#[expect(dead_code, reason = "no store is opened past the service here")]
#[path = "../support/mod.rs"]
mod support;
