//! A live connection's life: it subscribes, catches up from the log, takes part, leaves.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use edge::{CloseReason, Event};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{
    Chat,
    events::{StoredEvent, event},
    input::Fields,
};
use crate::{
    delivery::{
        hub::{GoLive, Status},
        receiver::Receiver,
    },
    errors::{Error, RateLimit, Result},
    ids::{ConversationId, UserId},
    storage::{Store, log::LogPage},
};

/// Entries replayed at once to one connection.
const REPLAY_PAGE: i64 = 200;
/// Users whose log heads are read in one query: a storm of reconnects becomes a few of them.
const HEADS_AT_ONCE: usize = 1000;
/// A replay goes on when fewer bytes than this wait for the client to read them.
const REPLAY_QUEUE: usize = 128 * 1024;
/// How often that is looked at.
const REPLAY_PAUSE: Duration = Duration::from_millis(5);
/// As long as the edge waits for a slow consumer; then the replay goes on and the edge decides.
const REPLAY_PATIENCE: Duration = Duration::from_secs(10);
/// A user with too many connections may try again when one of them is likely gone.
const CONNECTIONS_RETRY: Duration = Duration::from_secs(30);

/// Where a connection wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From now on.
    Now,
    /// After this place of the user's log.
    Seq(i64),
}

/// A stretch of the user's own log for `sync` and `GET /api/sync`.
#[derive(Debug)]
pub struct Subscribed {
    /// The events, oldest first.
    pub events: Vec<StoredEvent>,
    /// The newest entry's number.
    pub last_event_seq: i64,
    /// There is more after these.
    pub has_more: bool,
}

/// Reads log heads for many users at once. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Heads {
    queue: mpsc::UnboundedSender<(UserId, oneshot::Sender<Result<i64, Error>>)>,
}

impl Heads {
    pub(super) fn start(store: Store) -> Self {
        let (queue, mut asked) = mpsc::unbounded_channel::<(UserId, oneshot::Sender<Result<i64, Error>>)>();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while asked.recv_many(&mut taken, HEADS_AT_ONCE).await > 0 {
                let users: Vec<UserId> = taken.iter().map(|(user, _)| *user).collect();
                let heads: Result<HashMap<UserId, i64>> = store.log_heads(&users).await.map_err(Error::from);
                for (user, answer) in taken.drain(..) {
                    let head = match &heads {
                        Ok(heads) => Ok(heads.get(&user).copied().unwrap_or(0)),
                        Err(error) => Err(error.repeat()),
                    };
                    let _ = answer.send(head);
                }
            }
        });
        Self { queue }
    }

    pub(super) async fn of(&self, user: UserId) -> Result<i64> {
        let (answer, head) = oneshot::channel();
        self.queue.send((user, answer)).map_err(|_| Error::unavailable())?;
        head.await.map_err(|_| Error::unavailable())?
    }
}

impl Chat {
    /// Lets an authenticated connection take part. `greet` is called once the connection is
    /// registered and before anything else is sent to it; what it missed follows, then the live stream.
    pub async fn subscribe<R: Receiver + Clone + 'static>(
        &self,
        user: UserId,
        receiver: &R,
        since: Since,
        greet: impl FnOnce() + Send,
    ) -> Result<()> {
        let hub = &self.inner.hub;
        let max = self.inner.settings.max_connections_per_user;
        // Counted before the connection can be seen to be gone, and waited for before the log is read:
        // what other nodes say after that comes here.
        let attached = self.inner.bus.attach(user);
        if hub.subscribe(user, Box::new(receiver.clone()), max).is_none() {
            self.inner.bus.detach(user);
            return Err(Error::RateLimited(RateLimit {
                limit: u32::try_from(max).unwrap_or(u32::MAX),
                remaining: 0,
                retry_after: CONNECTIONS_RETRY,
                resets_at: self.inner.clock.now().plus(CONNECTIONS_RETRY),
            }));
        }
        attached.await;
        let outcome = self.catch_up(user, receiver, since, greet).await;
        match outcome {
            Ok(()) => self.note_presence(user, false),
            Err(_) => {
                self.leave_hub(user, receiver.id());
            }
        }
        outcome
    }

    async fn catch_up<R: Receiver + Clone + 'static>(
        &self,
        user: UserId,
        receiver: &R,
        since: Since,
        greet: impl FnOnce() + Send,
    ) -> Result<()> {
        let hub = &self.inner.hub;
        let head = match hub.delivered(user) {
            Some(delivered) => delivered,
            None => {
                let head = self.inner.heads.of(user).await?;
                hub.set_head(user, head);
                head
            }
        };
        greet();
        // Whoever did not say where to go on goes on from here: what comes between this line and the
        // end of this function is not lost on them either.
        let cursor = match since {
            Since::Now => head,
            Since::Seq(seq) => seq,
        };
        if cursor <= head && hub.go_live(user, receiver.id(), Some(cursor)) != GoLive::Behind {
            return Ok(());
        }
        // The rest by a task of its own: a long replay waits for the client to read, and the client's
        // own events need not wait for that.
        let (weak, receiver) = (self.downgrade(), receiver.clone());
        tokio::spawn(async move {
            if let Err(error) = Self::replay(weak, user, &receiver, cursor).await {
                tracing::warn!(%error, "a connection could not catch up and is asked to come back");
                receiver.close(CloseReason::Restart);
            }
        });
        Ok(())
    }

    async fn replay<R: Receiver>(weak: WeakChat, user: UserId, receiver: &R, since: i64) -> Result<()> {
        let mut cursor = since;
        while let Some(chat) = Self::upgrade(&weak) {
            let required = |reason: &str| receiver.emit(&event("sync_required", &json!({"reason": reason})));
            match chat.inner.store.read_log(user, cursor, REPLAY_PAGE).await? {
                LogPage::Entries { entries, .. } => {
                    for (stored, conversation) in chat.events_of(user, entries).await? {
                        cursor = stored.event_seq;
                        chat.note_replayed(user, &stored, conversation);
                        receiver.emit(&Event::new(stored.kind.name(), stored.data));
                    }
                }
                LogPage::Expired { last_event_seq } => {
                    required("expired");
                    cursor = last_event_seq;
                }
                // The client claims more than there is: its log is of a database that is gone.
                LogPage::Ahead { last_event_seq } => {
                    required("ahead");
                    cursor = last_event_seq;
                }
            }
            if chat.inner.hub.go_live(user, receiver.id(), Some(cursor)) != GoLive::Behind {
                return Ok(());
            }
            drop(chat);
            let patience = Instant::now() + REPLAY_PATIENCE;
            while receiver.queued_bytes() > REPLAY_QUEUE && Instant::now() < patience {
                tokio::time::sleep(REPLAY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// A part of the user's log, for `GET /api/sync` and the `sync` event. Reading it delivers it.
    pub async fn sync(&self, user: UserId, since: i64, limit: i64) -> Result<Subscribed> {
        match self.inner.store.read_log(user, since, limit).await? {
            LogPage::Entries { entries, last_event_seq } => {
                let events = self.events_of(user, entries).await?;
                let last_read = events.last().map_or(since, |(stored, _)| stored.event_seq);
                for (stored, conversation) in &events {
                    self.note_replayed(user, stored, *conversation);
                }
                Ok(Subscribed {
                    events: events.into_iter().map(|(stored, _)| stored).collect(),
                    last_event_seq,
                    has_more: last_read < last_event_seq,
                })
            }
            LogPage::Expired { last_event_seq } => Err(Error::SyncExpired { last_event_seq }),
            LogPage::Ahead { .. } => {
                Err(Error::field("since", "The since field is beyond the newest event."))
            }
        }
    }

    /// The newest entry's number of the user's log.
    pub async fn last_event_seq(&self, user: UserId) -> Result<i64> {
        self.inner.heads.of(user).await
    }

    /// A connection is gone.
    pub fn unsubscribe(&self, user: UserId, connection: u64) {
        self.stop_typing(user, connection);
        if self.leave_hub(user, connection) {
            self.note_presence(user, true);
        }
    }

    fn leave_hub(&self, user: UserId, connection: u64) -> bool {
        let was_here = self.inner.hub.unsubscribe(user, connection).is_some();
        if was_here {
            self.inner.bus.detach(user);
            if let Some(notifier) = self.notifier() {
                notifier.left(user);
            }
        }
        was_here
    }

    /// Notes that a conversation is on a connection's screen.
    pub async fn join_conversation(&self, user: UserId, connection: u64, id: ConversationId) -> Result<()> {
        self.visible_conversation(user, id).await?;
        if self.inner.hub.join(user, connection, id) {
            if let Some(notifier) = self.notifier() {
                notifier.joined(user, id).await;
            }
            Ok(())
        } else {
            Err(Error::Conflict("Too many conversations are joined; leave one first.".into()))
        }
    }

    /// Notes that a conversation is no longer on a connection's screen. Leaving what was never
    /// joined is fine.
    pub fn leave_conversation(&self, user: UserId, connection: u64, id: ConversationId) {
        self.inner.hub.leave(user, connection, id);
        if let Some(notifier) = self.notifier() {
            notifier.left(user);
        }
    }

    /// Sets what a connection says of its user's presence.
    pub fn update_presence(&self, user: UserId, connection: u64, status: Status) {
        self.inner.hub.set_status(user, connection, status);
        self.note_presence(user, false);
    }
}

/// Reads `{conversation_id}`.
pub fn parse_conversation(json: &str) -> Result<ConversationId> {
    let mut fields = Fields::parse(json)?;
    let id = fields.required_id("conversation_id").map(ConversationId);
    fields.finish(id)
}

/// Reads `{status}`.
pub fn parse_status(json: &str) -> Result<Status> {
    let mut fields = Fields::parse(json)?;
    let status = match fields.text("status").as_deref() {
        Some("online") => Some(Status::Online),
        Some("away") => Some(Status::Away),
        Some("offline") => Some(Status::Offline),
        _ => {
            fields.refuse("status", "The selected status is invalid: it is online, away or offline.");
            None
        }
    };
    fields.finish(status)
}

/// Keeps the inner state reachable from a task without keeping it alive.
pub(super) type WeakChat = std::sync::Weak<super::Inner>;

impl Chat {
    pub(super) fn downgrade(&self) -> WeakChat {
        Arc::downgrade(&self.inner)
    }

    pub(super) fn upgrade(weak: &WeakChat) -> Option<Self> {
        weak.upgrade().map(|inner| Self { inner })
    }

    fn note_replayed(&self, user: UserId, stored: &StoredEvent, conversation: ConversationId) {
        if let Some((seq, sender)) = stored.message
            && sender != user
        {
            self.note_reached(conversation, user, seq);
        }
    }
}
