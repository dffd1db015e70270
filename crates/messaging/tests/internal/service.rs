//! A running service with a key for the main API, a stand-in for that, and live clients.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::Path,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use futures_util::{SinkExt, StreamExt};
use messaging::{clock::Clock, config::Config, server};
use parking_lot::Mutex;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use crate::support::TestDatabase;

pub(crate) const KEY: &str = "b0f1a4d89c7e4f2a8f6d13c5e7a90b2d4c6e8f01";
pub(crate) const OLD_KEY: &str = "an-older-key-of-the-main-api-0123456789";
pub(crate) const ANNA: i64 = 1;
pub(crate) const BEN: i64 = 2;
pub(crate) const CLEO: i64 = 3;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the main API says; tests change it.
#[derive(Debug, Default)]
pub(crate) struct MainApi {
    /// Users whose tokens are no longer valid.
    pub(crate) signed_out: HashSet<i64>,
    /// Other names than `Name {id}`.
    pub(crate) names: HashMap<i64, String>,
    /// How often it was asked for a user.
    pub(crate) questions: usize,
    /// The title of every product.
    pub(crate) title: String,
}

pub(crate) struct Service {
    pub(crate) base: String,
    pub(crate) client: Client,
    pub(crate) main_api: Arc<Mutex<MainApi>>,
    pub(crate) database: TestDatabase,
    pub(crate) uploads: std::path::PathBuf,
    _running: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Service {
    pub(crate) async fn start(database: TestDatabase) -> Self {
        Self::start_with(database, &[("SERVICE_API_KEY", KEY), ("SERVICE_API_KEY_PREVIOUS", OLD_KEY)]).await
    }

    pub(crate) async fn start_with(database: TestDatabase, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uploads = folder.path().join("uploads");
        let mut running = JoinSet::new();
        let main_api = Arc::new(Mutex::new(MainApi { title: "Camera".into(), ..MainApi::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut all = HashMap::from([
            ("MAIN_API_URL".to_owned(), format!("http://{}", listener.local_addr().unwrap())),
            ("DATABASE_URL".to_owned(), database.url.clone()),
            ("UPLOAD_DIR".to_owned(), uploads.to_str().unwrap().to_owned()),
            ("DB_POOL_MAX".to_owned(), "6".to_owned()),
            ("RATE_LIMIT_MESSAGES".to_owned(), "0".to_owned()),
            ("RATE_LIMIT_CONVERSATIONS".to_owned(), "0".to_owned()),
            ("RATE_LIMIT_UPLOADS".to_owned(), "0".to_owned()),
        ]);
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let router = stand_in(Arc::clone(&main_api));
        running.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = Config::from_env(all).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        running.spawn(async move {
            let never = std::future::pending();
            server::run(config, listener, Router::new(), Clock::System, never).await.unwrap();
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let service = Self { base, client, main_api, database, uploads, _running: running, _folder: folder };
        timeout(PATIENCE, service.request("GET", "/health").send()).await.unwrap().unwrap();
        service
    }

    /// Ends it, and starts it again over the same database and files.
    pub(crate) async fn restart(mut self) -> Self {
        self._running.shutdown().await;
        let Self { database, _folder: folder, .. } = self;
        let variables =
            [("SERVICE_API_KEY", KEY), ("UPLOAD_DIR", folder.path().join("uploads").to_str().unwrap())]
                .map(|(name, value)| (name, value.to_owned()));
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut service = Self::start_with(database, &variables).await;
        service._folder = folder;
        service
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.client.request(method, format!("{}{path}", self.base)).timeout(PATIENCE)
    }

    /// A call of the main API.
    pub(crate) async fn internal(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.send(self.request(method, path).bearer_auth(KEY), body).await
    }

    /// A call of a user.
    pub(crate) async fn call(&self, user: i64, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.send(self.request(method, path).bearer_auth(token(user)), body).await
    }

    pub(crate) async fn get(&self, user: i64, path: &str) -> Value {
        let (status, mut body) = self.call(user, "GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body["data"].take()
    }

    async fn send(&self, mut request: RequestBuilder, body: Value) -> (u16, Value) {
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    /// A message of a user; answers it.
    pub(crate) async fn say(&self, from: i64, to: i64, words: &str) -> Value {
        let body = json!({"receiver_id": to, "content": words});
        let (status, mut answer) = self.call(from, "POST", "/api/messages", body).await;
        assert_eq!(status, 201, "{answer}");
        answer["data"].take()
    }

    pub(crate) async fn history(&self, user: i64, conversation: &Value) -> Vec<Value> {
        let path = format!("/api/conversations/{conversation}/messages?after=0&limit=100");
        self.get(user, &path).await.as_array().unwrap().clone()
    }

    /// The names and data of what the user's log has, without deliveries.
    pub(crate) async fn log(&self, user: i64) -> Vec<(String, Value)> {
        let log = self.get(user, "/api/sync?since=0&limit=500").await;
        let events = log["events"].as_array().unwrap().clone();
        for (place, event) in (1_u64..).zip(&events) {
            assert_eq!(event["event_seq"], place, "a log has no gaps");
        }
        let events = events.into_iter().filter(|event| event["event"] != "message_delivered");
        events.map(|event| (event["event"].as_str().unwrap().to_owned(), event["data"].clone())).collect()
    }

    pub(crate) async fn connect(&self, user: i64) -> Live {
        Live::connect(&self.base, &token(user)).await
    }
}

pub(crate) fn token(user: i64) -> String {
    format!("{user}|secret")
}

/// Refused with this status and code.
pub(crate) fn assert_refused((status, body): &(u16, Value), expected: u16, code: &str) {
    assert_eq!((*status, body["error"]["code"].as_str()), (expected, Some(code)), "{body}");
    assert_eq!((&body["success"], &body["message"]), (&json!(false), &body["error"]["message"]));
}

fn stand_in(main_api: Arc<Mutex<MainApi>>) -> Router {
    let users = Arc::clone(&main_api);
    let show_user = move |headers: HeaderMap| {
        let mut main_api = users.lock();
        main_api.questions += 1;
        let given = headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned();
        let id = given.strip_suffix("|secret").and_then(|id| id.parse::<i64>().ok());
        let answer = match id.filter(|id| !main_api.signed_out.contains(id)) {
            Some(id) => {
                let name = main_api.names.get(&id).cloned().unwrap_or_else(|| format!("Name {id}"));
                (StatusCode::OK, Json(json!({"data": {"id": id, "name": name}})))
            }
            None => (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthenticated."}))),
        };
        std::future::ready(answer)
    };
    let show_product = move |Path(id): Path<i64>| {
        let title = main_api.lock().title.clone();
        std::future::ready(Json(json!({"data": {"id": id, "title": title, "price_per_day": 12.5}})))
    };
    Router::new().route("/user", get(show_user)).route("/products/{id}", get(show_product))
}

/// A plain live connection that keeps what it hears.
pub(crate) struct Live {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) heard: Vec<(String, Value)>,
    close_code: Option<u16>,
}

impl Live {
    pub(crate) async fn connect(base: &str, token: &str) -> Self {
        let url = format!("{}/ws?token={}", base.replacen("http", "ws", 1), token.replace('|', "%7C"));
        let (socket, _) = timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap();
        let mut live = Self { socket, heard: Vec::new(), close_code: None };
        live.wait_for("authenticated", |_| true).await;
        live
    }

    pub(crate) async fn emit(&mut self, event: &str, data: Value) {
        let frame = json!({"event": event, "data": data}).to_string();
        self.socket.send(Message::text(frame)).await.unwrap();
    }

    pub(crate) async fn wait_for(&mut self, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some((_, data)) = self.heard.iter().find(|(name, data)| name == event && fits(data)) {
                return data.clone();
            }
            assert!(self.hear().await, "closed before {event}: {:?}", self.heard);
        }
    }

    /// `false` at the end.
    async fn hear(&mut self) -> bool {
        let next = timeout(PATIENCE, self.socket.next()).await;
        match next.unwrap_or_else(|_| panic!("nothing more after {:?}", self.heard)) {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                self.heard.push((frame["event"].as_str().unwrap().to_owned(), frame["data"].clone()));
            }
            Some(Ok(Message::Close(frame))) => self.close_code = frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
        true
    }

    /// Waits until it is cut; answers how long that took and the close code.
    pub(crate) async fn wait_closed(&mut self) -> (Duration, Option<u16>) {
        let began = Instant::now();
        while self.hear().await {}
        (began.elapsed(), self.close_code)
    }
}
