//! Saves profiles behind the answers that brought them.
//!
//! Ten thousand people reconnecting bring ten thousand profiles, nearly all of them as the database
//! has them already: they are collected, compared and written by the hundred, and a database that is
//! away keeps nobody from signing in.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::shared::{Dated, SharedCards};
use crate::{
    clock::Clock,
    ids::UserId,
    storage::{Store, StoreError, profiles::ProfileRow},
};

/// Profiles compared and written at once.
const BATCH: usize = 200;
/// Profiles that may wait; beyond it new ones are dropped, to be learned again.
const MAX_WAITING: usize = 50_000;
/// How long the database is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A queue with at most one task behind it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Saver {
    store: Store,
    ttl: Duration,
    clock: Clock,
    shared: Option<SharedCards>,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: HashMap<UserId, ProfileRow>,
    is_running: bool,
}

impl Saver {
    /// A profile that is in the database as it is, and younger than `ttl`, is not written again.
    /// `shared` gets all of them.
    pub(super) fn new(store: Store, ttl: Duration, clock: Clock, shared: Option<SharedCards>) -> Self {
        Self { store, ttl, clock, shared, queue: Arc::default() }
    }

    /// Saves a profile soon.
    pub(super) fn save(&self, profile: ProfileRow) {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= MAX_WAITING && !queue.waiting.contains_key(&profile.id) {
            return;
        }
        queue.waiting.insert(profile.id, profile);
        if !queue.is_running {
            queue.is_running = true;
            tokio::spawn(self.clone().run());
        }
    }

    async fn run(self) {
        while let Some(batch) = self.next_batch() {
            if let Some(shared) = &self.shared {
                let cards: Vec<_> = batch.iter().map(|row| (row.id, Dated::of_profile(row))).collect();
                shared.put(&cards, self.clock.now()).await;
            }
            if let Err(error) = self.write(&batch).await {
                tracing::warn!(profiles = batch.len(), error = %error, "profiles could not be saved yet");
                self.put_back(batch);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<ProfileRow>> {
        let mut queue = self.queue.lock();
        let ids: Vec<UserId> = queue.waiting.keys().copied().take(BATCH).collect();
        // Under the lock: whoever saves next must see that nobody is left to write it.
        queue.is_running = !ids.is_empty();
        if ids.is_empty() {
            // A storm of sign-ins would leave its room behind.
            queue.waiting = HashMap::new();
            return None;
        }
        Some(ids.iter().filter_map(|id| queue.waiting.remove(id)).collect())
    }

    fn put_back(&self, batch: Vec<ProfileRow>) {
        let mut queue = self.queue.lock();
        for profile in batch {
            // What was learned meanwhile is newer.
            queue.waiting.entry(profile.id).or_insert(profile);
        }
    }

    async fn write(&self, batch: &[ProfileRow]) -> Result<(), StoreError> {
        let ids: Vec<UserId> = batch.iter().map(|profile| profile.id).collect();
        let stored = self.store.load_profiles(&ids).await?;
        let stored: HashMap<UserId, ProfileRow> = stored.into_iter().map(|row| (row.id, row)).collect();
        let is_new = |profile: &&ProfileRow| {
            stored.get(&profile.id).is_none_or(|row| {
                (&row.name, &row.avatar_url) != (&profile.name, &profile.avatar_url)
                    || profile.refreshed_at >= row.refreshed_at.plus(self.ttl)
            })
        };
        let changed: Vec<ProfileRow> = batch.iter().filter(is_new).cloned().collect();
        if changed.is_empty() { Ok(()) } else { self.store.upsert_profiles(&changed).await }
    }
}
