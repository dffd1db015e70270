//! `flood`: a closed loop. Every sender always has so many messages on the way; the service sets the pace.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    send::{cpu_per_message, describe, sleep_until},
    stage::Stage,
};
use crate::{
    cli::Flood,
    report::{Figure, Report},
};

/// Runs it.
pub async fn run(options: &Flood) -> Result<Report, String> {
    let connections = options.connections & !1;
    let stage = Stage::new(&options.common, connections, Some(&options.messages))?;
    stage.connect(options.common.in_flight).await?;
    stage.pair_all();
    stage.begin_conversations().await?;
    let senders = options.senders.unwrap_or(connections).min(connections);
    let recorder = stage.recorder();
    let now_ns = recorder.now_ns();
    let warm_ns = now_ns + (options.messages.warm_up * 1e9) as u64;
    let until_ns = warm_ns + (options.messages.duration * 1e9) as u64;
    recorder.measure(warm_ns, until_ns);
    stage.run.is_closed_loop.store(true, Relaxed);
    for user in stage.users.iter().take(senders as usize) {
        for _ in 0..options.depth {
            user.send(0, recorder.now_ns());
        }
    }
    sleep_until(&stage, warm_ns).await;
    let before = stage.snapshot();
    sleep_until(&stage, until_ns).await;
    stage.run.is_closed_loop.store(false, Relaxed);
    let after = stage.snapshot();
    let counts = recorder.finish().measured;
    let each_second = |count: u64| count as f64 / options.messages.duration;
    // Stored, at both users and confirmed: the slowest of the three is the rate.
    let whole = counts.confirmed.min(counts.delivered).min(counts.echoed);
    let mut figures = vec![
        Figure::number("durable messages a second", each_second(whole), ""),
        Figure::number("confirmed a second", each_second(counts.confirmed), ""),
        Figure::number("delivered to the other user a second", each_second(counts.delivered), ""),
        Figure::number("events received a second", each_second(counts.events), ""),
    ];
    figures.extend(cpu_per_message(&before, &after, counts.confirmed));
    let mut report = stage.end("flood", figures, Vec::new()).await;
    describe(&mut report, &options.messages, connections);
    report.setting("senders", senders);
    report.setting("messages on the way per sender", options.depth);
    Ok(report)
}
