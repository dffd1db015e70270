//! The main API over HTTP: who a token belongs to, what a product is (contract section 5).
//!
//! Tells every kind of failure apart and remembers nothing; `mod.rs` and `profiles` do. Only what
//! this file sends leaves the service: no header of a client is passed on but its bearer and its place in a
//! trace.

use std::{
    fmt,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use reqwest::{Client, redirect};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::{
    cards::{ProductCard, UserProfile},
    contacts::Contact,
    token::Token,
};
use crate::{
    clock::Clock,
    config::{self, ConfigError},
    context::Context,
    ids::{ProductId, UserId},
    metrics,
    shared::outbound::retry_after,
    traces::{Parent, Side, Span},
};

/// A user or product is a few kilobytes; more than this is not an answer but an accident.
const MAX_BODY: usize = 1 << 20;
/// How long to wait where the main API does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(2);
/// The longest wait that is passed on: nobody should sit out a misconfigured day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Below the five seconds after which common servers close idle connections: one that is closed
/// while a request is on its way would look like an outage.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// A probe's answer is shared for this long, so that `/ready` cannot be used to flood the main API.
const PROBE_FOR: Duration = Duration::from_secs(1);
/// The longest that `/ready` waits for the main API.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A client of the main API. Cheap to clone.
#[derive(Clone)]
pub struct MainApi {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    base: String,
    user_path: Option<String>,
    timeout: Duration,
    clock: Clock,
    /// Questions about tokens, and apart from them those about profiles and products, so that slow
    /// pictures never keep people out.
    sign_ins: Semaphore,
    look_ups: Semaphore,
    probe: tokio::sync::Mutex<Option<(Instant, Result<Duration, Cause>)>>,
}

/// The main API gave no usable answer: nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable {
    /// What happened.
    pub cause: Cause,
    /// How long to wait before asking again.
    pub retry_after: Duration,
}

/// The ways in which the main API can fail to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No answer within `MAIN_API_TIMEOUT`.
    TimedOut,
    /// No connection, or one that broke off.
    Unreachable,
    /// Too many questions are under way already.
    Busy,
    /// 403: the service itself is not welcome.
    Forbidden,
    /// 419: Laravel takes the request for a page's.
    PageExpired,
    /// 429: too many requests.
    Throttled,
    /// A redirect, never followed: it would take the token elsewhere.
    Redirected,
    /// 5xx.
    ServerError(u16),
    /// A status that this question does not expect.
    UnexpectedStatus(u16),
    /// HTML, or anything else that is not JSON.
    NotJson,
    /// JSON, but not what was asked for.
    Malformed,
    /// More than a megabyte.
    TooLarge,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => formatter.write_str("timed out"),
            Self::Unreachable => formatter.write_str("unreachable"),
            Self::Busy => formatter.write_str("too many questions under way"),
            Self::Forbidden => formatter.write_str("answered 403"),
            Self::PageExpired => formatter.write_str("answered 419"),
            Self::Throttled => formatter.write_str("answered 429"),
            Self::Redirected => formatter.write_str("answered with a redirect"),
            Self::ServerError(status) | Self::UnexpectedStatus(status) => {
                write!(formatter, "answered {status}")
            }
            Self::NotJson => formatter.write_str("answered with something that is not JSON"),
            Self::Malformed => formatter.write_str("answered with JSON of another shape"),
            Self::TooLarge => formatter.write_str("answered with more than a megabyte"),
        }
    }
}

impl From<Cause> for Unavailable {
    fn from(cause: Cause) -> Self {
        Self { cause, retry_after: RETRY_AFTER_DEFAULT }
    }
}

/// Why there is no user for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserError {
    /// 401: the token is not valid.
    Invalid,
    /// Nothing is known.
    Unavailable(Unavailable),
}

/// Why there is no product or profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookUpError {
    /// 404: there is none, for this caller at least.
    NotFound,
    /// Nothing is known.
    Unavailable(Unavailable),
}

impl From<Unavailable> for UserError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<Unavailable> for LookUpError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

/// A product as the main API tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// What conversations show of it.
    pub card: ProductCard,
    /// Whose it is, where the main API says so.
    pub owner: Option<UserProfile>,
}

impl MainApi {
    /// A client for the API at `base` (no slash at its end); nothing is sent yet.
    pub fn new(base: &str, settings: &config::MainApi, clock: Clock) -> Result<Self, ConfigError> {
        install_crypto_provider();
        let builder = Client::builder()
            .user_agent(concat!("rented-messaging/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .http1_only()
            .no_proxy()
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true);
        // Reading the machine's certificates takes time, and fails on a machine without any.
        let builder = if base.starts_with("https:") { builder } else { builder.tls_certs_only([]) };
        let client = builder.build().map_err(|_| {
            ConfigError::new("MAIN_API_URL", "is https, but this machine has no usable CA certificates.")
        })?;
        let look_ups = (settings.concurrency / 4).max(1);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                base: base.to_owned(),
                user_path: settings.user_path.clone(),
                timeout: settings.timeout,
                clock,
                sign_ins: Semaphore::new(settings.concurrency.saturating_sub(look_ups).max(1)),
                look_ups: Semaphore::new(look_ups),
                probe: tokio::sync::Mutex::new(None),
            }),
        })
    }

    /// Whose token this is, and what their account says of mail to them: `GET /user`.
    pub async fn user(&self, token: &Token) -> Result<(UserProfile, Contact), UserError> {
        let answer = self.inner.get(&self.inner.sign_ins, "/user", "/user", Some(token)).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(UserError::Invalid);
        }
        let user = answer.object("user")?;
        let profile = UserProfile::from_main_api(&user);
        let profile = profile.ok_or(UserError::Unavailable(Cause::Malformed.into()))?;
        Ok((profile, Contact::from_main_api(&user)))
    }

    /// A product as the owner of this token may see it: `GET /products/{id}`.
    pub async fn product(&self, token: &Token, id: ProductId) -> Result<Product, LookUpError> {
        let path = format!("/products/{id}");
        let answer = self.inner.get(&self.inner.look_ups, "/products/{id}", &path, Some(token)).await?;
        if answer.is_not_found() {
            return Err(LookUpError::NotFound);
        }
        let product = answer.object("product")?;
        let owner = product.get("owner").and_then(Value::as_object);
        let owner = owner.and_then(UserProfile::from_main_api);
        match ProductCard::from_main_api(&product) {
            Some(card) if card.id == id => Ok(Product { card, owner }),
            _ => Err(LookUpError::Unavailable(Cause::Malformed.into())),
        }
    }

    /// Whether other people's profiles can be asked for (`MAIN_API_USER_PATH`).
    pub fn has_profiles(&self) -> bool {
        self.inner.user_path.is_some()
    }

    /// Somebody's profile by `MAIN_API_USER_PATH`; not found where that is not set.
    pub async fn profile(&self, id: UserId, token: Option<&Token>) -> Result<UserProfile, LookUpError> {
        let Some(route) = &self.inner.user_path else { return Err(LookUpError::NotFound) };
        let path = route.replace("{id}", &id.to_string());
        let answer = self.inner.get(&self.inner.look_ups, route, &path, token).await?;
        if answer.is_not_found() {
            return Err(LookUpError::NotFound);
        }
        match UserProfile::from_main_api(&answer.object("user")?) {
            Some(profile) if profile.id == id => Ok(profile),
            _ => Err(LookUpError::Unavailable(Cause::Malformed.into())),
        }
    }

    /// Whether the main API is alive, and how long it took to say so; any HTTP answer will do.
    pub async fn probe(&self) -> Result<Duration, Cause> {
        let mut last = self.inner.probe.lock().await;
        if let Some((at, outcome)) = *last
            && at.elapsed() < PROBE_FOR
        {
            return outcome;
        }
        let start = Instant::now();
        let request = self
            .inner
            .client
            .request(Method::HEAD, &self.inner.base)
            .header(ACCEPT, "application/json")
            .timeout(self.inner.timeout.min(PROBE_TIMEOUT));
        let outcome = match request.send().await {
            Ok(_) => Ok(start.elapsed()),
            Err(error) => Err(cause_of(&error)),
        };
        *last = Some((Instant::now(), outcome));
        outcome
    }
}

impl fmt::Debug for MainApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MainApi").field("base", &self.inner.base).finish_non_exhaustive()
    }
}

impl Inner {
    async fn get(
        &self,
        permits: &Semaphore,
        route: &str,
        path: &str,
        token: Option<&Token>,
    ) -> Result<Answer, Unavailable> {
        let began = Instant::now();
        let parent = Context::current().trace;
        let mut span = Span::start(Side::Client, parent.as_ref(), || format!("GET {route}").into());
        let place = span.place(parent);
        let answer = self.ask(permits, path, token, place.as_ref()).await;
        let outcome = answer.as_ref().map(|answer| answer.status).map_err(|unavailable| unavailable.cause);
        span.set("http.request.method", "GET");
        span.set("url.template", route);
        match &outcome {
            Ok(status) => span.set_number("http.response.status_code", status.as_u16()),
            Err(_) => span.fail(),
        }
        metrics::get().main_api_answered(outcome, began.elapsed());
        answer
    }

    async fn ask(
        &self,
        permits: &Semaphore,
        path: &str,
        token: Option<&Token>,
        trace: Option<&Parent>,
    ) -> Result<Answer, Unavailable> {
        let permit = tokio::time::timeout(self.timeout, permits.acquire()).await.map_err(|_| Cause::Busy)?;
        let _permit = permit.map_err(|_| Cause::Busy)?;
        let mut request = self.client.get(format!("{}{path}", self.base)).header(ACCEPT, "application/json");
        if let Some(token) = token {
            let bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let mut bearer = bearer.map_err(|_| Cause::Malformed)?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(trace) = trace {
            let mut headers = HeaderMap::new();
            trace.put(&mut headers);
            request = request.headers(headers);
        }
        let mut response = request.send().await.map_err(|error| cause_of(&error))?;
        let status = response.status();
        let html = is_html(response.headers());
        let retry_after = retry_after(response.headers(), self.clock.now(), RETRY_AFTER_MAX);
        let mut body = Vec::new();
        // Read to its end whatever the status is, so that the connection can be used again.
        while let Some(chunk) = response.chunk().await.map_err(|error| cause_of(&error))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(Cause::TooLarge.into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, html, retry_after, body })
    }
}

/// A whole answer, not yet judged.
struct Answer {
    status: StatusCode,
    html: bool,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    /// A 404 that speaks of the thing, not of a wrong address (a web server's own page).
    fn is_not_found(&self) -> bool {
        matches!(self.status, StatusCode::NOT_FOUND | StatusCode::GONE) && !self.html
    }

    /// The object asked for: `{"data":{…}}`, `{"<name>":{…}}` or bare.
    fn object(self, name: &str) -> Result<Map<String, Value>, Unavailable> {
        let cause = match self.status.as_u16() {
            200..300 => match serde_json::from_slice::<Value>(&self.body) {
                Ok(Value::Object(mut body)) => {
                    for wrapper in ["data", name] {
                        if body.get(wrapper).is_some_and(Value::is_object)
                            && let Some(Value::Object(inner)) = body.remove(wrapper)
                        {
                            return Ok(inner);
                        }
                    }
                    return Ok(body);
                }
                Ok(_) => Cause::Malformed,
                Err(_) => Cause::NotJson,
            },
            300..400 => Cause::Redirected,
            403 => Cause::Forbidden,
            419 => Cause::PageExpired,
            429 => Cause::Throttled,
            status @ 500.. => Cause::ServerError(status),
            status => Cause::UnexpectedStatus(status),
        };
        Err(Unavailable { cause, retry_after: self.retry_after.unwrap_or(RETRY_AFTER_DEFAULT) })
    }
}

/// Makes ring the process's TLS implementation, once; reqwest and rustls ask for it.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    // An error says that there is one already, which is as good.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn cause_of(error: &reqwest::Error) -> Cause {
    if error.is_timeout() { Cause::TimedOut } else { Cause::Unreachable }
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.len() >= 9 && kind[..9].eq_ignore_ascii_case(b"text/html")
}
