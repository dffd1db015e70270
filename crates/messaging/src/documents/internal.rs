//! What the main API's own calls take and answer: the operations under `/internal`.

use serde_json::{Value, json};

use super::{
    examples::{self, CONVERSATION, JANE, JOHN, MESSAGE, NOW},
    operation::{Access, Operation},
    requests::{self, id, optional, text},
    schemas::{Schemas, described, object},
};
use crate::{
    chat::{DeviceView, EraseAnswer, views::MessageView},
    content::{MAX_CHARACTERS, Offer},
    http::answers::{ForgottenAnswer, LogoutAnswer, OfferAnswer, RefreshAnswer},
    storage::rows::MessageType,
};

/// The operations.
pub(super) fn all(schemas: &mut Schemas) -> Vec<Operation> {
    let operation = |id, summary| Operation::new(id, "Server to server", summary).access(Access::ServiceKey);
    let idempotency_key = json!({
        "name": "Idempotency-Key", "in": "header", "schema": text(63),
        "description": "Another place for `client_message_id`.",
    });
    let posted = json!({
        "user_ids": [JOHN, JANE], "product_id": 5, "sender_id": JOHN, "type": "offer", "offer": an_offer("pending"),
        "client_message_id": "offer-17",
    });
    let changed = OfferAnswer { offer_id: 17, messages: vec![a_message("accepted")] };
    vec![
        operation("post_message", "Post a notice or an offer")
            .describe("Into a conversation, or between two users, which begins it. A message like any other: both users hear it, and the counter of the one who is not `sender_id` moves. A block between the two does not hinder a notice; an offer is refused. With `client_message_id` the same call can be repeated.")
            .required_query(idempotency_key)
            .body(post_message(), posted)
            .created("It is stored, now or before.", schemas.of::<MessageView>(), examples::json(&a_message("pending")))
            .header(201, &["Idempotent-Replayed"])
            .refused(&["CONVERSATION_NOT_FOUND", "BLOCKED", "CONFLICT"]),
        operation("update_offer", "Change an offer's state")
            .describe("In every message that shows it; both users hear `message_updated`. The same again changes nothing.")
            .id("The offer.", 17)
            .body(offer_change(), json!({"status": "accepted"}))
            .ok_with::<OfferAnswer>(schemas, examples::json(&changed)),
        operation("forget_token", "Forget a token")
            .describe("At sign-out. On all nodes within a second: the connections that came with it are cut, the next use asks the main API.")
            .body(requests::validate_token(), json!({"token": "7|AbCdEf"}))
            .ok_with::<ForgottenAnswer>(schemas, examples::json(&ForgottenAnswer { forgotten: true })),
        operation("logout_user", "Sign a user out everywhere")
            .describe("All of the user's tokens are forgotten and their connections cut, on all nodes within a second. After a ban, plain connections close with 4403 instead of 4401.")
            .id("The user.", JANE)
            .optional_body(logout(), json!({"reason": "ban"}))
            .ok_with::<LogoutAnswer>(schemas, examples::json(&LogoutAnswer { user_id: JANE, reason: "ban" })),
        operation("refresh_user", "Show a user in another way")
            .describe("With a card it is shown from now on; without, the main API is asked at the next occasion. Whoever talks with them hears `conversation_updated`, which is stored; of thousands of conversations a hundred at a time, behind the answer.")
            .id("The user.", JANE)
            .optional_body(user_card(), json!({"name": "Jane", "avatar_url": null}))
            .ok_with::<RefreshAnswer>(schemas, examples::json(&RefreshAnswer { id: JANE.0, is_stored: true })),
        operation("refresh_product", "Show a product in another way")
            .describe("As for a user; both participants of each conversation about it hear of it.")
            .id("The product.", 5)
            .optional_body(product_card(), json!({"title": "Camera", "price_per_day": 12.5}))
            .ok_with::<RefreshAnswer>(schemas, examples::json(&RefreshAnswer { id: 5, is_stored: true })),
        operation("export_user", "Everything about a user")
            .describe("Read while it is sent: an answer that is not whole JSON ended early. Messages that the user deleted with a conversation are there if they wrote them, marked `is_cleared`. Links to files hold for a day.")
            .id("The user.", JANE)
            .ok(export(schemas), an_export()),
        operation("erase_user", "Erase a user")
            .describe("Signs them out, deletes devices, preferences, blocks, files, edits and reactions, and turns their messages into tombstones, each told as `message_deleted`; they are `Deleted user` from then on. What takes longer than some seconds goes on behind the answer, over crashes too: call again to see how it stands. Delete their tokens in the main API first.")
            .id("The user.", JANE)
            .ok_with::<EraseAnswer>(schemas, examples::json(&EraseAnswer { user_id: JANE, status: "erased", messages: 12, erased_at: Some(NOW) })),
    ]
}

fn logout() -> Value {
    let reasons = json!({"type": ["string", "null"], "enum": ["logout", "ban", null], "default": "logout"});
    object([("reason?", reasons)])
}

fn address() -> Value {
    json!({"type": ["string", "null"]})
}

fn user_card() -> Value {
    object([
        ("name?", described(json!({"type": ["string", "null"], "minLength": 1}), "Without it, no card.")),
        ("avatar_url?", address()),
    ])
}

fn product_card() -> Value {
    object([
        ("title?", described(json!({"type": ["string", "null"], "minLength": 1}), "Without it, no card.")),
        ("thumbnail_url?", address()),
        ("image_urls?", json!({"type": ["array", "null"], "items": {"type": "string"}})),
        ("price_per_day?", json!({"type": ["number", "string", "null"]})),
    ])
}

/// Written by hand, as the export is.
fn export(schemas: &mut Schemas) -> Value {
    let time = json!({"$ref": "#/components/schemas/Timestamp"});
    let time_or_null = json!({"anyOf": [time, {"type": "null"}]});
    let text_or_null = || json!({"type": ["string", "null"]});
    let mut profile = object([
        ("name", json!({"type": "string"})),
        ("avatar_url", text_or_null()),
        ("refreshed_at", time.clone()),
    ]);
    profile["type"] = json!(["object", "null"]);
    let preferences = object([
        ("push", json!({"type": "boolean"})),
        ("email", json!({"type": "boolean"})),
        ("quiet_hours", json!({"type": ["object", "null"]})),
        ("presence", json!({"type": "boolean"})),
    ]);
    let file = object([
        ("id", id()),
        ("name", json!({"type": "string"})),
        ("mime_type", json!({"type": "string"})),
        ("size", json!({"type": "integer"})),
        ("url", json!({"type": "string"})),
        ("created_at", time.clone()),
    ]);
    let list = |items: Value| json!({"type": "array", "items": items});
    // Not closed: the schemas that it is like do not know the fields beside theirs.
    let conversation = described(
        json!({"type": "object", "required": ["id", "other_user", "messages"]}),
        "A `Conversation` with its `messages`, oldest first: each a `Message` with `is_cleared`.",
    );
    object([
        ("user_id", id()),
        ("profile", profile),
        ("preferences", preferences),
        ("last_seen", time_or_null),
        ("devices", list(schemas.of::<DeviceView>())),
        ("blocks", list(object([("user_id", id()), ("created_at", time)]))),
        ("conversations", list(conversation)),
        ("unsent_files", list(file)),
    ])
}

fn an_export() -> Value {
    let mut conversation = examples::json(&examples::conversation());
    let mut message = examples::json(&examples::message());
    message["is_cleared"] = json!(false);
    conversation["messages"] = json!([message]);
    json!({
        "user_id": JANE, "profile": {"name": "Jane", "avatar_url": null, "refreshed_at": NOW},
        "preferences": {"push": true, "email": true, "quiet_hours": null, "presence": true}, "last_seen": NOW,
        "devices": [], "blocks": [], "conversations": [conversation], "unsent_files": [],
    })
}

fn an_offer(status: &str) -> Value {
    json!({
        "id": 17, "offer_type": "rental", "amount": 45.5, "start_date": "2026-05-01", "end_date": "2026-05-03",
        "status": status, "message": "For the weekend?",
    })
}

fn a_message(status: &str) -> MessageView {
    let offer = Offer::parse(&an_offer(status)).expect("the example is an offer").to_json();
    MessageView {
        kind: MessageType::Offer,
        content: String::new(),
        offer: serde_json::value::RawValue::from_string(offer).ok(),
        client_message_id: Some("offer-17".into()),
        reply_to: None,
        metadata: None,
        reactions: Vec::new(),
        id: MESSAGE,
        conversation_id: CONVERSATION,
        ..examples::message()
    }
}

fn word(description: &str) -> Value {
    described(json!({"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,31}$"}), description)
}

/// The fields of an offer but its id; those of a change may all be missing.
fn offer_fields() -> [(&'static str, Value); 6] {
    let date = |description: &str| {
        described(json!({"type": ["string", "null"], "examples": ["2026-05-01"]}), description)
    };
    let amount = json!({"type": ["number", "string"], "minimum": 0, "maximum": 1e12});
    [
        ("offer_type?", word("Such as `rental` or `sale`.")),
        (
            "amount?",
            described(amount, "In the marketplace's currency; a numeric string is read as a number."),
        ),
        ("start_date?", date("A date, or RFC 3339.")),
        ("end_date?", date("Not before `start_date`.")),
        ("status?", word("Such as `pending`, `accepted` or `rejected`.")),
        (
            "message?",
            described(json!({"type": ["string", "null"], "maxLength": MAX_CHARACTERS}), "Words beside it."),
        ),
    ]
}

fn offer() -> Value {
    let mut schema = object(offer_fields());
    schema["properties"]["id"] = id();
    schema["required"] = json!(["id", "offer_type", "amount", "status"]);
    schema["type"] = json!(["object", "null"]);
    described(schema, "Needed by an offer, refused with a notice.")
}

fn offer_change() -> Value {
    let mut schema = object(offer_fields());
    schema["minProperties"] = json!(1);
    schema
}

fn post_message() -> Value {
    let kinds = json!({"type": "string", "enum": ["system", "offer"]});
    let users =
        json!({"type": ["array", "null"], "items": id(), "minItems": 2, "maxItems": 2, "uniqueItems": true});
    let content = json!({"type": ["string", "null"], "maxLength": MAX_CHARACTERS});
    let mut schema = object([
        ("conversation_id?", optional(id(), "Where to, or …")),
        ("user_ids?", described(users, "… between whom.")),
        ("product_id?", optional(id(), "With `user_ids`: what the conversation is about.")),
        ("sender_id", described(id(), "Whose message it is: one of the two. The other one's counter moves.")),
        ("type", kinds),
        ("content?", described(content, "The words; beside an offer they may be missing.")),
        ("offer?", offer()),
        (
            "client_message_id?",
            optional(text(63), "Makes the call idempotent. It never meets an id of a client."),
        ),
        (
            "metadata?",
            json!({
                "type": ["object", "null"],
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
                "description": "Kept with the message: flat, at most 2,048 bytes.",
            }),
        ),
    ]);
    schema["anyOf"] = json!([{"required": ["conversation_id"]}, {"required": ["user_ids"]}]);
    schema
}
