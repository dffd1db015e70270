//! `/internal/webhooks`: the events that could not be delivered, for the main API.

use axum::{extract::State, http::HeaderMap, response::Response};
use subtle::ConstantTimeEq;

use super::{
    AppState,
    auth::bearer,
    envelope::Success,
    params::{PathId, Query},
};
use crate::errors::Error;

/// Lets whoever shows `SERVICE_API_KEY` pass. Where there is none, there is nothing at these addresses.
fn require_service_key(state: &AppState, headers: &HeaderMap) -> Result<(), Error> {
    let Some(key) = &state.service_key else {
        return Err(Error::NotFound("There is nothing at this address.".into()));
    };
    let of_its_own = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let given = bearer(headers).or(of_its_own).unwrap_or_default();
    // In constant time: how long a refusal takes tells nothing of the key.
    let is_right = bool::from(given.as_bytes().ct_eq(key.expose().as_bytes()));
    if is_right { Ok(()) } else { Err(Error::Unauthenticated) }
}

/// `GET /internal/webhooks/dead?page&limit`
pub(super) async fn list_dead_webhooks(
    State(state): State<AppState>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Error> {
    require_service_key(&state, &headers)?;
    let page = state.chat.list_dead_webhooks(query.page(50, 200)?).await?;
    Ok(Success::page(page).at(state.clock.now()))
}

/// `POST /internal/webhooks/dead/:id/replay`
pub(super) async fn replay_webhook(
    State(state): State<AppState>,
    headers: HeaderMap,
    path: Result<PathId, Error>,
) -> Result<Response, Error> {
    require_service_key(&state, &headers)?;
    let PathId(id) = path?;
    Ok(Success::ok(state.chat.replay_webhook(id).await?).at(state.clock.now()))
}

/// `POST /internal/webhooks/dead/replay`
pub(super) async fn replay_webhooks(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    require_service_key(&state, &headers)?;
    Ok(Success::ok(state.chat.replay_webhooks().await?).at(state.clock.now()))
}
