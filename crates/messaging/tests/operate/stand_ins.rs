//! What the service speaks to: a main API, a Sentry and a collector of traces, each of which keeps what it was told.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::json;
use tokio::net::TcpListener;

pub(crate) const ANNA: &str = "1|AnnasTokenAnnasTokenAnnasTokenAnnasToken";
pub(crate) const BEN: &str = "2|BensTokenBensTokenBensTokenBensTokenBens";
/// The main API fails over these.
pub(crate) const UNKNOWABLE: &str = "9|Unknowable";

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address.to_string()
}

/// Two people and one product; what each question came with is kept.
pub(crate) struct MainApi {
    pub(crate) url: String,
    questions: Arc<Mutex<Vec<HeaderMap>>>,
}

impl MainApi {
    pub(crate) async fn start() -> Self {
        let questions: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
        let kept = Arc::clone(&questions);
        let show_user = move |headers: HeaderMap| {
            let kept = Arc::clone(&kept);
            async move { answer(&kept, headers) }
        };
        let product = json!({"data": {
            "id": 5, "title": "Camera", "owner": {"id": 2, "name": "Ben Bestowner", "email": "ben@people.example.test"},
        }});
        let router = Router::new()
            .route("/api/v1/user", get(show_user))
            .route("/api/v1/products/5", get(async || Json(product)));
        Self { url: format!("http://{}/api/v1", serve(router).await), questions }
    }

    /// The values of this header, question by question.
    pub(crate) fn heard(&self, header: &str) -> Vec<String> {
        let questions = self.questions.lock().unwrap();
        let values = questions.iter().filter_map(|headers| headers.get(header)?.to_str().ok());
        values.map(ToOwned::to_owned).collect()
    }
}

fn answer(kept: &Mutex<Vec<HeaderMap>>, headers: HeaderMap) -> Response {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = token.trim_start_matches("Bearer ").to_owned();
    kept.lock().unwrap().push(headers);
    let (id, name) = match token.as_str() {
        ANNA => (1, "Anna Asksalot"),
        BEN => (2, "Ben Bestowner"),
        unknowable if unknowable.starts_with(UNKNOWABLE) => {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        _ => return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthenticated."}))).into_response(),
    };
    Json(json!({"data": {"id": id, "name": name, "email": format!("person{id}@people.example.test")}}))
        .into_response()
}

/// Takes whatever is posted to it, wherever.
#[derive(Clone)]
pub(crate) struct Taker {
    pub(crate) address: String,
    taken: Arc<Mutex<Vec<Posted>>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Taker {
    pub(crate) async fn start() -> Self {
        let taken: Arc<Mutex<Vec<Posted>>> = Arc::default();
        let take = async |State(taken): State<Arc<Mutex<Vec<Posted>>>>,
                          uri: axum::http::Uri,
                          headers: HeaderMap,
                          body: Bytes| {
            taken.lock().unwrap().push(Posted { path: uri.path().to_owned(), headers, body });
            StatusCode::OK
        };
        let router = Router::new().fallback(any(take)).with_state(Arc::clone(&taken));
        Self { address: serve(router).await, taken }
    }

    pub(crate) fn taken(&self) -> Vec<Posted> {
        self.taken.lock().unwrap().clone()
    }
}
