//! Webhooks through the public door: what a receiver gets, what it costs it to fail, and the dead letters.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[expect(dead_code, reason = "nobody listens live here but once")]
#[path = "../nodes/client.rs"]
mod client;
#[expect(dead_code, reason = "these nodes share a database alone")]
#[path = "../nodes/nodes.rs"]
mod nodes;
#[expect(dead_code, reason = "these nodes share a database alone")]
#[path = "../nodes/redis_server.rs"]
mod redis_server;
#[expect(dead_code, reason = "nothing is run past the store here")]
#[path = "../support/mod.rs"]
mod support;

/// `LOG=debug` shows what the nodes say.
pub(crate) fn show_logs() {
    if let Ok(level) = std::env::var("LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).try_init();
    }
}

mod dead_letters;
mod delivery;
mod failures;
mod queue;
mod receiver;
mod service;
