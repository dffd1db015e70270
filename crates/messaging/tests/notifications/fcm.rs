//! A stand-in for Firebase: OAuth by a signed request, and `messages:send` with its error bodies.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::Mutex;
use rsa::{
    RsaPrivateKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Made once for all tests of the process: the service account's key.
static KEY: LazyLock<RsaPrivateKey> =
    LazyLock::new(|| RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap());
const EMAIL: &str = "push@project.example.test";
const PROJECT: &str = "a-project";

/// What the stand-in answers to a send.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Fine,
    Error {
        status: u16,
        body: Value,
        retry_after: Option<u64>,
    },
    /// Nothing, ever.
    Hang,
}

impl Reply {
    /// An error as FCM writes it.
    pub(crate) fn error(status: u16, name: &str, code: &str) -> Self {
        let body = json!({"error": {"code": status, "message": "Requested entity was not found.", "status": name,
            "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]}});
        Self::Error { status, body, retry_after: None }
    }
}

/// A send that came in.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) message: Value,
    pub(crate) at: Instant,
}

#[derive(Debug)]
struct Inner {
    token_url: String,
    sends: Mutex<Vec<Sent>>,
    /// What comes next for a device; after that, and for all others, it is fine.
    replies: Mutex<HashMap<String, Vec<Reply>>>,
    to_all: Mutex<Reply>,
    hangs_at_the_door: Mutex<bool>,
    access_tokens: Mutex<Vec<String>>,
    expires_in: Mutex<u64>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Fcm {
    base: String,
    inner: Arc<Inner>,
}

impl Fcm {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            token_url: format!("{base}/token"),
            sends: Mutex::default(),
            replies: Mutex::default(),
            to_all: Mutex::new(Reply::Fine),
            hangs_at_the_door: Mutex::new(false),
            access_tokens: Mutex::default(),
            expires_in: Mutex::new(3600),
        });
        let router = Router::new()
            .route("/token", post(give_token))
            .route("/v1/projects/{project}/messages:send", post(take_message))
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, inner }
    }

    /// What a node needs to send here.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        let account = json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key": KEY.to_pkcs8_pem(LineEnding::LF).unwrap().as_str(),
            "client_email": EMAIL,
            "token_uri": self.inner.token_url,
        });
        [("FCM_SERVICE_ACCOUNT", account.to_string()), ("FCM_BASE_URL", self.base.clone())]
    }

    /// Everything that came so far.
    pub(crate) fn sends(&self) -> Vec<Sent> {
        self.inner.sends.lock().clone()
    }

    /// The notifications to a device so far, and not the badges.
    pub(crate) fn messages_to(&self, token: &str) -> Vec<Value> {
        self.of_type(token, "new_message")
    }

    pub(crate) fn badges_to(&self, token: &str) -> Vec<Value> {
        self.of_type(token, "badge")
    }

    fn of_type(&self, token: &str, kind: &str) -> Vec<Value> {
        let sends = self.sends().into_iter().map(|sent| sent.message);
        sends.filter(|sent| sent["token"] == token && sent["data"]["type"] == kind).collect()
    }

    /// Waits for so many notifications to a device; answers all of them.
    pub(crate) async fn wait_for(&self, token: &str, count: usize) -> Vec<Value> {
        self.wait("notifications", || self.messages_to(token), count).await
    }

    pub(crate) async fn wait_for_badges(&self, token: &str, count: usize) -> Vec<Value> {
        self.wait("badges", || self.badges_to(token), count).await
    }

    async fn wait(&self, what: &str, look: impl Fn() -> Vec<Value>, count: usize) -> Vec<Value> {
        for _ in 0..2000 {
            let found = look();
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {count} {what} within twenty seconds: {:?}", self.sends());
    }

    /// What a device's next sends are answered.
    pub(crate) fn answer(&self, token: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut replies: Vec<_> = replies.into_iter().collect();
        replies.reverse();
        self.inner.replies.lock().insert(token.to_owned(), replies);
    }

    /// What everybody else's are.
    pub(crate) fn answer_all(&self, reply: Reply) {
        *self.inner.to_all.lock() = reply;
    }

    /// Nobody gets an access token any more, or a refusal.
    pub(crate) fn hang_at_the_door(&self, hangs: bool) {
        *self.inner.hangs_at_the_door.lock() = hangs;
    }

    /// The access tokens given so far hold no longer.
    pub(crate) fn take_tokens_back(&self) {
        self.inner.access_tokens.lock().iter_mut().for_each(|token| token.push_str(" (taken back)"));
    }

    pub(crate) fn expire_tokens_in(&self, seconds: u64) {
        *self.inner.expires_in.lock() = seconds;
    }

    /// How many access tokens were asked for.
    pub(crate) fn tokens_given(&self) -> usize {
        self.inner.access_tokens.lock().len()
    }
}

async fn give_token(State(inner): State<Arc<Inner>>, body: String) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    if *inner.hangs_at_the_door.lock() {
        std::future::pending::<()>().await;
    }
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let public = KEY.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[&inner.token_url]);
    validation.set_issuer(&[EMAIL]);
    let key = DecodingKey::from_rsa_pem(public.as_bytes()).unwrap();
    let checked = jsonwebtoken::decode::<Value>(&form["assertion"], &key, &validation);
    let Ok(checked) = checked else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let claims = checked.claims;
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/firebase.messaging");
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 3600);
    let mut given = inner.access_tokens.lock();
    let token = format!("access-{}", given.len() + 1);
    given.push(token.clone());
    let expires_in = *inner.expires_in.lock();
    Json(json!({"access_token": token, "expires_in": expires_in, "token_type": "Bearer"})).into_response()
}

async fn take_message(
    State(inner): State<Arc<Inner>>,
    Path(project): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    assert_eq!(project, PROJECT);
    let bearer = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    if inner.access_tokens.lock().last() != Some(&bearer) {
        let body = json!({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "…"}});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let message = body["message"].clone();
    let token = message["token"].as_str().unwrap().to_owned();
    inner.sends.lock().push(Sent { message, at: Instant::now() });
    let next = inner.replies.lock().get_mut(&token).and_then(Vec::pop);
    let reply = next.unwrap_or_else(|| inner.to_all.lock().clone());
    match reply {
        Reply::Fine => Json(json!({"name": format!("projects/{PROJECT}/messages/1")})).into_response(),
        Reply::Error { status, body, retry_after } => {
            let mut response = (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            response
        }
        Reply::Hang => {
            std::future::pending::<()>().await;
            unreachable!("it hangs")
        }
    }
}
