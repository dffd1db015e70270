//! The HTTP side of becoming a live connection: what a WebSocket handshake must say, and error answers.
//!
//! Owns header and query checks (RFC 6455 section 4.2) and CORS headers; who is let in is decided in
//! [`crate::edge`].

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

/// What a client said in the handshake that the service may want to know at its CONNECT.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) query: Option<Box<str>>,
    pub(crate) authorization: Option<Box<str>>,
}

impl Introduction {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            query: request.uri().query().map(Box::from),
            authorization: text(request.headers(), header::AUTHORIZATION).map(Box::from),
        }
    }
}

/// Whether the request wants to become a WebSocket.
pub(crate) fn is_upgrade(request: &Request) -> bool {
    request.method() == Method::GET
        && has_token(request.headers(), header::CONNECTION, "upgrade")
        && has_token(request.headers(), header::UPGRADE, "websocket")
}

/// The value of `Sec-WebSocket-Accept`, or what is wrong with the handshake.
pub(crate) fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, BadHandshake> {
    if text(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(BadHandshake::Version);
    }
    let key = text(headers, header::SEC_WEBSOCKET_KEY).ok_or(BadHandshake::Key)?;
    if STANDARD.decode(key).map(|bytes| bytes.len()) != Ok(16) {
        return Err(BadHandshake::Key);
    }
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(hash.finish());
    HeaderValue::try_from(accept).map_err(|_| BadHandshake::Key)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHandshake {
    Version,
    Key,
}

impl BadHandshake {
    pub(crate) fn refusal(self) -> Response {
        match self {
            Self::Version => refusal(StatusCode::UPGRADE_REQUIRED, 3, "WebSocket version 13 is spoken here"),
            Self::Key => refusal(StatusCode::BAD_REQUEST, 3, "Bad request"),
        }
    }
}

/// What a browser's cross-origin request needs in its answer; its origin was let in already.
#[derive(Debug)]
pub(crate) struct Cors {
    origin: HeaderValue,
    /// The headers that a pre-flight asks for, reflected.
    wanted: Option<HeaderValue>,
}

impl Cors {
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?.clone();
        let preflight = request.method() == Method::OPTIONS;
        let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|_| preflight).cloned();
        Some(Self { origin, wanted })
    }

    pub(crate) fn apply(self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(wanted) = self.wanted {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
    }
}

/// The answer to a CORS pre-flight, before [`Cors::apply`].
pub(crate) fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// The answer that turns the connection into a WebSocket.
pub(crate) fn switching(accept: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// An error answer; Engine.IO clients read `code` and `message`.
pub(crate) fn refusal(status: StatusCode, code: u8, message: &'static str) -> Response {
    let body = format!("{{\"code\":{code},\"message\":\"{message}\"}}");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if matches!(status, StatusCode::UPGRADE_REQUIRED) {
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

/// The header's value as text; of several, the first.
pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The raw value of a key in a query string.
pub(crate) fn query_value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })
}

/// Undoes percent-encoding; what is no proper escape stays as it is, and so does `+`, which tokens may hold.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let escaped = match bytes {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                bytes = bytes.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A fresh id nobody can guess: 120 random bits, 20 characters.
pub(crate) fn random_id() -> String {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 15];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system always has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        let mut headers = HeaderMap::new();
        headers.insert("sec-websocket-version", "13".parse().unwrap());
        headers.insert("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(accept_key(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert("sec-websocket-key", "c2hvcnQ=".parse().unwrap());
        assert_eq!(accept_key(&headers), Err(BadHandshake::Key));
        headers.insert("sec-websocket-version", "8".parse().unwrap());
        assert_eq!(accept_key(&headers), Err(BadHandshake::Version));
    }

    #[test]
    fn tokens_survive_their_encoding() {
        assert_eq!(percent_decode("7%7CAbC"), "7|AbC");
        assert_eq!(percent_decode("7|AbC+/="), "7|AbC+/=");
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
        assert_eq!(percent_decode("%C3%A9"), "é");
        assert_eq!(query_value("EIO=4&token=7%7CA&x", "token"), Some("7%7CA"));
        assert_eq!(query_value("a=1&b", "b"), Some(""));
        assert_eq!(query_value("ab=1", "b"), None);
    }

    #[test]
    fn ids_differ() {
        let (a, b) = (random_id(), random_id());
        assert_ne!(a, b);
        assert_eq!(a.len(), 20);
    }
}
