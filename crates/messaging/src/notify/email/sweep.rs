//! Finds who is to be mailed: walks the messages once, in the order in which they came, as they grow old.
//!
//! One node does it at a time, by a lease in the database; correctness does not hang on that, since claims
//! are made of compare-and-set. The place moves after the claims, so a node that dies in between leaves
//! nothing out, and what it had claimed is not claimed again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};

use super::{Inner, new_claim};
use crate::{
    ids::UserId,
    storage::{
        StoreError,
        emails::{Candidate, Due},
        sweeps::Sweep,
    },
};

/// Messages looked at in one query: a few milliseconds, however many people have unread ones.
const STRETCH: i64 = 500;
/// People claimed in one transaction: short enough not to hold up SQLite's one writer.
const PEOPLE: usize = 50;
/// A message may be committed so much later than it is stamped, and clocks of nodes differ; until then
/// the place does not move past its neighbours.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// Older messages are not mailed about: after a day without mail, or with it switched on again after a
/// month, nobody wants to hear of all that.
const MAX_AGE: Duration = Duration::from_secs(86_400);
/// The shortest lease.
const LEASE_MIN: Duration = Duration::from_secs(5);

pub(super) async fn run(inner: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(inner.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            _ = ticks.tick() => {}
        }
        if let Err(error) = sweep(&inner).await {
            tracing::warn!(%error, "unread messages could not be looked through; they will be");
        }
    }
    if let Err(error) = inner.store.release_sweep(Sweep::Email, inner.node).await {
        tracing::debug!(%error, "another node takes over when the lease is over");
    }
}

async fn sweep(inner: &Inner) -> Result<(), StoreError> {
    let Inner { store, node, .. } = inner;
    let lease = (inner.interval * 3).max(LEASE_MIN);
    let mut after = None;
    loop {
        let now = inner.clock.now();
        let Some(mut place) = store.lease_sweep(Sweep::Email, *node, lease).await? else { return Ok(()) };
        let from = after.unwrap_or(place).max(place);
        let until = now.minus(inner.delay);
        let settled = until.min(now.minus(SETTLED_AFTER));
        let stretch = store.message_stretch(from, STRETCH, until, settled).await?;
        let Some(last) = stretch.last else { return Ok(()) };
        let end = stretch.first_young.map_or(last, |id| id - 1);
        if from == place {
            place = stretch.first_unsettled.map_or(last, |id| id - 1).max(place);
        }
        let due = Due { after: from, to: end, until, since: until.minus(MAX_AGE) };
        let candidates = if end > from { store.email_candidates(&due).await? } else { Vec::new() };
        if claim(inner, place, &candidates).await? > 0 {
            inner.claimed.notify_one();
        }
        if stretch.first_young.is_some() || stretch.count < STRETCH {
            return Ok(());
        }
        after = Some(end);
    }
}

/// Claims for all of them, and only then moves the place.
async fn claim(inner: &Inner, place: i64, candidates: &[Candidate]) -> Result<u64, StoreError> {
    let mut people: BTreeMap<UserId, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        people.entry(candidate.user_id).or_default().push(*candidate);
    }
    let people: Vec<_> = people.into_iter().collect();
    let mut claimed = 0;
    for some in people.chunks(PEOPLE) {
        let names: Vec<_> = some.iter().map(|(user, _)| (*user, new_claim())).collect();
        let about: Vec<_> = some.iter().flat_map(|(_, about)| about.iter().copied()).collect();
        claimed += inner.store.claim_emails(&about, &names).await?;
    }
    inner.store.advance_sweep(Sweep::Email, inner.node, place).await?;
    Ok(claimed)
}
