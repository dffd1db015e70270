//! Requests to addresses that others gave: never to this machine, its neighbours or the cloud's metadata.
//!
//! A name is resolved once, what it resolves to is checked, and that is what is connected to; an
//! address that was public a moment ago cannot become another one in between. Redirects are not
//! followed. What is sent is the caller's business.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::{Host, Url};

use crate::identity::main_api::install_crypto_provider;

/// Which addresses may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public ones over https.
    Public,
    /// Any, and http too: for trials, and where the operator gave the address.
    Any,
}

/// Why an address is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no http(s) URL with a host, or has a name and password in it.
    NotAUrl,
    /// It is not https.
    NotSecure,
    /// It is not public.
    NotPublic,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotAUrl => "is not an http(s) URL",
            Self::NotSecure => "is not https",
            Self::NotPublic => "is not a public address",
        })
    }
}

impl std::error::Error for Refusal {}

/// Reads a URL and refuses what can be refused by looking at it. Names are checked by the client
/// when they are resolved.
pub fn check_url(text: &str, reach: Reach) -> Result<Url, Refusal> {
    let url = Url::parse(text).map_err(|_| Refusal::NotAUrl)?;
    let is_http = matches!(url.scheme(), "http" | "https");
    if !is_http || !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::NotAUrl);
    }
    let host = url.host().ok_or(Refusal::NotAUrl)?;
    if reach == Reach::Public {
        if url.scheme() != "https" {
            return Err(Refusal::NotSecure);
        }
        let is_public = match host {
            Host::Ipv4(address) => is_public(IpAddr::V4(address)),
            Host::Ipv6(address) => is_public(IpAddr::V6(address)),
            Host::Domain(name) => !is_local_name(name),
        };
        if !is_public {
            return Err(Refusal::NotPublic);
        }
    }
    Ok(url)
}

/// A client that connects to addresses within reach and nowhere else. Every URL must have gone through
/// [`check_url`]: an address written as numbers is not resolved, and so not checked here.
pub fn client(reach: Reach, timeout: Duration) -> reqwest::Result<Client> {
    builder(reach, timeout).build()
}

/// A client for addresses that the operator gave. If all of them are http, this machine's certificates
/// are not read: that takes time, and fails on a machine without any.
pub fn client_of(addresses: &[&str], timeout: Duration) -> reqwest::Result<Client> {
    let builder = builder(Reach::Any, timeout);
    let is_plain = addresses.iter().all(|address| address.starts_with("http:"));
    if is_plain { builder.tls_certs_only([]).build() } else { builder.build() }
}

/// What both kinds of client have in common.
pub(crate) fn builder(reach: Reach, timeout: Duration) -> ClientBuilder {
    install_crypto_provider();
    let builder = Client::builder()
        .user_agent(concat!("rented-messaging/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(Duration::from_secs(60))
        .tcp_nodelay(true);
    match reach {
        Reach::Public => builder.dns_resolver(PublicOnly),
        Reach::Any => builder,
    }
}

/// Resolves names to their public addresses.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(Refusal::NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_below = |suffix: &str| name == suffix || name.ends_with(&format!(".{suffix}"));
    // A name without a dot is one of this network.
    !name.contains('.') || ["localhost", "local", "internal", "lan", "home.arpa"].into_iter().any(is_below)
}

/// Whether an address is one of the public internet (the registries of special addresses, RFC 6890).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        // Shared by carriers; protocol assignments; relays; benchmarks; reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240
        // A cloud's own service address, in the middle of the public ones.
        || (a, b, c, d) == (168, 63, 129, 16))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Addresses that carry an IPv4 address are as public as that one.
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let tail = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    let segments = address.segments();
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(tail(segments[6], segments[7]));
    }
    if a == 0x2002 {
        return is_public_v4(tail(segments[1], segments[2]));
    }
    // Global unicast is 2000::/3; of it documentation, Teredo and other protocol assignments are not.
    (a & 0xe000) == 0x2000
        && !(a == 0x2001 && b < 0x200)
        && !(a == 0x2001 && b == 0xdb8)
        && !(a == 0x3fff && b & 0xf000 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(!is_public(private.parse().unwrap()), "{private}");
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
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn urls_are_refused_by_what_can_be_seen_of_them() {
        let refusal = |text| check_url(text, Reach::Public).err();
        for fine in ["https://push.example.test/send/abc", "https://8.8.8.8:8443/x"] {
            assert_eq!(refusal(fine), None, "{fine}");
        }
        for (text, expected) in [
            ("push", Refusal::NotAUrl),
            ("ftp://push.example.test/", Refusal::NotAUrl),
            ("https://user:word@push.example.test/", Refusal::NotAUrl),
            ("file:///etc/passwd", Refusal::NotAUrl),
            ("http://push.example.test/", Refusal::NotSecure),
            ("https://localhost/", Refusal::NotPublic),
            ("https://LOCALHOST./", Refusal::NotPublic),
            ("https://a.localhost/", Refusal::NotPublic),
            ("https://metadata.internal/", Refusal::NotPublic),
            ("https://redis/", Refusal::NotPublic),
            ("https://127.0.0.1/", Refusal::NotPublic),
            ("https://0x7f.1/", Refusal::NotPublic),
            ("https://2130706433/", Refusal::NotPublic),
            ("https://[::1]/", Refusal::NotPublic),
            ("https://[::ffff:10.0.0.1]/", Refusal::NotPublic),
        ] {
            assert_eq!(refusal(text), Some(expected), "{text}");
        }
        assert!(check_url("http://127.0.0.1:9/x", Reach::Any).is_ok());
        assert_eq!(check_url("ftp://127.0.0.1/", Reach::Any), Err(Refusal::NotAUrl));
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let client = client(Reach::Public, Duration::from_secs(5)).unwrap();
        let error = client.get(&url).send().await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        let waited = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(waited.is_err(), "somebody connected");
    }
}
