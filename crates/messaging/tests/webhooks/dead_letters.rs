//! What could not be delivered: listed, replayed, and a target that is gone for good.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    nodes::{Nodes, token},
    on_both_databases,
    receiver::{Receiver, Reply},
    service::{ANNA, BEN, SERVICE_KEY, borrow, dead, internal, start, wait_for_dead},
    support::TestDatabase,
};

on_both_databases!(
    what_was_given_up_is_listed_and_replayed,
    a_target_that_is_gone_gets_nothing_until_a_replay,
    a_target_that_is_not_configured_any_more_is_not_replayed,
    only_the_main_api_may_ask,
);

const GIVES_UP_SOON: [(&str, &str); 2] =
    [("WEBHOOK_EVENTS", "message.created"), ("WEBHOOK_MAX_ATTEMPTS", "2")];

async fn replay(nodes: &Nodes, which: &str) -> (StatusCode, Value) {
    let path = if which.is_empty() { "dead/replay".into() } else { format!("dead/{which}/replay") };
    internal(nodes, SERVICE_KEY, Method::POST, &path).await
}

async fn what_was_given_up_is_listed_and_replayed(database: TestDatabase) {
    let receiver = Receiver::start().await;
    receiver.answer(|_, _| Reply::Status(500));
    let nodes = start(database, &[&receiver], &GIVES_UP_SOON).await;
    let mut messages = Vec::new();
    for number in 0..4 {
        messages.push(nodes.send(0, ANNA, BEN, &format!("Rhubarb {number}")).await);
    }
    let letters = wait_for_dead(&nodes, 4).await;
    assert!(!json!(letters).to_string().contains("Rhubarb"), "no text");
    let of_first = letters.iter().find(|letter| letter["message_id"] == messages[0]["id"]).unwrap();
    let event_id = receiver.of("message.created")[0].id.clone();
    assert_eq!(
        *of_first,
        json!({
            "id": of_first["id"], "event_id": event_id, "type": "message.created", "target": receiver.url(),
            "conversation_id": messages[0]["conversation_id"], "message_id": messages[0]["id"], "attempts": 2,
            "last_error": "answered 500", "created_at": of_first["created_at"], "dead_at": of_first["dead_at"],
        })
    );
    let (_, page) = internal(&nodes, SERVICE_KEY, Method::GET, "dead?limit=3&page=2").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    assert_eq!((&page["meta"]["total"], &page["meta"]["has_more"]), (&json!(4), &json!(false)));

    receiver.answer(|_, _| Reply::Status(200));
    let (status, answer) = replay(&nodes, &of_first["id"].to_string()).await;
    assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!({"replayed": 1})));
    let told = receiver.wait_for("message.created", 9).await;
    assert_eq!(told[8].id, event_id, "the same event");
    let letters = dead(&nodes).await;
    assert!(letters.len() == 3 && letters.iter().all(|letter| letter["id"] != of_first["id"]));
    let (status, answer) = replay(&nodes, &of_first["id"].to_string()).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")));

    let (status, answer) = replay(&nodes, "").await;
    assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!({"replayed": 3})));
    receiver.wait_for("message.created", 12).await;
    assert!(dead(&nodes).await.is_empty());
    let (_, answer) = replay(&nodes, "").await;
    assert_eq!(answer["data"]["replayed"], 0);
}

async fn a_target_that_is_gone_gets_nothing_until_a_replay(database: TestDatabase) {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.answer(|_, _| Reply::Status(410));
    let nodes = start(database, &[&receiver, &other], &GIVES_UP_SOON).await;
    nodes.send(0, ANNA, BEN, "one").await;
    let letters = wait_for_dead(&nodes, 1).await;
    assert_eq!((&letters[0]["attempts"], &letters[0]["target"]), (&json!(1), &json!(receiver.url())));
    for number in 0..5 {
        nodes.send(0, ANNA, BEN, &number.to_string()).await;
    }
    other.wait_for("message.created", 6).await;
    assert_eq!(receiver.received().len(), 1, "nothing after it said that it is gone");

    receiver.answer(|_, _| Reply::Status(200));
    assert_eq!(replay(&nodes, "").await.1["data"]["replayed"], 1);
    receiver.wait_for("message.created", 2).await;
    nodes.send(0, ANNA, BEN, "back").await;
    let told = receiver.wait_for("message.created", 3).await;
    assert_eq!(told[2].body["data"]["message"]["content"], "back");
    assert_eq!(other.wait_for("message.created", 7).await.len(), 7);
}

async fn a_target_that_is_not_configured_any_more_is_not_replayed(database: TestDatabase) {
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    old.answer(|_, _| Reply::Status(410));
    let mut nodes = start(borrow(&database), &[&old], &GIVES_UP_SOON).await;
    nodes.send(0, ANNA, BEN, "one").await;
    let id = wait_for_dead(&nodes, 1).await[0]["id"].to_string();
    nodes.stop_node(0).await;
    let nodes = start(database, &[&new], &GIVES_UP_SOON).await;
    let (status, answer) = replay(&nodes, &id).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::CONFLICT, &json!("CONFLICT")));
    assert_eq!(replay(&nodes, "").await.1["data"]["replayed"], 0);
    assert_eq!(dead(&nodes).await.len(), 1);
}

async fn only_the_main_api_may_ask(database: TestDatabase) {
    let receiver = Receiver::start().await;
    let nodes = start(borrow(&database), &[&receiver], &[]).await;
    let calls = [(Method::GET, "dead"), (Method::POST, "dead/replay"), (Method::POST, "dead/1/replay")];
    for (method, path) in calls.clone() {
        // Nine wrong keys: ten a minute are answered so, what comes after them with 429.
        for key in ["", &SERVICE_KEY[1..], &token(ANNA)] {
            let (status, answer) = internal(&nodes, key, method.clone(), path).await;
            assert_eq!((status.as_u16(), &answer["error"]["code"]), (401, &json!("UNAUTHENTICATED")));
        }
    }
    let url = format!("http://{}/internal/webhooks/dead", nodes.nodes[0].address);
    let by_header = nodes.http.get(url).header("x-api-key", SERVICE_KEY).send().await.unwrap();
    assert_eq!(by_header.status(), StatusCode::OK);

    // Without a key there is nothing, whatever one shows.
    let nodes = start(database, &[&receiver], &[("SERVICE_API_KEY", "")]).await;
    for (method, path) in calls {
        let (status, answer) = internal(&nodes, SERVICE_KEY, method, path).await;
        assert_eq!((status.as_u16(), &answer["error"]["code"]), (404, &json!("NOT_FOUND")));
    }
}
