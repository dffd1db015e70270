//! Several nodes over one database and one Redis, through the public door; and what they do without Redis.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[expect(dead_code, reason = "no store is opened past the service here")]
#[path = "../support/mod.rs"]
mod support;

/// `LOG=debug` shows what the nodes say.
pub(crate) fn show_logs() {
    if let Ok(level) = std::env::var("LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).try_init();
    }
}

mod client;
mod database;
mod delivery;
mod healing;
mod internal;
mod limits;
#[expect(dead_code, reason = "nodes that are processes of their own are in tests/notifications alone")]
mod nodes;
mod presence;
mod proxy;
mod redis_server;
mod tokens;
mod topologies;
