//! `connect`: idle connections, and what they cost the service.

use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::{
    cli::Connect,
    report::{Figure, Report, grouped},
};

/// After connecting, buffers of handshakes are still being given back.
const CALM: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(options: &Connect) -> Result<Report, String> {
    let stage = Stage::new(&options.common, options.connections, None)?;
    let before = stage.snapshot();
    let began = Instant::now();
    let took = stage.connect(options.common.in_flight).await?;
    let connecting = began.elapsed();
    let connected = stage.snapshot();
    let count = f64::from(options.connections.max(1));
    let mut figures = vec![
        Figure::number("connections", count, ""),
        Figure::number("connects a second", count / connecting.as_secs_f64(), ""),
        Figure::number(
            "slowest connect",
            took.iter().max().map_or(0.0, Duration::as_secs_f64) * 1000.0,
            "ms",
        ),
    ];
    if let (Some(now), Some(before)) = (connected.service_cpu(), before.service_cpu()) {
        let each = now.saturating_sub(before).as_secs_f64() / count;
        figures.push(Figure::number("service's CPU per connect", each * 1e6, "µs"));
    }
    tokio::time::sleep(CALM).await;
    let calm = stage.snapshot();
    if let (Some(now), Some(before)) = (calm.service(), before.service()) {
        let each = |now: u64, before: u64| (now as f64 - before as f64) / count;
        figures.push(Figure::number(
            "service's resident memory per connection",
            each(now.resident, before.resident),
            "bytes",
        ));
        figures.push(Figure::number("of it anonymous", each(now.anonymous, before.anonymous), "bytes"));
        figures.push(Figure::text(
            "service's resident memory",
            format!(
                "{} MB, before {} MB",
                grouped(now.resident as f64 / 1e6),
                grouped(before.resident as f64 / 1e6)
            ),
        ));
    }
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(options.hold)).await;
    let end = stage.snapshot();
    if let (Some(now), Some(before)) = (end.service_cpu(), calm.service_cpu()) {
        let each = now.saturating_sub(before).as_secs_f64() / count / began.elapsed().as_secs_f64();
        figures.push(Figure::number("service's CPU per idle connection and second", each * 1e6, "µs"));
    }
    if let (Some(now), Some(before)) = (end.service(), before.service()) {
        let each = (now.resident as f64 - before.resident as f64) / count;
        figures.push(Figure::number("resident memory per connection at the end", each, "bytes"));
    }
    let live = stage.recorder().connections();
    figures.push(Figure::number("still live at the end", live as f64, ""));
    let mut notes = Vec::new();
    if options.hold < 55.0 {
        notes.push(format!("Held for {} s only: less than two heartbeats of 25 s.", options.hold));
    }
    let mut report = stage.end("connect", figures, notes).await;
    report.setting("sockets connecting at once", options.common.in_flight);
    report.setting("held, s", options.hold);
    Ok(report)
}
