//! A running service with three people, and clients of it that speak REST and both live dialects.

use std::{collections::HashMap, time::Duration};

use axum::{
    Json, Router,
    extract::Path,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{SinkExt, StreamExt};
use messaging::{clock::Clock, config::Config, server};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use crate::support::TestDatabase;

pub(crate) const ANNA: &str = "1|anna";
pub(crate) const BEN: &str = "2|ben";
pub(crate) const CLEO: &str = "3|cleo";
/// The main API cannot say whose this is.
pub(crate) const UNKNOWABLE: &str = "9|unknowable";
/// The only product there is.
pub(crate) const PRODUCT: i64 = 5;

/// As long as anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct TestService {
    pub(crate) base: String,
    client: Client,
    _running: JoinSet<()>,
    _database: TestDatabase,
    _folder: tempfile::TempDir,
}

impl TestService {
    pub(crate) async fn start(database: TestDatabase, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut running = JoinSet::new();
        let main_api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut all = HashMap::from([
            ("MAIN_API_URL".to_owned(), format!("http://{}", main_api.local_addr().unwrap())),
            ("DATABASE_URL".to_owned(), database.url.clone()),
            ("UPLOAD_DIR".to_owned(), folder.path().join("uploads").to_str().unwrap().to_owned()),
        ]);
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let router = Router::new().route("/user", get(show_user)).route("/products/{id}", get(show_product));
        running.spawn(async move { axum::serve(main_api, router).await.unwrap() });
        let config = Config::from_env(all).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let never = std::future::pending();
        running.spawn(async move {
            server::run(config, listener, Router::new(), Clock::System, never).await.unwrap();
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let service = Self { base, client, _running: running, _database: database, _folder: folder };
        // The listener takes connections before the service is ready to answer them.
        timeout(PATIENCE, service.request(Method::GET, "/health").send()).await.unwrap().unwrap();
        service
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).timeout(PATIENCE)
    }

    pub(crate) async fn call(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.request(method, path).bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    pub(crate) async fn metrics(&self) -> String {
        self.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
    }
}

/// What a client heard: the name of an event or `ack`, and its data.
pub(crate) type Heard = (String, Value);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Plain,
    SocketIo,
}

/// A live connection that notes all it hears.
pub(crate) struct Live {
    dialect: Dialect,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    acks: u64,
    pub(crate) heard: Vec<Heard>,
}

impl Live {
    pub(crate) async fn connect(service: &TestService, dialect: Dialect, token: &str) -> Self {
        let mut live = Self::open(service, dialect, token, "").await;
        live.wait_for("authenticated").await;
        live
    }

    /// Opens a connection; an empty token introduces nobody.
    pub(crate) async fn open(service: &TestService, dialect: Dialect, token: &str, since: &str) -> Self {
        let base = service.base.replacen("http", "ws", 1);
        let query = format!("token={}&since={since}", token.replace('|', "%7C"));
        let url = match dialect {
            Dialect::Plain => format!("{base}/ws?{query}"),
            Dialect::SocketIo => format!("{base}/socket.io/?EIO=4&transport=websocket&{query}"),
        };
        let (socket, _) = timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap();
        let mut live = Self { dialect, socket, acks: 0, heard: Vec::new() };
        if dialect == Dialect::SocketIo {
            live.say("40".into()).await;
        }
        live
    }

    async fn say(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends an event and waits for its ack.
    pub(crate) async fn ask(&mut self, event: &str, data: Value) -> Value {
        self.acks += 1;
        let number = self.acks;
        match self.dialect {
            Dialect::Plain => {
                self.say(json!({"event": event, "data": data, "ref": number}).to_string()).await;
            }
            Dialect::SocketIo => self.say(format!("42{number}{}", json!([event, data]))).await,
        }
        let name = format!("ack {number}");
        self.wait_for(&name).await
    }

    /// The data of the newest event of this name, once there is one.
    pub(crate) async fn wait_for(&mut self, name: &str) -> Value {
        loop {
            if let Some((_, data)) = self.heard.iter().rfind(|(heard, _)| heard == name) {
                return data.clone();
            }
            assert!(self.hear().await, "the connection ended before {name}: {:?}", self.heard);
        }
    }

    /// Notes what comes next; `false` at the end.
    pub(crate) async fn hear(&mut self) -> bool {
        let next = timeout(PATIENCE, self.socket.next()).await.expect("something is heard");
        let text = match next {
            Some(Ok(Message::Text(text))) => text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return true,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
            Some(Ok(other)) => panic!("nothing else is sent: {other:?}"),
        };
        match self.dialect {
            Dialect::Plain => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                let name = match frame.get("ref") {
                    Some(number) => format!("ack {number}"),
                    None => frame["event"].as_str().unwrap().to_owned(),
                };
                self.heard.push((name, frame["data"].clone()));
            }
            Dialect::SocketIo => self.hear_packet(&text).await,
        }
        true
    }

    async fn hear_packet(&mut self, text: &str) {
        if text == "2" {
            self.say("3".into()).await;
        } else if let Some(packet) = text.strip_prefix("42") {
            let [name, data]: [Value; 2] = serde_json::from_str(packet).unwrap();
            self.heard.push((name.as_str().unwrap().to_owned(), data));
        } else if let Some(packet) = text.strip_prefix("43") {
            let (number, data) = packet.split_at(packet.find('[').unwrap());
            let [data]: [Value; 1] = serde_json::from_str(data).unwrap();
            self.heard.push((format!("ack {number}"), data));
        } else if let Some(refusal) = text.strip_prefix("44") {
            self.heard.push(("connect_error".into(), serde_json::from_str(refusal).unwrap()));
        }
    }
}

/// The main API: three people, whose tokens begin with their ids, and one product.
async fn show_user(headers: HeaderMap) -> Response {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = match token.strip_prefix("Bearer ").unwrap_or_default() {
        ANNA => "Anna",
        BEN => "Ben",
        CLEO => "Cleo",
        UNKNOWABLE => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthenticated."}))).into_response(),
    };
    let id = ["Anna", "Ben", "Cleo"].iter().position(|one| *one == name).unwrap() + 1;
    let email = format!("{name}@example.test");
    let avatar_url = "https://cdn.example.test/a.png";
    Json(json!({"data": {"id": id, "name": name, "email": email, "avatar_url": avatar_url}})).into_response()
}

async fn show_product(Path(id): Path<i64>) -> Response {
    if id != PRODUCT {
        return (StatusCode::NOT_FOUND, Json(json!({"message": "Product not found"}))).into_response();
    }
    let owner = json!({"id": 2, "name": "Ben", "avatar_url": null});
    Json(json!({"data": {
        "id": id, "title": "Camera", "price_per_day": 12.5, "owner": owner,
        "thumbnail_url": "https://cdn.example.test/5.png", "image_urls": ["https://cdn.example.test/5.png"],
    }}))
    .into_response()
}
