//! `/internal`: what the main API calls, with its own key. Not for browsers: no origin is let in.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use serde_json::{Map, Value};

use super::{
    AppState,
    answers::{ForgottenAnswer, LogoutAnswer, OfferAnswer, RefreshAnswer},
    body::JsonText,
    envelope::{JSON, Success},
    params::PathId,
    service_key::FromMainApi,
};
use crate::{
    chat::{Fields, PostMessage, events::raw},
    content::OfferChange,
    errors::Error,
    identity::{ProductCard, Reason, UserProfile},
    ids::{ProductId, UserId},
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

/// `POST /internal/tokens/forget {token}`: on all nodes; the connections that came with it are cut.
pub(super) async fn forget_token(
    State(state): State<AppState>,
    _: FromMainApi,
    body: JsonText,
) -> Result<Response, Error> {
    let mut fields = Fields::parse(&body.0)?;
    let token = fields.text("token").filter(|token| !token.trim().is_empty());
    if token.is_none() && !fields.is_refused() {
        fields.refuse("token", "The token field is required.");
    }
    let token = fields.finish(token)?;
    state.identity.forget(&token).await?;
    Ok(Success::ok(ForgottenAnswer { forgotten: true }).at(state.clock.now()))
}

/// `POST /internal/users/:id/logout {reason?}`: all of the user's tokens and connections, on all nodes.
pub(super) async fn logout_user(
    State(state): State<AppState>,
    _: FromMainApi,
    PathId(id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    let user_id = user(id)?;
    let mut fields = Fields::parse(&body.0)?;
    let reason = match (fields.value("reason").is_some(), fields.text("reason").as_deref()) {
        (false, _) | (true, Some("logout")) => Some(Reason::Logout),
        (true, Some("ban")) => Some(Reason::Ban),
        _ => {
            fields.refuse("reason", "The selected reason is invalid: it is logout or ban.");
            None
        }
    };
    let reason = fields.finish(reason)?;
    state.identity.forget_user(user_id, reason).await?;
    Ok(Success::ok(LogoutAnswer { user_id, reason: reason.name() }).at(state.clock.now()))
}

/// `POST /internal/users/:id/refresh {name?, avatar_url?}`
pub(super) async fn refresh_user(
    State(state): State<AppState>,
    _: FromMainApi,
    PathId(id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    let user_id = user(id)?;
    let card = card(&body.0, "name", id)?.and_then(|card| UserProfile::from_main_api(&card));
    let is_stored = card.is_some();
    state.identity.refresh_user(user_id, card).await?;
    state.chat.tell_of_user(user_id).await?;
    Ok(Success::ok(RefreshAnswer { id, is_stored }).at(state.clock.now()))
}

/// `POST /internal/products/:id/refresh {title?, …}`
pub(super) async fn refresh_product(
    State(state): State<AppState>,
    _: FromMainApi,
    PathId(id): PathId,
    body: JsonText,
) -> Result<Response, Error> {
    if id <= 0 {
        return Err(Error::NotFound("There is no such product.".into()));
    }
    let card = card(&body.0, "title", id)?.and_then(|card| ProductCard::from_main_api(&card));
    let is_stored = card.is_some();
    state.identity.refresh_product(ProductId(id), card).await?;
    state.chat.tell_of_product(ProductId(id)).await?;
    Ok(Success::ok(RefreshAnswer { id, is_stored }).at(state.clock.now()))
}

/// `GET /internal/users/:id/export`: everything about a person, as it is read.
pub(super) async fn export_user(
    State(state): State<AppState>,
    _: FromMainApi,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let parts = state.chat.export_user(user(id)?);
    let parts = futures_util::stream::unfold(parts, |mut parts| async move {
        parts.recv().await.map(|part| (part, parts))
    });
    let mut response = Response::new(Body::from_stream(parts));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    Ok(response)
}

/// `DELETE /internal/users/:id`: signed out, nameless and without words; again, to see how it stands.
pub(super) async fn erase_user(
    State(state): State<AppState>,
    _: FromMainApi,
    PathId(id): PathId,
) -> Result<Response, Error> {
    let user_id = user(id)?;
    state.identity.forget_user(user_id, Reason::Logout).await?;
    state.identity.refresh_user(user_id, Some(UserProfile::deleted(user_id))).await?;
    let answer = state.chat.erase_user(user_id).await?;
    Ok(Success::ok(answer).at(state.clock.now()))
}

fn user(id: i64) -> Result<UserId, Error> {
    if id > 0 { Ok(UserId(id)) } else { Err(Error::NotFound("There is no such user.".into())) }
}

/// The card in a body, in the words of the main API's own answers; `None` where there is none.
fn card(body: &str, title: &'static str, id: i64) -> Result<Option<Map<String, Value>>, Error> {
    let mut fields = Fields::parse(body)?;
    let is_given = fields.value(title).is_some();
    let text = fields.text(title);
    if is_given && text.as_ref().is_some_and(|text| text.trim().is_empty()) {
        fields.refuse(title, format!("The {title} field must not be empty."));
    }
    // What is sent must be what it says it is; what the card leaves out of it is the card's business.
    for address in ["avatar_url", "thumbnail_url"] {
        fields.text(address);
    }
    let is_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    if fields.value("image_urls").is_some_and(|value| !is_list(value)) {
        fields.refuse("image_urls", "The image_urls field must be an array of strings.");
    }
    if fields.value("price_per_day").is_some_and(|value| !value.is_number() && !value.is_string()) {
        fields.refuse("price_per_day", "The price_per_day field must be a number.");
    }
    fields.finish(Some(()))?;
    if !is_given {
        return Ok(None);
    }
    let mut card: Map<String, Value> = serde_json::from_str(body).map_err(Error::internal)?;
    // The address says whose it is.
    card.insert("id".into(), id.into());
    Ok(Some(card))
}
