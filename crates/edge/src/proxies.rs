//! Whose `X-Forwarded-*` headers are believed.
//!
//! Owns the list of trusted networks and the walk along `X-Forwarded-For`. The socket's own address comes from
//! [`crate::serve::Peer`].

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;

/// The networks of reverse proxies whose forwarding headers are believed; empty means nobody's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Vec<Network>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A list of networks that cannot be read; its text names the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadNetwork(String);

impl std::fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is not an address or network such as 10.0.0.0/8", self.0)
    }
}

impl std::error::Error for BadNetwork {}

impl FromStr for TrustedProxies {
    type Err = BadNetwork;

    /// Reads addresses and networks separated by commas: `10.0.0.0/8, ::1`.
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Network::parse(part).ok_or_else(|| BadNetwork(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TrustedProxies {
    /// Whether this address is one of the proxies.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client's address: the socket's, or, behind trusted proxies, the last one in `X-Forwarded-For` that is
    /// not itself a trusted proxy.
    pub fn client_ip(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.contains(client) {
            return client;
        }
        // From the right: each proxy appends who it heard from, and what stands further left than the first
        // untrusted address was written by the client itself.
        let hops = headers.get_all("x-forwarded-for").iter().rev();
        for hop in hops.flat_map(|value| value.to_str().unwrap_or("").rsplit(',')) {
            let Some(address) = parse_hop(hop.trim()) else { break };
            client = address.to_canonical();
            if !self.contains(client) {
                break;
            }
        }
        client
    }

    /// Whether the client speaks TLS: the socket does, or a trusted proxy says so in `X-Forwarded-Proto`.
    pub fn is_secure(&self, peer: IpAddr, tls: bool, headers: &HeaderMap) -> bool {
        tls || self.contains(peer)
            && headers
                .get("x-forwarded-proto")
                .and_then(|value| value.to_str().ok())
                .is_some_and(|proto| proto.split(',').next().is_some_and(|p| p.trim() == "https"))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address.parse::<IpAddr>().ok()?, Some(prefix.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let address = if prefix.is_none() { address.to_canonical() } else { address };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        (prefix <= longest).then_some(Self { address, prefix })
    }

    fn contains(&self, other: IpAddr) -> bool {
        let shift = |bits: u32| bits.saturating_sub(u32::from(self.prefix));
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// One entry of `X-Forwarded-For`: an address, some proxies add a port or brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nobody_is_believed_by_default() {
        let headers = forwarded(&["9.9.9.9"]);
        assert_eq!(TrustedProxies::default().client_ip(ip("10.0.0.1"), &headers), ip("10.0.0.1"));
    }

    #[test]
    fn the_last_address_before_the_trusted_ones_counts() {
        let proxies: TrustedProxies = "10.0.0.0/8, ::1".parse().unwrap();
        let client = |values: &[&str]| proxies.client_ip(ip("10.0.0.1"), &forwarded(values));
        assert_eq!(client(&["1.1.1.1, 2.2.2.2"]), ip("2.2.2.2"));
        assert_eq!(client(&["1.1.1.1, 2.2.2.2, 10.9.9.9"]), ip("2.2.2.2"));
        assert_eq!(client(&["1.1.1.1", "2.2.2.2:4711"]), ip("2.2.2.2"));
        assert_eq!(client(&["[2001:db8::7]:443"]), ip("2001:db8::7"));
        assert_eq!(client(&["nonsense"]), ip("10.0.0.1"));
        assert_eq!(client(&[]), ip("10.0.0.1"));
        assert_eq!(client(&["10.1.1.1, 10.2.2.2"]), ip("10.1.1.1"));
        assert_eq!(proxies.client_ip(ip("::ffff:10.0.0.1"), &forwarded(&["3.3.3.3"])), ip("3.3.3.3"));
    }

    #[test]
    fn networks_hold_what_their_prefix_says() {
        let proxies: TrustedProxies = "192.168.4.0/22,2001:db8::/32,0.0.0.0/0".parse().unwrap();
        assert!(proxies.contains(ip("2001:db8:1::1")));
        assert!(!proxies.contains(ip("2001:db9::1")));
        assert!(proxies.contains(ip("8.8.8.8")));
        let narrow: TrustedProxies = "192.168.4.0/22".parse().unwrap();
        assert!(narrow.contains(ip("192.168.7.255")));
        assert!(!narrow.contains(ip("192.168.8.0")));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for bad in ["10.0.0.0/33", "proxy", "10.0.0/8", "::/129", "1.2.3.4/x"] {
            let error = bad.parse::<TrustedProxies>().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn https_is_believed_of_a_trusted_proxy_only() {
        let proxies: TrustedProxies = "10.0.0.1".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert!(proxies.is_secure(ip("10.0.0.1"), false, &headers));
        assert!(!proxies.is_secure(ip("10.0.0.2"), false, &headers));
        assert!(proxies.is_secure(ip("10.0.0.2"), true, &headers));
    }
}
