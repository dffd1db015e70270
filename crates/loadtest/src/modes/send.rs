//! `send`: an open loop. Messages are due when they are due; a slow service makes them wait, not fewer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::stage::Stage;
use crate::{
    cli::{Messages, Send},
    pace::{self, Arrivals, Random, Schedule, Stop},
    report::{Figure, Report},
};

/// From the last preparation to the first message that is due.
pub(super) const HEAD_START_NS: u64 = 200_000_000;
/// How often the sender looks whether the service still follows.
const LOOK_EVERY: u64 = 512;
/// With so many seconds' messages unanswered, more of them tell nothing.
const GIVE_UP_S: f64 = 10.0;

/// Runs it.
pub async fn run(options: &Send) -> Result<Report, String> {
    let stage = Stage::new(&options.common, options.connections & !1, Some(&options.messages))?;
    stage.connect(options.common.in_flight).await?;
    stage.pair_all();
    stage.begin_conversations().await?;
    let schedule = schedule(&stage, &options.messages, options.rate, options.arrivals);
    let (from_ns, until_ns) = (schedule.from_ns, schedule.until_ns);
    let stop = Stop::default();
    let pacing = drive(&stage, schedule, options.common.seed, Arc::clone(&stop));
    let warm_ns = from_ns + (options.messages.warm_up * 1e9) as u64;
    sleep_until(&stage, warm_ns).await;
    let before = stage.snapshot();
    sleep_until(&stage, until_ns).await;
    let gave_up = pacing.await.map_err(|error| format!("the pacing thread failed: {error}"))?;
    let after = stage.snapshot();
    let measured_s = options.messages.duration;
    let counts = stage.recorder().finish().measured;
    let mut figures = vec![
        Figure::number("messages a second, wanted", options.rate, ""),
        Figure::number("messages a second, sent", counts.sent as f64 / measured_s, ""),
        Figure::number("messages a second, delivered", counts.delivered as f64 / measured_s, ""),
        Figure::number("events a second, received", counts.events as f64 / measured_s, ""),
    ];
    figures.extend(cpu_per_message(&before, &after, counts.confirmed));
    let mut notes = Vec::new();
    if gave_up {
        notes.push(format!(
            "The service did not keep up: with {GIVE_UP_S} s of messages unanswered, the sending ended early."
        ));
    }
    let mut report = stage.end("send", figures, notes).await;
    describe(&mut report, &options.messages, options.connections & !1);
    report.setting("arrivals", options.arrivals);
    report.is_clean &= !gave_up;
    Ok(report)
}

/// The open loop's times.
pub(super) fn schedule(stage: &Stage, messages: &Messages, rate: f64, arrivals: Arrivals) -> Schedule {
    let from_ns = stage.recorder().now_ns() + HEAD_START_NS;
    let warm_ns = from_ns + (messages.warm_up * 1e9) as u64;
    let until_ns = warm_ns + (messages.duration * 1e9) as u64;
    stage.recorder().measure(warm_ns, until_ns);
    Schedule { rate, arrivals, from_ns, until_ns }
}

/// Sends by the schedule from a thread of its own; answers whether it gave up because the service did not follow.
pub(super) fn drive(
    stage: &Stage,
    schedule: Schedule,
    seed: u64,
    stop: Stop,
) -> tokio::task::JoinHandle<bool> {
    let (run, users) = (Arc::clone(&stage.run), stage.users.clone());
    let most_open = (schedule.rate * GIVE_UP_S) as u64 + 1000;
    tokio::task::spawn_blocking(move || {
        let (mut sent, mut gave_up) = (0_u64, false);
        pace::run(&run.recorder, &schedule, &mut Random(seed), &stop, |scheduled_ns, random| {
            let first = random.below(users.len());
            // Whoever is away cannot send; the next one does instead.
            let is_sent = (0..users.len()).any(|step| {
                let user = &users[(first + step) % users.len()];
                user.send(random.below(user.thread_count()), scheduled_ns)
            });
            sent += 1;
            if sent.is_multiple_of(LOOK_EVERY) {
                let total = run.recorder.total();
                gave_up = total.sent - total.confirmed - total.refused > most_open;
            }
            is_sent && !gave_up
        });
        gave_up
    })
}

/// Sleeps until a moment in the recorder's time.
pub(super) async fn sleep_until(stage: &Stage, ns: u64) {
    tokio::time::sleep_until(stage.recorder().instant(ns).into()).await;
}

/// What a message costs everybody.
pub(super) fn cpu_per_message(
    before: &crate::usage::Snapshot,
    after: &crate::usage::Snapshot,
    messages: u64,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    if messages == 0 {
        return figures;
    }
    // A second long: shares then are seconds of CPU.
    let used = after.since(before, Duration::from_secs(1));
    let micros = |seconds: f64| seconds * 1e6 / messages as f64;
    if let Some(service) = used.service {
        figures.push(Figure::number("CPU per message: service", micros(service), "µs"));
    }
    for (name, share) in &used.watched {
        figures.push(Figure::number(format!("CPU per message: {name}"), micros(*share), "µs"));
    }
    figures.push(Figure::number("CPU per message: load generator", micros(used.load_generator), "µs"));
    figures
}

/// Adds the settings of messages.
pub(super) fn describe(report: &mut Report, messages: &Messages, connections: u32) {
    report.setting("connections", connections);
    report.setting("bytes of a message", messages.size);
    report.setting("client_message_id", if messages.no_client_ids { "no" } else { "yes" });
    report.setting("confirmation", if messages.ack { "ack" } else { "message_sent" });
    report.setting("warm-up, s", messages.warm_up);
    report.setting("measured, s", messages.duration);
}

/// Raises a stop.
pub(super) fn raise(stop: &AtomicBool) {
    stop.store(true, Relaxed);
}
