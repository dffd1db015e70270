//! The frame around every answer (contract section 1): success, error, page, request id.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::AppState;
use crate::{
    chat::Page,
    clock::Timestamp,
    context::Context,
    errors::{Error, RateLimit, whole_seconds},
    metrics,
    traces::{Parent, Side, Span},
};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// Asked every few seconds by machines: as traces they would only cover the others.
const PROBES: [&str; 3] = ["/health", "/ready", "/metrics"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The name of a request, given by the client or made here; in answers and log lines.
#[derive(Debug, Clone)]
struct RequestId(String);

impl RequestId {
    /// Short and printable, or it is not taken over.
    fn of(headers: &HeaderMap) -> Self {
        let is_plain = |id: &&str| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        };
        let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_plain);
        Self(given.map_or_else(|| uuid::Uuid::new_v4().to_string(), ToOwned::to_owned))
    }
}

/// An answer that lacks nothing but its time: `{"success":true,"data":…,"meta":{…}}`.
#[derive(Debug)]
pub(super) struct Success<T> {
    pub(super) status: StatusCode,
    data: T,
    /// Beside `timestamp`.
    meta: Map<String, Value>,
    /// Fields that the app reads at the top level.
    flat: Map<String, Value>,
    headers: HeaderMap,
}

impl<T: Serialize> Success<T> {
    /// 200 with data.
    pub(super) fn ok(data: T) -> Self {
        Self { status: StatusCode::OK, data, meta: Map::new(), flat: Map::new(), headers: HeaderMap::new() }
    }

    /// 201 with data.
    pub(super) fn created(data: T) -> Self {
        Self { status: StatusCode::CREATED, ..Self::ok(data) }
    }

    /// Adds a field at the top level.
    pub(super) fn with_flat(mut self, name: &str, value: impl Serialize) -> Self {
        self.flat.insert(name.to_owned(), json!(value));
        self
    }

    /// Adds a field to `meta`.
    pub(super) fn with_meta(mut self, name: &str, value: impl Serialize) -> Self {
        self.meta.insert(name.to_owned(), json!(value));
        self
    }

    /// Adds a header.
    pub(super) fn with_header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    /// Tells how much of the limit is left.
    pub(super) fn with_rate_limit(mut self, limit: Option<RateLimit>) -> Self {
        if let Some(limit) = limit {
            put_rate_limit(&mut self.headers, &limit);
        }
        self
    }

    /// Adds where a page stands to `meta`.
    pub(super) fn with_place<I>(self, page: &Page<I>) -> Self {
        self.with_meta("current_page", page.page)
            .with_meta("per_page", page.per_page)
            .with_meta("total", page.total)
            .with_meta("total_pages", page.total_pages())
            .with_meta("has_more", page.has_more)
    }

    /// The answer with an `ETag`, or 304 without a body for a client that has it already (RFC 9110, 13.1.2).
    /// The tag is weak: `meta.timestamp` differs in answers that say the same.
    pub(super) fn unless_known(self, headers: &HeaderMap, tag: u64, now: Timestamp) -> Response {
        let tag = format!("W/\"{tag:016x}\"");
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let is_known = known.flat_map(|value| value.split(',')).any(|one| {
            let one = one.trim();
            one == "*" || one.trim_start_matches("W/") == tag.trim_start_matches("W/")
        });
        let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { self.at(now) };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        // Nobody but this caller, and not without asking.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        response
    }

    /// The answer, at this time.
    pub(super) fn at(mut self, now: Timestamp) -> Response {
        #[derive(Serialize)]
        struct Frame<'a, T> {
            success: bool,
            #[serde(flatten)]
            flat: &'a Map<String, Value>,
            data: &'a T,
            meta: &'a Map<String, Value>,
        }
        self.meta.insert("timestamp".into(), json!(now));
        let frame =
            Frame { success: self.status.is_success(), flat: &self.flat, data: &self.data, meta: &self.meta };
        match serde_json::to_vec(&frame) {
            Ok(body) => {
                let mut response = (self.status, body).into_response();
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                response.headers_mut().extend(self.headers);
                response
            }
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

impl<T: Serialize> Success<Vec<T>> {
    /// 200 with a page of a list.
    pub(super) fn page(page: Page<T>) -> Self {
        let place = Page {
            items: Vec::<()>::new(),
            page: page.page,
            per_page: page.per_page,
            total: page.total,
            has_more: page.has_more,
        };
        Self::ok(page.items).with_place(&place)
    }
}

fn put_rate_limit(headers: &mut HeaderMap, limit: &RateLimit) {
    headers.insert("x-ratelimit-limit", limit.limit.into());
    headers.insert("x-ratelimit-remaining", limit.remaining.into());
    headers.insert("x-ratelimit-reset", limit.resets_at.as_seconds().into());
}

impl IntoResponse for Error {
    /// The status alone; `finish` writes the body, since only it knows the request.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Names every request, writes the bodies of errors, and logs what a person should know of.
pub(super) async fn finish(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map(MatchedPath::as_str);
    let parent = Parent::of(request.headers());
    let mut span = if route.is_some_and(|route| PROBES.contains(&route)) {
        Span::none()
    } else {
        Span::start(Side::Server, parent.as_ref(), || format!("{method} {}", route.unwrap_or("none")).into())
    };
    let context =
        Context { request_id: Some(id.0.as_str().into()), connection_id: None, trace: span.place(parent) };
    let began = Instant::now();
    let mut response = context
        .scope(async {
            let mut response = next.run(request).await;
            if let Some(error) = response.extensions_mut().remove::<Arc<Error>>() {
                if let Error::Internal(source) = &*error {
                    tracing::error!(%method, route, error = %source, "a request failed");
                }
                response = refusal(&error, response, &id, state.clock.now());
            }
            tracing::debug!(%method, route, status = response.status().as_u16(), "a request was answered");
            response
        })
        .await;
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    // What is somebody's is kept by nobody on the way, and nothing is taken for what it is not.
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    span.set("http.request.method", method.as_str());
    span.set("http.route", route.unwrap_or("none"));
    span.set("request.id", &id.0);
    span.set_number("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.fail();
    }
    metrics::get().request_answered(&method, route, response.status(), began.elapsed());
    response
}

/// The answer of the catalogue instead of the one that only carried the error.
fn refusal(error: &Error, outer: Response, id: &RequestId, now: Timestamp) -> Response {
    let mut response = error_response(error, id, now);
    let (outer, _) = outer.into_parts();
    // `Allow` of a 405 comes from the router, the length of the file of a 416 from its handler;
    // the catalogue has no code of its own for that status.
    for name in [header::ALLOW, header::CONTENT_RANGE] {
        response.headers_mut().extend(outer.headers.get(&name).map(|value| (name, value.clone())));
    }
    if outer.status == StatusCode::RANGE_NOT_SATISFIABLE {
        *response.status_mut() = outer.status;
    }
    response
}

fn error_response(error: &Error, id: &RequestId, now: Timestamp) -> Response {
    let mut response = (error.status(), error.body(&id.0, now).to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    if let Some(retry_after) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, whole_seconds(retry_after).into());
    }
    if let Error::RateLimited(limit) = error {
        put_rate_limit(headers, limit);
    }
    if matches!(error, Error::Unauthenticated) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
