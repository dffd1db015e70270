//! Requests to addresses that somebody else chose: never to this machine or its neighbours.
//!
//! A name is resolved and judged where the connection is made, so that a name which points elsewhere a
//! moment later gains nothing; redirects are not followed, answers are read to a bound. Used for
//! webhooks; what is sent and what an answer means is their business.

use std::{
    error::Error as StdError,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::{Host, Url};

use crate::{clock::Timestamp, identity::main_api::install_crypto_provider};

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
        install_crypto_provider();
        let builder = Client::builder()
            .user_agent(concat!("rented-messaging/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .dns_resolver(Arc::new(Resolver { allow_private: options.allow_private }))
            .timeout(options.timeout)
            .connect_timeout(options.timeout)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true);
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
        if cause.is::<NotPublic>() {
            return Failure::NotPublic;
        }
        source = cause.source();
    }
    if error.is_timeout() { Failure::TimedOut } else { Failure::Unreachable }
}

/// None of a name's addresses may be asked.
#[derive(Debug)]
struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("none of the name's addresses is public")
    }
}

impl StdError for NotPublic {}

#[derive(Debug)]
struct Resolver {
    allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the open internet, by the registries of special-purpose addresses
/// (RFC 6890 and its updates); metadata services of clouds are not.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // "This network", shared by carriers, protocol assignments, old 6to4 relays, benchmarks, reserved.
        || a == 0
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240
        // Azure's own service address, in the middle of the public ones.
        || (a, b, c, d) == (168, 63, 129, 16))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inside) = address.to_ipv4_mapped() {
        return is_public_v4(inside);
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([one, two], [three, four]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(one, two, three, four))
    };
    // Translated to IPv4 (NAT64), or carried through it (6to4).
    if (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0) {
        return embedded(g, h);
    }
    if a == 0x2002 {
        return embedded(b, c);
    }
    // All that is given out lies in 2000::/3; of it, not Teredo and its neighbours, nor documentation.
    a & 0xe000 == 0x2000
        && !(a == 0x2001 && b & 0xfe00 == 0)
        && !(a == 0x2001 && b == 0x0db8)
        && !(a == 0x3fff && b & 0xf000 == 0)
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

    #[test]
    fn addresses_of_this_machine_its_neighbours_and_of_metadata_services_are_not_public() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "100::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
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
