//! What the main API said of tokens lately, in this process.
//!
//! A second level that nodes share (`shared`) sits beside the main API, inside the one flight per token
//! (`mod.rs`); this level stays in front of it. Time of validity comes from the injected clock; the
//! cache's own times only bound its memory.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use parking_lot::RwLock;

use super::{cards::UserProfile, token::TokenKey};
use crate::{clock::Timestamp, ids::UserId};

/// Valid tokens remembered: 200,000 of them take some 50 MB.
const MAX_VALID: u64 = 200_000;
/// Refused ones have a room of their own, so that a flood of guesses pushes nobody else out.
const MAX_REFUSED: u64 = 50_000;
/// How long a refusal is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Forgotten subjects kept one by one; beyond it everything known so far is forgotten.
const MAX_FORGOTTEN: usize = 50_000;

/// A token that the main API accepted.
#[derive(Debug)]
pub(super) struct Checked {
    /// Whose it is.
    pub(super) profile: Arc<UserProfile>,
    /// Until when the answer counts.
    pub(super) expires_at: Timestamp,
    /// The [`Forgotten::sequence`] at the time the main API was asked.
    pub(super) asked_at: u64,
}

/// What is known of a token.
pub(super) enum Verdict {
    Valid(Arc<Checked>),
    Refused,
    Unknown,
}

pub(super) struct TokenCache {
    valid: Cache<TokenKey, Arc<Checked>>,
    refused: Cache<TokenKey, Timestamp>,
    forgotten: Forgotten,
}

impl TokenCache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            valid: Cache::builder().max_capacity(MAX_VALID).time_to_live(ttl).build(),
            refused: Cache::builder().max_capacity(MAX_REFUSED).time_to_live(REFUSED_FOR).build(),
            forgotten: Forgotten::default(),
        }
    }

    pub(super) fn get(&self, key: &TokenKey, now: Timestamp) -> Verdict {
        if let Some(checked) = self.valid.get(key)
            && now < checked.expires_at
            && self.stands(key, &checked)
        {
            return Verdict::Valid(checked);
        }
        if self.refused.get(key).is_some_and(|until| now < until) {
            return Verdict::Refused;
        }
        Verdict::Unknown
    }

    /// The time of asking, to be noted before the question leaves.
    pub(super) fn sequence(&self) -> u64 {
        self.forgotten.sequence.load(Ordering::Acquire)
    }

    pub(super) fn put(&self, key: TokenKey, checked: Arc<Checked>) {
        self.refused.invalidate(&key);
        self.valid.insert(key, checked);
    }

    pub(super) fn put_refused(&self, key: TokenKey, now: Timestamp) {
        self.valid.invalidate(&key);
        self.refused.insert(key, now.plus(REFUSED_FOR));
    }

    /// Whose a remembered token is.
    pub(super) fn user_of(&self, key: &TokenKey) -> Option<UserId> {
        self.valid.get(key).map(|checked| checked.profile.id)
    }

    /// Whether nobody has asked to forget this since the main API was asked.
    pub(super) fn stands(&self, key: &TokenKey, checked: &Checked) -> bool {
        self.forgotten.stands(Subject::Token(*key), checked.asked_at)
            && self.forgotten.stands(Subject::User(checked.profile.id), checked.asked_at)
    }

    /// Nothing that is known so far stands.
    pub(super) fn forget_all(&self) {
        self.forgotten.note_all();
    }

    pub(super) fn forget(&self, subject: Subject) {
        if let Subject::Token(key) = &subject {
            self.valid.invalidate(key);
            self.refused.invalidate(key);
        }
        self.forgotten.note(subject);
    }
}

/// Whose answers are no longer to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Token(TokenKey),
    User(UserId),
}

/// Who was forgotten when, by a counter: an answer that was asked for before does not stand, even
/// if it arrives later. Removing entries alone would let a question under way bring them back.
#[derive(Default)]
struct Forgotten {
    sequence: AtomicU64,
    marks: RwLock<Marks>,
}

#[derive(Default)]
struct Marks {
    by_subject: HashMap<Subject, u64>,
    /// Nothing that was asked for up to here stands.
    floor: u64,
}

impl Forgotten {
    fn note(&self, subject: Subject) {
        let mut marks = self.marks.write();
        let sequence = self.sequence.fetch_add(1, Ordering::AcqRel) + 1;
        if marks.by_subject.len() >= MAX_FORGOTTEN {
            marks.by_subject.clear();
            marks.floor = sequence;
        } else {
            marks.by_subject.insert(subject, sequence);
        }
    }

    fn note_all(&self) {
        let mut marks = self.marks.write();
        marks.floor = self.sequence.fetch_add(1, Ordering::AcqRel) + 1;
        marks.by_subject.clear();
    }

    fn stands(&self, subject: Subject, asked_at: u64) -> bool {
        let marks = self.marks.read();
        asked_at >= marks.floor && marks.by_subject.get(&subject).is_none_or(|&mark| asked_at >= mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::token::Token;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn key(token: &str) -> TokenKey {
        TokenKey::new(&[0; 32], &Token::parse(token).expect("a token"))
    }

    fn checked(user: i64, asked_at: u64) -> Arc<Checked> {
        Arc::new(Checked {
            profile: Arc::new(UserProfile::unknown(UserId(user))),
            expires_at: NOW.plus(Duration::from_secs(60)),
            asked_at,
        })
    }

    #[test]
    fn an_answer_asked_for_before_the_forgetting_does_not_stand() {
        let cache = TokenCache::new(Duration::from_secs(60));
        let before = cache.sequence();
        cache.forget(Subject::User(UserId(1)));
        cache.put(key("a"), checked(1, before));
        cache.put(key("b"), checked(2, before));
        assert!(matches!(cache.get(&key("a"), NOW), Verdict::Unknown));
        assert!(matches!(cache.get(&key("b"), NOW), Verdict::Valid(_)), "another user's stands");
        cache.put(key("a"), checked(1, cache.sequence()));
        assert!(matches!(cache.get(&key("a"), NOW), Verdict::Valid(_)), "a later answer stands");
    }

    #[test]
    fn too_many_forgotten_ones_forget_everybody_rather_than_grow() {
        let cache = TokenCache::new(Duration::from_secs(60));
        cache.put(key("a"), checked(1, cache.sequence()));
        for user in 0..=MAX_FORGOTTEN {
            assert!(cache.forgotten.marks.read().by_subject.len() <= MAX_FORGOTTEN);
            cache.forget(Subject::User(UserId(i64::try_from(user).expect("small") + 10)));
        }
        assert!(matches!(cache.get(&key("a"), NOW), Verdict::Unknown));
        cache.put(key("a"), checked(1, cache.sequence()));
        assert!(matches!(cache.get(&key("a"), NOW), Verdict::Valid(_)));
    }
}
