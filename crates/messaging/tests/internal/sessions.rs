//! Signing out from outside, and cards that change: connections here, what is remembered, what is told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    on_both_databases,
    service::{ANNA, BEN, CLEO, Live, Service, assert_refused, token},
    support::TestDatabase,
};

on_both_databases!(
    a_forgotten_token_is_cut_and_asked_about_again,
    a_logout_cuts_all_of_a_users_connections,
    another_card_is_shown_and_told_to_those_who_see_it,
    without_a_card_the_main_api_is_asked_again,
    what_cannot_be_meant_is_refused,
);

const AT_ONCE: Duration = Duration::from_secs(1);

async fn a_forgotten_token_is_cut_and_asked_about_again(database: TestDatabase) {
    let service = Service::start(database).await;
    let (mut phone, mut ben) = (service.connect(ANNA).await, service.connect(BEN).await);
    service.get(ANNA, "/api/conversations").await;
    let asked = service.main_api.lock().questions;
    assert_eq!(asked, 2, "a token is asked about once");
    let (status, answer) =
        service.internal("POST", "/internal/tokens/forget", json!({"token": token(ANNA)})).await;
    assert_eq!((status, &answer["data"]), (200, &json!({"forgotten": true})));
    let (took, code) = phone.wait_closed().await;
    assert!(took < AT_ONCE && code == Some(4401), "{took:?} {code:?}");
    assert!(phone.heard.iter().any(|(name, data)| name == "error" && data["code"] == "UNAUTHENTICATED"));
    // Whoever is still signed in there comes in again.
    service.get(ANNA, "/api/conversations").await;
    assert_eq!(service.main_api.lock().questions, asked + 1);
    service.main_api.lock().signed_out.insert(ANNA);
    service.get(ANNA, "/api/conversations").await;
    let again = service.internal("POST", "/internal/tokens/forget", json!({"token": token(ANNA)})).await;
    assert_eq!(again.0, 200);
    let refused = service.call(ANNA, "GET", "/api/conversations", Value::Null).await;
    assert_refused(&refused, 401, "UNAUTHENTICATED");
    // Another user's connection is as it was.
    ben.emit("mark_read", json!({"conversation_id": 99, "message_ids": [1]})).await;
    ben.wait_for("error", |data| data["code"] == "CONVERSATION_NOT_FOUND").await;
}

async fn a_logout_cuts_all_of_a_users_connections(database: TestDatabase) {
    let service = Service::start(database).await;
    for (reason, code, told) in
        [(json!({}), 4401, "UNAUTHENTICATED"), (json!({"reason": "ban"}), 4403, "FORBIDDEN")]
    {
        let mut phones = Vec::new();
        for _ in 0..3 {
            phones.push(service.connect(ANNA).await);
        }
        let (status, answer) = service.internal("POST", "/internal/users/1/logout", reason).await;
        assert_eq!((status, &answer["data"]["user_id"]), (200, &json!(ANNA)));
        for phone in &mut phones {
            let (took, closed) = phone.wait_closed().await;
            assert!(took < AT_ONCE && closed == Some(code), "{took:?} {closed:?}");
            assert!(phone.heard.iter().any(|(name, data)| name == "error" && data["code"] == told));
        }
    }
    service.main_api.lock().signed_out.insert(ANNA);
    let refused = service.call(ANNA, "GET", "/api/conversations", Value::Null).await;
    assert_refused(&refused, 401, "UNAUTHENTICATED");
}

async fn another_card_is_shown_and_told_to_those_who_see_it(database: TestDatabase) {
    let service = Service::start(database).await;
    let body = json!({"receiver_id": BEN, "product_id": 5, "content": "Hello"});
    let sent = service.call(ANNA, "POST", "/api/messages", body).await.1;
    let conversation = sent["data"]["conversation_id"].clone();
    service.say(CLEO, BEN, "Hello too").await;
    let (mut anna, mut ben) = (service.connect(ANNA).await, service.connect(BEN).await);
    let card = json!({"name": "Anna Nova", "avatar_url": "https://cdn.example.test/1.png", "id": 77});
    let (status, answer) = service.internal("POST", "/internal/users/1/refresh", card).await;
    assert_eq!((status, &answer["data"]), (200, &json!({"id": 1, "is_stored": true})));
    let told = ben.wait_for("conversation_updated", |data| data["event_seq"].is_i64()).await;
    assert_eq!(told["conversation"]["id"], conversation);
    assert_eq!(told["conversation"]["other_user"]["name"], "Anna Nova");
    let card = json!({"title": "Old camera", "price_per_day": "9.50"});
    let (status, _) = service.internal("POST", "/internal/products/5/refresh", card).await;
    assert_eq!(status, 200);
    for live in [&mut anna, &mut ben] {
        let told = live
            .wait_for("conversation_updated", |data| {
                data["conversation"]["product"]["title"] == "Old camera" && data["event_seq"].is_i64()
            })
            .await;
        assert_eq!(told["conversation"]["product"]["price_per_day"], 9.5);
    }
    let list = service.get(BEN, &format!("/api/conversations/{conversation}")).await;
    assert_eq!(list["other_user"]["avatar_url"], "https://cdn.example.test/1.png");
    assert_eq!(service.history(BEN, &conversation).await[0]["sender"]["name"], "Anna Nova");
    // It is in the log of those who see it, once, and in nobody else's.
    let updates =
        |log: Vec<(String, Value)>| log.iter().filter(|(name, _)| name == "conversation_updated").count();
    assert_eq!(updates(service.log(ANNA).await), 1, "the product");
    assert_eq!(updates(service.log(BEN).await), 2, "the user and the product");
    assert_eq!(updates(service.log(CLEO).await), 0);
}

async fn without_a_card_the_main_api_is_asked_again(database: TestDatabase) {
    let service = Service::start(database).await;
    let body = json!({"receiver_id": BEN, "product_id": 5, "content": "Hello"});
    let conversation =
        service.call(ANNA, "POST", "/api/messages", body).await.1["data"]["conversation_id"].clone();
    let path = format!("/api/conversations/{conversation}");
    assert_eq!(service.get(BEN, &path).await["product"]["title"], "Camera");
    service.main_api.lock().names.insert(ANNA, "Anna Nova".into());
    service.main_api.lock().title = "Old camera".into();
    assert_eq!(service.get(BEN, &path).await["other_user"]["name"], "Name 1", "nobody has said so yet");
    for path in ["/internal/users/1/refresh", "/internal/products/5/refresh"] {
        let (status, answer) = service.internal("POST", path, Value::Null).await;
        assert_eq!((status, &answer["data"]["is_stored"]), (200, &json!(false)));
    }
    assert_eq!(service.get(BEN, &path).await["other_user"]["name"], "Name 1", "shown as it was meanwhile");
    service.get(ANNA, "/api/conversations").await;
    for _ in 0..200 {
        let seen = service.get(BEN, &path).await;
        if (&seen["other_user"]["name"], &seen["product"]["title"])
            == (&json!("Anna Nova"), &json!("Old camera"))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the new names were not asked for");
}

async fn what_cannot_be_meant_is_refused(database: TestDatabase) {
    let service = Service::start(database).await;
    for (path, body, field) in [
        ("/internal/tokens/forget", json!({}), "token"),
        ("/internal/tokens/forget", json!({"token": 7}), "token"),
        ("/internal/users/1/logout", json!({"reason": "refresh"}), "reason"),
        ("/internal/users/1/logout", json!({"reason": 1}), "reason"),
        ("/internal/users/1/refresh", json!({"name": 1}), "name"),
        ("/internal/users/1/refresh", json!({"name": " "}), "name"),
        ("/internal/users/1/refresh", json!({"name": "Anna", "avatar_url": {}}), "avatar_url"),
        ("/internal/products/5/refresh", json!({"title": {}}), "title"),
        ("/internal/products/5/refresh", json!({"title": "x", "image_urls": [1]}), "image_urls"),
        ("/internal/products/5/refresh", json!({"title": "x", "price_per_day": []}), "price_per_day"),
        ("/internal/users/x/logout", json!({}), "id"),
    ] {
        let answer = service.internal("POST", path, body).await;
        assert_refused(&answer, 422, "VALIDATION_FAILED");
        assert!(answer.1["errors"][field].is_array(), "{path}: {}", answer.1);
    }
    for path in ["/internal/users/0/logout", "/internal/users/-1/refresh", "/internal/products/0/refresh"] {
        assert_refused(&service.internal("POST", path, json!({})).await, 404, "NOT_FOUND");
    }
    // Nobody knows of them, and nothing happens.
    assert_eq!(service.internal("POST", "/internal/users/999/logout", json!({})).await.0, 200);
    assert_eq!(service.internal("POST", "/internal/tokens/forget", json!({"token": "\u{7}"})).await.0, 200);
    let _still: Live = service.connect(ANNA).await;
}
