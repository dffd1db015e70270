//! `soak`: steady messages for long while connections are lost and come back, each catching up by `since`.
//!
//! The checker sees through the gaps: a user's log goes on where it was, whatever happened between.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    send::{describe, drive, raise, schedule, sleep_until},
    stage::Stage,
};
use crate::{
    cli::Soak,
    pace::{Arrivals, Random, Stop},
    report::{Figure, Report, grouped},
    user::User,
};

/// How often someone tries to come back before it counts as a fault.
const ATTEMPTS: u32 = 5;

/// Runs it.
pub async fn run(options: &Soak) -> Result<Report, String> {
    let stage = Stage::new(&options.common, options.connections & !1, Some(&options.messages))?;
    stage.connect(options.common.in_flight).await?;
    stage.pair_all();
    stage.begin_conversations().await?;
    let schedule = schedule(&stage, &options.messages, options.rate, Arrivals::Poisson);
    let until_ns = schedule.until_ns;
    let before = stage.snapshot();
    let stop = Stop::default();
    let pacing = drive(&stage, schedule, options.common.seed, Arc::clone(&stop));
    let losses = lose(&stage, options, until_ns).await;
    let gave_up = pacing.await.map_err(|error| format!("the pacing thread failed: {error}"))?;
    raise(&stop);
    let counts = stage.recorder().finish().measured;
    let mut figures = vec![
        Figure::number("messages a second", counts.confirmed as f64 / options.messages.duration, ""),
        Figure::number("connections lost and back", losses as f64, ""),
    ];
    if let (Some(first), Some(last)) = (before.service(), stage.snapshot().service()) {
        figures.push(Figure::text(
            "service's resident memory",
            format!(
                "{} MB at the beginning, {} MB at the end",
                grouped(first.resident as f64 / 1e6),
                grouped(last.resident as f64 / 1e6)
            ),
        ));
        let rows = stage.recorder().finish().rows;
        let slope = growth(rows.iter().filter_map(|row| Some((row.at_s, row.resident? as f64))));
        figures.push(Figure::number("growth of it over the second half", slope * 3600.0 / 1e6, "MB an hour"));
    }
    let notes = if gave_up {
        vec!["The service did not keep up; the sending ended early.".into()]
    } else {
        Vec::new()
    };
    let mut report = stage.end("soak", figures, notes).await;
    describe(&mut report, &options.messages, options.connections & !1);
    report.setting("connections lost a second", options.churn);
    report.is_clean &= !gave_up;
    Ok(report)
}

/// Takes connections away until the end, and waits until all are back.
async fn lose(stage: &Stage, options: &Soak, until_ns: u64) -> u64 {
    let mut random = Random(options.common.seed ^ 0x50a4);
    let mut returning = JoinSet::new();
    let mut losses = 0;
    let every_ns = (1e9 / options.churn.max(1e-9)).min(1e18) as u64;
    let mut next_ns = stage.recorder().now_ns() + every_ns;
    while next_ns < until_ns {
        sleep_until(stage, next_ns).await;
        next_ns += every_ns;
        let user = &stage.users[random.below(stage.users.len())];
        if !user.is_live() {
            continue;
        }
        user.leave(random.below(2) == 0);
        losses += 1;
        let away = Duration::from_millis(300 + random.below(2700) as u64);
        let (user, run) = (Arc::clone(user), Arc::clone(&stage.run));
        returning.spawn(async move {
            tokio::time::sleep(away).await;
            if let Err(reason) = come_back(&user).await {
                run.recorder.fault(|faults| *faults.disconnected.entry(reason).or_default() += 1);
            }
        });
        while returning.try_join_next().is_some() {}
    }
    sleep_until(stage, until_ns).await;
    while returning.join_next().await.is_some() {}
    losses
}

async fn come_back(user: &Arc<User>) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        match user.connect().await {
            Ok(()) => return Ok(()),
            Err(reason) if attempt >= ATTEMPTS => return Err(format!("never came back: {reason}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(200 << attempt)).await,
        }
        attempt += 1;
    }
}

/// Bytes a second over the later half, by least squares.
fn growth(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<_> = points.collect();
    let half = &points[points.len() / 2..];
    let count = half.len() as f64;
    if half.len() < 2 {
        return 0.0;
    }
    let mean = |value: fn(&(f64, f64)) -> f64| half.iter().map(value).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in half {
        above += (x - mean_x) * (y - mean_y);
        below += (x - mean_x) * (x - mean_x);
    }
    if below > 0.0 { above / below } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn growth_is_the_slope_of_the_later_half() {
        let points = (0..100).map(|x| (f64::from(x), if x < 50 { 0.0 } else { 3.0 * f64::from(x) }));
        assert!((growth(points) - 3.0).abs() < 1e-9);
        assert_eq!(growth(std::iter::once((1.0, 1.0))), 0.0);
    }
}
