//! JSON Schemas of what clients send. Requests are parsed by hand (`chat::Fields`), so these are written
//! by hand too; a test sends each of them.
//!
//! A field that may be missing may also be null. Unknown fields are ignored everywhere.

use serde_json::{Value, json};

use super::schemas::{described, object};
use crate::{chat::MAX_IDS, content::MAX_CHARACTERS};

/// A positive id.
pub(super) fn id() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 1})
}

pub(super) fn optional(mut schema: Value, description: &str) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.clone(), "null"]);
    }
    described(schema, description)
}

pub(super) fn text(max: usize) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": max})
}

/// Of messages, all that a client sends of one.
pub(super) fn send_message() -> Value {
    let kinds =
        json!({"type": ["string", "null"], "enum": ["text", "image", "file", null], "default": "text"});
    let mut schema = object([
        ("conversation_id?", optional(id(), "Where to: a conversation of the caller, or …")),
        ("receiver_id?", optional(id(), "… a user. The first message begins the conversation.")),
        ("recipient_id?", optional(id(), "Another name of `receiver_id`.")),
        ("product_id?", optional(id(), "With `receiver_id`: what the conversation is about.")),
        (
            "content?",
            optional(
                json!({"type": "string", "maxLength": MAX_CHARACTERS}),
                "The words, trimmed. May be missing only beside `attachment_id` or `file_url`. Known HTML elements become their text.",
            ),
        ),
        ("type?", described(kinds, "An image or file needs `attachment_id` or `file_url`.")),
        ("attachment_id?", optional(id(), "A file of `POST /api/uploads`; it can be sent once.")),
        (
            "file_url?",
            optional(
                json!({"type": "string", "maxLength": 500, "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}),
                "A file elsewhere. It is never fetched by the service.",
            ),
        ),
        ("reply_to_id?", optional(id(), "A message of the same conversation.")),
        (
            "client_message_id?",
            optional(
                text(64),
                "Makes sending idempotent: the same id again answers the original message, on every transport.",
            ),
        ),
        (
            "metadata?",
            json!({
                "type": ["object", "null"],
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
                "description": "Whatever the client keeps with the message: flat, at most 2,048 bytes.",
            }),
        ),
    ]);
    schema["anyOf"] = json!([
        {"required": ["conversation_id"]}, {"required": ["receiver_id"]}, {"required": ["recipient_id"]},
    ]);
    schema
}

fn content() -> Value {
    described(
        json!({"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS}),
        "The new words; never empty.",
    )
}

fn emoji() -> Value {
    described(
        json!({"type": "string", "minLength": 1, "maxLength": 10}),
        "One whole emoji, skin tones and joined ones too. At most 20 kinds a message.",
    )
}

pub(super) fn edit_message() -> Value {
    object([("content", content())])
}

pub(super) fn edit_message_event() -> Value {
    object([("message_id", id()), ("content", content())])
}

pub(super) fn message() -> Value {
    object([("message_id", id())])
}

pub(super) fn reaction() -> Value {
    object([("emoji", emoji())])
}

pub(super) fn reaction_event() -> Value {
    object([("message_id", id()), ("emoji", emoji())])
}

pub(super) fn conversation() -> Value {
    object([("conversation_id", id())])
}

pub(super) fn typing() -> Value {
    object([("conversation_id", id()), ("is_typing", json!({"type": "boolean"}))])
}

pub(super) fn mark() -> Value {
    let ids = json!({"type": ["array", "null"], "items": id(), "maxItems": MAX_IDS});
    let mut schema = object([
        ("conversation_id", id()),
        ("message_ids?", described(ids, "These messages; foreign and unknown ones are skipped. Or …")),
        ("up_to_id?", optional(id(), "… all messages up to this one.")),
    ]);
    schema["anyOf"] = json!([{"required": ["message_ids"]}, {"required": ["up_to_id"]}]);
    schema
}

pub(super) fn status() -> Value {
    object([("status", json!({"type": "string", "enum": ["online", "away", "offline"]}))])
}

fn since() -> Value {
    optional(
        json!({"type": "integer", "format": "int64", "minimum": 0}),
        "The last `event_seq` heard; 0 is the whole log. Without it, from now on.",
    )
}

pub(super) fn sync() -> Value {
    object([
        ("since?", since()),
        (
            "limit?",
            optional(
                json!({"type": "integer", "minimum": 1, "default": 100}),
                "How many events at most; more than 500 are 500.",
            ),
        ),
    ])
}

/// The CONNECT payload, and the argument of `authenticate`.
pub(super) fn introduction() -> Value {
    object([
        (
            "token?",
            optional(json!({"type": "string"}), "The bearer token; a leading `Bearer ` is taken off."),
        ),
        ("since?", since()),
    ])
}

pub(super) fn authenticate() -> Value {
    let token = described(
        json!({"type": "string", "minLength": 1}),
        "The bearer token; a leading `Bearer ` is taken off.",
    );
    object([("token", token), ("since?", since())])
}

pub(super) fn validate_token() -> Value {
    object([("token", json!({"type": "string", "minLength": 1}))])
}

pub(super) fn mute_conversation() -> Value {
    let until = json!({"type": "string", "format": "date-time"});
    object([
        ("until?", optional(until.clone(), "A time in the future; without one it is for good.")),
        ("muted_until?", optional(until, "Another name of `until`.")),
    ])
}

pub(super) fn register_device() -> Value {
    object([
        ("token", described(text(4096), "The push service's token.")),
        ("device_type", json!({"type": "string", "enum": ["android", "ios", "web"]})),
        ("device_id?", optional(text(200), "What the app calls the device.")),
        ("app_version?", optional(text(200), "The app's version.")),
    ])
}

pub(super) fn forget_device() -> Value {
    let mut schema = object([
        ("token?", optional(text(4096), "The push service's token, or …")),
        ("device_id?", optional(text(200), "… what the app calls the device.")),
    ]);
    schema["anyOf"] = json!([{"required": ["token"]}, {"required": ["device_id"]}]);
    schema
}

pub(super) fn put_preferences() -> Value {
    let flag = || json!({"type": "boolean"});
    let time = || json!({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"});
    let zone = json!({"type": "string", "minLength": 1, "maxLength": 64, "examples": ["Europe/Paris"]});
    let mut hours = object([("start", time()), ("end", time()), ("time_zone", zone)]);
    hours["type"] = json!(["object", "null"]);
    object([
        ("push?", optional(flag(), "Push to the caller's devices.")),
        ("email?", optional(flag(), "E-mail.")),
        ("quiet_hours?", described(hours, "When not to push; null ends them.")),
        ("presence?", optional(flag(), "Whether others see when the caller is online.")),
    ])
}
