//! Online, away, offline: told to those who share a conversation, without flapping.
//!
//! What a user's connections say lives in the hub; here lives what others were last told.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::{Chat, events::event};
use crate::{clock::Timestamp, delivery::hub::Status, errors::Result, ids::UserId};

/// A reconnect within this time was no absence (contract section 7).
const GRACE: Duration = Duration::from_secs(5);
/// How often changes are told.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);
/// So many of those who share a conversation hear of it, the most recent first (contract 4.4).
pub(super) const PARTNERS: i64 = 200;
/// Users whose partners are read in one query.
const CHUNK: usize = 200;

/// What others were told, and what they are to be told.
#[derive(Debug, Default)]
pub(super) struct Presence {
    told: Mutex<HashMap<UserId, Status>>,
    due: Mutex<HashMap<UserId, Due>>,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// When the last connection went, by the service's clock.
    left_at: Option<Timestamp>,
}

impl Presence {
    /// What others were last told of a user; `None` if nothing but that they are offline.
    pub(super) fn announced(&self, user: UserId) -> Option<Status> {
        self.told.lock().get(&user).copied()
    }

    fn take_due(&self, now: Instant) -> Vec<(UserId, Due)> {
        let mut due = self.due.lock();
        if due.is_empty() {
            return Vec::new();
        }
        due.extract_if(|_, due| due.at <= now).collect()
    }
}

/// A user's presence for somebody who shares a conversation with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Presence")]
pub struct PresenceView {
    /// Who.
    pub user_id: UserId,
    /// Whether they are here.
    pub status: Status,
    /// Since when they are not; null while online.
    pub last_seen: Option<Timestamp>,
}

impl Chat {
    /// Notes that a user's presence may have changed; after a departure, others hear of it only if
    /// the user does not come back soon.
    pub(super) fn note_presence(&self, user: UserId, departed: bool) {
        let is_gone = departed && !self.inner.hub.is_connected(user);
        let due = Due {
            at: Instant::now() + if is_gone { GRACE } else { Duration::ZERO },
            left_at: is_gone.then(|| self.inner.clock.now()),
        };
        self.inner.presence.due.lock().insert(user, due);
    }

    /// Tells what changed and is due.
    pub(super) async fn tell_presence(&self) {
        let presence = &self.inner.presence;
        let due = presence.take_due(Instant::now());
        let mut news = Vec::new();
        for (user, due) in due {
            let status = self.inner.hub.status(user);
            let before = {
                let mut told = presence.told.lock();
                if status == Status::Offline { told.remove(&user) } else { told.insert(user, status) }
            };
            if before.unwrap_or(Status::Offline) != status {
                let at = due.left_at.unwrap_or_else(|| self.inner.clock.now());
                news.push((user, status, at));
            }
        }
        for chunk in news.chunks(CHUNK) {
            if let Err(error) = self.tell_partners(chunk).await {
                tracing::warn!(%error, "presence could not be told");
            }
        }
    }

    async fn tell_partners(&self, news: &[(UserId, Status, Timestamp)]) -> Result<()> {
        let store = &self.inner.store;
        let gone: Vec<_> = news
            .iter()
            .filter(|(_, status, _)| *status == Status::Offline)
            .map(|(user, _, at)| (*user, *at))
            .collect();
        store.set_last_seen(&gone).await?;
        let users: Vec<UserId> = news.iter().map(|(user, _, _)| *user).collect();
        let news: HashMap<UserId, (Status, Timestamp)> =
            news.iter().map(|(user, status, at)| (*user, (*status, *at))).collect();
        let mut events = HashMap::new();
        for (user, partner) in store.partners(&users, PARTNERS).await? {
            if !self.inner.hub.is_connected(partner) {
                continue;
            }
            let Some((status, at)) = news.get(&user) else { continue };
            let event = events.entry(user).or_insert_with(|| {
                let last_seen = (*status == Status::Offline).then_some(*at);
                event("user_presence", &json!({"user_id": user, "status": status, "last_seen": last_seen}))
            });
            self.inner.hub.emit(partner, event);
        }
        Ok(())
    }

    /// The presence of those of `others` who share a conversation with the user.
    pub async fn get_presence(&self, user: UserId, others: &[UserId]) -> Result<Vec<PresenceView>> {
        let sharing = self.inner.store.presence_of(user, others).await?;
        Ok(sharing
            .into_iter()
            .map(|row| {
                let status = if row.is_silent { Status::Offline } else { self.status_of(row.user_id) };
                let last_seen = row.last_seen.filter(|_| !row.is_silent && status != Status::Online);
                PresenceView { user_id: row.user_id, status, last_seen }
            })
            .collect())
    }
}
