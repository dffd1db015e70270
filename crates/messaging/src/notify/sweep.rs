//! Finds what nobody was pushed: a node died after the commit, its queue was full, its claim lapsed.
//!
//! Every node runs this; one of them at a time walks the messages. What it finds is decided on like
//! everything else, so that two who sweep at once still push once.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    engine::{Engine, LAPSE, Result},
    pending::Key,
};
use crate::storage::sweeps::Sweep;

/// Messages looked at in one query.
const MESSAGES: i64 = 1000;
/// Lapsed claims taken up at once.
const CLAIMS: i64 = 256;
/// A sweep that takes longer than this may be another node's; claims keep them apart then.
const LEASE: Duration = Duration::from_secs(20);
/// News older than this is none: after a long time off nobody's phone buzzes for last week.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Starts to sweep, until the engine is gone. Messages are looked at when they are this old.
pub(super) fn start(engine: &Arc<Engine>, after: Duration) {
    // What waits for the end of a burst is not yet left behind.
    let grace = after.max(engine.fold() + Duration::from_secs(1));
    // At least this often, but gently where nothing hurries.
    let interval = (after / 3).clamp(Duration::from_millis(200), Duration::from_secs(5));
    let weak = Arc::downgrade(engine);
    tokio::spawn(run(weak, grace, interval));
}

async fn run(weak: Weak<Engine>, grace: Duration, interval: Duration) {
    let node: i64 = rand::random();
    loop {
        // Not all nodes at the same moment.
        tokio::time::sleep(interval.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
        let Some(engine) = weak.upgrade() else { return };
        if let Err(error) = engine.sweep(node, grace).await {
            tracing::warn!(%error, "the sweep for missed pushes is tried again");
        }
    }
}

impl Engine {
    async fn sweep(&self, node: i64, grace: Duration) -> Result<()> {
        let now = self.clock.now();
        let lapsed = self.store.lapsed_claims(now.minus(LAPSE), CLAIMS).await?;
        self.look_at(&lapsed, "claims that lapsed are taken up").await?;
        let Some(mut place) = self.store.lease_sweep(Sweep::Push, node, LEASE).await? else { return Ok(()) };
        loop {
            let swept =
                self.store.sweep_messages(place, now.minus(MAX_AGE), now.minus(grace), MESSAGES).await?;
            self.look_at(&swept.found, "messages that nobody was pushed are found").await?;
            if swept.up_to > place {
                self.store.advance_sweep(Sweep::Push, node, swept.up_to).await?;
                place = swept.up_to;
            }
            if swept.is_done || self.store.lease_sweep(Sweep::Push, node, LEASE).await?.is_none() {
                return Ok(());
            }
        }
    }

    async fn look_at(&self, keys: &[Key], what: &'static str) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        tracing::info!(conversations = keys.len(), "{what}");
        let looks: Vec<_> = keys.iter().map(|key| (*key, None)).collect();
        for chunk in looks.chunks(256) {
            self.decide(chunk).await?;
        }
        Ok(())
    }
}
