//! Nodes that tell a receiver, and the main API's calls to them.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::{nodes::Nodes, receiver::Receiver, support::TestDatabase};

pub(crate) const ANNA: i64 = 1;
pub(crate) const BEN: i64 = 2;
pub(crate) const CLEO: i64 = 3;
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const SERVICE_KEY: &str = "the-main-api-and-nobody-else-knows-it";

/// The same database for a second use, which ends before the first.
pub(crate) fn borrow(database: &TestDatabase) -> TestDatabase {
    TestDatabase { url: database.url.clone(), _folder: None }
}

/// A node whose events go to this receiver, and fail fast. Later variables win.
pub(crate) async fn start(
    database: TestDatabase,
    receivers: &[&Receiver],
    variables: &[(&str, &str)],
) -> Nodes {
    let urls: Vec<String> = receivers.iter().map(|receiver| receiver.url()).collect();
    let urls = urls.join(",");
    let mut all = vec![
        ("WEBHOOK_URL", urls.as_str()),
        ("WEBHOOK_SECRET", SECRET),
        ("WEBHOOK_RETRY_BASE", "20"),
        ("WEBHOOK_TIMEOUT", "2000"),
        ("SERVICE_API_KEY", SERVICE_KEY),
    ];
    // The last one of a name holds.
    all.extend(variables);
    let mut nodes = Nodes::new(database, None, &all).await;
    nodes.start_node().await;
    nodes
}

/// A call of the main API.
pub(crate) async fn internal(nodes: &Nodes, key: &str, method: Method, path: &str) -> (StatusCode, Value) {
    let url = format!("http://{}/internal/webhooks/{path}", nodes.nodes[0].address);
    let response = nodes.http.request(method, url).bearer_auth(key).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// The dead letters.
pub(crate) async fn dead(nodes: &Nodes) -> Vec<Value> {
    let (status, answer) = internal(nodes, SERVICE_KEY, Method::GET, "dead").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["data"].as_array().unwrap().clone()
}

/// Waits until there are so many dead letters.
pub(crate) async fn wait_for_dead(nodes: &Nodes, count: usize) -> Vec<Value> {
    let began = std::time::Instant::now();
    loop {
        let dead = dead(nodes).await;
        if dead.len() >= count {
            return dead;
        }
        assert!(began.elapsed() < crate::receiver::PATIENCE, "not {count} dead letters: {dead:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
