//! Buckets by address, for those of whom nothing else is known: failed attempts with a key.
//!
//! Bounded in memory: full buckets are dropped, and of more than so many attackers at once nobody is
//! remembered.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use parking_lot::Mutex;

use super::gcra::{Quota, decide};
use crate::{
    clock::Timestamp,
    errors::{Error, Result},
};

/// Addresses remembered at once: some megabytes.
const MAX_ADDRESSES: usize = 50_000;

/// A bucket for each address.
#[derive(Debug)]
pub struct Addresses {
    quota: Option<Quota>,
    /// When each bucket is full again, in microseconds since the Unix epoch.
    full_at: Mutex<HashMap<IpAddr, i64>>,
}

impl Addresses {
    /// So many a minute from one address, so many of them at once.
    pub fn new(per_minute: u32, burst: u32) -> Self {
        Self { quota: Quota::new(per_minute, burst), full_at: Mutex::default() }
    }

    /// Counts an attempt from this address; [`Error::RateLimited`] where there were too many.
    pub fn count(&self, address: IpAddr, now: Timestamp) -> Result<()> {
        let Some(quota) = self.quota else { return Ok(()) };
        let mut full_at = self.full_at.lock();
        if full_at.len() >= MAX_ADDRESSES {
            let now_micros = now.as_millis().saturating_mul(1_000);
            full_at.retain(|_, full_at| *full_at > now_micros);
            if full_at.len() >= MAX_ADDRESSES {
                full_at.clear();
            }
        }
        let bucket = full_at.entry(network(address)).or_insert(0);
        let decision = decide(*bucket, now, quota);
        *bucket = decision.full_at;
        if decision.allowed { Ok(()) } else { Err(Error::RateLimited(decision.rate_limit)) }
    }
}

/// One customer of IPv6 has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_764_930_600_000);

    #[test]
    fn an_address_has_so_many_attempts_a_minute() {
        let addresses = Addresses::new(10, 2);
        let address: IpAddr = "2001:db8::1".parse().expect("an address");
        let neighbour: IpAddr = "2001:db8::2:1".parse().expect("an address");
        let other: IpAddr = "192.0.2.1".parse().expect("an address");
        assert!(addresses.count(address, START).is_ok());
        assert!(addresses.count(neighbour, START).is_ok());
        assert!(addresses.count(address, START).is_err(), "they share a network");
        assert!(addresses.count(other, START).is_ok());
        assert!(addresses.count(address, START.plus(Duration::from_secs(6))).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let addresses = Addresses::new(10, 2);
        for n in 0..(MAX_ADDRESSES + 10) {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(u32::try_from(n).expect("small")));
            assert!(addresses.count(address, START).is_ok());
        }
        assert!(addresses.full_at.lock().len() <= MAX_ADDRESSES);
    }
}
