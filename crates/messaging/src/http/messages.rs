//! `/api/messages`, the messages of a conversation, and `/api/sync`.

use std::collections::HashMap;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
};
use serde_json::json;

use super::{
    AppState,
    answers::{SyncAnswer, SyncEvent},
    auth::Authenticated,
    body::JsonText,
    envelope::Success,
    params::{PathId, Query},
};
use crate::{
    chat::{EditMessage, SearchMessages, SendMessage, events::raw, parse_emoji},
    content::{Emoji, Needle},
    errors::Error,
    ids::{ConversationId, MessageId},
    storage::messages::Window,
};

/// `GET /api/conversations/:id/messages?page&limit` or `before`, `after`, `around` a `seq`.
pub(super) async fn list_messages(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request = query.page(50, 100)?;
    let keysets = [
        query.integer("before", 0, i64::MAX)?.map(Window::Before),
        query.integer("after", 0, i64::MAX)?.map(Window::After),
        query.integer("around", 0, i64::MAX)?.map(Window::Around),
    ];
    let mut keysets = keysets.into_iter().flatten();
    let window = keysets.next().unwrap_or(Window::Page(request.page - 1));
    if keysets.next().is_some() {
        return Err(Error::field("before", "Only one of before, after and around may be given."));
    }
    let page = state.chat.message_page(&caller, ConversationId(id), window, request.limit).await?;
    let cursors = json!({
        "before": page.ends.map(|(first, _)| first),
        "after": page.ends.map(|(_, last)| last),
    });
    let answer = Success::ok(&page.items).with_place(&page.place).with_meta("cursors", cursors);
    Ok(answer.unless_known(&headers, page.tag, state.clock.now()))
}

/// `POST /api/messages`: 201, also for a repetition, which says so in a header.
pub(super) async fn send_message(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    body: JsonText,
) -> Result<Response, Error> {
    let pending = state.chat.send_message(&caller, SendMessage::parse(&body.0)?).await?;
    let rate_limit = pending.rate_limit;
    let sent = pending.stored().await?;
    let mut success = Success::created(raw(&*sent.json)).with_rate_limit(rate_limit);
    if sent.is_replay {
        success = success.with_header("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(success.at(state.clock.now()))
}

/// `PUT /api/messages/:id {content}`
pub(super) async fn edit_message(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    let request = EditMessage::parse(&body.0)?;
    let view = state.chat.edit_message(&caller, MessageId(id), request).await?;
    Ok(Success::ok(view).at(state.clock.now()))
}

/// `DELETE /api/messages/:id`
pub(super) async fn delete_message(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
) -> Result<StatusCode, Error> {
    state.chat.delete_message(&caller, MessageId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/messages/:id/reactions {emoji}`
pub(super) async fn add_reaction(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    let emoji = parse_emoji(&body.0)?;
    let answer = state.chat.add_reaction(&caller, MessageId(id), emoji).await?;
    Ok(Success::created(answer).at(state.clock.now()))
}

/// `DELETE /api/messages/:id/reactions/:emoji`
pub(super) async fn remove_reaction(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId,
    Path(path): Path<HashMap<String, String>>,
) -> Result<StatusCode, Error> {
    let emoji = Emoji::parse(path.get("emoji").map_or("", String::as_str))?;
    state.chat.remove_reaction(&caller, MessageId(id), emoji).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/messages/search?query&conversation_id?&page&limit`
pub(super) async fn search_messages(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    query: Query,
) -> Result<Response, Error> {
    let request = SearchMessages {
        needle: Needle::parse(query.text("query").unwrap_or_default())?,
        conversation_id: query.id("conversation_id")?.map(ConversationId),
    };
    let page = state.chat.search_messages(&caller, &request, query.page(20, 100)?).await?;
    Ok(Success::page(page).at(state.clock.now()))
}

/// `GET /api/sync?since&limit`: what the caller's log has after that place.
pub(super) async fn sync_events(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    query: Query,
) -> Result<Response, Error> {
    let limit = query.positive("limit", 500)?.unwrap_or(100);
    let Some(since) = query.integer("since", 0, i64::MAX)? else {
        let last_event_seq = state.chat.last_event_seq(caller.user_id).await?;
        let data = SyncAnswer { events: None, last_event_seq, has_more: None };
        return Ok(Success::ok(data).at(state.clock.now()));
    };
    let part = state.chat.sync(caller.user_id, since, limit).await?;
    let events = part.events.into_iter().map(|stored| SyncEvent {
        event: stored.kind.name(),
        event_seq: stored.event_seq,
        data: raw(stored.data),
    });
    let data = SyncAnswer {
        events: Some(events.collect()),
        last_event_seq: part.last_event_seq,
        has_more: Some(part.has_more),
    };
    Ok(Success::ok(data).at(state.clock.now()))
}
