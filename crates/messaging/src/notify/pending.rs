//! What is to be looked at later, each conversation of a person once.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::ids::{ConversationId, UserId};

/// More than wait for the end of a burst on a busy node; past it the sweeper has to find them.
const MAX_PENDING: usize = 100_000;

pub(super) type Key = (UserId, ConversationId);

/// Why something is looked at later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// To push then, if that is right then.
    Look {
        /// When the first message that waits was committed.
        committed_at: Option<Instant>,
    },
    /// To note, if it is still unread, that it was on the screen and is not to be pushed.
    Skip {
        /// Up to this place.
        seq: i64,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    by_key: HashMap<Key, (Instant, Later)>,
    by_time: BTreeSet<(Instant, Key)>,
}

impl Pending {
    /// Puts something off, instead of what was put off before.
    pub(super) fn put(&mut self, key: Key, due: Instant, later: Later) {
        self.take(key);
        if self.by_key.len() < MAX_PENDING {
            self.by_key.insert(key, (due, later));
            self.by_time.insert((due, key));
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<Later> {
        self.by_key.get(&key).map(|(_, later)| *later)
    }

    /// Notes that a later message was on the screen too.
    pub(super) fn raise(&mut self, key: Key, newest: i64) {
        if let Some((_, Later::Skip { seq })) = self.by_key.get_mut(&key) {
            *seq = newest.max(*seq);
        }
    }

    pub(super) fn take(&mut self, key: Key) {
        if let Some((due, _)) = self.by_key.remove(&key) {
            self.by_time.remove(&(due, key));
        }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Takes out what is due, at most so many.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<(Key, Later)> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some((at, key)) = self.by_time.first().copied()
            && at <= now
        {
            self.by_time.pop_first();
            due.extend(self.by_key.remove(&key).map(|(_, later)| (key, later)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_key_is_due_once_at_its_last_time() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let (one, other) = ((UserId(1), ConversationId(1)), (UserId(2), ConversationId(1)));
        let look = Later::Look { committed_at: None };
        let mut pending = Pending::default();
        pending.put(one, now + 3 * second, look);
        pending.put(one, now + second, Later::Skip { seq: 4 });
        pending.raise(one, 6);
        pending.raise(one, 5);
        pending.put(other, now + 2 * second, look);
        assert_eq!(pending.next(), Some(now + second));
        assert_eq!(pending.take_due(now, 9), []);
        assert_eq!(pending.take_due(now + 3 * second, 1), [(one, Later::Skip { seq: 6 })]);
        pending.take(one);
        assert_eq!(pending.take_due(now + 3 * second, 9), [(other, look)]);
        assert_eq!((pending.next(), pending.get(other)), (None, None));
    }
}
