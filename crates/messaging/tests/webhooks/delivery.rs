//! What arrives when all is well.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    nodes::{Nodes, token},
    on_both_databases,
    receiver::Receiver,
    service::{ANNA, BEN, CLEO, SECRET, borrow, start},
    support::TestDatabase,
};

on_both_databases!(
    every_event_arrives_signed,
    while_secrets_change_both_sign,
    only_the_events_asked_for_are_told,
    without_texts_nothing_of_what_people_wrote_leaves,
    every_target_gets_every_event,
    two_nodes_tell_everything_once,
    a_killed_node_leaves_nothing_untold,
    an_edited_message_is_told_as_it_is,
);

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn block(nodes: &Nodes, method: Method) {
    let url = format!("http://{}/api/users/{BEN}/block", nodes.nodes[0].address);
    let answer = nodes.http.request(method, url).bearer_auth(token(ANNA)).send().await.unwrap();
    assert!(answer.status().is_success());
}

async fn every_event_arrives_signed(database: TestDatabase) {
    let receiver = Receiver::start().await;
    let nodes = start(database, &[&receiver], &[]).await;
    let message = nodes.send(0, ANNA, BEN, "Is it free on Saturday?").await;
    let conversation = message["conversation_id"].as_i64().unwrap();
    receiver.wait_for("message.created", 1).await;
    nodes.post(0, BEN, &format!("/api/conversations/{conversation}/read"), &json!({})).await;
    receiver.wait_for("message.read", 1).await;
    block(&nodes, Method::POST).await;
    receiver.wait_for("user.blocked", 1).await;
    // Once more changes nothing, and is not told.
    block(&nodes, Method::POST).await;
    block(&nodes, Method::DELETE).await;
    receiver.wait_for("user.unblocked", 1).await;

    let all = receiver.received();
    let kinds: Vec<_> = all.iter().map(|received| received.kind()).collect();
    assert_eq!(
        kinds,
        ["conversation.created", "message.created", "message.read", "user.blocked", "user.unblocked"]
    );
    let ids: BTreeSet<_> = all.iter().map(|received| received.id.clone()).collect();
    assert_eq!(ids.len(), all.len());
    for received in &all {
        assert!(received.is_signed_by(SECRET), "{}", received.kind());
        assert_eq!(received.signatures.len(), 1);
        assert_eq!(keys(&received.body), BTreeSet::from(["data", "timestamp", "type"]));
    }
    let data: Vec<_> = all.iter().map(|received| received.body["data"].clone()).collect();
    let created_at = data[0]["conversation"]["created_at"].as_str().unwrap();
    assert_eq!(
        data[0],
        json!({
            "conversation": {
                "id": conversation, "user_ids": [ANNA, BEN], "product_id": null, "created_at": created_at,
            },
            "created_by": ANNA,
            "message_id": message["id"],
        })
    );
    let mut expected = message.clone();
    // What happened to it meanwhile.
    for field in ["status", "is_read", "read_at", "updated_at", "sender"] {
        expected[field] = data[1]["message"][field].clone();
    }
    assert_eq!(
        data[1],
        json!({
            "message": expected, "conversation_id": conversation, "sender_id": ANNA, "recipient_id": BEN,
            "product_id": null,
        })
    );
    assert_eq!(data[1]["message"]["content"], "Is it free on Saturday?");
    assert_eq!(
        data[2],
        json!({
            "conversation_id": conversation, "user_id": BEN, "message_ids": [message["id"]],
            "read_at": data[2]["read_at"],
        })
    );
    assert_eq!(data[3], json!({"user_id": ANNA, "blocked_user_id": BEN}));
    assert_eq!(data[4], json!({"user_id": ANNA, "blocked_user_id": BEN}));
    let metrics = nodes.http.get(format!("http://{}/metrics", nodes.nodes[0].address)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let counted = |event: &str| {
        let series = format!(r#"messaging_webhook_deliveries_total{{event="{event}",outcome="delivered"}} "#);
        metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
    };
    // Noted right after the answer; of the last one perhaps not yet.
    for event in ["message.created", "conversation.created", "message.read", "user.blocked"] {
        assert!(counted(event) >= Some(1), "{event}: {metrics}");
    }
}

async fn while_secrets_change_both_sign(database: TestDatabase) {
    let receiver = Receiver::start().await;
    let new = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let variables = [("WEBHOOK_SECRET", new), ("WEBHOOK_SECRET_PREVIOUS", SECRET)];
    let nodes = start(database, &[&receiver], &variables).await;
    nodes.send(0, ANNA, BEN, "hello").await;
    let told = receiver.wait_for("message.created", 1).await;
    assert_eq!(told[0].signatures.len(), 2);
    assert!(told[0].is_signed_by(new) && told[0].is_signed_by(SECRET));
    assert!(!told[0].is_signed_by(&format!("whsec_{}", "CQkJ".repeat(8))));
}

async fn only_the_events_asked_for_are_told(database: TestDatabase) {
    let receiver = Receiver::start().await;
    let nodes = start(database, &[&receiver], &[("WEBHOOK_EVENTS", "user.blocked")]).await;
    nodes.send(0, ANNA, BEN, "hello").await;
    block(&nodes, Method::POST).await;
    receiver.wait_for("user.blocked", 1).await;
    assert_eq!(receiver.received().len(), 1);
}

async fn upload(nodes: &Nodes) -> i64 {
    let body = "--XYZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"private.txt\"\r\n\r\n\
                The keys are under the mat.\r\n--XYZ--\r\n";
    let url = format!("http://{}/api/uploads", nodes.nodes[0].address);
    let request = nodes.http.post(url).bearer_auth(token(ANNA)).body(body);
    let request = request.header("content-type", "multipart/form-data; boundary=XYZ");
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["data"]["id"].as_i64().unwrap_or_else(|| panic!("{answer}"))
}

async fn without_texts_nothing_of_what_people_wrote_leaves(database: TestDatabase) {
    for include_text in [true, false] {
        let (receiver, folder) = (Receiver::start().await, tempfile::tempdir().unwrap());
        let uploads = folder.path().to_str().unwrap();
        let database = borrow(&database);
        let variables =
            [("WEBHOOK_INCLUDE_TEXT", if include_text { "true" } else { "false" }), ("UPLOAD_DIR", uploads)];
        let nodes = start(database, &[&receiver], &variables).await;
        let first = nodes.send(0, ANNA, BEN, "Rhubarb and secrets").await;
        let attachment = upload(&nodes).await;
        let body = json!({
            "conversation_id": first["conversation_id"], "type": "file", "attachment_id": attachment,
            "content": "Rhubarb again", "reply_to_id": first["id"], "metadata": {"note": "Rhubarb"},
        });
        let (status, answer) = nodes.post(0, ANNA, "/api/messages", &body).await;
        assert_eq!(status, 201, "{answer}");
        let told = receiver.wait_for("message.created", 2).await;
        let message = &told[1].body["data"]["message"];
        let attachment = &message["attachment"];
        assert_eq!(attachment["mime_type"], "text/plain");
        for link in ["url", "thumbnail_url"] {
            assert!(attachment.get(link).is_none(), "a link that opens the file left the service");
        }
        assert!(message.get("file_url").is_none());
        assert_eq!(message["reply_to"]["id"], first["id"]);
        let text = told[0].text.clone() + &told[1].text;
        for word in ["Rhubarb", "private.txt"] {
            assert_eq!(text.contains(word), include_text, "{word}: {text}");
        }
        assert!(!text.contains("/files/"), "{text}");
    }
}

async fn every_target_gets_every_event(database: TestDatabase) {
    let (one, other) = (Receiver::start().await, Receiver::start().await);
    let nodes = start(database, &[&one, &other], &[]).await;
    for number in 0..5 {
        nodes.send(0, ANNA, BEN, &number.to_string()).await;
    }
    for receiver in [&one, &other] {
        let told = receiver.wait_for("message.created", 5).await;
        let words: Vec<_> =
            told.iter().map(|received| received.body["data"]["message"]["content"].clone()).collect();
        assert_eq!(words, ["0", "1", "2", "3", "4"], "a conversation in its order, where nothing fails");
    }
}

async fn two_nodes_tell_everything_once(database: TestDatabase) {
    let receiver = Receiver::start().await;
    let mut nodes = start(database, &[&receiver], &[]).await;
    let second = nodes.start_node().await;
    let nodes = &nodes;
    let sends = (0..60).map(|number| async move {
        let node = if number % 2 == 0 { 0 } else { second };
        let peer = if number % 3 == 0 { BEN } else { CLEO };
        nodes.send(node, ANNA, peer, &format!("number {number}")).await["id"].as_i64().unwrap()
    });
    let sent: BTreeSet<i64> = futures_util::future::join_all(sends).await.into_iter().collect();
    assert_eq!(sent.len(), 60);
    receiver.wait_for("message.created", 60).await;
    // Whoever would tell it twice has looked at least once more by then.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let told = receiver.of("message.created");
    let ids: BTreeSet<_> =
        told.iter().map(|received| received.body["data"]["message"]["id"].as_i64().unwrap()).collect();
    assert_eq!((told.len(), ids), (60, sent));
    assert_eq!(receiver.of("conversation.created").len(), 2);
}

async fn a_killed_node_leaves_nothing_untold(database: TestDatabase) {
    use crate::receiver::Reply;
    let receiver = Receiver::start().await;
    receiver.answer(|_, _| Reply::Hang);
    let mut nodes = start(database, &[&receiver], &[("WEBHOOK_TIMEOUT", "1000")]).await;
    let mut sent = BTreeSet::new();
    for number in 0..10 {
        sent.insert(nodes.send(0, ANNA, BEN, &number.to_string()).await["id"].as_i64().unwrap());
    }
    // It has taken them, and nothing of it was answered.
    receiver.wait_for("message.created", 1).await;
    nodes.kill_node(0);
    receiver.answer(|_, _| Reply::Status(200));
    nodes.start_node().await;
    let began = std::time::Instant::now();
    loop {
        let told: BTreeSet<_> = receiver
            .of("message.created")
            .iter()
            .filter(|received| received.at > began)
            .map(|received| received.body["data"]["message"]["id"].as_i64().unwrap())
            .collect();
        if told == sent {
            return;
        }
        assert!(began.elapsed() < crate::receiver::PATIENCE, "only {told:?} of {sent:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn an_edited_message_is_told_as_it_is(database: TestDatabase) {
    let mut receiver = Receiver::closed();
    let nodes = start(database, &[&receiver], &[("WEBHOOK_RETRY_BASE", "300")]).await;
    let id = nodes.send(0, ANNA, BEN, "frist").await["id"].clone();
    let url = format!("http://{}/api/messages/{id}", nodes.nodes[0].address);
    let edit = nodes.http.put(url).bearer_auth(token(ANNA)).json(&json!({"content": "first"})).send().await;
    assert!(edit.unwrap().status().is_success());
    receiver.open().await;
    let told = receiver.wait_for("message.created", 1).await;
    let message = &told.last().unwrap().body["data"]["message"];
    assert_eq!(message["content"], "first");
    assert!(message["edited_at"].is_string());
}
