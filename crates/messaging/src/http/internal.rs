//! `/internal`: what the main API calls, with its own key. Not for browsers: no origin is let in.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue},
    response::Response,
};

use super::{
    AppState, answers::OfferAnswer, body::JsonText, envelope::Success, params::PathId,
    service_key::FromMainApi,
};
use crate::{
    chat::{PostMessage, events::raw},
    content::OfferChange,
    errors::Error,
};

/// `POST /internal/messages`: 201, also for a repetition, which says so in a header.
pub(super) async fn post_message(
    State(state): State<AppState>,
    _: FromMainApi,
    headers: HeaderMap,
    body: JsonText,
) -> Result<Response, Error> {
    let key = match headers.get("idempotency-key").map(HeaderValue::to_str) {
        None => None,
        Some(Ok(key)) => Some(key.trim()),
        Some(Err(_)) => {
            let sentence = "The Idempotency-Key must only contain printable ASCII characters.";
            return Err(Error::field("client_message_id", sentence));
        }
    };
    let sent = state.chat.post_message(PostMessage::parse(&body.0, key)?).await?.stored().await?;
    let mut success = Success::created(raw(&*sent.json));
    if sent.is_replay {
        success = success.with_header("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(success.at(state.clock.now()))
}

/// `PATCH /internal/offers/:id {status, …}`: in every message that shows the offer.
pub(super) async fn update_offer(
    State(state): State<AppState>,
    _: FromMainApi,
    PathId(offer_id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    let messages = state.chat.update_offer(offer_id, OfferChange::parse(&body.0)?).await?;
    Ok(Success::ok(OfferAnswer { offer_id, messages }).at(state.clock.now()))
}
