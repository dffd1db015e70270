//! Every live event of both directions and dialects, driven against the document that the service gives.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    contract::Schemas,
    on_both_databases,
    service::{ANNA, BEN, CLEO, Dialect, Live, PRODUCT, TestService},
    support::TestDatabase,
};

on_both_databases!(every_plain_frame_is_as_the_document_says, every_packet_is_as_the_document_says);

const NO_LIMITS: [(&str, &str); 4] = [
    ("RATE_LIMIT_MESSAGES", "0"),
    ("RATE_LIMIT_TYPING", "0"),
    ("RATE_LIMIT_READS", "0"),
    ("RATE_LIMIT_CONVERSATIONS", "0"),
];

/// Every event, and how it is refused if nothing in it makes sense.
const NONSENSE: [(&str, &str); 14] = [
    ("authenticate", "UNAUTHENTICATED"),
    ("join_conversation", "VALIDATION_FAILED"),
    ("leave_conversation", "VALIDATION_FAILED"),
    ("send_message", "VALIDATION_FAILED"),
    ("edit_message", "VALIDATION_FAILED"),
    ("delete_message", "VALIDATION_FAILED"),
    ("add_reaction", "VALIDATION_FAILED"),
    ("remove_reaction", "VALIDATION_FAILED"),
    ("typing", "VALIDATION_FAILED"),
    ("mark_read", "VALIDATION_FAILED"),
    ("mark_delivered", "VALIDATION_FAILED"),
    ("presence_update", "VALIDATION_FAILED"),
    ("sync", "VALIDATION_FAILED"),
    ("no_such_event", "BAD_REQUEST"),
];

async fn every_plain_frame_is_as_the_document_says(database: TestDatabase) {
    drive(database, Dialect::Plain, "plain").await;
}

async fn every_packet_is_as_the_document_says(database: TestDatabase) {
    drive(database, Dialect::SocketIo, "socketIo").await;
}

async fn drive(database: TestDatabase, dialect: Dialect, name: &str) {
    let service = TestService::start(database, &NO_LIMITS).await;
    let document = service.request(Method::GET, "/asyncapi.json").send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    let connections = conversation(&service, dialect).await;
    let schemas = Schemas::of(&document);
    let messages = &document["components"]["messages"];
    let mut seen = BTreeSet::new();
    for live in &connections {
        // What a test says in a wrong way on purpose is not held against the document.
        let said = live.said.iter().filter(|frame| frame.data.get("nonsense").is_none());
        for frame in said.chain(&live.heard).filter(|frame| !frame.name.starts_with("no_such_event")) {
            let message = &messages[format!("{name}.{}", frame.name)];
            assert!(message.is_object(), "{} is not in the document", frame.name);
            schemas.validate(&message["payload"], &frame.payload, &frame.name);
            seen.insert(frame.name.clone());
        }
    }
    let channel = document["channels"][name]["messages"].as_object().unwrap();
    let missing: Vec<_> = channel.keys().filter(|message| !seen.contains(*message)).collect();
    assert!(missing.is_empty(), "never said or heard: {missing:?}");
}

/// Everything that two people can do to each other; answers their connections.
async fn conversation(service: &TestService, dialect: Dialect) -> Vec<Live> {
    let mut anna = Live::connect(service, dialect, ANNA).await;
    let hello =
        json!({"receiver_id": 2, "product_id": PRODUCT, "content": "Hello", "client_message_id": "a"});
    let sent = ok(&mut anna, "send_message", hello).await;
    let (conversation, message) = (&sent["conversation_id"], &sent["id"]);
    anna.wait_for("message_sent").await;
    let mut ben = Live::open(service, dialect, json!({"token": BEN, "since": 0})).await;
    ben.wait_for("message_received").await;
    anna.wait_for("user_presence").await;
    anna.wait_for("message_delivered").await;

    ok(&mut anna, "authenticate", json!({"token": ANNA})).await;
    for event in ["join_conversation", "leave_conversation"] {
        ok(&mut ben, event, json!({"conversation_id": conversation})).await;
    }
    ok(&mut ben, "typing", json!({"conversation_id": conversation, "is_typing": true})).await;
    anna.wait_for("user_typing").await;
    ok(&mut ben, "mark_delivered", json!({"conversation_id": conversation, "message_ids": [message]})).await;
    let read = ok(&mut ben, "mark_read", json!({"conversation_id": conversation, "up_to_id": message})).await;
    assert_eq!(read["count"], 1);
    anna.wait_for("message_read").await;
    ben.wait_for("unread_count").await;
    ben.wait_for("conversation_updated").await;
    ok(&mut anna, "edit_message", json!({"message_id": message, "content": "Hello again"})).await;
    ben.wait_for("message_updated").await;
    ok(&mut ben, "add_reaction", json!({"message_id": message, "emoji": "👍"})).await;
    anna.wait_for("message_reaction").await;
    ok(&mut ben, "remove_reaction", json!({"message_id": message, "emoji": "👍"})).await;
    ok(&mut anna, "delete_message", json!({"message_id": message})).await;
    ben.wait_for("message_deleted").await;
    ok(&mut ben, "presence_update", json!({"status": "away"})).await;

    // A change that no message caused is stored: it has a place in the log.
    let path = format!("/api/conversations/{conversation}");
    assert_eq!(service.call(BEN, Method::POST, &format!("{path}/archive"), Value::Null).await.0, 200);
    while ben.wait_for("conversation_updated").await.get("event_seq").is_none() {
        assert!(ben.hear().await);
    }
    assert_eq!(service.call(BEN, Method::DELETE, &path, Value::Null).await.0, 204);
    while ben.wait_for("conversation_updated").await.get("cleared_seq").is_none() {
        assert!(ben.hear().await);
    }
    ok(&mut ben, "sync", json!({})).await;
    let caught_up = ok(&mut ben, "sync", json!({"since": 0, "limit": 500})).await;
    assert_eq!(caught_up["has_more"], false);

    refusals(&mut anna).await;
    let mut ahead = Live::open(service, dialect, json!({"token": CLEO, "since": 99_999})).await;
    assert_eq!(ahead.wait_for("sync_required").await["reason"], "ahead");
    let mut nobody = Live::open(service, dialect, json!({"token": "7|nobody"})).await;
    match dialect {
        Dialect::Plain => assert_eq!(nobody.wait_for("error").await["code"], "UNAUTHENTICATED"),
        Dialect::SocketIo => {
            assert_eq!(nobody.wait_for("CONNECT_ERROR").await["data"]["code"], "UNAUTHENTICATED");
        }
    }
    vec![anna, ben, ahead, nobody]
}

/// The data of an ack that must not be a refusal.
async fn ok(live: &mut Live, event: &str, data: Value) -> Value {
    let ack = live.ask(event, data).await;
    assert_eq!(ack["success"], true, "{event}: {ack}");
    ack["data"].clone()
}

async fn refusals(live: &mut Live) {
    for (event, code) in NONSENSE {
        // No field of `sync` must be there, so one is wrong.
        let since = if event == "sync" { json!("x") } else { Value::Null };
        let ack = live.ask(event, json!({"nonsense": true, "since": since})).await;
        assert_eq!((&ack["success"], &ack["error"]["code"]), (&json!(false), &json!(code)), "{event}");
    }
    live.wait_for("error").await;
}

/// Every example of the document is of the schema beside it.
#[test]
fn examples_are_of_their_schemas() {
    let document = messaging::documents::asyncapi("/");
    let schemas = Schemas::of(&document);
    let mut examples = 0;
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        for example in message["examples"].as_array().unwrap() {
            schemas.validate(&message["payload"], &example["payload"], name);
            examples += 1;
        }
    }
    assert!(examples > 80, "only {examples} examples");
}
