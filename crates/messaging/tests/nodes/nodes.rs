//! Nodes of the service in one test process, each with a runtime of its own, so that it can be killed.

use std::{collections::HashMap, net::SocketAddr};

use axum::{Json, Router, extract::Path, http::HeaderMap, routing::get};
use messaging::{clock::Clock, config::Config, server};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use crate::{
    client::Live,
    redis_server::RedisServer,
    support::{Backend, TestDatabase},
};

const SERVICE_KEY: &str = "b0f1a4d89c7e4f2a8f6d13c5e7a90b2d4c6e8f01";

/// Nodes that belong together, and what they stand on.
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
    pub(crate) variables: HashMap<String, String>,
    main_api_questions: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    pub(crate) database: Option<TestDatabase>,
    pub(crate) redis: Option<RedisServer>,
    pub(crate) http: Client,
}

/// One of them.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<bool>,
}

impl Nodes {
    /// One node that serves all of them, without Redis.
    pub(crate) async fn alone() -> Option<Self> {
        let database = TestDatabase::new(Backend::Sqlite).await?;
        let mut nodes = Self::new(database, None, &[]).await;
        nodes.start_node().await;
        Some(nodes)
    }

    /// So many nodes over a PostgreSQL and a Redis of their own.
    pub(crate) async fn shared(count: usize, variables: &[(&str, &str)]) -> Option<Self> {
        let redis = RedisServer::start(&[]).await?;
        let url = redis.url();
        let mut all = vec![("REDIS_URL", url.as_str())];
        all.extend(variables);
        let database = TestDatabase::new(Backend::Postgres).await?;
        let mut nodes = Self::new(database, Some(redis), &all).await;
        for _ in 0..count {
            nodes.start_node().await;
        }
        Some(nodes)
    }

    pub(crate) async fn new(
        database: TestDatabase,
        redis: Option<RedisServer>,
        variables: &[(&str, &str)],
    ) -> Self {
        Self::over(&database.url.clone(), Some(database), redis, variables).await
    }

    async fn over(
        database_url: &str,
        database: Option<TestDatabase>,
        redis: Option<RedisServer>,
        variables: &[(&str, &str)],
    ) -> Self {
        crate::show_logs();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let main_api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut all = HashMap::from([
            ("MAIN_API_URL".to_owned(), format!("http://{}", main_api.local_addr().unwrap())),
            ("DATABASE_URL".to_owned(), database_url.to_owned()),
            ("DB_POOL_MAX".to_owned(), "6".to_owned()),
            ("SERVICE_API_KEY".to_owned(), SERVICE_KEY.to_owned()),
            ("RATE_LIMIT_MESSAGES".to_owned(), "0".to_owned()),
            ("RATE_LIMIT_CONVERSATIONS".to_owned(), "0".to_owned()),
            ("RATE_LIMIT_TYPING".to_owned(), "0".to_owned()),
        ]);
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        // An empty one takes the variable away.
        all.retain(|_, value| !value.is_empty());
        let questions = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let asked = std::sync::Arc::clone(&questions);
        let answer = move |headers: HeaderMap| {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::ready(show_user(&headers))
        };
        let router = Router::new().route("/user", get(answer)).route("/products/{id}", get(show_product));
        tokio::spawn(async move { axum::serve(main_api, router).await });
        Self {
            nodes: Vec::new(),
            variables: all,
            main_api_questions: questions,
            database,
            redis,
            http: Client::builder().no_proxy().tls_certs_only([]).build().unwrap(),
        }
    }

    pub(crate) async fn start_node(&mut self) -> usize {
        let config = Config::from_env(self.variables.clone()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (bound, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let stopped = async { _ = stopped.await };
            server::run(config, listener, Router::new(), Clock::System, stopped).await.is_ok()
        });
        let address = address.await.unwrap();
        self.nodes.push(Node { address, runtime: Some(runtime), stop: Some(stop), ended });
        self.wait_for_node(address).await
    }

    /// A node that is a process of its own instead of those that there are.
    pub(crate) async fn adopt_node(&mut self, address: SocketAddr) {
        self.nodes = vec![Node { address, runtime: None, stop: None, ended: tokio::spawn(async { true }) }];
        self.wait_for_node(address).await;
    }

    async fn wait_for_node(&self, address: SocketAddr) -> usize {
        let node = self.nodes.len() - 1;
        let url = format!("http://{address}/ready");
        for _ in 0..500 {
            // Bound is not yet served.
            if self.http.get(&url).send().await.is_ok() {
                return node;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the node does not serve");
    }

    /// A node on the same database that the others do not hear.
    pub(crate) async fn start_apart(&self) -> Self {
        let redis_url = self.redis.as_ref().unwrap().url();
        let main_api_url = self.variables["MAIN_API_URL"].clone();
        let variables =
            [("REDIS_URL", redis_url.as_str()), ("MAIN_API_URL", &main_api_url), ("REDIS_PREFIX", "apart:")];
        let mut nodes = Self::over(&self.variables["DATABASE_URL"], None, None, &variables).await;
        nodes.start_node().await;
        nodes
    }

    /// As `kill -9` would: its tasks are gone, its connections closed, nothing is said.
    pub(crate) fn kill_node(&mut self, node: usize) {
        if let Some(runtime) = self.nodes[node].runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// As SIGTERM would. Answers whether it left well.
    pub(crate) async fn stop_node(&mut self, node: usize) -> bool {
        drop(self.nodes[node].stop.take());
        (&mut self.nodes[node].ended).await.unwrap_or(false)
    }

    /// How often the main API was asked whose a token is.
    pub(crate) fn questions(&self) -> usize {
        self.main_api_questions.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The place of a node; where there is only one, it is all of them.
    fn address(&self, node: usize) -> SocketAddr {
        self.nodes.get(node).unwrap_or(&self.nodes[0]).address
    }

    pub(crate) async fn connect(&self, node: usize, user: i64) -> Live {
        Live::connect(self.address(node), user, None).await
    }

    pub(crate) async fn connect_since(&self, node: usize, user: i64, since: i64) -> Live {
        Live::connect(self.address(node), user, Some(since)).await
    }

    pub(crate) async fn post(&self, node: usize, user: i64, path: &str, body: &Value) -> (StatusCode, Value) {
        let url = format!("http://{}{path}", self.address(node));
        let response = self.http.post(url).bearer_auth(token(user)).json(body).send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or_default())
    }

    /// A call of the main API.
    pub(crate) async fn internal(&self, node: usize, path: &str, body: &Value) -> (StatusCode, Value) {
        let url = format!("http://{}{path}", self.address(node));
        let response = self.http.post(url).bearer_auth(SERVICE_KEY).json(body).send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or_default())
    }

    pub(crate) async fn get(&self, node: usize, user: i64, path: &str) -> Value {
        let url = format!("http://{}{path}", self.address(node));
        let response = self.http.get(url).bearer_auth(token(user)).send().await.unwrap();
        response.json().await.unwrap()
    }

    /// A message by REST; answers it.
    pub(crate) async fn send(&self, node: usize, from: i64, to: i64, words: &str) -> Value {
        let body = json!({"receiver_id": to, "content": words});
        let (status, mut answer) = self.post(node, from, "/api/messages", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["data"].take()
    }

    pub(crate) async fn redis_status(&self, node: usize) -> String {
        let url = format!("http://{}/ready", self.address(node));
        let ready: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        ready["data"]["dependencies"]["redis"]["status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn wait_for_redis(&self, node: usize, status: &str) {
        for _ in 0..500 {
            if self.redis_status(node).await == status {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("Redis is not {status} within ten seconds");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn token(user: i64) -> String {
    format!("{user}|secret")
}

async fn show_product(Path(id): Path<i64>) -> Json<Value> {
    Json(json!({"data": {"id": id, "title": format!("Product {id}"), "price_per_day": 9.5}}))
}

fn show_user(headers: &HeaderMap) -> (StatusCode, Json<Value>) {
    let token = headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ");
    match token.split_once('|').and_then(|(id, secret)| Some((id.parse::<i64>().ok()?, secret))) {
        Some((id, "secret")) => {
            (StatusCode::OK, Json(json!({"data": {"id": id, "name": format!("Name {id}")}})))
        }
        _ => (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthenticated."}))),
    }
}
