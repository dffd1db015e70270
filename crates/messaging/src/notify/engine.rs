//! Decides on pushes as messages are stored and read, claims them, and hands them to their lanes.
//!
//! What is decided comes from the database each time, so that it does not matter who asks: the node
//! that stored a message, the end of a burst, or the sweeper. Between a claim and its settling the node
//! may die; the claim then lapses, and the push is tried once more.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

use super::{
    Parts, Stored,
    badges::Badges,
    lane::{Job, Lane, Ticket},
    message::{Notification, Push},
    pending::{Key, Later, Pending},
    rule::{self, Reason, Subject, Times, Verdict},
    screens::{self, Screens},
};
use crate::{
    clock::{Clock, Timestamp},
    config,
    delivery::hub::Hub,
    identity::Directory,
    ids::{ConversationId, ProductId, UserId},
    quiet_hours::QuietHours,
    storage::{
        Store, StoreError,
        notifications::{Claim, FactsRow, PushDevice},
    },
};

pub(super) type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Conversations decided on at once.
const CHUNK: usize = 256;
/// A push that is not sent by then is left to whoever finds its claim lapsed.
pub(super) const SEND_WITHIN: Duration = Duration::from_secs(60);
/// Longer than the slowest sender by far: a shorter one would let a second node push the same message.
pub(super) const LAPSE: Duration = Duration::from_secs(90);
/// So often a push is claimed in a row; then nobody is ready to take it.
const MAX_CLAIMS: i64 = 5;
/// How soon to look again at what another node has under way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long what is on the screen has to be read before it is noted as seen.
const SEEN_AFTER: Duration = Duration::from_secs(5);
/// While the database is away.
const RETRY: Duration = Duration::from_secs(2);
/// What the engine is told.
pub(super) enum Signal {
    Stored(Vec<Stored>),
    Read(UserId, ConversationId),
    Joined(UserId, ConversationId),
    Left(UserId),
    /// Settle what is done, then answer.
    Settle(oneshot::Sender<()>),
}

/// See the module.
pub(super) struct Engine {
    pub(super) store: Store,
    pub(super) clock: Clock,
    directory: Directory,
    pub(super) hub: Arc<Hub>,
    pub(super) screens: Option<Screens>,
    lanes: Arc<[Lane]>,
    times: Times,
    settled: mpsc::UnboundedSender<(Claim, bool)>,
    pending: Mutex<Pending>,
    has_devices: Cache<UserId, bool>,
    pub(super) badges: Mutex<Badges>,
    /// What is on screens here, as other nodes were told.
    pub(super) here: Mutex<HashMap<UserId, HashSet<ConversationId>>>,
}

impl Engine {
    pub(super) fn new(
        config: &config::Push,
        parts: Parts,
        screens: Option<Screens>,
        lanes: Arc<[Lane]>,
        has_devices: Cache<UserId, bool>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<(Claim, bool)>) {
        let (settled, done) = mpsc::unbounded_channel();
        let engine = Self {
            store: parts.store,
            clock: parts.clock,
            directory: parts.directory,
            hub: parts.hub,
            screens,
            lanes,
            times: Times { fold: config.fold, lapse: LAPSE, look_again: LOOK_AGAIN },
            settled,
            pending: Mutex::default(),
            has_devices,
            badges: Mutex::default(),
            here: Mutex::default(),
        };
        (Arc::new(engine), done)
    }

    /// How long a message may wait for the end of a burst.
    pub(super) const fn fold(&self) -> Duration {
        self.times.fold
    }

    pub(super) async fn run(
        self: Arc<Self>,
        mut signals: mpsc::Receiver<Signal>,
        mut settled: mpsc::UnboundedReceiver<(Claim, bool)>,
    ) {
        let mut renewal = tokio::time::interval(screens::RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut taken, mut done) = (Vec::new(), Vec::new());
        loop {
            let due = self.next_due();
            tokio::select! {
                count = signals.recv_many(&mut taken, CHUNK) => {
                    if count == 0 {
                        return;
                    }
                    for waiting in self.take(taken.drain(..)).await {
                        while let Ok(claim) = settled.try_recv() {
                            done.push(claim);
                        }
                        self.settle(&mut done).await;
                        let _ = waiting.send(());
                    }
                }
                _ = settled.recv_many(&mut done, CHUNK) => self.settle(&mut done).await,
                () = tokio::time::sleep_until(due) => self.run_due().await,
                _ = renewal.tick(), if self.screens.is_some() => self.renew_screens().await,
            }
        }
    }

    fn next_due(&self) -> Instant {
        // The sweeper puts things off too, and does not wake anybody for it.
        let far = Instant::now() + Duration::from_secs(1);
        let pending = self.pending.lock().next();
        pending.into_iter().chain(self.badges.lock().next()).fold(far, Instant::min)
    }

    async fn run_due(&self) {
        let now = Instant::now();
        let due = self.pending.lock().take_due(now, CHUNK);
        let (mut looks, mut skips) = (Vec::new(), Vec::new());
        for (key, later) in due {
            match later {
                Later::Look { committed_at } => looks.push((key, committed_at)),
                Later::Skip { seq } => skips.push((key, seq)),
            }
        }
        self.decide_or_put_off(&looks).await;
        if let Err(error) = self.skip(&skips).await {
            // They may be pushed though they were seen; better than the other way round.
            tracing::warn!(%error, "what was on screens could not be noted");
        }
        let badges = self.badges.lock().take_due(now);
        if let Err(error) = self.push_badges(&badges).await {
            tracing::warn!(%error, "badges could not be updated");
        }
    }

    /// Takes what was said, together; answers who waits for the settling.
    async fn take(&self, signals: impl Iterator<Item = Signal> + Send) -> Vec<oneshot::Sender<()>> {
        let (mut stored, mut read, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let mut waiting = Vec::new();
        for signal in signals {
            match signal {
                Signal::Stored(messages) => stored.extend(messages),
                Signal::Read(user, conversation) => read.push((user, conversation)),
                Signal::Joined(user, conversation) => {
                    self.here.lock().entry(user).or_default().insert(conversation);
                }
                Signal::Left(user) => left.push(user),
                Signal::Settle(done) => waiting.push(done),
            }
        }
        self.leave(&left).await;
        let people: HashSet<UserId> =
            stored.iter().map(|one| one.recipient).chain(read.iter().map(|(user, _)| *user)).collect();
        let reachable = match self.reachable(people).await {
            Ok(reachable) => reachable,
            Err(error) => {
                tracing::warn!(%error, "nobody can be notified at present; the sweeper takes it on");
                return waiting;
            }
        };
        stored.retain(|one| reachable.contains(&one.recipient));
        read.retain(|(user, _)| reachable.contains(user));
        let looks = self.sort(&stored);
        self.decide_or_put_off(&looks).await;
        if let Err(error) = self.withdraw(&read).await {
            tracing::warn!(%error, "notifications could not be withdrawn");
        }
        waiting
    }

    /// Which conversations are to be decided on at once; the others are put off.
    fn sort(&self, stored: &[Stored]) -> Vec<(Key, Option<Instant>)> {
        let mut pending = self.pending.lock();
        let mut looks: HashMap<Key, Option<Instant>> = HashMap::new();
        for one in stored {
            let key = (one.recipient, one.conversation);
            let is_on_screen = self.hub.is_on_screen(one.recipient, one.conversation);
            match (pending.get(key), is_on_screen) {
                // It is looked at soon, and everything of it then.
                (Some(Later::Look { .. }), _) => {}
                (Some(Later::Skip { .. }), true) => pending.raise(key, one.seq),
                (None, true) => pending.put(key, Instant::now() + SEEN_AFTER, Later::Skip { seq: one.seq }),
                (Some(Later::Skip { .. }), false) => {
                    pending.take(key);
                    looks.insert(key, Some(one.committed_at.into()));
                }
                (None, false) => {
                    looks.entry(key).or_insert(Some(one.committed_at.into()));
                }
            }
        }
        looks.into_iter().collect()
    }

    async fn reachable(&self, people: HashSet<UserId>) -> Result<HashSet<UserId>> {
        let mut reachable = HashSet::new();
        let mut unknown = Vec::new();
        for user in people {
            match self.has_devices.get(&user) {
                Some(true) => drop(reachable.insert(user)),
                Some(false) => {}
                None => unknown.push(user),
            }
        }
        if !unknown.is_empty() {
            let found = self.store.users_with_devices(&unknown).await?;
            for user in unknown {
                self.has_devices.insert(user, found.contains(&user));
            }
            reachable.extend(found);
        }
        Ok(reachable)
    }

    async fn decide_or_put_off(&self, looks: &[(Key, Option<Instant>)]) {
        for chunk in looks.chunks(CHUNK) {
            if let Err(error) = self.decide(chunk).await {
                tracing::warn!(%error, "pushes could not be decided on yet");
                let mut pending = self.pending.lock();
                for (key, committed_at) in chunk {
                    let later = Later::Look { committed_at: *committed_at };
                    pending.put(*key, Instant::now() + RETRY, later);
                }
            }
        }
    }

    /// Decides on pushes, claims those that are to be sent, and hands them on.
    pub(super) async fn decide(&self, looks: &[(Key, Option<Instant>)]) -> Result<()> {
        if looks.is_empty() {
            return Ok(());
        }
        let keys: Vec<Key> = looks.iter().map(|(key, _)| *key).collect();
        let committed_at: HashMap<Key, Option<Instant>> = looks.iter().copied().collect();
        let facts = self.store.notification_facts(&keys).await?;
        let now = self.clock.now();
        let mut to_push: Vec<(FactsRow, i64)> = Vec::new();
        for row in facts {
            let key = (row.user_id, row.conversation_id);
            match rule::decide(&self.subject(&row, now), &self.times, now) {
                Verdict::Push(seq) => to_push.push((row, seq)),
                Verdict::Wait(rest) => {
                    // Put off on purpose: how long that was says nothing of the push service.
                    let later = Later::Look { committed_at: None };
                    self.pending.lock().put(key, Instant::now() + rest, later);
                }
                Verdict::Not(Reason::OnScreen) => self.note_seen(&row),
                Verdict::Not(reason) => {
                    tracing::debug!(conversation_id = %row.conversation_id, ?reason, "nobody is pushed");
                }
            }
        }
        if let Some(screens) = &self.screens
            && !to_push.is_empty()
        {
            let keys: Vec<Key> = to_push.iter().map(|(row, _)| (row.user_id, row.conversation_id)).collect();
            let shown = screens.shown(&keys).await;
            to_push.retain(|(row, _)| {
                let is_shown = shown.contains(&(row.user_id, row.conversation_id));
                if is_shown {
                    self.note_seen(row);
                }
                !is_shown
            });
        }
        self.claim_and_send(to_push, &committed_at).await
    }

    fn subject(&self, row: &FactsRow, now: Timestamp) -> Subject {
        let quiet_hours = row.quiet_hours.as_deref().and_then(QuietHours::from_stored);
        Subject {
            unread_seq: row.seq,
            is_own: row.sender_id == Some(row.user_id),
            is_on_screen: self.hub.is_on_screen(row.user_id, row.conversation_id),
            is_muted: row.is_muted && row.muted_until.is_none_or(|until| until > now),
            is_blocked: row.is_blocked,
            wants_push: row.push,
            is_quiet: quiet_hours.is_some_and(|hours| hours.cover(now)),
            pushed_seq: row.pushed_seq,
            pushed_at: row.pushed_at,
            claimed_at: row.claimed_at,
        }
    }

    fn note_seen(&self, row: &FactsRow) {
        if let Some(seq) = row.seq {
            let key = (row.user_id, row.conversation_id);
            self.pending.lock().put(key, Instant::now() + SEEN_AFTER, Later::Skip { seq });
        }
    }

    async fn claim_and_send(
        &self,
        to_push: Vec<(FactsRow, i64)>,
        committed_at: &HashMap<Key, Option<Instant>>,
    ) -> Result<()> {
        if to_push.is_empty() {
            return Ok(());
        }
        let claims: Vec<Claim> = to_push
            .iter()
            .map(|(row, seq)| Claim {
                user: row.user_id,
                conversation: row.conversation_id,
                seq: *seq,
                id: rand::random(),
            })
            .collect();
        let claimed = self.store.claim_pushes(&claims, LAPSE, self.times.fold).await?;
        let deadline = Instant::now() + SEND_WITHIN;
        let claimed: HashMap<i64, i64> = claimed.into_iter().collect();
        let mut ours = Vec::new();
        for (claim, (row, _)) in claims.into_iter().zip(to_push) {
            let key = (claim.user, claim.conversation);
            let committed_at = committed_at.get(&key).copied().flatten();
            match claimed.get(&claim.id) {
                Some(times) if *times > MAX_CLAIMS => {
                    tracing::warn!(conversation_id = %claim.conversation, "a push is given up");
                    let _ = self.settled.send((claim, false));
                }
                Some(_) => ours.push((Ticket::new(claim, self.settled.clone()), row, committed_at)),
                // Another node was faster: perhaps with less than there is by now.
                None => {
                    let later = Later::Look { committed_at };
                    self.pending.lock().put(key, Instant::now() + LOOK_AGAIN, later);
                }
            }
        }
        let sent = self.send(&ours, deadline).await;
        if sent.is_err() {
            // Nobody got anything: the claims are left to lapse.
            ours.iter().for_each(|(ticket, ..)| ticket.fail());
        }
        sent
    }

    async fn send(&self, ours: &[(Arc<Ticket>, FactsRow, Option<Instant>)], deadline: Instant) -> Result<()> {
        let users: Vec<UserId> = ours.iter().map(|(ticket, ..)| ticket.claim.user).collect();
        let devices = self.devices(&users).await?;
        let senders: Vec<UserId> = ours.iter().filter_map(|(_, row, _)| row.sender_id).collect();
        let products: Vec<ProductId> = ours.iter().filter_map(|(_, row, _)| row.product_id).collect();
        let senders = self.directory.users(&senders, None).await;
        let products = self.directory.products(&products, None).await;
        for (ticket, row, committed_at) in ours {
            let sender = row.sender_id.and_then(|id| senders.get(&id)).map_or("", |user| user.name.as_str());
            let product = row.product_id.and_then(|id| products.get(&id)).map(|card| card.title.as_str());
            let Some(notification) = Notification::new(row, sender, product) else { continue };
            let push = Arc::new(Push::Message(notification));
            for device in devices.get(&ticket.claim.user).into_iter().flatten() {
                self.hand_on(&push, device, Some(Arc::clone(ticket)), *committed_at, deadline);
            }
        }
        Ok(())
    }

    pub(super) fn hand_on(
        &self,
        push: &Arc<Push>,
        device: &PushDevice,
        ticket: Option<Arc<Ticket>>,
        committed_at: Option<Instant>,
        deadline: Instant,
    ) {
        let lane = self.lanes.iter().find(|lane| lane.provider().carries_to(device));
        if let Some(lane) = lane.filter(|lane| lane.provider().carries(push)) {
            let (push, device) = (Arc::clone(push), device.clone());
            lane.push(Job { push, device, ticket, committed_at, deadline });
        }
    }

    pub(super) async fn devices(&self, users: &[UserId]) -> Result<HashMap<UserId, Vec<PushDevice>>> {
        let mut devices: HashMap<UserId, Vec<PushDevice>> = HashMap::new();
        for device in self.store.push_devices(users).await? {
            devices.entry(device.user_id).or_default().push(device);
        }
        Ok(devices)
    }

    async fn settle(&self, done: &mut Vec<(Claim, bool)>) {
        if done.is_empty() {
            return;
        }
        if let Err(error) = self.store.settle_pushes(done).await {
            // They lapse, and are pushed once more: the later one takes the place of the first.
            tracing::warn!(%error, "pushes that were sent could not be settled");
        }
        done.clear();
    }

    async fn skip(&self, skips: &[(Key, i64)]) -> Result<()> {
        if skips.is_empty() {
            return Ok(());
        }
        let keys: Vec<Key> = skips.iter().map(|(key, _)| *key).collect();
        let facts = self.store.notification_facts(&keys).await?;
        let unread: HashSet<Key> = facts
            .iter()
            .filter(|row| row.seq.is_some())
            .map(|row| (row.user_id, row.conversation_id))
            .collect();
        let places: Vec<_> = skips
            .iter()
            .filter(|(key, _)| unread.contains(key))
            .map(|((user, conversation), seq)| (*user, *conversation, *seq))
            .collect();
        if places.is_empty() { Ok(()) } else { self.store.skip_pushes(&places).await }
    }
}
