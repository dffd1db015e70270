//! Who is online, over all nodes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::nodes::Nodes;

const ANNA: i64 = 1;
const BEN: i64 = 2;

fn is(user: i64, status: &str) -> impl Fn(&serde_json::Value) -> bool + '_ {
    move |data| data["user_id"] == user && data["status"] == status
}

async fn status(nodes: &Nodes, node: usize, who: i64, of: i64) -> serde_json::Value {
    let answer = nodes.get(node, who, &format!("/api/presence?user_ids={of}")).await;
    answer["data"][0]["status"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_is_seen_on_other_nodes_once() {
    let Some(nodes) = Nodes::shared(3, &[]).await else { return };
    nodes.send(0, ANNA, BEN, "hello").await;
    let ben = nodes.connect(1, BEN).await;
    let anna = nodes.connect(0, ANNA).await;
    ben.wait_for("user_presence", is(ANNA, "online")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for node in 0..3 {
        assert_eq!(status(&nodes, node, BEN, ANNA).await, "online", "on node {node}");
        let list = nodes.get(node, BEN, "/api/conversations").await;
        assert_eq!(list["data"][0]["other_user"]["status"], "online", "on node {node}");
    }
    anna.close().await;
    let began = Instant::now();
    let gone = ben.wait_for("user_presence", is(ANNA, "offline")).await;
    assert!(gone["last_seen"].is_string());
    assert!(began.elapsed() > Duration::from_secs(4), "there is some time to come back");
    for node in 0..3 {
        assert_eq!(status(&nodes, node, BEN, ANNA).await, "offline", "on node {node}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ben.all("user_presence").len(), 2, "{:?}", ben.all("user_presence"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_moves_to_another_node_was_never_away() {
    let Some(nodes) = Nodes::shared(3, &[]).await else { return };
    nodes.send(0, ANNA, BEN, "hello").await;
    let ben = nodes.connect(1, BEN).await;
    let anna = nodes.connect(0, ANNA).await;
    ben.wait_for("user_presence", is(ANNA, "online")).await;
    for node in [2, 0, 1] {
        let next = nodes.connect(node, ANNA).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(next);
    }
    anna.close().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _anna = nodes.connect(2, ANNA).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(ben.all("user_presence").len(), 1, "{:?}", ben.all("user_presence"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn online_beats_away_beats_offline_over_all_nodes() {
    let Some(nodes) = Nodes::shared(3, &[]).await else { return };
    nodes.send(0, ANNA, BEN, "hello").await;
    let ben = nodes.connect(1, BEN).await;
    let (phone, laptop) = (nodes.connect(0, ANNA).await, nodes.connect(2, ANNA).await);
    ben.wait_for("user_presence", is(ANNA, "online")).await;
    phone.emit("presence_update", &json!({"status": "away"}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ben.all("user_presence").len(), 1, "the laptop is still online");
    laptop.emit("presence_update", &json!({"status": "away"}));
    ben.wait_for("user_presence", is(ANNA, "away")).await;
    phone.emit("presence_update", &json!({"status": "offline"}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ben.all("user_presence").len(), 2, "the laptop is still away");
    laptop.close().await;
    ben.wait_for("user_presence", is(ANNA, "offline")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_killed_node_go_offline_once_within_15_seconds() {
    let Some(mut nodes) = Nodes::shared(3, &[]).await else { return };
    nodes.send(0, ANNA, BEN, "hello").await;
    nodes.send(0, 3, BEN, "hello").await;
    let (ben, ben_too) = (nodes.connect(0, BEN).await, nodes.connect(1, BEN).await);
    let _anna = nodes.connect(2, ANNA).await;
    let _moving = nodes.connect(2, 3).await;
    ben.wait_for("user_presence", is(ANNA, "online")).await;
    ben.wait_for("user_presence", is(3, "online")).await;
    // Nobody is swept shortly after Redis was found.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let killed_at = Instant::now();
    nodes.kill_node(2);
    let _moved = nodes.connect(1, 3).await;
    for live in [&ben, &ben_too] {
        let gone = live.wait_within(Duration::from_secs(15), "user_presence", is(ANNA, "offline")).await;
        assert!(gone["last_seen"].is_string());
    }
    assert!(killed_at.elapsed() < Duration::from_secs(15));
    tokio::time::sleep(Duration::from_secs(4)).await;
    for live in [&ben, &ben_too] {
        let gone: Vec<_> =
            live.all("user_presence").into_iter().filter(|data| data["status"] == "offline").collect();
        assert_eq!(gone.len(), 1, "who moved was never away: {gone:?}");
    }
    assert_eq!(status(&nodes, 0, BEN, 3).await, "online");
    assert_eq!(status(&nodes, 0, BEN, ANNA).await, "offline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_or_restarted_redis_makes_nobody_flap() {
    let Some(mut nodes) = Nodes::shared(2, &[]).await else { return };
    nodes.send(0, ANNA, BEN, "hello").await;
    let ben = nodes.connect(0, BEN).await;
    let anna = nodes.connect(1, ANNA).await;
    ben.wait_for("user_presence", is(ANNA, "online")).await;
    nodes.redis.as_ref().unwrap().ask(&["FLUSHALL"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    nodes.redis.as_mut().unwrap().kill();
    tokio::time::sleep(Duration::from_secs(11)).await;
    nodes.redis.as_mut().unwrap().run().await;
    tokio::time::sleep(Duration::from_secs(13)).await;
    assert_eq!(ben.all("user_presence").len(), 1, "{:?}", ben.all("user_presence"));
    assert_eq!(status(&nodes, 0, BEN, ANNA).await, "online");
    // What was said under leases that are gone is swept too.
    tokio::time::sleep(Duration::from_secs(8)).await;
    anna.close().await;
    ben.wait_for("user_presence", is(ANNA, "offline")).await;
}
