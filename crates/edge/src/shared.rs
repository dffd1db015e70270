//! What all connections of an edge have in common, whatever the service behind them.
//!
//! Owns admission (how many connections there are, from where), the registry of live links and the counters.
//! The clock is in `wheel`; handshakes are in [`crate::edge`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::EdgeConfig;
use crate::handler::{CloseReason, Dialect};
use crate::link::Link;
use crate::wheel::Wheel;

const SHARDS: usize = 16;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: EdgeConfig,
    pub(crate) wheel: Wheel,
    pub(crate) addresses: Addresses,
    pub(crate) counters: Counters,
    /// No new connections are let in.
    pub(crate) stopping: AtomicBool,
    /// Whether the clock task runs.
    pub(crate) ticking: AtomicBool,
    links: [Mutex<HashMap<u64, Arc<Link>>>; SHARDS],
    ids: AtomicU64,
}

impl Shared {
    pub(crate) fn new(config: EdgeConfig) -> Self {
        let wheel = Wheel::new(tick_for(&config));
        Self {
            config,
            wheel,
            addresses: Addresses::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            ticking: AtomicBool::new(false),
            links: Default::default(),
            ids: AtomicU64::new(1),
        }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Relaxed)
    }

    /// Makes room for one connection, or says why there is none.
    pub(crate) fn admit(self: &Arc<Self>, remote: IpAddr, dialect: Dialect) -> Result<Admission, Full> {
        if self.stopping.load(Relaxed) {
            return Err(Full::Stopping);
        }
        let live = self.counters.live.fetch_add(1, Relaxed);
        let limit = self.config.max_connections as u64;
        let full = if limit > 0 && live >= limit { Err(Full::Connections) } else { Ok(()) };
        if let Err(full) = full.and_then(|()| self.addresses.enter(remote, &self.config)) {
            self.counters.live.fetch_sub(1, Relaxed);
            self.counters.refused.fetch_add(1, Relaxed);
            return Err(full);
        }
        self.counters.accepted.fetch_add(1, Relaxed);
        self.counters.by_dialect[dialect as usize].fetch_add(1, Relaxed);
        let link = Arc::new(Link::new(Arc::clone(self), self.next_id(), remote, dialect));
        self.shard(link.id).lock().insert(link.id, Arc::clone(&link));
        Ok(Admission { link })
    }

    /// Starts the task that turns the wheel, if it does not run yet; it ends with the edge.
    pub(crate) fn start_clock(self: &Arc<Self>) {
        if self.ticking.swap(true, Relaxed) {
            return;
        }
        let shared = Arc::downgrade(self);
        let tick = self.wheel.tick();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(tick).await;
                let Some(shared) = shared.upgrade() else { return };
                shared.wheel.turn(shared.wheel.now());
            }
        });
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<Link>>> {
        &self.links[(id % SHARDS as u64) as usize]
    }

    /// All live links, gathered shard by shard.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.links.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }
}

/// The wheel's step: fine enough for the shortest interval, coarse enough to cost nothing.
fn tick_for(config: &EdgeConfig) -> Duration {
    let shortest = [
        config.ping_interval,
        config.ping_timeout,
        config.auth_timeout,
        config.connect_timeout,
        config.upgrade_timeout,
        config.frame_timeout,
        config.close_timeout,
        config.slow_after,
    ]
    .into_iter()
    .filter(|time| !time.is_zero())
    .min()
    .unwrap_or(Duration::from_secs(1));
    (shortest / 20).clamp(Duration::from_millis(10), Duration::from_millis(250))
}

/// A connection's place among the live ones; gives it up when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) link: Arc<Link>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let link = &self.link;
        let shared = &link.shared;
        let was_authenticated = link.retire();
        shared.addresses.leave(link.remote, was_authenticated);
        shared.shard(link.id).lock().remove(&link.id);
        shared.counters.live.fetch_sub(1, Relaxed);
        shared.counters.by_dialect[link.dialect as usize].fetch_sub(1, Relaxed);
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Stopping,
    Connections,
    Address,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) live: AtomicU64,
    pub(crate) by_dialect: [AtomicU64; 3],
    pub(crate) polling: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) forbidden: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    pub(crate) protocol_errors: AtomicU64,
    pub(crate) ping_timeouts: AtomicU64,
    pub(crate) events_in: AtomicU64,
}

impl Counters {
    pub(crate) fn closed(&self, reason: CloseReason) {
        match reason {
            CloseReason::SlowConsumer => self.slow_consumers.fetch_add(1, Relaxed),
            CloseReason::Protocol | CloseReason::TooBig => self.protocol_errors.fetch_add(1, Relaxed),
            CloseReason::PingTimeout => self.ping_timeouts.fetch_add(1, Relaxed),
            _ => 0,
        };
    }
}

/// How many connections each address has.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, Count>>);

#[derive(Debug, Default)]
struct Count {
    live: u32,
    waiting: u32,
}

impl Addresses {
    fn enter(&self, address: IpAddr, config: &EdgeConfig) -> Result<(), Full> {
        let over = |count: u32, limit: usize| limit > 0 && count as usize >= limit;
        let mut map = self.0.lock();
        let count = map.entry(address).or_default();
        // A fresh entry is never over a limit, so a refusal leaves no empty entry behind.
        if over(count.live, config.max_connections_per_ip)
            || over(count.waiting, config.max_unauthenticated_per_ip)
        {
            return Err(Full::Address);
        }
        count.live += 1;
        count.waiting += 1;
        Ok(())
    }

    pub(crate) fn authenticated(&self, address: IpAddr) {
        self.change(address, |count| count.waiting = count.waiting.saturating_sub(1));
    }

    fn leave(&self, address: IpAddr, was_authenticated: bool) {
        self.change(address, |count| {
            count.live = count.live.saturating_sub(1);
            if !was_authenticated {
                count.waiting = count.waiting.saturating_sub(1);
            }
        });
    }

    fn change(&self, address: IpAddr, change: impl FnOnce(&mut Count)) {
        let mut map = self.0.lock();
        if let Some(count) = map.get_mut(&address) {
            change(count);
            if count.live == 0 && count.waiting == 0 {
                map.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_given_up_is_free_again_and_addresses_are_forgotten() {
        let config = EdgeConfig { max_unauthenticated_per_ip: 2, ..EdgeConfig::default() };
        let shared = Arc::new(Shared::new(config));
        let admit = |last: u8| shared.admit([10, 0, 0, last].into(), Dialect::Plain);
        let (one, two) = (admit(1).unwrap(), admit(1).unwrap());
        assert_eq!(admit(1).unwrap_err(), Full::Address);
        let other = admit(2).unwrap();
        one.link.authenticate();
        one.link.authenticate();
        let three = admit(1).unwrap();
        assert_eq!(admit(1).unwrap_err(), Full::Address);
        drop((one, two, three, other));
        assert!(shared.addresses.0.lock().is_empty());
        assert!(shared.links().is_empty());
        assert_eq!(shared.counters.live.load(Relaxed), 0);
    }

    #[test]
    fn authenticating_a_connection_that_is_gone_changes_nothing() {
        let shared = Arc::new(Shared::new(EdgeConfig::default()));
        let admission = shared.admit([10, 0, 0, 1].into(), Dialect::Plain).unwrap();
        let link = Arc::clone(&admission.link);
        let _other = shared.admit([10, 0, 0, 1].into(), Dialect::Plain).unwrap();
        drop(admission);
        link.authenticate();
        assert_eq!(shared.addresses.0.lock().values().map(|count| count.waiting).sum::<u32>(), 1);
    }
}
