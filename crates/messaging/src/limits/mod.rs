//! How much a user may do a minute, over all transports (contract section 3 rule 5).
//!
//! Owns the token buckets: one per user and kind. `gcra` has the arithmetic, pure; `buckets` keeps the
//! state of this process, `shared` that of all nodes. Callers take a token and pass the refusal on; what a kind covers is decided
//! by them. `addresses` has buckets for strangers, by where they come from.

mod addresses;
mod buckets;
mod gcra;
mod shared;

use std::sync::Arc;

pub use self::addresses::Addresses;
pub use self::gcra::{Decision, Quota, decide};
use self::{buckets::Buckets, shared::SharedBuckets};
use crate::{
    clock::Clock,
    errors::{Error, RateLimit, Result},
    ids::UserId,
    metrics,
    shared::Redis,
};

/// What is counted, each in its own bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sending, editing, deleting and reacting.
    Messages,
    /// Typing indicators.
    Typing,
    /// Marking as read or delivered.
    Reads,
    /// Uploading a file.
    Uploads,
    /// Starting a conversation.
    Conversations,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Messages, Self::Typing, Self::Reads, Self::Uploads, Self::Conversations];

    /// The name in keys and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Typing => "typing",
            Self::Reads => "reads",
            Self::Uploads => "uploads",
            Self::Conversations => "conversations",
        }
    }
}

/// How much is allowed a minute; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `RATE_LIMIT_MESSAGES`.
    pub messages: u32,
    /// `RATE_LIMIT_BURST`: how many messages may follow at once. The other kinds allow a third of
    /// their minute at once.
    pub burst: u32,
    /// `RATE_LIMIT_TYPING`.
    pub typing: u32,
    /// `RATE_LIMIT_READS`.
    pub reads: u32,
    /// `RATE_LIMIT_UPLOADS`.
    pub uploads: u32,
    /// `RATE_LIMIT_CONVERSATIONS`.
    pub conversations: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { messages: 60, burst: 20, typing: 120, reads: 120, uploads: 20, conversations: 10 }
    }
}

impl Settings {
    /// The quota of a kind; `None` where there is no limit.
    pub fn quota(&self, kind: Kind) -> Option<Quota> {
        let (per_minute, burst) = match kind {
            Kind::Messages => (self.messages, self.burst),
            Kind::Typing => (self.typing, self.typing / 3),
            Kind::Reads => (self.reads, self.reads / 3),
            Kind::Uploads => (self.uploads, self.uploads / 3),
            Kind::Conversations => (self.conversations, self.conversations / 3),
        };
        Quota::new(per_minute, burst)
    }
}

/// The token buckets of all users. Cheap to clone; all clones share the buckets.
#[derive(Debug, Clone)]
pub struct Limits {
    clock: Clock,
    quotas: [Option<Quota>; Kind::ALL.len()],
    buckets: Arc<Buckets>,
    shared: Option<Arc<SharedBuckets>>,
}

impl Limits {
    /// Full buckets for everybody.
    pub fn new(settings: &Settings, clock: Clock) -> Self {
        let quotas = Kind::ALL.map(|kind| settings.quota(kind));
        Self { clock, quotas, buckets: Arc::default(), shared: None }
    }

    /// The same buckets for all nodes that share this Redis. While it is away, or slow, each node goes on with its
    /// own, which know what was taken here.
    #[must_use]
    pub fn shared(mut self, redis: Redis) -> Self {
        self.shared = Some(Arc::new(SharedBuckets::new(redis)));
        self
    }

    /// Takes a token, or refuses with [`Error::RateLimited`]; `None` where there is no limit.
    ///
    /// A shared bucket is waited for, but not long.
    pub async fn take(&self, user: UserId, kind: Kind) -> Result<Option<RateLimit>> {
        let Some(quota) = self.quotas[kind as usize] else { return Ok(None) };
        let Some(shared) = &self.shared else { return self.check(user, kind) };
        let Ok(decision) = shared.take((user, kind), quota, self.clock.now()).await else {
            return self.check(user, kind);
        };
        if !decision.allowed {
            return Err(Error::RateLimited(decision.rate_limit));
        }
        // Whatever it says: it is asked when Redis is away.
        let _ = self.check(user, kind);
        Ok(Some(decision.rate_limit))
    }

    /// [`Limits::take`] from the buckets of this process.
    pub fn check(&self, user: UserId, kind: Kind) -> Result<Option<RateLimit>> {
        let Some(quota) = self.quotas[kind as usize] else { return Ok(None) };
        let decision = self.buckets.take((user, kind), quota, self.clock.now());
        if decision.allowed {
            Ok(Some(decision.rate_limit))
        } else {
            metrics::get().rate_limited(kind);
            Err(Error::RateLimited(decision.rate_limit))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;

    const ALICE: UserId = UserId(1);
    const BOB: UserId = UserId(2);

    fn limits(settings: Settings) -> (Limits, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_764_930_600_000));
        (Limits::new(&settings, clock.clone()), clock)
    }

    fn refusal(limits: &Limits, user: UserId, kind: Kind) -> RateLimit {
        match limits.check(user, kind) {
            Err(Error::RateLimited(rate_limit)) => rate_limit,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_burst_is_allowed_then_one_message_a_second() {
        let (limits, clock) = limits(Settings::default());
        for left in (0..20).rev() {
            let rate_limit = limits.take(ALICE, Kind::Messages).await.unwrap().unwrap();
            assert_eq!((rate_limit.limit, rate_limit.remaining), (60, left));
        }
        let refused = refusal(&limits, ALICE, Kind::Messages);
        assert_eq!((refused.remaining, refused.retry_after), (0, Duration::from_secs(1)));
        assert_eq!(refused.resets_at, clock.now().plus(Duration::from_secs(20)));

        clock.advance(Duration::from_millis(999));
        assert_eq!(refusal(&limits, ALICE, Kind::Messages).retry_after, Duration::from_millis(1));
        clock.advance(Duration::from_millis(1));
        assert!(limits.check(ALICE, Kind::Messages).is_ok());
        refusal(&limits, ALICE, Kind::Messages);
    }

    #[test]
    fn users_and_kinds_have_buckets_of_their_own() {
        let (limits, _clock) = limits(Settings { messages: 1, burst: 1, ..Settings::default() });
        assert!(limits.check(ALICE, Kind::Messages).is_ok());
        refusal(&limits, ALICE, Kind::Messages);
        assert!(limits.check(BOB, Kind::Messages).is_ok());
        assert!(limits.check(ALICE, Kind::Typing).is_ok());
    }

    #[test]
    fn the_other_kinds_allow_a_third_of_their_minute_at_once() {
        let (limits, _clock) = limits(Settings::default());
        for (kind, burst) in
            [(Kind::Typing, 40), (Kind::Reads, 40), (Kind::Uploads, 6), (Kind::Conversations, 3)]
        {
            for _ in 0..burst {
                assert!(limits.check(ALICE, kind).is_ok(), "{kind:?}");
            }
            refusal(&limits, ALICE, kind);
        }
    }

    #[test]
    fn zero_is_no_limit() {
        let (limits, _clock) =
            limits(Settings { messages: 0, burst: 0, typing: 0, reads: 0, uploads: 0, conversations: 0 });
        for kind in Kind::ALL {
            for _ in 0..1_000 {
                assert_eq!(limits.check(ALICE, kind).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_limit_below_three_still_allows_one_at_once() {
        let (limits, clock) = limits(Settings { uploads: 2, ..Settings::default() });
        assert!(limits.check(ALICE, Kind::Uploads).is_ok());
        assert_eq!(refusal(&limits, ALICE, Kind::Uploads).retry_after, Duration::from_secs(30));
        clock.advance(Duration::from_secs(30));
        assert!(limits.check(ALICE, Kind::Uploads).is_ok());
    }
}
