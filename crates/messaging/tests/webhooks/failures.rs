//! Receivers that fail: what is tried again, when, and who else notices.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use messaging::{clock::Clock, config::Config, server};
use serde_json::json;

use crate::{
    on_both_databases,
    receiver::{Received, Receiver, Reply},
    service::{ANNA, BEN, SECRET, borrow, dead, start, wait_for_dead},
    support::TestDatabase,
};

on_both_databases!(
    an_error_is_tried_again_under_the_same_id,
    a_receiver_that_is_not_there_yet_misses_nothing,
    a_receiver_that_answers_late_is_asked_again,
    a_redirect_is_not_followed,
    retry_after_is_obeyed_for_the_whole_target,
    a_poisoned_event_holds_up_no_other,
    a_hanging_receiver_holds_up_nobody_else,
    a_private_address_is_never_asked,
);

const ONLY_MESSAGES: (&str, &str) = ("WEBHOOK_EVENTS", "message.created");

fn assert_repeats(told: &[Received]) {
    for received in told {
        assert!(received.is_signed_by(SECRET));
        assert_eq!((&received.id, &received.body["timestamp"]), (&told[0].id, &told[0].body["timestamp"]));
    }
}

async fn an_error_is_tried_again_under_the_same_id(database: TestDatabase) {
    for (status, failures) in [(500, 2), (404, 1), (302, 1), (429, 1)] {
        let receiver = Receiver::start().await;
        receiver.answer(move |_, before| Reply::Status(if before < failures { status } else { 202 }));
        let nodes = start(borrow(&database), &[&receiver], &[ONLY_MESSAGES]).await;
        nodes.send(0, ANNA, BEN, "hello").await;
        let told = receiver.wait_for("message.created", failures + 1).await;
        assert_repeats(&told);
        assert!(dead(&nodes).await.is_empty());
    }
}

async fn a_receiver_that_is_not_there_yet_misses_nothing(database: TestDatabase) {
    let mut receiver = Receiver::closed();
    let nodes = start(database, &[&receiver], &[ONLY_MESSAGES]).await;
    let mut sent = Vec::new();
    for number in 0..30 {
        sent.push(nodes.send(0, ANNA, BEN, &number.to_string()).await["id"].as_i64().unwrap());
    }
    receiver.open().await;
    let told = receiver.wait_for("message.created", 30).await;
    let ids: BTreeSet<_> =
        told.iter().map(|received| received.body["data"]["message"]["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, sent.into_iter().collect());
}

async fn a_receiver_that_answers_late_is_asked_again(database: TestDatabase) {
    let receiver = Receiver::start().await;
    receiver.answer(|_, before| if before == 0 { Reply::Hang } else { Reply::Status(200) });
    let nodes = start(database, &[&receiver], &[ONLY_MESSAGES, ("WEBHOOK_TIMEOUT", "300")]).await;
    nodes.send(0, ANNA, BEN, "hello").await;
    assert_repeats(&receiver.wait_for("message.created", 2).await);
}

async fn a_redirect_is_not_followed(database: TestDatabase) {
    let receiver = Receiver::start().await;
    receiver.answer(|_, _| Reply::Status(308));
    let nodes = start(database, &[&receiver], &[ONLY_MESSAGES, ("WEBHOOK_MAX_ATTEMPTS", "1")]).await;
    nodes.send(0, ANNA, BEN, "hello").await;
    let dead = wait_for_dead(&nodes, 1).await;
    assert_eq!(dead[0]["last_error"], "answered 308");
}

async fn retry_after_is_obeyed_for_the_whole_target(database: TestDatabase) {
    let receiver = Receiver::start().await;
    receiver.answer(|received, before| {
        let is_first = received.body["data"]["message"]["seq"] == 1;
        if is_first && before == 0 { Reply::Later(503, 2) } else { Reply::Status(200) }
    });
    let nodes = start(database, &[&receiver], &[ONLY_MESSAGES]).await;
    nodes.send(0, ANNA, BEN, "one").await;
    let refused = receiver.wait_for("message.created", 1).await[0].clone();
    nodes.send(0, ANNA, BEN, "two").await;
    let told = receiver.wait_for("message.created", 3).await;
    for later in &told[1..] {
        assert!(later.at - refused.at >= Duration::from_millis(1900), "{:?}", later.at - refused.at);
    }
    assert_eq!(told.iter().filter(|received| received.id == refused.id).count(), 2);
}

async fn a_poisoned_event_holds_up_no_other(database: TestDatabase) {
    let receiver = Receiver::start().await;
    receiver.answer(|received, _| {
        let is_poison = received.body["data"]["message"]["content"] == "poison";
        Reply::Status(if is_poison { 500 } else { 200 })
    });
    let variables = [ONLY_MESSAGES, ("WEBHOOK_MAX_ATTEMPTS", "2")];
    let nodes = start(database, &[&receiver], &variables).await;
    nodes.send(0, ANNA, BEN, "poison").await;
    for number in 0..20 {
        nodes.send(0, ANNA, BEN, &number.to_string()).await;
    }
    receiver.wait_for("message.created", 22).await;
    let dead = wait_for_dead(&nodes, 1).await;
    assert_eq!((dead.len(), &dead[0]["attempts"]), (1, &json!(2)));
    let arrived: BTreeSet<_> = receiver
        .of("message.created")
        .iter()
        .map(|received| received.body["data"]["message"]["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(arrived, (1..=21).collect());
}

async fn a_hanging_receiver_holds_up_nobody_else(database: TestDatabase) {
    let (hanging, well) = (Receiver::start().await, Receiver::start().await);
    hanging.answer(|_, _| Reply::Hang);
    let nodes = start(database, &[&hanging, &well], &[ONLY_MESSAGES, ("WEBHOOK_TIMEOUT", "20000")]).await;
    let ben = nodes.connect(0, BEN).await;
    nodes.send(0, ANNA, BEN, "first").await;
    hanging.wait_for("message.created", 1).await;
    // Every request to it is stuck from here on; messages are stored, told live, and told to the other.
    for number in 0..40 {
        nodes.send(0, ANNA, BEN, &number.to_string()).await;
    }
    ben.wait_for("message_received", |data| data["message"]["content"] == "39").await;
    assert_eq!(ben.all("message_received").len(), 41);
    well.wait_for("message.created", 41).await;
    assert!(hanging.received().len() < 41, "it still hangs");
    // Nor does it hold up the end.
    let began = Instant::now();
    let mut nodes = nodes;
    assert!(nodes.stop_node(0).await);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

async fn a_private_address_is_never_asked(database: TestDatabase) {
    let receiver = Receiver::start().await;
    let url = format!("http://localhost:{}/hook", receiver.port());
    let variables = [
        ONLY_MESSAGES,
        ("WEBHOOK_ALLOW_PRIVATE", "false"),
        ("WEBHOOK_URL", &url),
        ("WEBHOOK_MAX_ATTEMPTS", "1"),
    ];
    let nodes = start(borrow(&database), &[], &variables).await;
    nodes.send(0, ANNA, BEN, "hello").await;
    let dead = wait_for_dead(&nodes, 1).await;
    assert_eq!(dead[0]["last_error"], "the address is not public");
    assert!(receiver.received().is_empty());

    // An address that says so itself stops the start, in production by itself.
    let url = receiver.url();
    let variables = [
        ("NODE_ENV", "production"),
        ("MAIN_API_URL", "http://127.0.0.1:9"),
        ("DATABASE_URL", &database.url),
        ("WEBHOOK_URL", &url),
        ("WEBHOOK_SECRET", SECRET),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_env(variables.into_iter().collect()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let never = std::future::pending();
    let refusal = server::run(config, listener, axum::Router::new(), Clock::System, never).await.unwrap_err();
    assert!(refusal.to_string().starts_with("WEBHOOK_URL names a private address"), "{refusal}");
}
