//! The service under a heap profiler: where the bytes of idle connections are (docs/memory.md).
//!
//! Configured as the service is. The first SIGUSR1 prints what is allocated, the second one too and
//! writes `dhat-heap.json`, whose `eb` are the bytes alive at that moment; then it ends.

use std::io;

use axum::Router;
use messaging::{clock::Clock, config::Config, server};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Deep enough to reach our own code under tokio's and hyper's.
const FRAMES: usize = 40;

fn main() -> io::Result<()> {
    let profiler = dhat::Profiler::builder().trim_backtraces(Some(FRAMES)).build();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(profiler))
}

#[expect(clippy::print_stderr, reason = "a figure for whoever profiles")]
async fn serve(profiler: dhat::Profiler) -> io::Result<()> {
    let config = Config::load().map_err(|error| io::Error::other(error.to_string()))?;
    let listener = server::listen(&config).await.map_err(|error| io::Error::other(error.to_string()))?;
    let mut asked = signal(SignalKind::user_defined1())?;
    let serving = server::run(config, listener, Router::new(), Clock::System, std::future::pending());
    let asking = async {
        for _ in 0..2 {
            asked.recv().await;
            let now = dhat::HeapStats::get();
            eprintln!("{} bytes in {} blocks", now.curr_bytes, now.curr_blocks);
        }
        drop(profiler);
    };
    tokio::select! {
        outcome = serving => outcome.map_err(|error| io::Error::other(error.to_string())),
        () = asking => Ok(()),
    }
}
