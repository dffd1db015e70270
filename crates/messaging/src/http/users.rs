//! What a user sees and wants of others, and of the service: presence, blocks, devices, preferences.

use axum::{extract::State, response::Response};

use super::{
    AppState,
    answers::{ForgetAnswer, VapidKeyAnswer},
    auth::Authenticated,
    body::JsonText,
    envelope::Success,
    params::{PathId, Query},
};
use crate::{
    chat::{ForgetDevice, PutPreferences, RegisterDevice},
    errors::Error,
    ids::UserId,
};

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

/// `GET /api/devices`: the caller's own, never their tokens.
pub(super) async fn list_devices(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Error> {
    let devices = state.chat.list_devices(&caller).await?;
    Ok(Success::ok(devices).at(state.clock.now()))
}

/// `POST /api/devices` and `/api/fcm/token`: 201 the first time, 200 after.
pub(super) async fn register_device(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    body: JsonText,
) -> Result<Response, Error> {
    let request = RegisterDevice::parse(&body.0)?;
    let (device, is_new) = state.chat.register_device(&caller, &request).await?;
    let answer = if is_new { Success::created(device) } else { Success::ok(device) };
    Ok(answer.at(state.clock.now()))
}

/// `DELETE /api/devices` and `/api/fcm/token`
pub(super) async fn forget_device(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    body: JsonText,
) -> Result<Response, Error> {
    let removed = state.chat.forget_device(&caller, &ForgetDevice::parse(&body.0)?).await?;
    Ok(Success::ok(ForgetAnswer { removed }).at(state.clock.now()))
}

/// `GET /api/notifications/preferences`
pub(super) async fn get_preferences(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Error> {
    let preferences = state.chat.get_preferences(&caller).await?;
    Ok(Success::ok(preferences).at(state.clock.now()))
}

/// `GET /api/notifications/vapid-key`
pub(super) async fn get_vapid_key(State(state): State<AppState>) -> Result<Response, Error> {
    let key = state.chat.notifier().and_then(crate::notify::Notifier::vapid_key);
    let public_key = key.ok_or_else(|| Error::NotFound("Web Push is not switched on here.".into()))?;
    Ok(Success::ok(VapidKeyAnswer { public_key }).at(state.clock.now()))
}

/// `PUT /api/notifications/preferences {push?, email?, quiet_hours?, …}`
pub(super) async fn put_preferences(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    body: JsonText,
) -> Result<Response, Error> {
    let request = PutPreferences::parse(&body.0)?;
    let preferences = state.chat.put_preferences(&caller, request).await?;
    Ok(Success::ok(preferences).at(state.clock.now()))
}
