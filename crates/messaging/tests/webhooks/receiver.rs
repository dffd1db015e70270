//! The main API's side: takes webhooks, checks their signatures, and answers as it is told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::Sha256;
use tokio::{net::TcpListener, task::JoinHandle};

/// As long as anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How the receiver answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    Status(u16),
    /// A status with `Retry-After` in seconds.
    Later(u16, u64),
    /// Nothing, for longer than anybody waits.
    Hang,
}

/// An attempt that reached the receiver.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) signatures: Vec<String>,
    pub(crate) timestamp: i64,
    pub(crate) text: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    /// By the words of the specification, not by our code.
    pub(crate) fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.timestamp, self.text).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.signatures.contains(&expected)
    }
}

type Answer = Box<dyn FnMut(&Received, usize) -> Reply + Send>;

struct Inner {
    received: Mutex<Vec<Received>>,
    answer: Mutex<Answer>,
}

/// A receiver on a port of its own; not there before `open`.
pub(crate) struct Receiver {
    inner: Arc<Inner>,
    port: u16,
    serving: Option<JoinHandle<()>>,
}

impl Receiver {
    /// A receiver that says 204 to everything.
    pub(crate) async fn start() -> Self {
        let mut receiver = Self::closed();
        receiver.open().await;
        receiver
    }

    /// One whose port nobody listens on yet.
    pub(crate) fn closed() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let inner = Inner {
            received: Mutex::default(),
            answer: Mutex::new(Box::new(|_: &Received, _| Reply::Status(204))),
        };
        Self { inner: Arc::new(inner), port, serving: None }
    }

    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let app = Router::new().route("/hook", post(take)).with_state(Arc::clone(&self.inner));
        self.serving = Some(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Answers as this says from now on; it gets the attempt and how many came before it for its event.
    pub(crate) fn answer(&self, answer: impl FnMut(&Received, usize) -> Reply + Send + 'static) {
        *self.inner.answer.lock() = Box::new(answer);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.inner.received.lock().clone()
    }

    /// Attempts of events of this type.
    pub(crate) fn of(&self, kind: &str) -> Vec<Received> {
        self.received().into_iter().filter(|received| received.kind() == kind).collect()
    }

    /// Waits until so many attempts for events of this type were made; answers all there are.
    pub(crate) async fn wait_for(&self, kind: &str, count: usize) -> Vec<Received> {
        let began = Instant::now();
        loop {
            let found = self.of(kind);
            if found.len() >= count {
                return found;
            }
            let seen: Vec<_> =
                self.received().iter().map(|one| format!("{} {}", one.kind(), one.id)).collect();
            assert!(began.elapsed() < PATIENCE, "{kind} did not come {count} times: {seen:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, text: String) -> Response {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/json");
    let received = Received {
        id: header("webhook-id"),
        signatures: header("webhook-signature").split(' ').map(ToOwned::to_owned).collect(),
        timestamp: header("webhook-timestamp").parse().unwrap(),
        body: serde_json::from_str(&text).unwrap(),
        text,
        at: Instant::now(),
    };
    let before = {
        let mut all = inner.received.lock();
        let before = all.iter().filter(|one| one.id == received.id).count();
        all.push(received.clone());
        before
    };
    let reply = (inner.answer.lock())(&received, before);
    match reply {
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::Later(status, seconds) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", seconds.to_string())]).into_response()
        }
        Reply::Hang => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}
