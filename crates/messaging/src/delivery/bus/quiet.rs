//! Users of whom no other node has a connection: nothing need be published for them.
//!
//! Redis says with each publication how many got it. Nobody but us: for some seconds nothing more is
//! published, only the place of the last omission is kept. A node that gets a connection says so to
//! all (after it listens, before it reads the log); whoever hears it and omitted something for
//! that user points to it then. So either the newcomer's look into the log comes after what was omitted,
//! or the pointer follows: nothing is lost (see `redis` for what follows when the saying itself is lost).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::ids::UserId;

/// How long nothing is published for a user whom nobody else had.
const QUIET_FOR: Duration = Duration::from_secs(10);
/// Omissions are remembered longer: a newcomer's word may be on its way, but no longer than a
/// connection to Redis may be silent before it counts as lost.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);
/// Users remembered at once; beyond it more is published than needed.
const MAX_USERS: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Quiet {
    users: HashMap<UserId, Silence>,
    swept: Option<Instant>,
    /// How often somebody said that they have a connection.
    arrivals: u64,
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    until: Instant,
    /// The last stored event that was not published.
    omitted: Option<i64>,
}

impl Quiet {
    /// To be noted before a publication leaves, for [`Self::begin`].
    pub(super) const fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Nobody else got a publication for this user, which left when there were so many `arrivals`. If
    /// somebody arrived since, it may have been for this user, after the publication.
    pub(super) fn begin(&mut self, user: UserId, arrivals: u64, now: Instant) {
        self.sweep(now);
        if arrivals != self.arrivals {
            return;
        }
        if self.users.len() < MAX_USERS || self.users.contains_key(&user) {
            let until = now + QUIET_FOR;
            self.users.entry(user).or_insert(Silence { until, omitted: None }).until = until;
        }
    }

    /// Whether a publication may be omitted, which is noted.
    pub(super) fn omits(&mut self, user: UserId, event_seq: Option<i64>, now: Instant) -> bool {
        let Some(silence) = self.users.get_mut(&user).filter(|silence| now < silence.until) else {
            return false;
        };
        silence.omitted = silence.omitted.max(event_seq);
        true
    }

    /// Another node has a connection of the user. Answers what was not published for them.
    pub(super) fn end(&mut self, user: UserId) -> Option<i64> {
        self.arrivals += 1;
        self.users.remove(&user)?.omitted
    }

    /// What others said may have been missed. Answers whether anything was not published.
    pub(super) fn clear(&mut self) -> bool {
        self.users.drain().any(|(_, silence)| silence.omitted.is_some())
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now >= swept + QUIET_FOR) {
            self.swept = Some(now);
            self.users.retain(|_, silence| now < silence.until + REMEMBERED_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: UserId = UserId(1);

    #[test]
    fn what_was_omitted_is_known_when_somebody_comes() {
        let (mut quiet, now) = (Quiet::default(), Instant::now());
        assert!(!quiet.omits(ANNA, Some(1), now), "nothing is known of her yet");
        quiet.begin(ANNA, quiet.arrivals(), now);
        assert!(quiet.omits(ANNA, Some(2), now));
        assert!(quiet.omits(ANNA, None, now));
        assert_eq!(quiet.end(ANNA), Some(2));
        assert!(!quiet.omits(ANNA, Some(3), now), "now somebody is there");
    }

    #[test]
    fn who_arrives_while_an_answer_is_on_its_way_is_not_passed_over() {
        let (mut quiet, now) = (Quiet::default(), Instant::now());
        let arrivals = quiet.arrivals();
        // Redis answered that nobody got it, then somebody subscribed, and that was heard first.
        assert_eq!(quiet.end(ANNA), None);
        quiet.begin(ANNA, arrivals, now);
        assert!(!quiet.omits(ANNA, Some(1), now));
    }

    #[test]
    fn an_omission_is_remembered_longer_than_the_silence() {
        let (mut quiet, now) = (Quiet::default(), Instant::now());
        quiet.begin(ANNA, quiet.arrivals(), now);
        assert!(quiet.omits(ANNA, Some(2), now));
        let later = now + QUIET_FOR;
        assert!(!quiet.omits(ANNA, Some(3), later));
        quiet.begin(UserId(2), quiet.arrivals(), later);
        assert_eq!(quiet.end(ANNA), Some(2), "her word was on its way");
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let (mut quiet, now) = (Quiet::default(), Instant::now());
        for user in 0..=MAX_USERS {
            quiet.begin(UserId(i64::try_from(user).expect("small")), 0, now);
        }
        assert_eq!(quiet.users.len(), MAX_USERS);
        quiet.begin(ANNA, 0, now + QUIET_FOR + REMEMBERED_FOR);
        assert_eq!(quiet.users.len(), 1);
        assert!(!quiet.clear());
    }
}
