//! `reconnect`: everybody loses the connection at the same moment and wants back at once.

use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;

use super::stage::Stage;
use crate::{
    cli::Reconnect,
    report::{Figure, Report},
    wire::{http::Http, target::Target},
};

/// Between the loss and the return: the service notices that they are gone.
const PAUSE: Duration = Duration::from_secs(2);

/// What the stand-in main API counted.
#[derive(Debug, Deserialize)]
struct Calls {
    user_calls: u64,
    most_per_token: u64,
}

/// Runs it.
pub async fn run(options: &Reconnect) -> Result<Report, String> {
    let main_api = options.main_api.as_deref().map(Target::parse).transpose()?;
    if let Some(target) = &main_api {
        Http::open(target, 0).await?.request(Method::DELETE, "/calls", None).await?;
    }
    let stage = Stage::new(&options.common, options.connections, None)?;
    let before = Instant::now();
    // The first time, tokens are new to the service; a crowd at its usual pace.
    stage.connect(256).await?;
    let mut figures =
        vec![Figure::number("first connect, tokens unknown", before.elapsed().as_secs_f64(), "s")];
    let mut totals = Vec::new();
    let mut all = Vec::new();
    for round in 1..=options.rounds.max(1) {
        for user in &stage.users {
            user.leave(true);
        }
        tokio::time::sleep(PAUSE).await;
        let before = stage.snapshot();
        let began = Instant::now();
        all = stage.connect(options.common.in_flight).await?;
        let total = began.elapsed().as_secs_f64();
        totals.push(total);
        figures.push(Figure::number(format!("round {round}: all live after"), total, "s"));
        if let (Some(now), Some(before)) = (stage.snapshot().service_cpu(), before.service_cpu()) {
            let used = now.saturating_sub(before).as_secs_f64();
            figures.push(Figure::number(format!("round {round}: service's CPU"), used, "s"));
        }
    }
    totals.sort_by(f64::total_cmp);
    figures.push(Figure::number("all live after, median round", totals[totals.len() / 2], "s"));
    all.sort();
    for (name, share) in [("half", 0.5), ("99 of 100", 0.99)] {
        let place = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
        let took = all.get(place).copied().unwrap_or_default().as_secs_f64();
        figures.push(Figure::number(format!("last round: {name} live within"), took, "s of their own start"));
    }
    let mut notes = Vec::new();
    let mut is_clean = true;
    if let Some(target) = &main_api {
        let answer = Http::open(target, 0).await?.request(Method::GET, "/calls", None).await?;
        let calls: Calls = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("{target:?} is no stand-in main API: {error}"))?;
        figures.push(Figure::number("main-API calls", calls.user_calls as f64, ""));
        figures.push(Figure::number("main-API calls per token, most", calls.most_per_token as f64, ""));
        if calls.most_per_token > 1 {
            is_clean = false;
            notes.push("Some token was checked with the main API more than once.".into());
        }
    }
    let mut report = stage.end("reconnect", figures, notes).await;
    report.setting("connections", options.connections);
    report.setting("rounds", options.rounds);
    let at_once =
        if options.common.in_flight == 0 { "all".into() } else { options.common.in_flight.to_string() };
    report.setting("sockets connecting at once", at_once);
    report.is_clean &= is_clean;
    Ok(report)
}
