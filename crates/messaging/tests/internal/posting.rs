//! Notices and offers: told as any message, stored once, refused field by field.

use serde_json::{Value, json};

use crate::{
    on_both_databases,
    service::{ANNA, BEN, CLEO, KEY, Service, assert_refused},
    support::TestDatabase,
};

on_both_databases!(
    a_notice_reaches_both_and_counts_for_the_other,
    an_offer_is_seen_over_rest_and_live_and_changes_for_both,
    a_repeated_call_is_the_original_message,
    a_clients_id_and_the_main_apis_do_not_meet,
    a_block_stops_offers_and_not_notices,
    each_refusal_has_its_code,
    a_notice_is_nobodys_to_delete,
    a_hundred_first_notices_make_one_conversation,
);

fn offer(status: &str) -> Value {
    json!({
        "id": 17, "offer_type": "rental", "amount": "45.50", "start_date": "2026-05-01", "end_date": "2026-05-03",
        "status": status, "message": "For the weekend?",
    })
}

fn shown(status: &str) -> Value {
    let mut offer = offer(status);
    offer["amount"] = json!(45.5);
    offer
}

async fn post(service: &Service, body: Value) -> Value {
    let (status, mut answer) = service.internal("POST", "/internal/messages", body).await;
    assert_eq!(status, 201, "{answer}");
    answer["data"].take()
}

async fn a_notice_reaches_both_and_counts_for_the_other(database: TestDatabase) {
    let service = Service::start(database).await;
    let (mut anna, mut ben) = (service.connect(ANNA).await, service.connect(BEN).await);
    let body = json!({
        "user_ids": [BEN, ANNA], "product_id": 5, "sender_id": ANNA, "type": "system", "content": " Booked. ",
        "metadata": {"booking_id": 9},
    });
    let message = post(&service, body).await;
    assert_eq!((&message["type"], &message["content"]), (&json!("system"), &json!("Booked.")));
    assert_eq!((&message["sender_id"], &message["seq"]), (&json!(ANNA), &json!(1)));
    assert_eq!((&message["metadata"]["booking_id"], &message["offer"]), (&json!(9), &Value::Null));
    for live in [&mut anna, &mut ben] {
        let event = live.wait_for("message_received", |_| true).await;
        assert_eq!((&event["message"]["id"], &event["event_seq"]), (&message["id"], &json!(1)));
    }
    ben.wait_for("unread_count", |data| data["unread_count"] == 1).await;
    let list = service.get(BEN, "/api/conversations").await;
    assert_eq!((&list[0]["unread_count"], &list[0]["product"]["id"]), (&json!(1), &json!(5)));
    assert_eq!(list[0]["last_message"]["type"], "system");
    assert_eq!(service.get(ANNA, "/api/conversations").await[0]["unread_count"], 0);
    for user in [ANNA, BEN] {
        assert_eq!(service.log(user).await[0].0, "message_received");
    }
    // Into the same conversation by its id, from the other side.
    let conversation = &message["conversation_id"];
    let body =
        json!({"conversation_id": conversation, "sender_id": BEN, "type": "system", "content": "Paid."});
    assert_eq!(post(&service, body).await["seq"], 2);
    assert_eq!(service.get(ANNA, "/api/conversations/unread/count").await["unread_count"], 1);
    let read =
        service.call(BEN, "POST", &format!("/api/conversations/{conversation}/read"), Value::Null).await;
    assert_eq!(read.1["data"]["message_ids"], json!([message["id"]]));
}

async fn an_offer_is_seen_over_rest_and_live_and_changes_for_both(database: TestDatabase) {
    let service = Service::start(database).await;
    let (mut anna, mut ben) = (service.connect(ANNA).await, service.connect(BEN).await);
    let body =
        json!({"user_ids": [ANNA, BEN], "sender_id": ANNA, "type": "offer", "offer": offer("pending")});
    let message = post(&service, body).await;
    assert_eq!((&message["type"], &message["content"]), (&json!("offer"), &json!("")));
    assert_eq!(message["offer"], shown("pending"));
    for live in [&mut anna, &mut ben] {
        let event = live.wait_for("message_received", |_| true).await;
        assert_eq!(event["message"]["offer"], shown("pending"));
    }
    let path = "/internal/offers/17";
    let (status, changed) = service.internal("PATCH", path, json!({"status": "accepted"})).await;
    assert_eq!((status, &changed["data"]["offer_id"]), (200, &json!(17)));
    assert_eq!(changed["data"]["messages"][0]["offer"], shown("accepted"));
    for live in [&mut anna, &mut ben] {
        let event = live.wait_for("message_updated", |_| true).await;
        assert_eq!(event["message"]["offer"], shown("accepted"));
        assert_eq!(event["message"]["edited_at"], Value::Null, "its words are as they were");
    }
    // The same once more is fine and tells nobody.
    service.internal("PATCH", path, json!({"status": "accepted"})).await;
    for user in [ANNA, BEN] {
        let names: Vec<_> = service.log(user).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["message_received", "message_updated"]);
        assert_eq!(service.history(user, &message["conversation_id"]).await[0]["offer"], shown("accepted"));
    }
    // Another message that shows the same offer changes along with it.
    let body =
        json!({"user_ids": [ANNA, BEN], "sender_id": BEN, "type": "offer", "offer": offer("accepted")});
    post(&service, body).await;
    let (_, changed) = service.internal("PATCH", path, json!({"status": "cancelled", "amount": 40})).await;
    let offers = changed["data"]["messages"].as_array().unwrap();
    assert_eq!(offers.len(), 2);
    assert!(offers.iter().all(|message| message["offer"]["status"] == "cancelled"
        && message["offer"]["amount"] == 40
        && message["offer"]["message"] == "For the weekend?"));
    for (body, field) in [
        (json!({}), "status"),
        (json!({"status": 1}), "status"),
        (json!({"amount": -1}), "amount"),
        (json!({"end_date": "2026-04-01"}), "end_date"),
    ] {
        let answer = service.internal("PATCH", path, body).await;
        assert_refused(&answer, 422, "VALIDATION_FAILED");
        assert!(answer.1["errors"][field].is_array(), "{}", answer.1);
    }
    let unknown = service.internal("PATCH", "/internal/offers/18", json!({"status": "accepted"})).await;
    assert_refused(&unknown, 404, "NOT_FOUND");
}

async fn a_repeated_call_is_the_original_message(database: TestDatabase) {
    let service = Service::start(database).await;
    let body = json!({
        "user_ids": [ANNA, BEN], "sender_id": ANNA, "type": "offer", "offer": offer("pending"),
        "client_message_id": "offer-17",
    });
    let message = post(&service, body.clone()).await;
    assert_eq!(message["client_message_id"], "offer-17");
    service.internal("PATCH", "/internal/offers/17", json!({"status": "accepted"})).await;
    let mut by_header = body.clone();
    by_header.as_object_mut().unwrap().remove("client_message_id");
    for (body, key) in [(&body, "offer-17"), (&by_header, "offer-17")] {
        let request = service.request("POST", "/internal/messages").bearer_auth(KEY).json(body);
        let response = request.header("idempotency-key", key).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["idempotent-replayed"]),
            (201, &"true".parse().unwrap())
        );
        let again: Value = response.json().await.unwrap();
        assert_eq!(
            (&again["data"]["id"], &again["data"]["offer"]["status"]),
            (&message["id"], &json!("accepted"))
        );
    }
    let mut other = body.clone();
    other["offer"]["amount"] = json!(1);
    assert_refused(&service.internal("POST", "/internal/messages", other).await, 409, "CONFLICT");
    let differing = service.request("POST", "/internal/messages").bearer_auth(KEY).json(&body);
    let differing = differing.header("idempotency-key", "another").send().await.unwrap();
    assert_eq!(differing.status(), 422);
    assert_eq!(service.history(BEN, &message["conversation_id"]).await.len(), 1);
    assert_eq!(service.log(BEN).await.len(), 2, "received and updated, once each");
}

async fn a_clients_id_and_the_main_apis_do_not_meet(database: TestDatabase) {
    let service = Service::start(database).await;
    let theirs = json!({"receiver_id": BEN, "content": "Mine", "client_message_id": "offer-17"});
    assert_eq!(service.call(ANNA, "POST", "/api/messages", theirs).await.0, 201);
    let body = json!({
        "user_ids": [ANNA, BEN], "sender_id": ANNA, "type": "offer", "offer": offer("pending"),
        "client_message_id": "offer-17",
    });
    assert_eq!(post(&service, body).await["seq"], 2, "another message, whatever a client called its own");
}

async fn a_block_stops_offers_and_not_notices(database: TestDatabase) {
    let service = Service::start(database).await;
    let conversation = service.say(ANNA, BEN, "Hello").await["conversation_id"].clone();
    service.call(BEN, "POST", &format!("/api/users/{ANNA}/block"), Value::Null).await;
    for target in
        [json!({"conversation_id": conversation}), json!({"user_ids": [ANNA, BEN], "product_id": 5})]
    {
        let mut body = json!({"sender_id": ANNA, "type": "offer", "offer": offer("pending")});
        body.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        assert_refused(&service.internal("POST", "/internal/messages", body).await, 403, "BLOCKED");
        let mut body = json!({"sender_id": ANNA, "type": "system", "content": "Returned."});
        body.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        post(&service, body).await;
    }
    let unread = service.get(BEN, "/api/conversations/unread/count").await["unread_count"].clone();
    assert_eq!(unread, 3);
}

async fn each_refusal_has_its_code(database: TestDatabase) {
    let service = Service::start(database).await;
    let conversation = service.say(ANNA, BEN, "Hello").await["conversation_id"].clone();
    let notice = |change: Value| {
        let mut body =
            json!({"conversation_id": conversation, "sender_id": ANNA, "type": "system", "content": "x"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    let mut bad_offer = offer("pending");
    bad_offer["end_date"] = json!("2026-04-01");
    for (change, field) in [
        (json!({"sender_id": CLEO}), "sender_id"),
        (json!({"sender_id": null}), "sender_id"),
        (json!({"type": "text"}), "type"),
        (json!({"content": ""}), "content"),
        (json!({"content": "x".repeat(5001)}), "content"),
        (json!({"type": "offer"}), "offer"),
        (json!({"type": "offer", "offer": bad_offer}), "offer.end_date"),
        (json!({"metadata": {"a": {}}}), "metadata"),
        (json!({"client_message_id": "x".repeat(64)}), "client_message_id"),
        (json!({"conversation_id": "1"}), "conversation_id"),
        (json!({"conversation_id": null, "user_ids": [1, 1]}), "user_ids"),
    ] {
        let answer = service.internal("POST", "/internal/messages", notice(change.clone())).await;
        assert_refused(&answer, 422, "VALIDATION_FAILED");
        assert!(answer.1["errors"][field].is_array(), "{change}: {}", answer.1);
    }
    let unknown =
        service.internal("POST", "/internal/messages", notice(json!({"conversation_id": 999}))).await;
    assert_refused(&unknown, 404, "CONVERSATION_NOT_FOUND");
    let large =
        service.internal("POST", "/internal/messages", notice(json!({"content": "x".repeat(110_000)}))).await;
    assert_refused(&large, 413, "PAYLOAD_TOO_LARGE");
    let nothing = service.internal("POST", "/internal/messages", json!([])).await;
    assert_refused(&nothing, 400, "BAD_REQUEST");
    assert_eq!(service.history(BEN, &conversation).await.len(), 1, "nothing of it is stored");
}

async fn a_notice_is_nobodys_to_delete(database: TestDatabase) {
    let service = Service::start(database).await;
    let body = json!({"user_ids": [ANNA, BEN], "sender_id": ANNA, "type": "system", "content": "Booked."});
    let notice = post(&service, body).await;
    for user in [ANNA, BEN] {
        let path = format!("/api/messages/{}", notice["id"]);
        assert_refused(&service.call(user, "DELETE", &path, Value::Null).await, 403, "FORBIDDEN");
        let edit = service.call(user, "PUT", &path, json!({"content": "Not booked."})).await;
        assert!(matches!(edit.0, 403 | 422), "{}", edit.1);
    }
    // A user's own offer is theirs to take back; its state then changes nowhere.
    let body =
        json!({"user_ids": [ANNA, BEN], "sender_id": ANNA, "type": "offer", "offer": offer("pending")});
    let message = post(&service, body).await;
    let path = format!("/api/messages/{}", message["id"]);
    assert_eq!(service.call(ANNA, "DELETE", &path, Value::Null).await.0, 204);
    let gone = service.internal("PATCH", "/internal/offers/17", json!({"status": "accepted"})).await;
    assert_refused(&gone, 404, "NOT_FOUND");
}

async fn a_hundred_first_notices_make_one_conversation(database: TestDatabase) {
    let service = Service::start(database).await;
    let posts = (0..100).map(|n| {
        let (sender, users) = if n % 2 == 0 { (ANNA, [ANNA, BEN]) } else { (BEN, [BEN, ANNA]) };
        let body =
            json!({"user_ids": users, "sender_id": sender, "type": "system", "content": format!("{n}")});
        post(&service, body)
    });
    let posted = futures_util::future::join_all(posts).await;
    let conversation = &posted[0]["conversation_id"];
    assert!(posted.iter().all(|message| message["conversation_id"] == *conversation));
    let seqs: Vec<_> =
        service.history(ANNA, conversation).await.iter().map(|message| message["seq"].as_i64()).collect();
    assert_eq!(seqs, (1..=100).map(Some).collect::<Vec<_>>());
    assert_eq!(service.get(ANNA, "/api/conversations/unread/count").await["unread_count"], 50);
}
