//! A service with its push services, and people with devices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fcm::Fcm,
    nodes::Nodes,
    redis_server::RedisServer,
    support::{Backend, TestDatabase},
};

pub(crate) const ANNA: i64 = 1;
pub(crate) const BEN: i64 = 2;
/// Somebody else, whose push says that all before it would have come by now.
pub(crate) const CLEO: i64 = 3;

/// Seconds of `PUSH_FOLD` here.
pub(crate) const FOLD: Duration = Duration::from_secs(1);

pub(crate) struct World {
    pub(crate) nodes: Nodes,
    pub(crate) fcm: Fcm,
}

impl World {
    /// One node that pushes through FCM.
    pub(crate) async fn new(database: TestDatabase) -> Self {
        Self::with(database, None, 1, &[]).await
    }

    /// Two nodes over PostgreSQL and Redis; `None` where there is none of them.
    pub(crate) async fn two_nodes(variables: &[(&str, &str)]) -> Option<Self> {
        let redis = RedisServer::start(&[]).await?;
        let database = TestDatabase::new(Backend::Postgres).await?;
        Some(Self::with(database, Some(redis), 2, variables).await)
    }

    pub(crate) async fn with(
        database: TestDatabase,
        redis: Option<RedisServer>,
        count: usize,
        variables: &[(&str, &str)],
    ) -> Self {
        let fcm = Fcm::start().await;
        let url = redis.as_ref().map(RedisServer::url);
        let account = fcm.variables();
        let mut all: Vec<(&str, &str)> =
            account.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.extend([("PUSH_FOLD", "1"), ("PUSH_SWEEP_AFTER", "3"), ("RATE_LIMIT_READS", "0")]);
        all.extend(url.as_deref().map(|url| ("REDIS_URL", url)));
        all.extend(variables);
        let mut nodes = Nodes::new(database, redis, &all).await;
        for _ in 0..count {
            nodes.start_node().await;
        }
        Self { nodes, fcm }
    }

    pub(crate) async fn register(&self, user: i64, token: &str, device_type: &str) {
        let body = json!({"token": token, "device_type": device_type});
        let (status, answer) = self.nodes.post(0, user, "/api/devices", &body).await;
        assert!(status.is_success(), "{answer}");
    }

    /// How many devices a person has.
    pub(crate) async fn count_devices(&self, user: i64) -> usize {
        self.nodes.get(0, user, "/api/devices").await["data"].as_array().unwrap().len()
    }

    /// A message; answers its conversation and itself.
    pub(crate) async fn send(&self, from: i64, to: i64, words: &str) -> (i64, Value) {
        let message = self.nodes.send(0, from, to, words).await;
        (message["conversation_id"].as_i64().unwrap(), message)
    }

    pub(crate) async fn act(&self, user: i64, conversation: i64, what: &str) {
        let path = format!("/api/conversations/{conversation}/{what}");
        let (status, answer) = self.nodes.post(0, user, &path, &json!({})).await;
        assert!(status.is_success(), "{answer}");
    }

    pub(crate) async fn prefer(&self, user: i64, preferences: Value) {
        let url = format!("http://{}/api/notifications/preferences", self.nodes.nodes[0].address);
        let request = self.nodes.http.put(url).bearer_auth(crate::nodes::token(user)).json(&preferences);
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// Waits until whatever was sent before would have been pushed: bursts are over, and so are sweeps
    /// if `sweeps`.
    pub(crate) async fn settle(&self, sweeps: bool) {
        let patience = if sweeps { Duration::from_secs(6) } else { FOLD + FOLD / 2 };
        tokio::time::sleep(patience).await;
        let token = format!("cleo-{}", rand::random::<u32>());
        self.register(CLEO, &token, "android").await;
        self.send(ANNA, CLEO, "the barrier").await;
        self.fcm.wait_for(&token, 1).await;
    }
}
