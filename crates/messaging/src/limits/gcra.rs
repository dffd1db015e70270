//! The token bucket as a pure function: the generic cell rate algorithm.
//!
//! A bucket is one number, the time at which it would be full again (the "theoretical arrival time").
//! Taking a token moves it one interval on; if that reaches further than the burst allows, the request
//! is refused and nothing moves. One number and no timer, so the same few lines run in Redis (`shared`).
//! (The crate `governor` keeps its own clock and its own map; neither takes ours.)

use std::time::Duration;

use crate::{clock::Timestamp, errors::RateLimit};

const MINUTE_MICROS: i64 = 60_000_000;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    per_minute: u32,
    burst: u32,
    /// Microseconds per token: milliseconds would make 7 a minute 7.0007.
    interval: i64,
}

impl Quota {
    /// So many a minute, so many of them at once (at least one); `None` if there is no limit, which is
    /// what 0 a minute means.
    pub fn new(per_minute: u32, burst: u32) -> Option<Self> {
        let interval = MINUTE_MICROS.checked_div(i64::from(per_minute))?;
        Some(Self { per_minute, burst: burst.max(1), interval: interval.max(1) })
    }

    /// Microseconds per token.
    pub(super) const fn interval(self) -> i64 {
        self.interval
    }

    /// How far a bucket may reach into the future when its last token is taken.
    pub(super) fn window(self) -> i64 {
        // At most 60 s × 2³²: no overflow.
        self.interval * i64::from(self.burst)
    }

    /// The outcome for a bucket that is full again `ahead` microseconds from now.
    pub(super) fn decision(self, allowed: bool, full_at: i64, ahead: i64, now: Timestamp) -> Decision {
        let room = self.window().saturating_sub(ahead);
        // What the next request finds: how far it would reach beyond the burst.
        let wait = self.interval.saturating_sub(room).max(0);
        Decision {
            allowed,
            full_at,
            rate_limit: RateLimit {
                limit: self.per_minute,
                remaining: u32::try_from(room / self.interval).unwrap_or(u32::MAX),
                retry_after: whole_millis(wait),
                resets_at: now.plus(whole_millis(ahead)),
            },
        }
    }
}

/// What came of taking a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether a token was there.
    pub allowed: bool,
    /// When the bucket is full again, in microseconds since the Unix epoch: its new state.
    pub full_at: i64,
    /// The same for people and headers.
    pub rate_limit: RateLimit,
}

/// Takes a token at `now` from a bucket that is full again at `full_at` (microseconds since the Unix
/// epoch; any past time, such as 0, is a full bucket).
pub fn decide(full_at: i64, now: Timestamp, quota: Quota) -> Decision {
    let now_micros = now.as_millis().saturating_mul(1_000);
    // Never further than an empty bucket can be: after the machine's clock was set back, a bucket
    // would otherwise stay empty for as long as the clock jumped.
    let latest = now_micros.saturating_add(quota.window());
    let current = full_at.clamp(now_micros, latest);
    let taken = current.saturating_add(quota.interval);
    let allowed = taken <= latest;
    let full_at = if allowed { taken } else { current };

    quota.decision(allowed, full_at, full_at.saturating_sub(now_micros), now)
}

/// Rounded up to the clock's step, so that whoever waits so long finds a token.
fn whole_millis(micros: i64) -> Duration {
    Duration::from_millis(u64::try_from(micros).unwrap_or(0).div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota() -> impl Strategy<Value = Quota> {
        (1_u32..100_000, 0_u32..1_000).prop_map(|(per_minute, burst)| Quota::new(per_minute, burst).unwrap())
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_764_930_600_000 + millis)
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_allows_more_than_the_burst_and_what_flowed_in(
            quota in quota(),
            steps in proptest::collection::vec(0_i64..3_000, 1..200),
        ) {
            let (mut full_at, mut now) = (0, 0);
            let mut taken_at = Vec::new();
            for step in steps {
                now += step;
                let decision = decide(full_at, at(now), quota);
                full_at = decision.full_at;
                if decision.allowed {
                    taken_at.push(now);
                }
            }
            for (first, &start) in taken_at.iter().enumerate() {
                for (last, &end) in taken_at.iter().enumerate().skip(first) {
                    let flowed_in = (end - start) * 1_000 / quota.interval;
                    let count = i64::try_from(last - first + 1).unwrap();
                    prop_assert!(count <= i64::from(quota.burst) + flowed_in);
                }
            }
        }

        #[test]
        fn a_refused_request_succeeds_after_the_wait_and_not_before(
            quota in quota(),
            used in 0_i64..2_000,
            later in 0_i64..100,
        ) {
            let mut full_at = 0;
            for _ in 0..used {
                full_at = decide(full_at, at(0), quota).full_at;
            }
            let decision = decide(full_at, at(later), quota);
            let wait = i64::try_from(decision.rate_limit.retry_after.as_millis()).unwrap();
            prop_assert!(decision.allowed || wait > 0);
            prop_assert!(decide(decision.full_at, at(later + wait), quota).allowed);
            if wait > 0 {
                prop_assert!(!decide(decision.full_at, at(later + wait - 1), quota).allowed);
            }
        }

        #[test]
        fn remaining_is_how_many_really_follow(quota in quota(), used in 0_usize..50, later in 0_i64..5_000) {
            let mut full_at = 0;
            for _ in 0..used {
                full_at = decide(full_at, at(0), quota).full_at;
            }
            let first = decide(full_at, at(later), quota);
            let mut full_at = first.full_at;
            let mut followed = 0;
            loop {
                let decision = decide(full_at, at(later), quota);
                if !decision.allowed {
                    break;
                }
                full_at = decision.full_at;
                followed += 1;
            }
            prop_assert_eq!(followed, first.rate_limit.remaining);
        }

        #[test]
        fn a_bucket_is_full_when_it_says_so(quota in quota(), used in 1_usize..50) {
            let mut decision = decide(0, at(0), quota);
            for _ in 1..used {
                decision = decide(decision.full_at, at(0), quota);
            }
            let fresh = decide(0, decision.rate_limit.resets_at, quota);
            prop_assert_eq!(decide(decision.full_at, decision.rate_limit.resets_at, quota), fresh);
        }

        #[test]
        fn a_clock_that_jumps_back_locks_nobody_out_for_longer_than_an_empty_bucket(
            quota in quota(),
            jump in 0_i64..1_000_000_000,
        ) {
            let before = decide(0, at(0), quota);
            let after = decide(before.full_at, at(-jump), quota);
            prop_assert!(after.rate_limit.retry_after <= whole_millis(quota.interval));
            prop_assert!(after.rate_limit.resets_at <= at(-jump).plus(whole_millis(quota.window())));
        }

        #[test]
        fn no_number_makes_it_overflow(full_at: i64, millis: i64, per_minute: u32, burst: u32) {
            if let Some(quota) = Quota::new(per_minute, burst) {
                decide(full_at, Timestamp::from_millis(millis), quota);
            }
        }
    }

    #[test]
    fn a_steady_rate_at_the_limit_is_never_refused() {
        let quota = Quota::new(60, 1).unwrap();
        let mut full_at = 0;
        for second in 0..600 {
            let decision = decide(full_at, at(second * 1_000), quota);
            assert!(decision.allowed);
            full_at = decision.full_at;
        }
    }

    #[test]
    fn none_a_minute_means_no_limit() {
        assert_eq!(Quota::new(0, 20), None);
    }
}
