//! The bus over Redis: a channel for each user with a connection here, one for all nodes.
//!
//! Two tasks over one connection of its own: `listen` keeps the subscriptions as the connections here
//! want them, in batches, and anew after every loss; `speak` publishes what is queued, what came
//! together as one. Neither is ever waited for by a message on its way to a local connection.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use super::{Incoming, quiet::Quiet};
use crate::{
    ids::UserId,
    metrics,
    shared::{Link, Redis, Wire},
};

/// Publications that may wait; at tens of thousands a second that is some tenths of a second.
const MAX_OUTGOING: usize = 16_384;
/// Publications taken at once.
const SPOKEN_AT_ONCE: usize = 512;
/// What other nodes said and was not yet handed on.
const MAX_INCOMING: usize = 16_384;
/// Lines for all nodes that a slow listener may be behind.
const MAX_BROADCASTS: usize = 1024;
/// A connection waits so long for its user's channel; then it goes live and the log is looked at once
/// the channel is there.
const ATTACH_PATIENCE: Duration = Duration::from_secs(1);
/// Subscribing goes by thousands a millisecond; this long is a Redis that hangs.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(3);
/// A batch of publications is answered within a millisecond.
const SPEAK_PATIENCE: Duration = Duration::from_secs(2);
/// After a failure that did not cost the connection.
const RETRY: Duration = Duration::from_millis(200);

/// What a node says to all: users of whom it has a first connection.
const HERE: &str = "here";
/// Publications of this node were lost.
const ABSENT: &str = "absent";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct RedisBus {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Redis,
    link: Link,
    /// What publications begin with, so that their sender knows them again.
    signature: String,
    users: Mutex<HashMap<UserId, Attached>>,
    /// Users whose subscription may not be as it should.
    changed: Mutex<Vec<UserId>>,
    has_changed: Notify,
    outgoing: mpsc::Sender<(Channel, Arc<str>)>,
    /// Something was not published.
    has_lost: AtomicBool,
    has_to_tell: Notify,
    quiet: Mutex<Quiet>,
    incoming: mpsc::Sender<Incoming>,
    incoming_end: Mutex<Option<mpsc::Receiver<Incoming>>>,
    /// Something that came was dropped.
    has_overrun: AtomicBool,
    broadcasts: broadcast::Sender<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Channel {
    User(UserId),
    Nodes,
}

/// A user with connections here.
#[derive(Debug, Default)]
struct Attached {
    connections: u32,
    is_subscribed: bool,
    /// A connection went live before the channel was listened to.
    went_ahead: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedisBus").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}

impl RedisBus {
    pub(super) fn start(redis: &Redis) -> Self {
        let (outgoing, unspoken) = mpsc::channel(MAX_OUTGOING);
        let (incoming, incoming_end) = mpsc::channel(MAX_INCOMING);
        let inner = Arc::new_cyclic(|weak: &Weak<Inner>| {
            let pushed = Weak::clone(weak);
            let pushed = move |info: PushInfo| {
                if let Some(inner) = pushed.upgrade() {
                    inner.take(info);
                }
            };
            Inner {
                link: redis.subscriber(Arc::new(pushed)),
                redis: redis.clone(),
                signature: redis.node().to_string(),
                users: Mutex::default(),
                changed: Mutex::default(),
                has_changed: Notify::new(),
                outgoing,
                has_lost: AtomicBool::new(false),
                has_to_tell: Notify::new(),
                quiet: Mutex::default(),
                incoming,
                incoming_end: Mutex::new(Some(incoming_end)),
                has_overrun: AtomicBool::new(false),
                broadcasts: broadcast::Sender::new(MAX_BROADCASTS),
            }
        });
        tokio::spawn(listen(Arc::downgrade(&inner), inner.link.epochs()));
        tokio::spawn(speak(Arc::downgrade(&inner), unspoken));
        Self { inner }
    }

    pub(super) fn is_up(&self) -> bool {
        self.inner.link.wire().is_some()
    }

    pub(super) fn incoming(&self) -> Option<mpsc::Receiver<Incoming>> {
        self.inner.incoming_end.lock().take()
    }

    pub(super) fn broadcasts(&self) -> broadcast::Receiver<Arc<str>> {
        self.inner.broadcasts.subscribe()
    }

    /// What is to be waited for, if anything.
    pub(super) fn attach(&self, user: UserId) -> Option<Attaching> {
        let mut users = self.inner.users.lock();
        let attached = users.entry(user).or_default();
        attached.connections += 1;
        if attached.is_subscribed {
            return None;
        }
        if !self.is_up() {
            attached.went_ahead = true;
            return None;
        }
        let (sender, subscribed) = oneshot::channel();
        attached.waiting.push(sender);
        drop(users);
        self.inner.change(user);
        Some(Attaching { bus: self.clone(), user, subscribed })
    }

    pub(super) fn detach(&self, user: UserId) {
        let is_last = self.inner.users.lock().get_mut(&user).is_some_and(|attached| {
            attached.connections = attached.connections.saturating_sub(1);
            attached.connections == 0
        });
        if is_last {
            self.inner.change(user);
        }
    }

    pub(super) fn reaches(&self, user: UserId, event_seq: Option<i64>) -> bool {
        if !self.is_up() {
            self.inner.lose();
            return false;
        }
        !self.inner.quiet.lock().omits(user, event_seq, Instant::now())
    }

    pub(super) fn publish(&self, user: UserId, line: Arc<str>) {
        self.inner.queue(Channel::User(user), line);
    }

    pub(super) fn broadcast(&self, line: Arc<str>) {
        self.inner.queue(Channel::Nodes, line);
    }
}

/// A subscription under way.
pub(super) struct Attaching {
    bus: RedisBus,
    user: UserId,
    subscribed: oneshot::Receiver<()>,
}

impl Attaching {
    pub(super) async fn wait(self) {
        if tokio::time::timeout(ATTACH_PATIENCE, self.subscribed).await.is_err()
            && let Some(attached) = self.bus.inner.users.lock().get_mut(&self.user)
            && !attached.is_subscribed
        {
            attached.went_ahead = true;
        }
    }
}

impl Inner {
    fn change(&self, user: UserId) {
        self.changed.lock().push(user);
        self.has_changed.notify_one();
    }

    fn queue(&self, channel: Channel, line: Arc<str>) {
        if self.outgoing.try_send((channel, line)).is_err() {
            self.lose();
        }
    }

    /// The others are told to look into the log, once they can be reached.
    fn lose(&self) {
        metrics::get().publication_lost();
        self.has_lost.store(true, Ordering::Release);
    }

    fn name(&self, channel: Channel) -> String {
        match channel {
            Channel::User(user) => self.redis.key(format_args!("user:{user}")),
            Channel::Nodes => self.redis.key("nodes"),
        }
    }

    fn channel(&self, name: &[u8]) -> Option<Channel> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(&self.redis.key(""))?;
        match name.strip_prefix("user:") {
            Some(id) => Some(Channel::User(UserId(id.parse().ok()?))),
            None => (name == "nodes").then_some(Channel::Nodes),
        }
    }

    /// Takes what Redis pushes: `signature`, then a line each.
    fn take(&self, info: PushInfo) {
        if !matches!(info.kind, PushKind::Message | PushKind::SMessage) {
            return;
        }
        let [Value::BulkString(name), Value::BulkString(words)] = info.data.as_slice() else { return };
        let (Some(channel), Ok(words)) = (self.channel(name), std::str::from_utf8(words)) else { return };
        let mut lines = words.split('\n');
        if lines.next().is_none_or(|signature| signature == self.signature) {
            return;
        }
        match channel {
            Channel::User(user) => {
                self.hand_on(Incoming::News { user, lines: lines.map(Arc::from).collect() });
            }
            Channel::Nodes => lines.for_each(|line| self.take_broadcast(line)),
        }
    }

    fn take_broadcast(&self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            HERE => {
                let users = rest.split(' ').filter_map(|id| id.parse().ok()).map(UserId);
                let mut quiet = self.quiet.lock();
                let omitted: Vec<_> = users.filter_map(|user| Some((user, quiet.end(user)?))).collect();
                drop(quiet);
                for (user, event_seq) in omitted {
                    self.queue(Channel::User(user), super::pointer(event_seq).into());
                }
            }
            ABSENT => self.hand_on(Incoming::MissedAny),
            // Nobody may be listening, which is fine.
            _ => drop(self.broadcasts.send(line.into())),
        }
    }

    fn hand_on(&self, incoming: Incoming) {
        if self.incoming.try_send(incoming).is_err() {
            self.has_overrun.store(true, Ordering::Release);
            self.has_changed.notify_one();
        }
    }

    /// Nobody waits any longer: Redis is away. What the connections miss is looked for when it is back.
    fn let_ahead(&self) {
        self.changed.lock().clear();
        let mut users = self.users.lock();
        users.retain(|_, attached| attached.connections > 0);
        for attached in users.values_mut() {
            attached.is_subscribed = false;
            attached.went_ahead = true;
            attached.waiting.clear();
        }
    }

    /// Takes what changed, as what is to be subscribed to and what no longer.
    fn take_changed(&self) -> (Vec<UserId>, Vec<UserId>) {
        let mut changed = std::mem::take(&mut *self.changed.lock());
        changed.sort_unstable();
        changed.dedup();
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        let mut users = self.users.lock();
        for user in changed {
            match users.get(&user) {
                Some(attached) if attached.connections == 0 => {
                    users.remove(&user);
                    unwanted.push(user);
                }
                Some(attached) if !attached.is_subscribed => wanted.push(user),
                _ => {}
            }
        }
        (wanted, unwanted)
    }

    async fn change_subscriptions(&self, wire: &mut Wire, first: bool) -> redis::RedisResult<()> {
        let (wanted, unwanted) = self.take_changed();
        let channels = |users: &[UserId]| -> Vec<String> {
            users.iter().map(|user| self.name(Channel::User(*user))).collect()
        };
        if first {
            wire.subscribe(&[self.name(Channel::Nodes)]).await?;
        }
        if !unwanted.is_empty() {
            wire.unsubscribe(&channels(&unwanted)).await?;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        wire.subscribe(&channels(&wanted)).await?;
        let mut here = String::from(HERE);
        let mut behind = Vec::new();
        {
            let mut users = self.users.lock();
            for user in &wanted {
                here.push_str(&format!(" {user}"));
                if let Some(attached) = users.get_mut(user) {
                    attached.is_subscribed = true;
                    if std::mem::take(&mut attached.went_ahead) {
                        behind.push(*user);
                    }
                }
            }
        }
        // Before anybody who waits reads the log: whoever omits something until they hear this
        // will point to it.
        let words = format!("{}\n{here}", self.signature);
        let commands = [wire.publication(&self.name(Channel::Nodes), words.as_bytes())];
        wire.ask_all(&commands).await.into_iter().collect::<redis::RedisResult<Vec<_>>>()?;
        {
            let mut users = self.users.lock();
            for user in &wanted {
                if let Some(attached) = users.get_mut(user) {
                    attached.waiting.drain(..).for_each(|waiting| _ = waiting.send(()));
                }
            }
        }
        if !first && !behind.is_empty() {
            self.hand_on(Incoming::Missed(behind));
        }
        Ok(())
    }
}

/// Keeps the subscriptions as they should be.
async fn listen(weak: Weak<Inner>, mut epochs: watch::Receiver<Option<u64>>) {
    let mut subscribed_in = None;
    let mut is_failing = false;
    loop {
        let Some(inner) = weak.upgrade() else { return };
        if inner.has_overrun.swap(false, Ordering::AcqRel) {
            // Waits for room, which is what was missing.
            let _ = inner.incoming.send(Incoming::MissedAny).await;
        }
        let epoch = *epochs.borrow_and_update();
        let pause = match inner.link.wire().filter(|_| epoch.is_some()) {
            Some(mut wire) => {
                let first = subscribed_in != epoch;
                if first {
                    begin_anew(&inner);
                }
                let changing = inner.change_subscriptions(&mut wire, first);
                match tokio::time::timeout(SUBSCRIBE_PATIENCE, changing).await {
                    Ok(Ok(())) => {
                        is_failing = false;
                        if first {
                            subscribed_in = epoch;
                            let _ = inner.incoming.send(Incoming::MissedAny).await;
                            inner.has_to_tell.notify_one();
                        }
                        None
                    }
                    outcome => {
                        if let Ok(Err(error)) = outcome
                            && !std::mem::replace(&mut is_failing, true)
                        {
                            tracing::warn!(%error, "other nodes cannot be listened to");
                        }
                        // Which of them are is not known: all of it again.
                        subscribed_in = None;
                        inner.let_ahead();
                        inner.link.doubt();
                        Some(RETRY)
                    }
                }
            }
            None => {
                subscribed_in = None;
                inner.let_ahead();
                Some(Duration::from_secs(1))
            }
        };
        let changed = async {
            match pause {
                // A storm of connections would otherwise be a round trip for each of the first.
                None => inner.has_changed.notified().await,
                Some(pause) => tokio::time::sleep(pause).await,
            }
        };
        tokio::select! {
            () = changed => {}
            ended = epochs.changed() => if ended.is_err() { return },
            // The last handle may be gone meanwhile.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Of the new connection nothing is subscribed to yet, and what others said meanwhile was missed.
fn begin_anew(inner: &Inner) {
    if inner.quiet.lock().clear() {
        inner.lose();
    }
    let mut changed = inner.changed.lock();
    for (user, attached) in inner.users.lock().iter_mut() {
        attached.is_subscribed = false;
        changed.push(*user);
    }
}

/// Publishes what is queued.
async fn speak(weak: Weak<Inner>, mut unspoken: mpsc::Receiver<(Channel, Arc<str>)>) {
    let mut taken = Vec::with_capacity(SPOKEN_AT_ONCE);
    loop {
        let told = {
            let Some(inner) = weak.upgrade() else { return };
            tokio::select! {
                count = unspoken.recv_many(&mut taken, SPOKEN_AT_ONCE) => if count == 0 { return },
                () = inner.has_to_tell.notified() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            inner
        };
        told.speak(&mut taken).await;
    }
}

impl Inner {
    async fn speak(&self, taken: &mut Vec<(Channel, Arc<str>)>) {
        let Some(mut wire) = self.link.wire() else {
            if !taken.is_empty() {
                taken.clear();
                self.lose();
            }
            return;
        };
        let has_lost = self.has_lost.swap(false, Ordering::AcqRel);
        if has_lost {
            taken.push((Channel::Nodes, ABSENT.into()));
        }
        if taken.is_empty() {
            return;
        }
        let (channels, commands) = self.publications(&wire, taken.drain(..));
        metrics::get().published(channels.len());
        let arrivals = self.quiet.lock().arrivals();
        let spoken = tokio::time::timeout(SPEAK_PATIENCE, wire.ask_all(&commands)).await;
        let Ok(answers) = spoken else {
            self.lose();
            self.link.doubt();
            return;
        };
        let now = Instant::now();
        let mut users = None;
        for (channel, answer) in channels.into_iter().zip(answers) {
            match (channel, answer) {
                (_, Err(error)) => {
                    tracing::debug!(%error, "something could not be published");
                    self.lose();
                }
                (Channel::User(user), Ok(Value::Int(receivers))) if wire.counts_receivers() => {
                    let users = users.get_or_insert_with(|| self.users.lock());
                    let own = users.get(&user).is_some_and(|attached| attached.is_subscribed);
                    if receivers <= i64::from(own) {
                        self.quiet.lock().begin(user, arrivals, now);
                    }
                }
                _ => {}
            }
        }
    }

    /// One publication for each channel, in the order of their first lines.
    fn publications(
        &self,
        wire: &Wire,
        taken: impl Iterator<Item = (Channel, Arc<str>)>,
    ) -> (Vec<Channel>, Vec<redis::Cmd>) {
        let mut places: HashMap<Channel, usize> = HashMap::new();
        let mut words: Vec<(Channel, String)> = Vec::new();
        for (channel, line) in taken {
            let place = *places.entry(channel).or_insert_with(|| {
                words.push((channel, self.signature.clone()));
                words.len() - 1
            });
            let text = &mut words[place].1;
            text.push('\n');
            text.push_str(&line);
        }
        words
            .into_iter()
            .map(|(channel, words)| (channel, wire.publication(&self.name(channel), words.as_bytes())))
            .unzip()
    }
}
