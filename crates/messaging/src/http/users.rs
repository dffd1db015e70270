//! What a user sees and wants of others: `/api/presence`, `/api/users/:id/block`, `/api/blocks`.

use axum::{extract::State, response::Response};

use super::{
    AppState,
    auth::Authenticated,
    envelope::Success,
    params::{PathId, Query},
};
use crate::{errors::Error, ids::UserId};

/// Users whose presence may be asked for at once.
const MAX_PRESENCES: usize = 200;

/// `GET /api/presence?user_ids=1,2`: only those who share a conversation with the caller.
pub(super) async fn get_presence(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    query: Query,
) -> Result<Response, Error> {
    let users: Vec<UserId> = query.ids("user_ids", MAX_PRESENCES)?.into_iter().map(UserId).collect();
    let presence = state.chat.get_presence(caller.user_id, &users).await?;
    Ok(Success::ok(presence).at(state.clock.now()))
}

/// `POST /api/users/:id/block`
pub(super) async fn block_user(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let answer = state.chat.block_user(&caller, UserId(id)).await?;
    Ok(Success::ok(answer).at(state.clock.now()))
}

/// `DELETE /api/users/:id/block`
pub(super) async fn unblock_user(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let answer = state.chat.unblock_user(&caller, UserId(id)).await?;
    Ok(Success::ok(answer).at(state.clock.now()))
}

/// `GET /api/blocks`
pub(super) async fn list_blocks(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Error> {
    let blocks = state.chat.list_blocks(&caller).await?;
    Ok(Success::ok(blocks).at(state.clock.now()))
}
