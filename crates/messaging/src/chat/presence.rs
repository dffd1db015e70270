//! Online, away, offline: told to those who share a conversation, without flapping.
//!
//! What a user's connections say lives in the hub, what all nodes say in `delivery::leases`; here
//! lives what others were last told, and what they are still to be told. A node that is alone, or cut
//! off from the others, tells what its own connections say.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::{Chat, relay::News};
use crate::{
    clock::Timestamp,
    delivery::{
        hub::Status,
        leases::{self, Change, Lapsed, Leases},
    },
    errors::Result,
    ids::UserId,
};

/// A reconnect within this time was no absence (contract section 7).
const GRACE: Duration = Duration::from_secs(5);
/// How often changes are noticed, and told.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);
/// See [`leases::RENEWAL`].
pub(super) const RENEWAL: Duration = leases::RENEWAL;
/// See [`leases::REPETITION`].
pub(super) const REPETITION: Duration = leases::REPETITION;
/// How often the leases of nodes that are gone are looked at.
pub(super) const SWEEP: Duration = Duration::from_millis(500);
/// So many of those who share a conversation hear of it, the most recent first (contract 4.4).
pub(super) const PARTNERS: i64 = 200;
/// Users whose partners are read in one query.
const CHUNK: usize = 200;
/// Room for so many changes is kept.
const SMALL: usize = 1024;
/// News that wait for a database that is away; beyond it they are dropped, and clients learn the
/// status with the next conversation they read.
const MAX_UNTOLD: usize = 50_000;

/// What others were told, and what they are to be told.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Where other nodes share their presence.
    leases: Option<Leases>,
    told: Mutex<HashMap<UserId, Status>>,
    due: Mutex<HashMap<UserId, Due>>,
    untold: Mutex<HashMap<UserId, (Status, Timestamp)>>,
    /// All that is here is to be said again.
    has_to_repeat: AtomicBool,
    /// The connection to Redis over which the last word was said.
    epoch: Mutex<Option<u64>>,
    lapsed: Mutex<Vec<Lapsed>>,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// When the last connection went, by the service's clock.
    left_at: Option<Timestamp>,
}

impl Presence {
    pub(super) fn new(leases: Option<Leases>) -> Self {
        Self { leases, ..Self::default() }
    }

    fn take_due(&self, now: Instant) -> Vec<(UserId, Due)> {
        let mut due = self.due.lock();
        if due.is_empty() {
            return Vec::new();
        }
        let taken = due.extract_if(|_, due| due.at <= now).collect();
        // A storm of reconnects would leave its room behind.
        if due.is_empty() && due.capacity() > SMALL {
            *due = HashMap::new();
        }
        taken
    }

    /// Notes what others are to be told.
    fn news(&self, user: UserId, status: Status, at: Timestamp) {
        let mut untold = self.untold.lock();
        if untold.len() < MAX_UNTOLD || untold.contains_key(&user) {
            untold.insert(user, (status, at));
        }
    }

    /// Notes what others were told of a user. Answers what it was before.
    fn tell(&self, user: UserId, status: Status) -> Status {
        let mut told = self.told.lock();
        let before = if status == Status::Offline { told.remove(&user) } else { told.insert(user, status) };
        before.unwrap_or(Status::Offline)
    }

    /// Takes note of what another node told of a user.
    pub(super) fn heard(&self, user: UserId, status: Status) {
        if let Some(leases) = &self.leases {
            leases.believe(user, status);
        }
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

    /// Finds what changed and is due.
    pub(super) async fn settle_presence(&self) {
        let presence = &self.inner.presence;
        let mut changed: HashMap<UserId, Option<Timestamp>> =
            presence.take_due(Instant::now()).into_iter().map(|(user, due)| (user, due.left_at)).collect();
        if let Some(leases) = &presence.leases {
            if self.is_first_over_connection() {
                // Our lease may have lapsed, or be gone, while Redis was away: nothing is said under
                // such a one.
                self.repeat_presence();
                self.renew_lease().await;
            }
            for user in self.to_repeat(leases) {
                changed.entry(user).or_default();
            }
        }
        if changed.is_empty() {
            return;
        }
        let statuses: Vec<_> = changed.keys().map(|user| (*user, self.inner.hub.status(*user))).collect();
        let shared = match &presence.leases {
            Some(leases) => leases.set(&statuses).await.ok(),
            None => None,
        };
        let now = self.inner.clock.now();
        match shared {
            Some(changes) => {
                let here: HashMap<UserId, Status> = statuses.into_iter().collect();
                for Change { user, before, after } in changes {
                    let at = changed.get(&user).copied().flatten().unwrap_or(now);
                    // Of whom Redis knows nothing any more, we know what we told; of those who are
                    // elsewhere only, the other nodes do.
                    let is_here = here.get(&user).is_some_and(|here| *here != Status::Offline);
                    let told = presence.tell(user, if is_here { after } else { Status::Offline });
                    if before.unwrap_or(told) != after {
                        presence.news(user, after, at);
                    }
                }
            }
            None => {
                if presence.leases.is_some() {
                    presence.has_to_repeat.store(true, Ordering::Relaxed);
                }
                for (user, status) in statuses {
                    if presence.tell(user, status) != status {
                        let at = changed.get(&user).copied().flatten().unwrap_or(now);
                        presence.news(user, status, at);
                    }
                }
            }
        }
    }

    fn is_first_over_connection(&self) -> bool {
        let epoch = self.inner.redis.as_ref().and_then(|redis| *redis.epochs().borrow());
        epoch.is_some() && std::mem::replace(&mut *self.inner.presence.epoch.lock(), epoch) != epoch
    }

    /// Of whom something is to be said again: all who are here, or of whom our lease speaks, after it was
    /// lost or Redis was away.
    fn to_repeat(&self, leases: &Leases) -> Vec<UserId> {
        let presence = &self.inner.presence;
        if !presence.has_to_repeat.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let due = presence.due.lock();
        let users: HashSet<UserId> = self.inner.hub.users().into_iter().chain(leases.spoken_of()).collect();
        // Who has just left has some time to come back.
        users.into_iter().filter(|user| !due.contains_key(user)).collect()
    }

    /// Says again all that is here, lest it expire.
    pub(super) fn repeat_presence(&self) {
        self.inner.presence.has_to_repeat.store(true, Ordering::Relaxed);
    }

    /// Keeps this node's lease, and notes those of nodes that are gone.
    pub(super) async fn renew_lease(&self) {
        let presence = &self.inner.presence;
        let Some(leases) = &presence.leases else { return };
        if let Ok(renewal) = leases.renew().await {
            if renewal.is_new {
                self.repeat_presence();
            }
            *presence.lapsed.lock() = renewal.over;
        }
    }

    /// Tells of users whose node is gone.
    pub(super) async fn sweep_leases(&self) {
        let presence = &self.inner.presence;
        let Some(leases) = &presence.leases else { return };
        let lapsed = std::mem::take(&mut *presence.lapsed.lock());
        for lapsed in lapsed {
            let Ok(changes) = leases.sweep(&lapsed).await else { return };
            let gone: Vec<_> = changes
                .into_iter()
                .filter(|change| change.before.is_some_and(|before| before != change.after))
                .collect();
            if !gone.is_empty() {
                tracing::info!(users = gone.len(), "a node is gone and its users with it");
            }
            for Change { user, after, .. } in gone {
                presence.news(user, after, lapsed.last_renewed);
            }
        }
    }

    /// Tells what is to be told.
    pub(super) async fn tell_presence(&self) {
        let presence = &self.inner.presence;
        let untold: Vec<_> = std::mem::take(&mut *presence.untold.lock()).into_iter().collect();
        for chunk in untold.chunks(CHUNK) {
            if let Err(error) = self.tell_partners(chunk).await {
                tracing::warn!(%error, "presence could not be told yet");
                let mut untold = presence.untold.lock();
                for (user, news) in chunk {
                    // What came meanwhile is newer.
                    untold.entry(*user).or_insert(*news);
                }
            }
        }
    }

    async fn tell_partners(&self, news: &[(UserId, (Status, Timestamp))]) -> Result<()> {
        let store = &self.inner.store;
        let gone: Vec<_> = news
            .iter()
            .filter(|(_, (status, _))| *status == Status::Offline)
            .map(|(user, (_, at))| (*user, *at))
            .collect();
        store.set_last_seen(&gone).await?;
        let users: Vec<UserId> = news.iter().map(|(user, _)| *user).collect();
        let news: HashMap<UserId, (Status, Timestamp)> = news.iter().copied().collect();
        let mut events = HashMap::new();
        for (user, partner) in store.partners(&users, PARTNERS).await? {
            let Some((status, at)) = news.get(&user) else { continue };
            let event = events.entry(user).or_insert_with(|| {
                let last_seen = (*status == Status::Offline).then_some(*at);
                News::new(
                    "user_presence",
                    &json!({"user_id": user, "status": status, "last_seen": last_seen}),
                )
            });
            self.tell(partner, event);
        }
        Ok(())
    }

    /// Whether these users are here or on another node.
    pub(super) async fn statuses(&self, users: &[UserId]) -> HashMap<UserId, Status> {
        let presence = &self.inner.presence;
        let elsewhere = match &presence.leases {
            Some(leases) => leases.statuses(users).await,
            None => HashMap::new(),
        };
        let told = presence.told.lock();
        users
            .iter()
            .map(|user| {
                let here = || told.get(user).copied().unwrap_or_else(|| self.inner.hub.status(*user));
                (*user, elsewhere.get(user).copied().unwrap_or_else(here))
            })
            .collect()
    }

    /// The presence of those of `others` who share a conversation with the user.
    pub async fn get_presence(&self, user: UserId, others: &[UserId]) -> Result<Vec<PresenceView>> {
        let sharing = self.inner.store.presence_of(user, others).await?;
        let users: Vec<UserId> = sharing.iter().map(|row| row.user_id).collect();
        let statuses = self.statuses(&users).await;
        Ok(sharing
            .into_iter()
            .map(|row| {
                let status = statuses.get(&row.user_id).copied().filter(|_| !row.is_silent);
                let status = status.unwrap_or(Status::Offline);
                let last_seen = row.last_seen.filter(|_| !row.is_silent && status != Status::Online);
                PresenceView { user_id: row.user_id, status, last_seen }
            })
            .collect())
    }
}
