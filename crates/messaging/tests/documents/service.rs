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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Plain,
    SocketIo,
}

/// A message of the wire: the name that the document has for it, and what stood in the frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) name: String,
    /// The one object that an event or ack carries.
    pub(crate) data: Value,
    /// All that the dialect writes.
    pub(crate) payload: Value,
}

/// A live connection that notes all it says and hears.
pub(crate) struct Live {
    dialect: Dialect,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The events that asked for an ack, whose numbers are their places.
    asked: Vec<String>,
    pub(crate) said: Vec<Frame>,
    pub(crate) heard: Vec<Frame>,
}

impl Live {
    pub(crate) async fn connect(service: &TestService, dialect: Dialect, token: &str) -> Self {
        let mut live = Self::open(service, dialect, json!({"token": token})).await;
        live.wait_for("authenticated").await;
        live
    }

    /// Opens a connection that introduces itself with `token` and `since`, if they are there.
    pub(crate) async fn open(service: &TestService, dialect: Dialect, introduction: Value) -> Self {
        let base = service.base.replacen("http", "ws", 1);
        let url = match dialect {
            Dialect::Plain => {
                let token = introduction["token"].as_str().unwrap_or_default().replace('|', "%7C");
                let since =
                    introduction["since"].as_i64().map_or_else(String::new, |since| since.to_string());
                format!("{base}/ws?token={token}&since={since}")
            }
            Dialect::SocketIo => format!("{base}/socket.io/?EIO=4&transport=websocket"),
        };
        let (socket, _) = timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap();
        let mut live = Self { dialect, socket, asked: Vec::new(), said: Vec::new(), heard: Vec::new() };
        if dialect == Dialect::SocketIo {
            live.say("CONNECT", &introduction, introduction.clone(), format!("40{introduction}")).await;
        }
        live
    }

    async fn say(&mut self, name: &str, data: &Value, payload: Value, text: String) {
        self.said.push(Frame { name: name.to_owned(), data: data.clone(), payload });
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends an event and waits for its ack.
    pub(crate) async fn ask(&mut self, event: &str, data: Value) -> Value {
        let number = self.asked.len();
        self.asked.push(event.to_owned());
        match self.dialect {
            Dialect::Plain => {
                let frame = json!({"event": event, "data": data, "ref": number});
                self.say(event, &data, frame.clone(), frame.to_string()).await;
            }
            Dialect::SocketIo => {
                let frame = json!([event, data]);
                self.say(event, &data, frame.clone(), format!("42{number}{frame}")).await;
            }
        }
        let before = self.heard.len();
        let ack = format!("{event}.ack");
        loop {
            assert!(self.hear().await, "the connection ended before {ack}");
            if let Some(frame) = self.heard[before..].iter().find(|frame| frame.name == ack) {
                return frame.data.clone();
            }
        }
    }

    /// The data of the newest event of this name, once there is one.
    pub(crate) async fn wait_for(&mut self, name: &str) -> Value {
        loop {
            if let Some(frame) = self.heard.iter().rfind(|frame| frame.name == name) {
                return frame.data.clone();
            }
            assert!(self.hear().await, "the connection ended before {name}: {:?}", self.heard);
        }
    }

    /// Notes what comes next; `false` at the end.
    pub(crate) async fn hear(&mut self) -> bool {
        let next = timeout(PATIENCE, self.socket.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing more came after {:?}", self.heard));
        match next {
            Some(Ok(Message::Text(text))) => self.note(&text).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
            Some(Ok(other)) => panic!("nothing else is sent: {other:?}"),
        }
        true
    }

    async fn note(&mut self, text: &str) {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let (name, data, payload) = match self.dialect {
            Dialect::Plain => {
                let frame = parse(text);
                let name = match frame.get("ref").and_then(Value::as_u64) {
                    Some(number) => self.ack_of(usize::try_from(number).unwrap()),
                    None => frame["event"].as_str().unwrap().to_owned(),
                };
                (name, frame["data"].clone(), frame)
            }
            Dialect::SocketIo => match text.split_at(text.len().min(2)) {
                ("2", _) => return self.socket.send(Message::text("3")).await.unwrap(),
                ("42", packet) => {
                    let frame = parse(packet);
                    (frame[0].as_str().unwrap().to_owned(), frame[1].clone(), frame)
                }
                ("43", packet) => {
                    let (number, frame) = packet.split_at(packet.find('[').unwrap());
                    let frame = parse(frame);
                    (self.ack_of(number.parse().unwrap()), frame[0].clone(), frame)
                }
                ("44", packet) => ("CONNECT_ERROR".to_owned(), parse(packet), parse(packet)),
                // The handshakes of Engine.IO and Socket.IO.
                _ => return,
            },
        };
        self.heard.push(Frame { name, data, payload });
    }

    fn ack_of(&self, number: usize) -> String {
        format!("{}.ack", self.asked[number])
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
