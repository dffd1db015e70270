//! What FCM's answers lead to: dead tokens go, others stay, failures are tried again in their time.

use std::time::Duration;

use serde_json::json;

use crate::{
    fcm::Reply,
    on_both_databases,
    support::{Backend, TestDatabase},
    world::{ANNA, BEN, FOLD, World},
};

on_both_databases!(a_dead_token_is_forgotten_by_the_precise_answer);

async fn sqlite() -> World {
    World::new(TestDatabase::new(Backend::Sqlite).await.unwrap()).await
}

async fn a_dead_token_is_forgotten_by_the_precise_answer(database: TestDatabase) {
    let world = World::new(database).await;
    let violation = |field: &str| Reply::Error {
        status: 400,
        body: json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "…", "details": [
            {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"},
            {"@type": "type.googleapis.com/google.rpc.BadRequest",
             "fieldViolations": [{"field": field, "description": "…"}]}]}}),
        retry_after: None,
    };
    for (place, (reply, is_dead)) in [
        (Reply::error(404, "NOT_FOUND", "UNREGISTERED"), true),
        (Reply::error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), true),
        (violation("message.token"), true),
        (violation("message.android.ttl"), false),
        (Reply::error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), false),
        (Reply::Error { status: 404, body: json!("not FCM"), retry_after: None }, false),
    ]
    .into_iter()
    .enumerate()
    {
        let user = 10 + i64::try_from(place).unwrap();
        let (token, other) = (format!("token-{user}"), format!("other-{user}"));
        world.register(user, &token, "android").await;
        world.register(user, &other, "android").await;
        world.fcm.answer(&token, [reply.clone(), reply.clone(), reply.clone()]);
        world.send(ANNA, user, "hello").await;
        world.fcm.wait_for(&other, 1).await;
        world.fcm.wait_for(&token, 1).await;
        let expected = if is_dead { 1 } else { 2 };
        for _ in 0..200 {
            if world.count_devices(user).await == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.count_devices(user).await, expected, "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_tried_again_and_the_wait_is_obeyed() {
    let world = sqlite().await;
    world.register(BEN, "ben", "android").await;
    let unavailable = |retry_after| Reply::Error {
        status: 503,
        body: json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "…"}}),
        retry_after,
    };
    world.fcm.answer("ben", [unavailable(None), unavailable(Some(2)), Reply::Fine]);
    world.send(ANNA, BEN, "hello").await;
    world.fcm.wait_for("ben", 3).await;
    world.settle(true).await;
    let sends = world.fcm.sends();
    let times: Vec<_> =
        sends.iter().filter(|sent| sent.message["token"] == "ben").map(|sent| sent.at).collect();
    assert_eq!(times.len(), 3, "no more after it was taken");
    assert!(times[2] - times[1] >= Duration::from_millis(1950), "{:?}", times[2] - times[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_token_is_replaced_when_it_is_refused_and_before_it_ends() {
    let world = sqlite().await;
    world.register(BEN, "ben", "android").await;
    world.send(ANNA, BEN, "one").await;
    world.fcm.wait_for("ben", 1).await;
    world.fcm.take_tokens_back();
    world.fcm.expire_tokens_in(1);
    tokio::time::sleep(FOLD).await;
    world.send(ANNA, BEN, "two").await;
    world.fcm.wait_for("ben", 2).await;
    assert_eq!(world.fcm.tokens_given(), 2);
    // Half of a short life is over.
    tokio::time::sleep(FOLD).await;
    world.send(ANNA, BEN, "three").await;
    world.fcm.wait_for("ben", 3).await;
    assert_eq!(world.fcm.tokens_given(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_between_two_tries_is_not_sent_again() {
    let world = sqlite().await;
    world.register(BEN, "ben", "android").await;
    let busy = Reply::Error { status: 429, body: json!({}), retry_after: Some(2) };
    world.fcm.answer("ben", [busy]);
    let (conversation, _) = world.send(ANNA, BEN, "hello").await;
    world.fcm.wait_for("ben", 1).await;
    world.act(BEN, conversation, "read").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_service_that_hangs_holds_nobody_up() {
    let world = sqlite().await;
    let live = world.nodes.connect(0, BEN).await;
    let began = std::time::Instant::now();
    world.fcm.answer_all(Reply::Hang);
    // More than there are places to send at once.
    for user in 100..150 {
        world.register(user, &format!("token-{user}"), "android").await;
        world.send(ANNA, user, "hello").await;
    }
    world.register(BEN, "ben", "android").await;
    for place in 0..30 {
        world.send(ANNA, BEN, &format!("message {place}")).await;
    }
    live.wait_for_words("message 29").await;
    let expected: Vec<_> = (0..30).map(|place| format!("message {place}")).collect();
    assert_eq!(live.words(), expected);
    // Those that hang are given up after ten seconds and make room for as many.
    let rounds = 1 + usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    let sends = world.fcm.sends().len();
    assert!(sends <= 32 * rounds, "{sends} in {rounds} rounds");
}
