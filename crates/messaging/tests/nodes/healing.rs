//! Redis killed, frozen, emptied, cut off: local work goes on, and everything heals by itself.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::nodes::Nodes;

const ANNA: i64 = 1;
const BEN: i64 = 2;
/// What the service promises after the return of Redis.
const HEALED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_nodes_work_and_afterwards_nothing_is_missing() {
    let Some(mut nodes) = Nodes::shared(2, &[]).await else { return };
    let (anna, ben) = (nodes.connect(0, ANNA).await, nodes.connect(1, BEN).await);
    nodes.send(0, ANNA, BEN, "before").await;
    ben.wait_for_words("before").await;
    nodes.redis.as_mut().unwrap().kill();
    nodes.wait_for_redis(0, "down").await;
    nodes.wait_for_redis(1, "down").await;

    let began = Instant::now();
    nodes.send(0, ANNA, BEN, "meanwhile").await;
    anna.wait_within(Duration::from_millis(500), "message_received", |data| {
        data["message"]["content"] == "meanwhile"
    })
    .await;
    assert!(began.elapsed() < Duration::from_millis(500), "the local way is not held up");
    // A connection that comes now goes live too.
    let late = nodes.connect(1, 3).await;
    nodes.send(0, ANNA, 3, "to one who came late").await;

    nodes.redis.as_mut().unwrap().run().await;
    ben.wait_within(HEALED_WITHIN, "message_received", |data| data["message"]["content"] == "meanwhile")
        .await;
    late.wait_within(HEALED_WITHIN, "message_received", |data| {
        data["message"]["content"] == "to one who came late"
    })
    .await;
    nodes.wait_for_redis(0, "up").await;
    nodes.wait_for_redis(1, "up").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let began = Instant::now();
    nodes.send(0, ANNA, BEN, "after").await;
    ben.wait_for_words("after").await;
    assert!(began.elapsed() < Duration::from_millis(700), "it comes over the bus again, not from the log");
    ben.assert_no_gap();
    assert!(ben.all("sync_required").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_under_a_node_is_made_again_with_all_it_listened_to() {
    let Some(nodes) = Nodes::shared(2, &[]).await else { return };
    let ben = nodes.connect(1, BEN).await;
    for round in 0..5 {
        nodes.redis.as_ref().unwrap().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        // Some of these are published to nobody.
        for number in 0..5 {
            nodes.send(0, ANNA, BEN, &format!("{round}.{number}")).await;
        }
        ben.wait_within(HEALED_WITHIN, "message_received", |data| {
            data["message"]["content"] == format!("{round}.4")
        })
        .await;
    }
    ben.assert_no_gap();
    assert_eq!(ben.words().len(), 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_holds_up_nobody() {
    let Some(nodes) =
        Nodes::shared(2, &[("RATE_LIMIT_MESSAGES", "6000"), ("RATE_LIMIT_BURST", "1000")]).await
    else {
        return;
    };
    let (anna, ben) = (nodes.connect(0, ANNA).await, nodes.connect(1, BEN).await);
    nodes.send(0, ANNA, BEN, "before").await;
    ben.wait_for_words("before").await;
    nodes.redis.as_ref().unwrap().signal("STOP");
    for number in 0..20 {
        let began = Instant::now();
        nodes.send(0, ANNA, BEN, &format!("meanwhile {number}")).await;
        anna.wait_for_words(&format!("meanwhile {number}")).await;
        assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    }
    // New connections come in as well.
    let began = Instant::now();
    let late = nodes.connect(0, 3).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(3)).await;
    nodes.redis.as_ref().unwrap().signal("CONT");
    ben.wait_within(HEALED_WITHIN, "message_received", |data| data["message"]["content"] == "meanwhile 19")
        .await;
    ben.assert_no_gap();
    nodes.send(1, ANNA, 3, "hello").await;
    late.wait_within(HEALED_WITHIN, "message_received", |data| data["message"]["content"] == "hello").await;
}

/// Without Redis at the start the service serves, and finds it later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_come_after_the_service() {
    let Some(mut nodes) = Nodes::shared(0, &[]).await else { return };
    nodes.redis.as_mut().unwrap().kill();
    nodes.start_node().await;
    nodes.start_node().await;
    assert_eq!(nodes.redis_status(0).await, "down");
    let ben = nodes.connect(1, BEN).await;
    nodes.send(0, ANNA, BEN, "before").await;
    nodes.redis.as_mut().unwrap().run().await;
    ben.wait_within(HEALED_WITHIN, "message_received", |data| data["message"]["content"] == "before").await;
    nodes.wait_for_redis(0, "up").await;
    nodes.wait_for_redis(1, "up").await;
    ben.assert_no_gap();
}

/// A last publication that was lost has no next one that would show it: somebody publishes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_at_the_very_end_is_found_in_the_log() {
    let Some(nodes) = Nodes::shared(2, &[]).await else { return };
    let ben = nodes.connect(1, BEN).await;
    nodes.send(0, ANNA, BEN, "one").await;
    ben.wait_for_words("one").await;
    // Nodes that do not see each other: nothing is published to this one's prefix.
    let other = nodes.start_apart().await;
    other.send(0, ANNA, BEN, "unheard").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(ben.words(), ["one"]);
    // The next one shows it; without a next one the comparison every half minute would.
    nodes.send(0, ANNA, BEN, "two").await;
    ben.wait_for_words("two").await;
    assert_eq!(ben.words(), ["one", "unheard", "two"]);
    ben.assert_no_gap();
    let (status, _) =
        other.post(0, ANNA, "/api/messages", &json!({"receiver_id": BEN, "content": "last"})).await;
    assert_eq!(status, 201);
    ben.wait_within(Duration::from_secs(40), "message_received", |data| data["message"]["content"] == "last")
        .await;
    ben.assert_no_gap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_leave_closes_its_clients_and_they_go_on_elsewhere() {
    let Some(mut nodes) = Nodes::shared(2, &[("SHUTDOWN_TIMEOUT", "4")]).await else { return };
    let ben = nodes.connect(1, BEN).await;
    nodes.send(0, ANNA, BEN, "one").await;
    ben.wait_for_words("one").await;
    let since = *ben.places().last().unwrap();
    assert!(nodes.stop_node(1).await, "it left well");
    ben.wait_closed().await;
    nodes.send(0, ANNA, BEN, "two").await;
    let ben = nodes.connect_since(0, BEN, since).await;
    ben.wait_for_words("two").await;
    ben.assert_no_gap();
}
