//! `/api/conversations`.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{
    AppState,
    answers::UnreadCount,
    auth::Authenticated,
    body::JsonText,
    envelope::Success,
    params::{PathId, Query},
};
use crate::{
    chat::{
        Fields, MarkRead, MuteConversation,
        events::{raw, to_json},
    },
    errors::Error,
    ids::ConversationId,
};

/// `GET /api/conversations?page&limit&archived`
pub(super) async fn list_conversations(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request = query.page(100, 200)?;
    let page = state.chat.list_conversations(&caller, query.flag("archived")?, request).await?;
    let items = raw(to_json(&page.items));
    let mut tag = DefaultHasher::new();
    (items.get(), page.total).hash(&mut tag);
    let answer = Success::ok(items).with_place(&page);
    Ok(answer.unless_known(&headers, tag.finish(), state.clock.now()))
}

/// `GET /api/conversations/:id`
pub(super) async fn get_conversation(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let view = state.chat.get_conversation(&caller, ConversationId(id)).await?;
    Ok(Success::ok(view).at(state.clock.now()))
}

/// `GET /api/conversations/unread/count`; the app reads `unread_count` at the top level.
pub(super) async fn count_unread(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Error> {
    let unread_count = state.chat.unread_count(caller.user_id).await?;
    Ok(Success::ok(UnreadCount { unread_count })
        .with_flat("unread_count", unread_count)
        .at(state.clock.now()))
}

/// `POST /api/conversations/:id/read`; the app reads `message` and `count` at the top level.
pub(super) async fn read_conversation(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    // No field is needed, but what is sent must be JSON.
    Fields::parse(&body.0)?;
    let answer = state.chat.mark_read(caller.user_id, MarkRead::all(ConversationId(id))).await?;
    let count = answer.count;
    Ok(Success::ok(answer)
        .with_flat("message", "Messages marked as read.")
        .with_flat("count", count)
        .at(state.clock.now()))
}

/// `POST /api/conversations/:id/archive`
pub(super) async fn archive_conversation(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let view = state.chat.archive_conversation(&caller, ConversationId(id)).await?;
    Ok(Success::ok(view).at(state.clock.now()))
}

/// `POST /api/conversations/:id/unarchive`
pub(super) async fn unarchive_conversation(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let view = state.chat.unarchive_conversation(&caller, ConversationId(id)).await?;
    Ok(Success::ok(view).at(state.clock.now()))
}

/// `POST /api/conversations/:id/mute {until?}`
pub(super) async fn mute_conversation(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    let request = MuteConversation::parse(&body.0)?;
    let view = state.chat.mute_conversation(&caller, ConversationId(id), request).await?;
    Ok(Success::ok(view).at(state.clock.now()))
}

/// `POST /api/conversations/:id/unmute`
pub(super) async fn unmute_conversation(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let view = state.chat.unmute_conversation(&caller, ConversationId(id)).await?;
    Ok(Success::ok(view).at(state.clock.now()))
}

/// `DELETE /api/conversations/:id`: for the caller alone.
pub(super) async fn delete_conversation(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<StatusCode, Error> {
    state.chat.delete_conversation(&caller, ConversationId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
