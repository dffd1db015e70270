//! `TRUSTED_PROXIES`: whose word about a client's address is believed.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::reader::quoted;

/// Addresses and networks of proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads a comma-separated list of addresses and networks.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| {
                item.parse::<IpNet>().or_else(|_| item.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                    format!(
                        "must list IP addresses or networks such as 10.0.0.0/8, comma-separated; {} is neither.",
                        quoted(item)
                    )
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether this address is one of them; an IPv4 address in IPv6 clothes is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The networks, a single address being one of its full length.
    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_trusted_and_others_not() {
        let proxies = TrustedProxies::parse("127.0.0.1, 10.0.0.0/8,fd00::/8").expect("a list");
        for good in ["127.0.0.1", "10.1.2.3", "fd00::1", "::ffff:10.1.2.3"] {
            assert!(proxies.contains(good.parse().expect("an address")), "{good}");
        }
        for bad in ["127.0.0.2", "11.0.0.1", "fe80::1"] {
            assert!(!proxies.contains(bad.parse().expect("an address")), "{bad}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in ["proxy.example.test", "10.0.0.0/33", "10.0.0", "*"] {
            assert!(TrustedProxies::parse(bad).is_err(), "{bad}");
        }
    }
}
