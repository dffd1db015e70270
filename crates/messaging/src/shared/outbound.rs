//! Requests to addresses that somebody else chose: never to this machine or its neighbours.
//!
//! Which addresses those are, and that redirects are not followed, is settled in [`crate::outbound`]; here
//! answers are read to a bound. Used for webhooks; what is sent and what an answer means is their business.

use std::{error::Error as StdError, fmt, net::IpAddr, time::Duration};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use reqwest::Client;
use url::{Host, Url};

use crate::{
    clock::Timestamp,
    outbound::{self, Reach, Refusal, is_public},
};

/// Below the time after which common servers close idle connections.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// A client for such requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    client: Client,
    allow_private: bool,
    max_answer: usize,
}

/// How requests are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboundOptions {
    /// Also to private, loopback and link-local addresses.
    pub(crate) allow_private: bool,
    /// For the whole request, its answer included.
    pub(crate) timeout: Duration,
    /// Bytes of an answer that are read.
    pub(crate) max_answer: usize,
    /// Whether any of the addresses is https; the machine's certificates are read only then.
    pub(crate) needs_tls: bool,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Why nothing came back. Says nothing of the address or of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The address is none that may be asked.
    NotPublic,
    /// No answer in time.
    TimedOut,
    /// No connection, or one that broke off.
    Unreachable,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotPublic => "the address is not public",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
        })
    }
}

/// This machine has no certificates to check a server's by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoCertificates;

impl Outbound {
    pub(crate) fn new(options: OutboundOptions) -> Result<Self, NoCertificates> {
        let reach = if options.allow_private { Reach::Any } else { Reach::Public };
        let builder = outbound::builder(reach, options.timeout).pool_idle_timeout(POOL_IDLE);
        let builder = if options.needs_tls { builder } else { builder.tls_certs_only([]) };
        let client = builder.build().map_err(|_| NoCertificates)?;
        Ok(Self { client, allow_private: options.allow_private, max_answer: options.max_answer })
    }

    /// Whether this address may be asked, as far as it says so itself; of a name its addresses decide.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Failure> {
        let address = match url.host() {
            // The client connects to these without asking a resolver.
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(Failure::NotPublic),
        };
        if self.allow_private || is_public(address) { Ok(()) } else { Err(Failure::NotPublic) }
    }

    /// Posts a body and waits for the answer.
    pub(crate) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: String,
    ) -> Result<Answered, Failure> {
        self.check(url)?;
        let request = self.client.post(url.clone()).headers(headers).body(body);
        let mut response = request.send().await.map_err(|error| failure_of(&error))?;
        let answered =
            Answered { status: response.status(), headers: std::mem::take(response.headers_mut()) };
        // To its end, if it is near, so that the connection can be used again.
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > self.max_answer {
                break;
            }
        }
        Ok(answered)
    }
}

fn failure_of(error: &reqwest::Error) -> Failure {
    let mut source: Option<&dyn StdError> = Some(error);
    while let Some(cause) = source {
        if cause.is::<Refusal>() {
            return Failure::NotPublic;
        }
        source = cause.source();
    }
    if error.is_timeout() { Failure::TimedOut } else { Failure::Unreachable }
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), within reason.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp, longest: Duration) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => http_date(text)?.since(now),
    };
    Some(wait.clamp(Duration::from_secs(1), longest))
}

fn http_date(text: &str) -> Option<Timestamp> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = time::PrimitiveDateTime::parse(text, format).ok()?;
    Some(date.assume_utc().into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn outbound(allow_private: bool) -> Outbound {
        let timeout = Duration::from_secs(5);
        let options = OutboundOptions { allow_private, timeout, max_answer: 1000, needs_tls: false };
        Outbound::new(options).expect("a client")
    }

    #[tokio::test]
    async fn neither_an_address_nor_a_name_of_this_machine_is_asked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "2130706433", "0x7f.1", "0"] {
            let url = Url::parse(&format!("http://{host}:{port}/hook")).expect("a URL");
            let answer = outbound(false).post(&url, HeaderMap::new(), String::new()).await;
            assert_eq!(answer.expect_err("refused"), Failure::NotPublic, "{host}");
        }
        let waiting = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(waiting.is_err(), "nobody knocked");
    }

    #[tokio::test]
    async fn where_it_is_allowed_a_neighbour_is_asked_and_a_redirect_is_an_answer() {
        use axum::{Router, http::StatusCode as Status, routing::post};
        let app = Router::new().route("/hook", post(async || (Status::FOUND, [("location", "/elsewhere")])));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let url = Url::parse(&format!("http://localhost:{port}/hook")).expect("a URL");
        let answer = outbound(true).post(&url, HeaderMap::new(), String::new()).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::FOUND);
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_kept_within_reason() {
        let now = Timestamp::parse("2025-12-05T10:30:00Z").expect("a time");
        for (text, seconds) in [
            ("7", Some(7)),
            ("0", Some(1)),
            ("999999", Some(300)),
            ("Fri, 05 Dec 2025 10:30:30 GMT", Some(30)),
            ("Fri, 05 Dec 2025 10:00:00 GMT", Some(1)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            let longest = Duration::from_secs(300);
            assert_eq!(retry_after(&headers, now, longest), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now, Duration::MAX), None);
    }
}
