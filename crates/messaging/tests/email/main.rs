//! E-mail about unread messages, through the public doors: REST on one side, SMTP on the other.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[path = "../support/mod.rs"]
mod support;

mod contents;
mod failures;
mod nodes;
mod rules;
mod smtp_server;
mod world;
