//! The same over a cluster with sharded channels, and over a server that sentinels know.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    nodes::Nodes,
    redis_server::{self, RedisServer},
    support::{Backend, TestDatabase},
};

const ANNA: i64 = 1;
const BEN: i64 = 2;

/// What needs each of the shared things once.
async fn everything_is_shared(url: &str) -> Option<()> {
    let variables = [("REDIS_URL", url), ("RATE_LIMIT_MESSAGES", "1"), ("RATE_LIMIT_BURST", "12")];
    let mut nodes = Nodes::new(TestDatabase::new(Backend::Postgres).await?, None, &variables).await;
    nodes.start_node().await;
    nodes.start_node().await;
    nodes.wait_for_redis(0, "up").await;
    nodes.wait_for_redis(1, "up").await;
    nodes.send(0, ANNA, BEN, "first").await;
    let ben = nodes.connect(1, BEN).await;
    let anna = nodes.connect(0, ANNA).await;
    ben.wait_for("user_presence", |data| data["user_id"] == ANNA && data["status"] == "online").await;
    // Over the bus, not from the log, which is compared every half minute.
    for number in 0..5 {
        let began = Instant::now();
        nodes.send(0, ANNA, BEN, &format!("hello {number}")).await;
        ben.wait_for_words(&format!("hello {number}")).await;
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    anna.wait_for("message_delivered", |data| data["user_id"] == BEN).await;
    let others = futures_util::future::join_all((10..60).map(|user| nodes.connect(1, user))).await;
    nodes.send(0, BEN, 42, "to one of them").await;
    others[32].wait_for_words("to one of them").await;
    assert_eq!(nodes.questions(), 52, "each token was asked about once");
    for number in 0..6 {
        nodes.send(1 - number % 2, ANNA, BEN, "more").await;
    }
    let body = json!({"receiver_id": BEN, "content": "one too many"});
    assert_eq!(nodes.post(0, ANNA, "/api/messages", &body).await.0, 429);
    assert_eq!(nodes.post(1, ANNA, "/api/messages", &body).await.0, 429);
    ben.assert_no_gap();
    anna.close().await;
    ben.wait_for("user_presence", |data| data["user_id"] == ANNA && data["status"] == "offline").await;
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        let Some(server) = RedisServer::start(&["--cluster-enabled", "yes"]).await else { return };
        servers.push(server);
    }
    for (server, slots) in servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        server.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await;
        server.ask(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port().to_string()]).await;
    }
    for server in &servers {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let state: String = redis::from_redis_value(server.ask(&["CLUSTER", "INFO"]).await).unwrap();
            if state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3") {
                break;
            }
            assert!(Instant::now() < until, "{state}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let hosts: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    everything_is_shared(&format!("redis-cluster://{}", hosts.join(","))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels() {
    let Some(leader) = RedisServer::start(&[]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    let words = format!(
        "sentinel monitor shop 127.0.0.1 {} 1\nsentinel down-after-milliseconds shop 1000\n",
        leader.port()
    );
    std::fs::write(&file, words).unwrap();
    let port = redis_server::free_port();
    let mut sentinel = std::process::Command::new("redis-server")
        .arg(&file)
        .args(["--sentinel", "--port", &port.to_string()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcome = tokio::spawn(async move {
        everything_is_shared(&format!("redis-sentinel://127.0.0.1:{port}/shop")).await;
    })
    .await;
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    outcome.unwrap();
}
