//! A main API of our own on a free port: answers as it is told and remembers what it was asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method},
    response::Response,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the stand-in was asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

impl Question {
    pub(crate) fn bearer(&self) -> &str {
        self.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", &body.to_string())
    }

    pub(crate) fn text(status: u16, kind: &str, body: &str) -> Self {
        let headers = vec![("content-type", kind.to_owned())];
        Self { status, headers, body: body.to_owned(), delay: Duration::ZERO }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// `GET /user` as Laravel answers it.
    pub(crate) fn user(id: i64, name: &str) -> Self {
        Self::json(200, &json!({"data": user(id, name)}))
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::json(401, &json!({"message": "Unauthenticated."}))
    }
}

/// A whole user as the main API writes it.
pub(crate) fn user(id: i64, name: &str) -> Value {
    json!({
        "id": id, "name": name, "email": format!("user{id}@example.test"),
        "avatar_url": format!("https://cdn.example.test/{id}.jpg"), "email_verified_at": null,
        "verification_status": "verified", "verified_at": null,
        "created_at": "2025-01-01T00:00:00.000000Z", "updated_at": "2025-01-01T00:00:00.000000Z",
    })
}

/// A whole product as the main API writes it.
pub(crate) fn product(id: i64, title: &str, owner: i64) -> Value {
    json!({"data": {
        "id": id, "title": title, "description": "Works.", "price_per_day": 12.5, "is_for_sale": false,
        "sale_price": null, "is_available": true, "thumbnail_url": format!("/storage/{id}.jpg"),
        "image_urls": [format!("/storage/{id}a.jpg")], "category": {"id": 1, "name": "Things"},
        "owner": user(owner, "Olga Owner"), "created_at": "2025-01-01T00:00:00.000000Z",
        "updated_at": "2025-01-01T00:00:00.000000Z",
    }})
}

type Answer = Arc<dyn Fn(&Question) -> Reply + Send + Sync>;

struct Told {
    answer: Mutex<Answer>,
    questions: Mutex<Vec<Question>>,
}

/// The running stand-in.
pub(crate) struct StandIn {
    pub(crate) base: String,
    told: Arc<Told>,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let answer: Answer = Arc::new(|_| Reply::user(1, "Anna"));
        let told = Arc::new(Told { answer: Mutex::new(answer), questions: Mutex::default() });
        let router = Router::new().fallback(reply).with_state(Arc::clone(&told));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base: format!("http://{address}/api/v1"), told }
    }

    /// From now on it answers so.
    pub(crate) fn answers(&self, answer: impl Fn(&Question) -> Reply + Send + Sync + 'static) {
        *self.told.answer.lock().expect("no test panicked in it") = Arc::new(answer);
    }

    pub(crate) fn always(&self, reply: Reply) {
        self.answers(move |_| reply.clone());
    }

    /// All questions so far.
    pub(crate) fn questions(&self) -> Vec<Question> {
        self.told.questions.lock().expect("no test panicked in it").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.questions().len()
    }
}

async fn reply(State(told): State<Arc<Told>>, request: Request) -> Response {
    let question = Question {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        headers: request.headers().clone(),
    };
    let answer = Arc::clone(&told.answer.lock().expect("no test panicked in it"));
    let reply = answer(&question);
    told.questions.lock().expect("no test panicked in it").push(question);
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).expect("a response")
}
