//! Who is notified of what, through the public door, with stand-ins that speak the push services' protocols.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../nodes/client.rs"]
mod client;
#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../nodes/nodes.rs"]
mod nodes;
#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../nodes/redis_server.rs"]
mod redis_server;
#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../support/mod.rs"]
mod support;

/// `LOG=debug` shows what the nodes say.
pub(crate) fn show_logs() {
    if let Ok(level) = std::env::var("LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).try_init();
    }
}

mod answers;
mod apple;
mod browser;
mod counts;
mod crash;
mod fcm;
mod several;
mod who;
mod world;
