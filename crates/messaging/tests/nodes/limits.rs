//! Limits that all nodes share.

use serde_json::json;

use crate::nodes::Nodes;

const ANNA: i64 = 1;
const BEN: i64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_three_nodes_is_one_burst() {
    let limits = [("RATE_LIMIT_MESSAGES", "6"), ("RATE_LIMIT_BURST", "9")];
    let Some(nodes) = Nodes::shared(3, &limits).await else { return };
    let body = json!({"receiver_id": BEN, "content": "hello"});
    for number in 0..9 {
        let (status, answer) = nodes.post(number % 3, ANNA, "/api/messages", &body).await;
        assert_eq!(status, 201, "{answer}");
    }
    for node in 0..3 {
        let (status, answer) = nodes.post(node, ANNA, "/api/messages", &body).await;
        assert_eq!(status, 429, "{answer}");
        assert_eq!(answer["error"]["code"], "RATE_LIMITED");
        let wait = answer["error"]["details"]["retry_after"].as_f64().unwrap();
        assert!((1.0..=10.0).contains(&wait), "{answer}");
    }
    let (status, _) = nodes.post(0, 3, "/api/messages", &body).await;
    assert_eq!(status, 201, "another user has a bucket of their own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_node_counts_by_itself_and_knows_what_it_allowed() {
    let limits = [("RATE_LIMIT_MESSAGES", "6"), ("RATE_LIMIT_BURST", "4")];
    let Some(mut nodes) = Nodes::shared(2, &limits).await else { return };
    let body = json!({"receiver_id": BEN, "content": "hello"});
    for _ in 0..3 {
        assert_eq!(nodes.post(0, ANNA, "/api/messages", &body).await.0, 201);
    }
    nodes.redis.as_mut().unwrap().kill();
    assert_eq!(nodes.post(0, ANNA, "/api/messages", &body).await.0, 201);
    assert_eq!(nodes.post(0, ANNA, "/api/messages", &body).await.0, 429);
    assert_eq!(nodes.post(1, ANNA, "/api/messages", &body).await.0, 201, "this node allowed none so far");
}
