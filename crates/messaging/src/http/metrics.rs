//! `/metrics`: the counts of this process and how things stand, for Prometheus.
//!
//! What is counted is in [`crate::metrics`]; here is who may read it, and what is asked for it now.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::{AppState, auth::bearer, envelope, health, method_not_allowed, not_found};
use crate::{
    config::{Config, Secret},
    errors::Error,
    metrics::{self, Dependency, Snapshot},
};

/// Who may read metrics at `PORT` (contract section 7).
#[derive(Debug, Clone)]
pub enum MetricsAccess {
    /// Everybody: in development, and on a port of their own.
    Open,
    /// Whoever brings `METRICS_TOKEN`.
    Token(Secret),
    /// Nobody: in production without a token.
    Closed,
}

impl MetricsAccess {
    /// Who may read metrics under this configuration.
    pub fn of(config: &Config) -> Self {
        match &config.metrics.token {
            Some(token) => Self::Token(token.clone()),
            None if config.environment.is_production() => Self::Closed,
            None => Self::Open,
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        match self {
            Self::Open => Ok(()),
            Self::Token(token) => {
                let given = bearer(headers).unwrap_or_default();
                // In constant time: how long a refusal takes tells nothing of the token.
                let is_right = bool::from(given.as_bytes().ct_eq(token.expose().as_bytes()));
                if is_right { Ok(()) } else { Err(Error::Unauthenticated) }
            }
            Self::Closed => Err(Error::Forbidden(
                "Metrics are closed here until METRICS_TOKEN or METRICS_PORT is set.".into(),
            )),
        }
    }
}

/// The routes of `METRICS_PORT`: metrics alone, open to whoever reaches the port.
pub fn metrics_router(state: AppState) -> Router {
    let state = AppState { metrics_access: MetricsAccess::Open, ..state };
    Router::new()
        .route("/metrics", get(get_metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), envelope::finish))
        .with_state(state)
}

/// `GET /metrics`
pub(super) async fn get_metrics(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    state.metrics_access.check(&headers)?;
    let snapshot = look(&state).await;
    // Prometheus asks for OpenMetrics first and takes either.
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (text, kind) = if accept.contains("application/openmetrics-text") {
        (metrics::get().open_metrics(&snapshot)?, metrics::OPEN_METRICS)
    } else {
        (metrics::get().exposition(&snapshot)?, metrics::CONTENT_TYPE)
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, text).into_response())
}

async fn look(state: &AppState) -> Snapshot {
    let (database, main_api) = tokio::join!(health::database(state), health::main_api(state));
    Snapshot {
        live: state.edge.stats(),
        users: state.chat.hub().count_users(),
        queued: state.chat.queued(),
        pushes: state.chat.notifier().map(crate::notify::Notifier::depths).unwrap_or_default(),
        pool: state.chat.store().connections(),
        webhooks: state.chat.store().outbox().map(|outbox| outbox.depth()).unwrap_or_default(),
        dependencies: [("database", database), ("main_api", main_api), ("redis", health::redis(state))]
            .iter()
            .filter(|(_, told)| told["status"] != "unused")
            .map(|(name, told)| dependency(name, told))
            .collect(),
    }
}

fn dependency(name: &'static str, told: &Value) -> Dependency {
    let latency_ms = told["latency_ms"].as_f64().unwrap_or_default();
    Dependency {
        name,
        is_up: told["status"] == "up",
        latency: Duration::try_from_secs_f64(latency_ms / 1000.0).unwrap_or_default(),
    }
}
