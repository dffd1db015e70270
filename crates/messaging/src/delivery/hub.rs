//! The local connections of each user, and the place that each user's stream has reached.
//!
//! Stored events are handed on strictly by `event_seq`: one that comes too early waits, and the gap
//! is reported to the caller, who reads the log. A connection that resumes is not live until it has
//! read the log up to that place, so that nothing is missed and nothing comes twice (contract 4.5).

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
};

use edge::{CloseReason, Event};
use parking_lot::Mutex;

use super::receiver::Receiver;
use crate::ids::{ConversationId, UserId};

/// Enough that two cores rarely meet at one lock.
const SHARDS: usize = 64;
/// Events that may wait for an earlier one; past it they are dropped, since the log has them.
const MAX_WAITING: usize = 512;
/// Conversations that one connection may have on screen.
const MAX_JOINED: usize = 50;

/// What a user wants others to see of them (contract 4.3 `presence_update`).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PresenceStatus")]
pub enum Status {
    /// Not here.
    Offline,
    /// Here, but not looking.
    Away,
    /// Here.
    Online,
}

/// What became of a stored event here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// No connection of the user is here.
    Nobody,
    /// It was handed to this many live connections; 0 while all of them are still catching up.
    Live(usize),
    /// It was handed on before.
    Repeated,
    /// It waits for earlier ones; `missing_from` is the place of the first.
    Waiting {
        /// The last event that was handed on.
        delivered: i64,
    },
}

/// Whether a connection that caught up to a place is now live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoLive {
    /// It is.
    Live,
    /// The stream went on meanwhile: read on from the log.
    Behind,
    /// The connection is gone.
    Gone,
}

/// All local connections by user.
pub struct Hub {
    shards: Box<[Mutex<HashMap<UserId, Stream>>]>,
    hasher: RandomState,
}

/// A user's connections here and how far their log was handed on.
struct Stream {
    subscriptions: Vec<Subscription>,
    /// `None` until the log's head is known.
    delivered: Option<i64>,
    waiting: BTreeMap<i64, Event>,
}

struct Subscription {
    receiver: Box<dyn Receiver>,
    is_live: bool,
    /// The last stored event this connection got.
    cursor: i64,
    status: Status,
    joined: Vec<ConversationId>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(), hasher: RandomState::new() }
    }
}

impl Hub {
    fn shard(&self, user: UserId) -> &Mutex<HashMap<UserId, Stream>> {
        let hash = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64).expect("less than SHARDS");
        &self.shards[hash]
    }

    /// Registers a connection, not yet live. Answers how many the user has here now, or `None` if
    /// they already have `max`.
    pub fn subscribe(&self, user: UserId, receiver: Box<dyn Receiver>, max: usize) -> Option<usize> {
        let mut shard = self.shard(user).lock();
        let stream = shard.entry(user).or_insert_with(|| Stream {
            subscriptions: Vec::with_capacity(1),
            delivered: None,
            waiting: BTreeMap::new(),
        });
        if stream.subscriptions.len() >= max {
            return None;
        }
        stream.subscriptions.push(Subscription {
            receiver,
            is_live: false,
            cursor: i64::MAX,
            status: Status::Online,
            joined: Vec::new(),
        });
        Some(stream.subscriptions.len())
    }

    /// Takes a connection out. Answers how many the user still has here, or `None` if it was not in.
    pub fn unsubscribe(&self, user: UserId, connection: u64) -> Option<usize> {
        let mut shard = self.shard(user).lock();
        let stream = shard.get_mut(&user)?;
        let place = stream.subscriptions.iter().position(|one| one.receiver.id() == connection)?;
        stream.subscriptions.swap_remove(place);
        let left = stream.subscriptions.len();
        if left == 0 {
            shard.remove(&user);
        }
        Some(left)
    }

    /// How far the user's log was handed on here, if that is known.
    pub fn delivered(&self, user: UserId) -> Option<i64> {
        self.shard(user).lock().get(&user)?.delivered
    }

    /// Tells where a user's log stood when it was read; only the first such word counts.
    /// Events that waited for it are handed on.
    pub fn set_head(&self, user: UserId, head: i64) {
        if let Some(stream) = self.shard(user).lock().get_mut(&user)
            && stream.delivered.is_none()
        {
            stream.delivered = Some(head);
            stream.waiting.retain(|seq, _| *seq > head);
            stream.hand_on_waiting();
        }
    }

    /// Lets a connection that got everything up to `cursor` take part in the live stream;
    /// `None` starts at the present place.
    pub fn go_live(&self, user: UserId, connection: u64, cursor: Option<i64>) -> GoLive {
        let mut shard = self.shard(user).lock();
        let Some(stream) = shard.get_mut(&user) else { return GoLive::Gone };
        let Some(delivered) = stream.delivered else { return GoLive::Behind };
        let Some(subscription) = stream.subscriptions.iter_mut().find(|one| one.receiver.id() == connection)
        else {
            return GoLive::Gone;
        };
        let cursor = cursor.unwrap_or(delivered);
        if cursor < delivered {
            return GoLive::Behind;
        }
        subscription.cursor = cursor;
        subscription.is_live = true;
        GoLive::Live
    }

    /// Hands a stored event to the user's live connections, in its turn.
    pub fn deliver(&self, user: UserId, event_seq: i64, event: &Event) -> Delivery {
        let mut shard = self.shard(user).lock();
        let Some(stream) = shard.get_mut(&user) else { return Delivery::Nobody };
        match stream.delivered {
            Some(delivered) if event_seq <= delivered => Delivery::Repeated,
            Some(delivered) if event_seq == delivered + 1 => {
                let live = stream.hand_on(event_seq, event);
                stream.hand_on_waiting();
                Delivery::Live(live)
            }
            delivered => {
                if stream.waiting.len() < MAX_WAITING {
                    stream.waiting.insert(event_seq, event.clone());
                }
                match delivered {
                    Some(delivered) => Delivery::Waiting { delivered },
                    None => Delivery::Live(0),
                }
            }
        }
    }

    /// The place up to which a user's stream was handed on, if later events wait behind a gap.
    pub fn gap(&self, user: UserId) -> Option<i64> {
        let shard = self.shard(user).lock();
        let stream = shard.get(&user)?;
        if stream.waiting.is_empty() { None } else { stream.delivered }
    }

    /// Skips to `head` without the events before it, which the log no longer has; tells every connection.
    pub fn skip_to(&self, user: UserId, head: i64, notice: &Event) {
        if let Some(stream) = self.shard(user).lock().get_mut(&user) {
            stream.delivered = Some(stream.delivered.unwrap_or(0).max(head));
            stream.waiting.retain(|seq, _| *seq > head);
            for subscription in &mut stream.subscriptions {
                subscription.receiver.emit(notice);
            }
            stream.hand_on_waiting();
        }
    }

    /// Sends an event that is not stored to all of a user's connections. Answers to how many.
    pub fn emit(&self, user: UserId, event: &Event) -> usize {
        let shard = self.shard(user).lock();
        shard.get(&user).map_or(0, |stream| {
            stream.subscriptions.iter().for_each(|one| one.receiver.emit(event));
            stream.subscriptions.len()
        })
    }

    /// Whether a connection of the user is here.
    pub fn is_connected(&self, user: UserId) -> bool {
        self.shard(user).lock().contains_key(&user)
    }

    /// Whether this connection of the user is here.
    pub fn has(&self, user: UserId, connection: u64) -> bool {
        self.with(user, connection, |_| ()).is_some()
    }

    /// Closes all of a user's connections.
    pub fn close(&self, user: UserId, reason: CloseReason) {
        if let Some(stream) = self.shard(user).lock().get(&user) {
            stream.subscriptions.iter().for_each(|one| one.receiver.close(reason));
        }
    }

    /// Sets what one connection says of its user's presence.
    pub fn set_status(&self, user: UserId, connection: u64, status: Status) {
        self.with(user, connection, |one| one.status = status);
    }

    /// The user's presence by their connections here: online beats away beats offline.
    pub fn status(&self, user: UserId) -> Status {
        let shard = self.shard(user).lock();
        shard
            .get(&user)
            .and_then(|stream| stream.subscriptions.iter().map(|one| one.status).max())
            .unwrap_or(Status::Offline)
    }

    /// Notes that a conversation is on a connection's screen. `false` if too many are.
    pub fn join(&self, user: UserId, connection: u64, conversation: ConversationId) -> bool {
        self.with(user, connection, |one| {
            if one.joined.contains(&conversation) {
                return true;
            }
            let has_room = one.joined.len() < MAX_JOINED;
            if has_room {
                one.joined.push(conversation);
            }
            has_room
        })
        .unwrap_or(true)
    }

    /// Notes that a conversation is no longer on a connection's screen.
    pub fn leave(&self, user: UserId, connection: u64, conversation: ConversationId) {
        self.with(user, connection, |one| one.joined.retain(|joined| *joined != conversation));
    }

    /// Whether a conversation is on the screen of one of the user's connections here.
    pub fn is_on_screen(&self, user: UserId, conversation: ConversationId) -> bool {
        let shard = self.shard(user).lock();
        shard
            .get(&user)
            .is_some_and(|stream| stream.subscriptions.iter().any(|one| one.joined.contains(&conversation)))
    }

    /// How many users have a connection here.
    pub fn count_users(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Every user with a connection here.
    pub fn users(&self) -> Vec<UserId> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>()).collect()
    }

    fn with<T>(
        &self,
        user: UserId,
        connection: u64,
        change: impl FnOnce(&mut Subscription) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(user).lock();
        let stream = shard.get_mut(&user)?;
        stream.subscriptions.iter_mut().find(|one| one.receiver.id() == connection).map(change)
    }
}

impl Stream {
    fn hand_on(&mut self, event_seq: i64, event: &Event) -> usize {
        self.delivered = Some(event_seq);
        let mut live = 0;
        for subscription in &mut self.subscriptions {
            if subscription.is_live && subscription.cursor < event_seq {
                subscription.cursor = event_seq;
                subscription.receiver.emit(event);
                live += 1;
            }
        }
        live
    }

    fn hand_on_waiting(&mut self) {
        while let Some(delivered) = self.delivered
            && let Some(event) = self.waiting.remove(&(delivered + 1))
        {
            self.hand_on(delivered + 1, &event);
        }
        // What the log gave meanwhile need not wait any more.
        if let Some(delivered) = self.delivered {
            while self.waiting.first_key_value().is_some_and(|(seq, _)| *seq <= delivered) {
                self.waiting.pop_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const ANNA: UserId = UserId(1);

    /// Writes down the names of the events it gets.
    struct Recorder {
        id: u64,
        heard: Arc<Mutex<Vec<String>>>,
    }

    impl Receiver for Recorder {
        fn id(&self) -> u64 {
            self.id
        }

        fn emit(&self, event: &Event) {
            self.heard.lock().push(event.name().to_owned());
        }

        fn queued_bytes(&self) -> usize {
            0
        }

        fn close(&self, _reason: CloseReason) {}
    }

    fn event(seq: i64) -> Event {
        Event::new(seq.to_string(), "{}")
    }

    fn connect(hub: &Hub, id: u64) -> Arc<Mutex<Vec<String>>> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        hub.subscribe(ANNA, Box::new(Recorder { id, heard: Arc::clone(&heard) }), 20).expect("there is room");
        heard
    }

    #[test]
    fn an_event_that_comes_too_early_waits_for_the_one_before() {
        let hub = Hub::default();
        let heard = connect(&hub, 1);
        hub.set_head(ANNA, 4);
        assert_eq!(hub.go_live(ANNA, 1, None), GoLive::Live);
        assert_eq!(hub.deliver(ANNA, 6, &event(6)), Delivery::Waiting { delivered: 4 });
        assert_eq!(hub.gap(ANNA), Some(4));
        assert_eq!(hub.deliver(ANNA, 5, &event(5)), Delivery::Live(1));
        assert_eq!(hub.deliver(ANNA, 5, &event(5)), Delivery::Repeated);
        assert_eq!(*heard.lock(), ["5", "6"]);
        assert_eq!(hub.gap(ANNA), None);
    }

    #[test]
    fn what_comes_before_the_head_is_known_is_not_lost() {
        let hub = Hub::default();
        let heard = connect(&hub, 1);
        assert_eq!(hub.go_live(ANNA, 1, None), GoLive::Behind);
        hub.deliver(ANNA, 3, &event(3));
        hub.deliver(ANNA, 4, &event(4));
        // The head was read when 3 was stored: 4 came after it and is new.
        hub.set_head(ANNA, 3);
        assert_eq!(hub.go_live(ANNA, 1, Some(3)), GoLive::Behind);
        assert_eq!(hub.go_live(ANNA, 1, Some(4)), GoLive::Live);
        assert!(heard.lock().is_empty());
        hub.deliver(ANNA, 5, &event(5));
        assert_eq!(*heard.lock(), ["5"]);
    }

    #[test]
    fn a_connection_that_read_ahead_in_the_log_hears_nothing_twice() {
        let hub = Hub::default();
        let early = connect(&hub, 1);
        hub.set_head(ANNA, 0);
        hub.go_live(ANNA, 1, None);
        let late = connect(&hub, 2);
        // The log already had 2, of which nothing was published yet.
        assert_eq!(hub.go_live(ANNA, 2, Some(2)), GoLive::Live);
        for seq in 1..=3 {
            hub.deliver(ANNA, seq, &event(seq));
        }
        assert_eq!(*early.lock(), ["1", "2", "3"]);
        assert_eq!(*late.lock(), ["3"]);
    }

    #[test]
    fn online_beats_away_beats_offline() {
        let hub = Hub::default();
        connect(&hub, 1);
        connect(&hub, 2);
        hub.set_status(ANNA, 1, Status::Away);
        assert_eq!(hub.status(ANNA), Status::Online);
        hub.set_status(ANNA, 2, Status::Offline);
        assert_eq!(hub.status(ANNA), Status::Away);
        assert_eq!(hub.unsubscribe(ANNA, 1), Some(1));
        assert_eq!(hub.status(ANNA), Status::Offline);
        assert_eq!(hub.unsubscribe(ANNA, 1), None);
        assert_eq!(hub.unsubscribe(ANNA, 2), Some(0));
        assert!(hub.users().is_empty());
    }

    #[test]
    fn a_user_may_not_have_more_connections_than_allowed() {
        let hub = Hub::default();
        connect(&hub, 1);
        let heard = Arc::new(Mutex::new(Vec::new()));
        assert_eq!(hub.subscribe(ANNA, Box::new(Recorder { id: 2, heard }), 1), None);
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_is_handed_on_in_order_once(mut order in Just((1..=30_i64).collect::<Vec<_>>()).prop_shuffle(), repeats in prop::collection::vec(1..=30_i64, 0..20)) {
            let hub = Hub::default();
            let heard = connect(&hub, 1);
            hub.set_head(ANNA, 0);
            hub.go_live(ANNA, 1, None);
            order.extend(repeats);
            for seq in order {
                hub.deliver(ANNA, seq, &event(seq));
            }
            let expected: Vec<_> = (1..=30).map(|seq| seq.to_string()).collect();
            prop_assert_eq!(&*heard.lock(), &expected);
        }
    }
}
