//! The catalogue of errors as the documents show it, made from the errors themselves.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};

use super::examples::NOW;
use crate::errors::{Error, RateLimit};

/// One of each kind of error.
pub(super) fn all() -> Vec<Error> {
    let retry_after = Duration::from_secs(1);
    vec![
        Error::BadRequest("The body is not valid JSON.".into()),
        Error::Unauthenticated,
        Error::Forbidden("You are not a participant of this conversation.".into()),
        Error::EditWindowClosed { closed_at: NOW },
        Error::Blocked { by_caller: false },
        Error::NotFound("There is nothing at this address.".into()),
        Error::ConversationNotFound,
        Error::MessageNotFound,
        Error::MethodNotAllowed,
        Error::Conflict("This client_message_id was used for another message.".into()),
        Error::SyncExpired { last_event_seq: 4711 },
        Error::PayloadTooLarge { limit: 100_000 },
        Error::UnsupportedMediaType("The body must be application/json.".into()),
        Error::field("content", "The content field is required."),
        Error::RateLimited(RateLimit { limit: 60, remaining: 0, retry_after, resets_at: NOW }),
        Error::AuthUnavailable { retry_after },
        Error::ServiceUnavailable { retry_after },
        Error::Internal("a defect".into()),
    ]
}

/// What a code means and what a client does about it. A new kind of error does not compile without.
pub(super) const fn meaning(error: &Error) -> &'static str {
    match error {
        Error::BadRequest(_) => {
            "The request cannot be read: broken JSON, an unknown event, a body that ended early."
        }
        Error::Unauthenticated => "There is no token, or it is not valid. Sign in again.",
        Error::Forbidden(_) => "It exists, and it is not yours.",
        Error::EditWindowClosed { .. } => "The message is too old to be edited; `closed_at` says since when.",
        Error::Blocked { .. } => {
            "One of the two blocks the other. Who blocks learns that it is them; the other learns nothing."
        }
        Error::NotFound(_) => "There is no such route or file.",
        Error::ConversationNotFound => "There is no such conversation, or the caller deleted it.",
        Error::MessageNotFound => "There is no such message, or it was deleted.",
        Error::MethodNotAllowed => "The route exists, but not with this method; `Allow` lists those it has.",
        Error::Conflict(_) => {
            "The request contradicts what is stored, such as another message under a used `client_message_id`."
        }
        Error::SyncExpired { .. } => {
            "The log no longer reaches back to `since`. Read the lists again and go on from `last_event_seq`."
        }
        Error::PayloadTooLarge { .. } => "The body, file or frame is larger than `limit` bytes.",
        Error::UnsupportedMediaType(_) => "The body or file is of a kind that is not accepted.",
        Error::Validation(_) => "Fields break their rules; `errors` says which and how.",
        Error::RateLimited(_) => "Too many requests of one kind. Wait as long as `Retry-After` says.",
        Error::AuthUnavailable { .. } => {
            "The main API cannot say now whether the token is valid. Try again after `Retry-After`."
        }
        Error::ServiceUnavailable { .. } => {
            "A dependency is away or a queue is full; nothing was stored. Try again after `Retry-After`."
        }
        Error::Internal(_) => "A defect on this side. The same request may succeed later.",
    }
}

/// The catalogue: code, status, whether trying again may help, and what it means.
pub(super) fn catalogue() -> Value {
    let rows = all().into_iter().map(|error| {
        json!({
            "code": error.code(),
            "status": error.status().as_u16(),
            "retryable": error.retryable(),
            "meaning": meaning(&error),
        })
    });
    rows.collect()
}

/// The error with this code.
pub(super) fn with_code(code: &str) -> Error {
    all().into_iter().find(|error| error.code() == code).expect("operations name codes of the catalogue")
}

/// The codes by the status they come with.
pub(super) fn by_status(codes: &[&'static str]) -> BTreeMap<StatusCode, Vec<Error>> {
    let mut by_status: BTreeMap<StatusCode, Vec<Error>> = BTreeMap::new();
    for error in all().into_iter().filter(|error| codes.contains(&error.code())) {
        by_status.entry(error.status()).or_default().push(error);
    }
    by_status
}

/// The body of a refused request.
pub(super) fn body_schema() -> Value {
    let codes: Vec<_> = all().iter().map(Error::code).collect();
    json!({
        "type": "object",
        "description": "What every refused request answers.",
        "required": ["success", "error", "message", "meta"],
        "properties": {
            "success": {"const": false},
            "error": {
                "type": "object",
                "required": ["code", "message", "details"],
                "properties": {
                    "code": {"type": "string", "enum": codes, "description": "For programs; it never changes."},
                    "message": {"type": "string", "description": "One sentence for a person."},
                    "details": {"$ref": "#/components/schemas/ErrorDetails"},
                },
            },
            "message": {"type": "string", "description": "The same sentence."},
            "errors": {"$ref": "#/components/schemas/FieldErrors"},
            "meta": {
                "type": "object",
                "required": ["timestamp", "request_id"],
                "properties": {
                    "timestamp": {"$ref": "#/components/schemas/Timestamp"},
                    "request_id": {"type": "string", "description": "The same as `X-Request-Id`."},
                },
            },
        },
    })
}

/// What an error knows beside its code.
pub(super) fn details_schema() -> Value {
    json!({
        "type": "object",
        "required": ["retryable"],
        "properties": {
            "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
            "retry_after": {
                "type": "integer", "minimum": 1,
                "description": "Seconds to wait, where that is known; the same as `Retry-After`.",
            },
            "fields": {"$ref": "#/components/schemas/FieldErrors"},
            "closed_at": {"$ref": "#/components/schemas/Timestamp"},
            "last_event_seq": {"type": "integer", "minimum": 0},
            "limit": {"type": "integer", "minimum": 0, "description": "In bytes, or in requests a minute."},
        },
    })
}

/// What is wrong with which field.
pub(super) fn fields_schema() -> Value {
    json!({
        "type": "object",
        "description": "Sentences by field; only with `VALIDATION_FAILED`.",
        "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    })
}
