//! The badge after something was read elsewhere: a silent push, seldom enough not to keep phones awake.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    engine::{Engine, Result, SEND_WITHIN},
    message::{Badge, Push},
    pending::Key,
};
use crate::ids::{ConversationId, UserId};

/// Several conversations read in a row are one update of the badge.
const BADGE_DELAY: Duration = Duration::from_secs(1);
/// A phone is woken for its badge alone at most this often.
const BADGE_INTERVAL: Duration = Duration::from_secs(5);
/// People whose badge was updated lately.
const MAX_BADGES: usize = 100_000;

/// Whose badge is to be updated when, and when it was last.
#[derive(Default)]
pub(super) struct Badges {
    due: HashMap<UserId, (Instant, HashSet<ConversationId>)>,
    last: HashMap<UserId, Instant>,
}

impl Badges {
    fn put(&mut self, user: UserId, withdrawn: Option<ConversationId>, now: Instant) {
        if self.due.len() >= MAX_BADGES {
            return;
        }
        let earliest = self.last.get(&user).map_or(now, |last| *last + BADGE_INTERVAL);
        let (_, all) =
            self.due.entry(user).or_insert_with(|| ((now + BADGE_DELAY).max(earliest), HashSet::new()));
        all.extend(withdrawn);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.values().map(|(due, _)| *due).min()
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(UserId, Vec<ConversationId>)> {
        let due = self.due.extract_if(|_, (due, _)| *due <= now);
        let due: Vec<_> = due.map(|(user, (_, withdrawn))| (user, withdrawn.into_iter().collect())).collect();
        self.last.retain(|_, last| *last + BADGE_INTERVAL > now);
        self.last.extend(due.iter().map(|(user, _)| (*user, now)));
        due
    }
}

impl Engine {
    /// What was read needs no push any more, and what is on screens of it is to go.
    pub(super) async fn withdraw(&self, read: &[Key]) -> Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        let read: HashSet<Key> = read.iter().copied().collect();
        let read: Vec<Key> = read.into_iter().collect();
        let shown = self.store.withdraw_pushes(&read).await?;
        let mut badges = self.badges.lock();
        for (user, conversation, stays) in shown {
            badges.put(user, (!stays).then_some(conversation), Instant::now());
        }
        Ok(())
    }

    pub(super) async fn push_badges(&self, badges: &[(UserId, Vec<ConversationId>)]) -> Result<()> {
        if badges.is_empty() {
            return Ok(());
        }
        let users: Vec<UserId> = badges.iter().map(|(user, _)| *user).collect();
        let counts: HashMap<UserId, i64> = self.store.unread_counts(&users).await?.into_iter().collect();
        let devices = self.devices(&users).await?;
        let deadline = Instant::now() + SEND_WITHIN;
        for (user, withdrawn) in badges {
            let count = counts.get(user).copied().unwrap_or(0);
            let push = Arc::new(Push::Badge(Badge::new(count, withdrawn)));
            for device in devices.get(user).into_iter().flatten() {
                self.hand_on(&push, device, None, None, deadline);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_not_woken_for_its_badge_all_the_time() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut badges = Badges::default();
        badges.put(UserId(1), Some(ConversationId(3)), now);
        badges.put(UserId(1), Some(ConversationId(4)), now + second / 2);
        badges.put(UserId(1), None, now + second / 2);
        assert!(badges.take_due(now).is_empty());
        let due = badges.take_due(now + second);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].1.len(), 2);
        badges.put(UserId(1), None, now + 2 * second);
        assert_eq!(badges.next(), Some(now + 6 * second));
        assert!(badges.take_due(now + 5 * second).is_empty());
        assert_eq!(badges.take_due(now + 6 * second).len(), 1);
    }
}
