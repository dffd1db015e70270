//! `/internal/webhooks`: the events that could not be delivered, for the main API.

use axum::{extract::State, response::Response};

use super::{
    AppState,
    envelope::Success,
    params::{PathId, Query},
    service_key::FromMainApi,
};
use crate::errors::Error;

/// `GET /internal/webhooks/dead?page&limit`
pub(super) async fn list_dead_webhooks(
    State(state): State<AppState>,
    _: FromMainApi,
    query: Query,
) -> Result<Response, Error> {
    let page = state.chat.list_dead_webhooks(query.page(50, 200)?).await?;
    Ok(Success::page(page).at(state.clock.now()))
}

/// `POST /internal/webhooks/dead/:id/replay`
pub(super) async fn replay_webhook(
    State(state): State<AppState>,
    _: FromMainApi,
    PathId(id): PathId,
) -> Result<Response, Error> {
    Ok(Success::ok(state.chat.replay_webhook(id).await?).at(state.clock.now()))
}

/// `POST /internal/webhooks/dead/replay`
pub(super) async fn replay_webhooks(
    State(state): State<AppState>,
    _: FromMainApi,
) -> Result<Response, Error> {
    Ok(Success::ok(state.chat.replay_webhooks().await?).at(state.clock.now()))
}
