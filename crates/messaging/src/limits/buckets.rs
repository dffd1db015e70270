//! The buckets of this process: a number for each user and kind that is not full.
//!
//! A full bucket need not be kept, so memory follows those who were active within the last moments,
//! not those who ever were.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use parking_lot::Mutex;

use super::{
    Kind,
    gcra::{Decision, Quota, decide},
};
use crate::{clock::Timestamp, ids::UserId};

/// Whose bucket, and of what.
pub(super) type Key = (UserId, Kind);

/// Locks are held for well under a microsecond; this many make it rare that two cores want the same.
const SHARDS: usize = 16;

/// A shard with fewer buckets is not worth sweeping.
const SMALLEST_SWEEP: usize = 256;

/// Buckets by user and kind, in shards with a lock each.
#[derive(Debug)]
pub(super) struct Buckets {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug)]
struct Shard {
    /// When each bucket is full again, in microseconds since the Unix epoch.
    full_at: HashMap<Key, i64>,
    /// Sweep once it holds so many: twice what the last sweep left, so that each insertion pays for
    /// two looks at most.
    sweep_at: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { full_at: HashMap::new(), sweep_at: SMALLEST_SWEEP }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: Default::default() }
    }
}

impl Buckets {
    /// Takes a token at `now`.
    pub(super) fn take(&self, key: Key, quota: Quota, now: Timestamp) -> Decision {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards[(hash % SHARDS as u64) as usize].lock();
        if shard.full_at.len() >= shard.sweep_at {
            shard.sweep(now);
        }
        let full_at = shard.full_at.entry(key).or_insert(0);
        let decision = decide(*full_at, now, quota);
        *full_at = decision.full_at;
        decision
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().full_at.len()).sum()
    }
}

impl Shard {
    fn sweep(&mut self, now: Timestamp) {
        let now_micros = now.as_millis().saturating_mul(1_000);
        self.full_at.retain(|_, full_at| *full_at > now_micros);
        self.sweep_at = (self.full_at.len() * 2).max(SMALLEST_SWEEP);
        self.full_at.shrink_to(self.sweep_at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_764_930_600_000);

    #[test]
    fn memory_follows_those_who_are_active_not_those_who_ever_were() {
        let buckets = Buckets::default();
        let quota = Quota::new(60, 20).unwrap();
        for second in 0..1_000_u32 {
            for user in 0..100 {
                let user = UserId(i64::from(second) * 100 + user);
                buckets.take((user, Kind::Messages), quota, START.plus(Duration::from_secs(second.into())));
            }
        }
        // 100,000 users came by; 200 of them within the second that a bucket takes to be full again.
        assert!(buckets.len() <= SHARDS * (SMALLEST_SWEEP + 1), "{} are kept", buckets.len());
    }

    #[test]
    fn nothing_is_forgotten_while_a_bucket_is_not_full() {
        let buckets = Buckets::default();
        let quota = Quota::new(60, 1).unwrap();
        for user in 0..50_000 {
            assert!(buckets.take((UserId(user), Kind::Messages), quota, START).allowed);
        }
        for user in 0..50_000 {
            assert!(!buckets.take((UserId(user), Kind::Messages), quota, START).allowed);
        }
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        let buckets = Buckets::default();
        let quota = Quota::new(60, 500).unwrap();
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..1_000)
                            .filter(|_| buckets.take((UserId(1), Kind::Messages), quota, START).allowed)
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 500);
    }

    proptest! {
        #[test]
        fn sweeping_changes_no_decision(requests in proptest::collection::vec((0_i64..40, 0_u64..400), 1..400)) {
            let quota = Quota::new(600, 3).unwrap();
            let swept = Buckets::default();
            let mut kept = HashMap::new();
            let mut now = START;
            for (user, step) in requests {
                now = now.plus(Duration::from_millis(step));
                for shard in &swept.shards {
                    shard.lock().sweep(now);
                }
                let full_at = kept.entry(user).or_insert(0);
                let expected = decide(*full_at, now, quota);
                *full_at = expected.full_at;
                prop_assert_eq!(swept.take((UserId(user), Kind::Reads), quota, now), expected);
            }
        }
    }
}
