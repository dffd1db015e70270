//! What the main API says to one node holds on all of them, with Redis and without.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::nodes::{Nodes, token};

const ANNA: i64 = 1;
const BEN: i64 = 2;
/// The contract: within a second, with some room for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_cuts_connections_on_another_node_within_a_second() {
    let Some(nodes) = Nodes::shared(2, &[]).await else { return };
    let (anna, ben) = (nodes.connect(1, ANNA).await, nodes.connect(1, BEN).await);
    let began = Instant::now();
    let (status, answer) = nodes.internal(0, "/internal/users/1/logout", &json!({"reason": "ban"})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(anna.wait_closed().await, Some(4403));
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(ben.all("error").is_empty());
    // Nobody remembers the token any more, in memory or in Redis.
    let questions = nodes.questions();
    nodes.get(1, ANNA, "/api/conversations").await;
    assert_eq!(nodes.questions(), questions + 1);
    // Said once, it cuts once: whoever comes in again stays.
    let anna = nodes.connect(1, ANNA).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    nodes.send(0, BEN, ANNA, "still here").await;
    anna.wait_for_words("still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_token_is_cut_on_another_node_and_other_tokens_are_not() {
    let Some(nodes) = Nodes::shared(2, &[]).await else { return };
    let (anna, ben) = (nodes.connect(1, ANNA).await, nodes.connect(1, BEN).await);
    let began = Instant::now();
    let (status, _) = nodes.internal(0, "/internal/tokens/forget", &json!({"token": token(ANNA)})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(anna.wait_closed().await, Some(4401));
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    nodes.send(0, ANNA, BEN, "hello").await;
    ben.wait_for_words("hello").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_other_nodes_hear_of_a_logout_from_the_database() {
    let Some(mut nodes) = Nodes::shared(2, &[]).await else { return };
    let anna = nodes.connect(1, ANNA).await;
    nodes.redis.as_mut().unwrap().kill();
    nodes.wait_for_redis(0, "down").await;
    let began = Instant::now();
    let (status, _) = nodes.internal(0, "/internal/users/1/logout", &json!({})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(anna.wait_closed().await, Some(4401));
    assert!(began.elapsed() < 3 * AT_ONCE, "a look into the database a second: {:?}", began.elapsed());
    let questions = nodes.questions();
    nodes.get(1, ANNA, "/api/conversations").await;
    assert_eq!(nodes.questions(), questions + 1, "node 1 remembers nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_card_is_shown_by_all_nodes() {
    let Some(nodes) = Nodes::shared(2, &[]).await else { return };
    let conversation = nodes.send(0, ANNA, BEN, "hello").await["conversation_id"].clone();
    let path = format!("/api/conversations/{conversation}");
    let seen = nodes.get(1, BEN, &path).await;
    assert_eq!(seen["data"]["other_user"]["name"], "Name 1");
    let ben = nodes.connect(1, BEN).await;
    let (status, _) = nodes.internal(0, "/internal/users/1/refresh", &json!({"name": "Anna Nova"})).await;
    assert_eq!(status, StatusCode::OK);
    let told = ben.wait_for("conversation_updated", |data| data["event_seq"].is_i64()).await;
    assert_eq!(told["conversation"]["other_user"]["name"], "Anna Nova");
    let until = Instant::now() + 2 * AT_ONCE;
    while nodes.get(1, BEN, &path).await["data"]["other_user"]["name"] != "Anna Nova" {
        assert!(Instant::now() < until, "node 1 shows the old card");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ben.assert_no_gap();
}
