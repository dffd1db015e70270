//! People, their accounts, a mail server and any number of nodes on one database, under a clock that the
//! tests move.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{SinkExt, StreamExt};
use messaging::{
    clock::Clock,
    config::Config,
    ids::UserId,
    server::{self, ServeError},
    storage::Store,
};
use parking_lot::Mutex;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::Connection;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use tokio_tungstenite::tungstenite;

use crate::{
    smtp_server::{Mail, SmtpServer},
    support::{START, TestDatabase},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// `EMAIL_DELAY`, in seconds.
pub(crate) const DELAY: u64 = 6;
/// Where mails say that the service is.
pub(crate) const PUBLIC_URL: &str = "https://chat.example.test/base";

pub(crate) const ANNA: i64 = 1;
pub(crate) const BEN: i64 = 2;
pub(crate) const CLEO: i64 = 3;
/// Two who write to each other only so that a sweep is seen to have passed.
const WITNESS: i64 = 98;
const REPORTER: i64 = 99;
pub(crate) const CAMERA: i64 = 5;

type Users = Arc<Mutex<BTreeMap<i64, Value>>>;

/// A running service.
pub(crate) struct Node {
    pub(crate) base: String,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Node {
    /// As a machine that loses power, but for what other tasks still do in memory.
    pub(crate) fn kill(&self) {
        self.running.abort();
    }

    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        timeout(PATIENCE, &mut self.running).await.expect("it ends").unwrap().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) smtp: SmtpServer,
    pub(crate) nodes: Vec<Node>,
    pub(crate) database: TestDatabase,
    users: Users,
    variables: HashMap<String, String>,
    client: Client,
    /// Mails of those who only report.
    reports: Mutex<usize>,
    _main_api: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl World {
    /// One node, and Anna, Ben and Cleo with addresses at example.test.
    pub(crate) async fn start(database: TestDatabase, variables: &[(&str, &str)]) -> Self {
        let mut world = Self::prepare(database, variables).await;
        world.add_node().await;
        world
    }

    /// The same without a node.
    pub(crate) async fn prepare(database: TestDatabase, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let smtp = SmtpServer::start().await;
        let users = Users::default();
        let main_api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut all: HashMap<String, String> = [
            ("MAIN_API_URL", format!("http://{}", main_api.local_addr().unwrap())),
            ("DATABASE_URL", database.url.clone()),
            ("UPLOAD_DIR", folder.path().join("uploads").to_str().unwrap().to_owned()),
            ("SMTP_URL", format!("smtp://{}", smtp.address)),
            ("EMAIL_FROM", "Rented <no-reply@mail.example.test>".to_owned()),
            ("EMAIL_DELAY", DELAY.to_string()),
            ("APP_URL", "https://app.example.test/conversations/{conversation_id}".to_owned()),
            ("PUBLIC_URL", PUBLIC_URL.to_owned()),
            ("RATE_LIMIT_MESSAGES", "0".to_owned()),
            ("RATE_LIMIT_CONVERSATIONS", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let router = Router::new()
            .route("/user", get(show_user))
            .route("/products/{id}", get(show_product))
            .with_state(Arc::clone(&users));
        let main_api = tokio::spawn(async move { axum::serve(main_api, router).await.unwrap() });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let world = Self {
            clock: Clock::manual(START),
            smtp,
            nodes: Vec::new(),
            database,
            users,
            variables: all,
            client,
            reports: Mutex::default(),
            _main_api: main_api,
            _folder: folder,
        };
        for (id, name) in
            [(ANNA, "Anna"), (BEN, "Ben"), (CLEO, "Cleo"), (WITNESS, "Witness"), (REPORTER, "Reporter")]
        {
            world.set_user(id, json!({"name": name, "email": address(id)}));
        }
        world
    }

    /// A further node on the same database.
    pub(crate) async fn add_node(&mut self) {
        self.add_node_with(&[]).await;
    }

    pub(crate) async fn add_node_with(&mut self, variables: &[(&str, &str)]) {
        let mut all = self.variables.clone();
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::from_env(all).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let clock = self.clock.clone();
        let running = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server::run(config, listener, Router::new(), clock, stopped).await
        });
        let health = self.client.get(format!("{base}/health")).timeout(PATIENCE).send();
        timeout(PATIENCE, health).await.unwrap().unwrap();
        self.nodes.push(Node { base, stop: Some(stop), running });
    }

    /// What the main API says of a user besides the id.
    pub(crate) fn set_user(&self, id: i64, user: Value) {
        self.users.lock().insert(id, user);
    }

    pub(crate) async fn store(&self) -> Store {
        self.database.store(&self.clock).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let base = &self.nodes.last().expect("a node").base;
        self.client.request(method, format!("{base}{path}")).timeout(PATIENCE)
    }

    pub(crate) async fn call(&self, user: i64, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.request(method, path).bearer_auth(token(user));
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    pub(crate) async fn ok(&self, user: i64, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(user, method.clone(), path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer:#}");
        answer
    }

    /// Has the users' tokens validated, and waits until what the main API said of them is kept.
    pub(crate) async fn sign_in(&self, users: &[i64]) {
        let store = self.store().await;
        for user in users {
            self.ok(*user, Method::GET, "/api/conversations/unread/count", Value::Null).await;
            let email = self.users.lock()[user]["email"].as_str().unwrap().to_owned();
            let kept = async {
                while store.contact(UserId(*user)).await.unwrap().is_none_or(|contact| contact.email != email)
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, kept).await.expect("the contact is kept");
        }
        store.close().await;
    }

    /// Sends a text. Answers the conversation and the message.
    pub(crate) async fn write(&self, from: i64, to: i64, product: Option<i64>, text: &str) -> (i64, i64) {
        let body = json!({"receiver_id": to, "product_id": product, "content": text});
        let sent = self.ok(from, Method::POST, "/api/messages", body).await;
        let message = &sent["data"];
        (message["conversation_id"].as_i64().unwrap(), message["id"].as_i64().unwrap())
    }

    /// Has the main API asked about a user once more, under a token of its own.
    pub(crate) async fn sign_in_again(&self, user: i64) {
        let fresh = format!("{user}|{}", uuid::Uuid::new_v4().simple());
        let email = self.users.lock()[&user].clone();
        let email = email["email"].as_str().filter(|_| email.get("email_verified_at") != Some(&Value::Null));
        let path = "/api/conversations/unread/count";
        let answer = self.request(Method::GET, path).bearer_auth(fresh).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let store = self.store().await;
        let kept = async {
            while store.contacts(&[UserId(user)]).await.unwrap().first().map(|known| known.email.as_str())
                != email
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, kept).await.expect("the contact is kept");
        store.close().await;
    }

    pub(crate) async fn mark_read(&self, user: i64, conversation: i64, messages: &[i64]) {
        let base = self.nodes.last().expect("a node").base.replacen("http", "ws", 1);
        let url = format!("{base}/ws?token={}", token(user).replace('|', "%7C"));
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let data = json!({"conversation_id": conversation, "message_ids": messages});
        let frame = json!({"event": "mark_read", "data": data, "ref": 1}).to_string();
        socket.send(tungstenite::Message::text(frame)).await.unwrap();
        let acked = async {
            while let Some(Ok(frame)) = socket.next().await {
                if frame.to_text().is_ok_and(|text| text.contains("\"ref\":1")) {
                    return;
                }
            }
            panic!("the connection ended");
        };
        timeout(PATIENCE, acked).await.expect("an ack");
    }

    pub(crate) async fn read(&self, user: i64, conversation: i64) {
        self.ok(user, Method::POST, &format!("/api/conversations/{conversation}/read"), Value::Null).await;
    }

    /// Moves the clock past the delay, so that what is unread now is due.
    pub(crate) fn pass(&self) {
        self.clock.advance(Duration::from_secs(DELAY));
    }

    /// The mails to a person, once there are so many.
    pub(crate) async fn mails(&self, user: i64, count: usize) -> Vec<Mail> {
        let to = address(user);
        let what = format!("{count} mails to {to}");
        self.smtp.until(&what, |smtp| smtp.mails_to(&to).len() >= count).await;
        let mails = self.smtp.mails_to(&to);
        assert_eq!(mails.len(), count, "{what}");
        mails
    }

    /// Lets what is due now be looked at: somebody else's message, written last, is mailed about.
    pub(crate) async fn settle(&self) {
        let reports = {
            let mut reports = self.reports.lock();
            *reports += 1;
            *reports
        };
        self.sign_in(&[REPORTER]).await;
        let (conversation, _) = self.write(WITNESS, REPORTER, None, "over").await;
        self.pass();
        self.mails(REPORTER, reports).await;
        self.read(REPORTER, conversation).await;
        // What was claimed before it may still be on its way over another connection.
        self.quiet().await;
    }

    /// Waits until every mail that could be sent now has come to something, and that is written down. Only
    /// then may the clock move far: a jump past the leases takes whoever is sending for dead.
    pub(crate) async fn quiet(&self) {
        let now = self.clock.now();
        let smtp_timeout = self.variables.get("SMTP_TIMEOUT").map_or(30_000, |text| text.parse().unwrap());
        let leased = now.plus(Duration::from_millis(2 * smtp_timeout + 5000));
        // The clock stands still, so a mail under way is leased until exactly then.
        let open = "select count(*) from emails where next_attempt_at <= $1 or next_attempt_at = $2";
        let quiet = async {
            if self.database.url.starts_with("sqlite:") {
                let mut connection = sqlx::SqliteConnection::connect(&self.database.url).await.unwrap();
                let count =
                    || sqlx::query_scalar::<_, i64>(open).bind(now.as_millis()).bind(leased.as_millis());
                while count().fetch_one(&mut connection).await.unwrap() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            } else {
                let mut connection = sqlx::PgConnection::connect(&self.database.url).await.unwrap();
                let count =
                    || sqlx::query_scalar::<_, i64>(open).bind(now.to_datetime()).bind(leased.to_datetime());
                while count().fetch_one(&mut connection).await.unwrap() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        timeout(PATIENCE, quiet).await.expect("mails come to something");
    }

    /// That nobody but the one who reports got a mail besides these.
    pub(crate) async fn assert_no_more_than(&self, count: usize) {
        self.settle().await;
        let mails = self.smtp.mails();
        let others: Vec<_> = mails.iter().filter(|mail| mail.to != [address(REPORTER)]).collect();
        let subjects: Vec<_> = others.iter().map(|mail| (mail.to.clone(), mail.subject())).collect();
        assert_eq!(others.len(), count, "{subjects:?}");
    }

    pub(crate) async fn counted(&self, outcome: &str) -> f64 {
        let text = self.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let series = format!("messaging_emails_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    }
}

pub(crate) fn token(user: i64) -> String {
    format!("{user}|token")
}

pub(crate) fn address(user: i64) -> String {
    format!("user{user}@people.example.test")
}

async fn show_user(State(users): State<Users>, headers: HeaderMap) -> Response {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let id = token.strip_prefix("Bearer ").and_then(|token| token.split('|').next()?.parse::<i64>().ok());
    let Some((id, mut user)) = id.and_then(|id| Some((id, users.lock().get(&id)?.clone()))) else {
        return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthenticated."}))).into_response();
    };
    user["id"] = json!(id);
    Json(json!({"data": user})).into_response()
}

async fn show_product(Path(id): Path<i64>) -> Response {
    let owner = json!({"id": 97, "name": "Owner", "email": "owner@people.example.test"});
    let title = if id == CAMERA { "Camera".to_owned() } else { format!("Thing {id}") };
    Json(json!({"data": {"id": id, "title": title, "price_per_day": 12.5, "owner": owner}})).into_response()
}
