//! What the main API's own calls take and answer: the operations under `/internal`.

use serde_json::{Value, json};

use super::{
    examples::{self, CONVERSATION, JANE, JOHN, MESSAGE},
    operation::{Access, Operation},
    requests::{id, optional, text},
    schemas::{Schemas, described, object},
};
use crate::{
    chat::views::MessageView,
    content::{MAX_CHARACTERS, Offer},
    http::answers::OfferAnswer,
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
    ]
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
