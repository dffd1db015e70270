//! Which conversations are on whose screens on other nodes: a key in Redis for each, kept while it is so.
//!
//! A field for each node, with the time until which it holds: a node that dies is forgotten by itself.
//! Redis may be away: then a conversation is on no other node's screen, and a push too many goes out.

use std::{collections::HashSet, time::Duration};

use redis::Value;

use super::engine::Engine;
use crate::{
    clock::{Clock, Timestamp},
    ids::{ConversationId, UserId},
    shared::{PATIENCE, Redis},
};

/// How long a word holds; renewed at a third of it.
const HOLDS: Duration = Duration::from_secs(60);
/// How often what is on screens here is said again.
pub(super) const RENEWAL: Duration = Duration::from_secs(20);
/// Keys written at once.
const CHUNK: usize = 500;
/// Renewals are nobody's wait.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(2);

type Key = (UserId, ConversationId);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Screens {
    redis: Redis,
    clock: Clock,
}

impl Screens {
    pub(super) const fn new(redis: Redis, clock: Clock) -> Self {
        Self { redis, clock }
    }

    fn name(&self, (user, conversation): Key) -> String {
        self.redis.key(format_args!("screen:{user}:{conversation}"))
    }

    /// A conversation came onto a screen here.
    pub(super) async fn note(&self, key: Key) {
        let _ = self.redis.ask_all(&self.notes(&[key]), PATIENCE).await;
    }

    /// Says again what is on screens here.
    pub(super) async fn renew(&self, keys: &[Key]) {
        for chunk in keys.chunks(CHUNK) {
            if self.redis.ask_all(&self.notes(chunk), RENEWAL_PATIENCE).await.is_err() {
                return;
            }
        }
    }

    fn notes(&self, keys: &[Key]) -> Vec<redis::Cmd> {
        let until = self.clock.now().plus(HOLDS).as_millis();
        let holds = u64::try_from(HOLDS.as_millis()).unwrap_or(u64::MAX);
        keys.iter()
            .flat_map(|key| {
                let name = self.name(*key);
                let node = self.redis.node().to_string();
                [
                    redis::cmd("HSET").arg(&name).arg(node).arg(until).clone(),
                    redis::cmd("PEXPIRE").arg(&name).arg(holds).clone(),
                ]
            })
            .collect()
    }

    /// It is on no screen here any more.
    pub(super) async fn forget(&self, keys: &[Key]) {
        for chunk in keys.chunks(CHUNK) {
            let commands: Vec<_> = chunk
                .iter()
                .map(|key| redis::cmd("HDEL").arg(self.name(*key)).arg(self.redis.node().to_string()).clone())
                .collect();
            if self.redis.ask_all(&commands, PATIENCE).await.is_err() {
                return;
            }
        }
    }

    /// Which of these are on a screen of any node.
    pub(super) async fn shown(&self, keys: &[Key]) -> HashSet<Key> {
        let commands: Vec<_> =
            keys.iter().map(|key| redis::cmd("HVALS").arg(self.name(*key)).clone()).collect();
        let Ok(answers) = self.redis.ask_all(&commands, PATIENCE).await else { return HashSet::new() };
        let now = self.clock.now();
        let holds = |answer: Value| {
            let until: Vec<i64> = redis::from_redis_value(answer).unwrap_or_default();
            until.into_iter().any(|until| Timestamp::from_millis(until) > now)
        };
        let shown = keys.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
        shown.filter_map(|(key, answer)| holds(answer.ok()?).then_some(*key)).collect()
    }
}

impl Engine {
    /// Connections of these people are gone, or conversations went from their screens.
    pub(super) async fn leave(&self, users: &[UserId]) {
        let Some(screens) = &self.screens else { return };
        let mut gone = Vec::new();
        for user in users {
            let mut here = self.here.lock();
            let Some(conversations) = here.get_mut(user) else { continue };
            let left = conversations.extract_if(|id| !self.hub.is_on_screen(*user, *id));
            gone.extend(left.map(|conversation| (*user, conversation)));
            if conversations.is_empty() {
                here.remove(user);
            }
        }
        screens.forget(&gone).await;
    }

    /// Says again what is on screens here.
    pub(super) async fn renew_screens(&self) {
        let Some(screens) = &self.screens else { return };
        let mut keys = Vec::new();
        self.here.lock().retain(|user, conversations| {
            conversations.retain(|conversation| self.hub.is_on_screen(*user, *conversation));
            keys.extend(conversations.iter().map(|conversation| (*user, *conversation)));
            !conversations.is_empty()
        });
        screens.renew(&keys).await;
    }
}
