//! `/health`: the process lives. `/ready`: it can serve, by dependency.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::{AppState, answers::HealthAnswer, envelope::Success};

/// A database that takes longer than this to say yes is as good as away.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

/// `GET /health`: always 200 while the process answers at all.
pub(super) async fn get_health(State(state): State<AppState>) -> Response {
    let data = HealthAnswer { status: "ok", version: env!("CARGO_PKG_VERSION") };
    Success::ok(data).with_flat("status", "ok").at(state.clock.now())
}

/// `GET /ready`: 503 without the database or on the way out; 200 and degraded without the main API or Redis, or
/// where the database can be read and has no room.
pub(super) async fn get_ready(State(state): State<AppState>) -> Response {
    let (database, main_api) = tokio::join!(database(&state), main_api(&state));
    let is_leaving = state.is_leaving.load(Ordering::Relaxed);
    let is_up = |dependency: &Value| dependency["status"] == "up";
    // A full disk is no reason to refuse those who read.
    let is_full = database["status"] == "full";
    let redis = redis(&state);
    let is_whole = !is_full && is_up(&main_api) && redis["status"] != "down";
    let (status, code) = match (is_leaving, is_full || is_up(&database), is_whole) {
        (true, ..) => ("stopping", StatusCode::SERVICE_UNAVAILABLE),
        (_, false, _) => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        (.., false) => ("degraded", StatusCode::OK),
        _ => ("ready", StatusCode::OK),
    };
    let data = json!({
        "status": status,
        "dependencies": {"database": database, "redis": redis, "main_api": main_api},
    });
    let mut answer = Success::ok(data);
    answer.status = code;
    if code == StatusCode::SERVICE_UNAVAILABLE {
        // Probes read the status; people read which dependency it was, and programs the code.
        let message = "The service is not ready.";
        let details = json!({"retryable": true, "retry_after": 1});
        answer = answer
            .with_flat(
                "error",
                json!({"code": "SERVICE_UNAVAILABLE", "message": message, "details": details}),
            )
            .with_flat("message", message)
            .with_header("retry-after", 1.into());
    }
    answer.at(state.clock.now())
}

pub(super) async fn database(state: &AppState) -> Value {
    let began = Instant::now();
    let store = state.chat.store();
    let answer = tokio::time::timeout(DATABASE_PATIENCE, store.ping()).await;
    let mut told = dependency(matches!(answer, Ok(Ok(()))), began.elapsed());
    if told["status"] == "up"
        && !matches!(tokio::time::timeout(DATABASE_PATIENCE, store.has_room()).await, Ok(true))
    {
        told["status"] = "full".into();
    }
    told
}

/// As of the last sign of life, at most two seconds ago.
pub(super) fn redis(state: &AppState) -> Value {
    let Some(redis) = &state.redis else { return json!({"status": "unused", "latency_ms": null}) };
    match redis.latency() {
        Some(latency) => dependency(true, latency),
        None => json!({"status": "down", "latency_ms": null}),
    }
}

pub(super) async fn main_api(state: &AppState) -> Value {
    let began = Instant::now();
    let answer = state.main_api.probe().await;
    let latency = answer.as_ref().map_or_else(|_| began.elapsed(), |latency| *latency);
    dependency(answer.is_ok(), latency)
}

fn dependency(is_up: bool, latency: Duration) -> Value {
    let latency_ms = (latency.as_secs_f64() * 100_000.0).round() / 100.0;
    json!({"status": if is_up { "up" } else { "down" }, "latency_ms": latency_ms})
}
