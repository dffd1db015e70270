//! What handlers answer that is no view of `chat`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{chat::views::MessageView, identity::UserProfile, ids::UserId};

/// Whose a token is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokenAnswer<'a> {
    /// Whether it is anybody's.
    pub valid: bool,
    /// Whose.
    pub user_id: Option<UserId>,
    /// The same, with name and picture.
    pub user: Option<&'a UserProfile>,
}

/// All unread messages of the caller.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnreadCount {
    /// How many, archived and muted conversations included.
    pub unread_count: i64,
}

/// A part of the caller's log.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SyncAnswer {
    /// What comes after `since`, oldest first; absent without `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<SyncEvent>>,
    /// The newest entry's place.
    pub last_event_seq: i64,
    /// There is more after these; absent without `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_more: Option<bool>,
}

/// A stored event.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SyncEvent {
    /// Its name.
    pub event: &'static str,
    /// Its place in the caller's log.
    pub event_seq: i64,
    /// Its data, as a live connection hears it.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub data: Box<RawValue>,
}

/// What became of a device's registration.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ForgetAnswer {
    /// Whether there was one.
    pub removed: bool,
}

/// An offer in another state.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OfferAnswer {
    /// The offer.
    pub offer_id: i64,
    /// The messages that show it, as they are now.
    pub messages: Vec<MessageView>,
}

/// A token is forgotten.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ForgottenAnswer {
    /// Always true: whether it was known is nobody's business.
    pub forgotten: bool,
}

/// A user is signed out.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LogoutAnswer {
    /// Who.
    pub user_id: UserId,
    /// Why.
    #[schemars(extend("enum" = ["logout", "ban"]))]
    pub reason: &'static str,
}

/// A user or product is shown in another way from now on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RefreshAnswer {
    /// Which.
    pub id: i64,
    /// The card came with the call; otherwise the main API is asked at the next occasion.
    pub is_stored: bool,
}

/// What a browser subscribes to Web Push with.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VapidKeyAnswer<'a> {
    /// An uncompressed point of P-256 in base64url, for `applicationServerKey`.
    pub public_key: &'a str,
}

/// The process lives.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HealthAnswer {
    /// Always `ok`.
    pub status: &'static str,
    /// The version that runs.
    pub version: &'static str,
}
