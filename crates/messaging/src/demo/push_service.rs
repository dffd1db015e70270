//! A stand-in for Firebase on this machine: it takes pushes as FCM does and shows them to the demo page.
//!
//! Access tokens by a signed request, `messages:send` with FCM's shapes; the service pushes to it
//! without knowing the difference. A device is a locked phone on the page, which listens at
//! `/demo/pushes`; one that nobody listens to is answered `UNREGISTERED`, as an app that is gone.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::stream;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::Mutex;
use rand::distr::{Alphanumeric, SampleString};
use rsa::{
    RsaPrivateKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::AbortHandle};

use crate::errors::Error;

const PROJECT: &str = "demo";
const ACCOUNT: &str = "push@demo.example.test";
/// Phones that may be locked at once, on all pages that are open.
const MAX_PHONES: usize = 100;
/// Pushes that wait for one page to read them.
const MAX_WAITING: usize = 32;
/// How long an access token holds.
const ACCESS: Duration = Duration::from_secs(3600);

/// The running stand-in. It stops when this is dropped.
#[must_use = "the stand-in stops when this is dropped"]
pub struct PushService {
    base_url: String,
    service_account: String,
    phones: Phones,
    server: AbortHandle,
}

/// The locked phones by their device's token.
type Phones = Arc<Mutex<HashMap<String, mpsc::Sender<String>>>>;

#[derive(Clone)]
struct Firebase {
    phones: Phones,
    token_url: Arc<str>,
    verification: Arc<DecodingKey>,
    access: Arc<Mutex<Option<(String, Instant)>>>,
}

/// Starts the stand-in on a free port of this machine, with a service account of its own.
pub async fn start() -> io::Result<PushService> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let base_url = format!("http://{}", listener.local_addr()?);
    let token_url = format!("{base_url}/token");
    let (private_key, public_key) = tokio::task::spawn_blocking(new_key).await??;
    let service_account = json!({
        "type": "service_account",
        "project_id": PROJECT,
        "private_key": private_key,
        "client_email": ACCOUNT,
        "token_uri": token_url,
    });
    let phones = Phones::default();
    let firebase = Firebase {
        phones: Arc::clone(&phones),
        token_url: token_url.into(),
        verification: Arc::new(DecodingKey::from_rsa_pem(public_key.as_bytes()).map_err(io::Error::other)?),
        access: Arc::default(),
    };
    let router = Router::new()
        .route("/token", post(give_access))
        .route("/v1/projects/demo/messages:send", post(take_message))
        .with_state(firebase);
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "The demo's stand-in for Firebase stopped.");
        }
    });
    let service_account = service_account.to_string();
    Ok(PushService { base_url, service_account, phones, server: server.abort_handle() })
}

/// For as long as the demo runs; it never leaves the process.
fn new_key() -> io::Result<(String, String)> {
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).map_err(io::Error::other)?;
    let private_key = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    let public_key = key.to_public_key().to_public_key_pem(LineEnding::LF).map_err(io::Error::other)?;
    Ok((private_key.to_string(), public_key))
}

impl PushService {
    /// What the service has to be configured with.
    pub fn variables(&self) -> [(&'static str, &str); 2] {
        [("FCM_SERVICE_ACCOUNT", &self.service_account), ("FCM_BASE_URL", &self.base_url)]
    }

    /// `/demo/pushes?phone=TOKEN`: what is pushed to a locked phone, as server-sent events.
    pub fn router(&self) -> Router {
        Router::new().route("/demo/pushes", get(show_pushes)).with_state(Arc::clone(&self.phones))
    }
}

impl Drop for PushService {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn give_access(State(firebase): State<Firebase>, body: String) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let assertion = form.get("assertion").map(String::as_str).unwrap_or_default();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[&firebase.token_url]);
    validation.set_issuer(&[ACCOUNT]);
    if jsonwebtoken::decode::<Value>(assertion, &firebase.verification, &validation).is_err() {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    }
    let token = Alphanumeric.sample_string(&mut rand::rng(), 40);
    *firebase.access.lock() = Some((token.clone(), Instant::now() + ACCESS));
    Json(json!({"access_token": token, "expires_in": ACCESS.as_secs(), "token_type": "Bearer"}))
        .into_response()
}

async fn take_message(
    State(firebase): State<Firebase>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let is_allowed = firebase
        .access
        .lock()
        .as_ref()
        .is_some_and(|(token, until)| Some(token.as_str()) == bearer && Instant::now() < *until);
    if !is_allowed {
        return refusal(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "UNAUTHENTICATED");
    }
    let mut message = body["message"].clone();
    let phone = message.as_object_mut().and_then(|message| message.remove("token"));
    let phone = phone.as_ref().and_then(Value::as_str).unwrap_or_default();
    let listener = firebase.phones.lock().get(phone).cloned();
    match listener.map(|listener| listener.try_send(message.to_string())) {
        Some(Ok(()) | Err(mpsc::error::TrySendError::Full(_))) => {
            let id = Alphanumeric.sample_string(&mut rand::rng(), 16);
            Json(json!({"name": format!("projects/{PROJECT}/messages/{id}")})).into_response()
        }
        Some(Err(mpsc::error::TrySendError::Closed(_))) | None => {
            refusal(StatusCode::NOT_FOUND, "NOT_FOUND", "UNREGISTERED")
        }
    }
}

fn refusal(status: StatusCode, name: &str, code: &str) -> Response {
    let error = json!({"code": status.as_u16(), "message": "The demo's stand-in refuses.", "status": name,
        "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]});
    (status, Json(json!({"error": error}))).into_response()
}

/// A locked phone listens; it is gone when its page is.
struct Listening {
    phones: Phones,
    token: String,
    pushed: mpsc::Receiver<String>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.pushed.close();
        let mut phones = self.phones.lock();
        // A page that was loaded again may listen by now.
        if phones.get(&self.token).is_some_and(mpsc::Sender::is_closed) {
            phones.remove(&self.token);
        }
    }
}

async fn show_pushes(
    State(phones): State<Phones>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(Error::Forbidden("This is for the demo page alone.".into()));
    }
    let query = query.unwrap_or_default();
    let token = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "phone");
    let token = token.map(|(_, token)| token.into_owned()).filter(|token| (1..=100).contains(&token.len()));
    let token = token.ok_or_else(|| Error::field("phone", "The phone field is required."))?;
    let (sender, pushed) = mpsc::channel(MAX_WAITING);
    {
        let mut phones = phones.lock();
        if phones.len() >= MAX_PHONES {
            return Err(Error::unavailable());
        }
        phones.insert(token.clone(), sender);
    }
    let listening = Listening { phones, token, pushed };
    let events = stream::unfold(listening, |mut listening| async move {
        let push = listening.pushed.recv().await?;
        Some((Ok::<_, Infallible>(Event::default().data(push)), listening))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::StreamExt;
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::{clock::Clock, config::Config, storage::notifications::PushDevice};

    #[tokio::test]
    async fn what_the_service_sends_a_listening_page_gets_and_an_absent_one_is_gone() {
        let service = start().await.unwrap();
        let variables = service.variables().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::from_env(HashMap::from(variables)).unwrap();
        let request = Request::get("/demo/pushes?phone=a%20phone").body(Body::empty()).unwrap();
        let response = service.router().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let device = |token: &str| PushDevice {
            user_id: crate::ids::UserId(1),
            token: token.into(),
            device_type: "android".into(),
        };
        let sent = crate::notify::try_fcm(&config.push, Clock::System, &device("a phone")).await;
        assert_eq!(sent, "Sent");
        let mut body = response.into_body().into_data_stream();
        let event = body.next().await.unwrap().unwrap();
        let event = std::str::from_utf8(&event).unwrap().strip_prefix("data: ").unwrap();
        let push: Value = serde_json::from_str(event.trim()).unwrap();
        assert_eq!((&push["data"]["type"], push.get("token")), (&json!("badge"), None));
        drop(body);
        let sent = crate::notify::try_fcm(&config.push, Clock::System, &device("a phone")).await;
        assert_eq!(sent, "Dead { since: None }");
    }
}
