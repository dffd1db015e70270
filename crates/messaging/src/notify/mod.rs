//! Notifications for people who are not looking.
//!
//! `chat` says after a commit what was stored and read; `engine` decides by the `rule`, claims in the
//! database and hands pushes to the `lane` of the push service that reaches a device. What a crash or
//! a full queue left is found by the `sweep`. Nothing here is waited for by the message path.
//! Mail about what stays unread has its own way: [`email`].

mod apns;
mod badges;
pub mod email;
mod engine;
mod fcm;
mod lane;
mod message;
mod pending;
mod provider;
mod rule;
mod screens;
mod sweep;
mod web_push;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::web_push::Subscription;
use self::{
    apns::Apns,
    engine::{Engine, Signal},
    fcm::Fcm,
    lane::Lane,
    provider::Provider,
    screens::Screens,
    web_push::WebPush,
};
use crate::{
    clock::Clock,
    config,
    delivery::hub::Hub,
    identity::Directory,
    ids::{ConversationId, UserId},
    shared::Redis,
    storage::{Store, sweeps::Sweep},
};

/// Words that may wait for the engine; those past it are lost, and the sweeper finds what they were about.
const MAX_SIGNALS: usize = 4096;
/// How long a push service may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is believed whether somebody has a device, who may register one on another node.
const DEVICES_FOR: Duration = Duration::from_secs(10);
/// People of whom that is remembered.
const MAX_PEOPLE: u64 = 100_000;

/// A message that was committed a moment ago.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Where.
    pub conversation: ConversationId,
    /// Who is to hear of it.
    pub recipient: UserId,
    /// Its place.
    pub seq: i64,
    /// When that was.
    pub committed_at: Instant,
}

/// What notifications are made with.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Names and titles.
    pub directory: Directory,
    /// The live connections here.
    pub hub: Arc<Hub>,
    /// The way to know of the live connections elsewhere.
    pub redis: Option<Redis>,
    /// The time.
    pub clock: Clock,
}

/// Where `chat` says what happened. Cheap to clone; the work ends when the last clone is gone.
#[derive(Clone)]
pub struct Notifier {
    inner: Arc<Inner>,
}

struct Inner {
    signals: mpsc::Sender<Signal>,
    screens: Option<Screens>,
    lanes: Arc<[Lane]>,
    has_devices: Cache<UserId, bool>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Notifier").field("lanes", &self.inner.lanes).finish_non_exhaustive()
    }
}

impl Notifier {
    /// Starts to notify; `None` if no push service is configured.
    pub async fn start(config: &config::Push, parts: Parts) -> io::Result<Option<Self>> {
        if !config.is_on() {
            return Ok(None);
        }
        parts.store.begin_sweep(Sweep::Push).await.map_err(io::Error::other)?;
        let lanes: Arc<[Lane]> = providers(config, &parts)
            .await?
            .into_iter()
            .map(|provider| Lane::new(provider, parts.store.clone()))
            .collect();
        let has_devices = Cache::builder().max_capacity(MAX_PEOPLE).time_to_live(DEVICES_FOR).build();
        let (signals, heard) = mpsc::channel(MAX_SIGNALS);
        let screens = parts.redis.clone().map(|redis| Screens::new(redis, parts.clock.clone()));
        let inner = Inner {
            signals,
            screens: screens.clone(),
            lanes: Arc::clone(&lanes),
            has_devices: has_devices.clone(),
        };
        let (engine, settled) = Engine::new(config, parts, screens, lanes, has_devices);
        sweep::start(&engine, config.sweep_after);
        tokio::spawn(engine.run(heard, settled));
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// Messages were committed.
    pub fn stored(&self, stored: Vec<Stored>) {
        if !stored.is_empty() {
            self.say(Signal::Stored(stored));
        }
    }

    /// A person read in a conversation, or has nothing to read there any more.
    pub fn read(&self, user: UserId, conversation: ConversationId) {
        self.say(Signal::Read(user, conversation));
    }

    /// A person's devices are others now.
    pub fn devices_changed(&self, user: UserId) {
        self.inner.has_devices.invalidate(&user);
    }

    /// A conversation came onto a screen. Done once other nodes can know.
    pub async fn joined(&self, user: UserId, conversation: ConversationId) {
        if let Some(screens) = &self.inner.screens {
            screens.note((user, conversation)).await;
            self.say(Signal::Joined(user, conversation));
        }
    }

    /// A connection of a person is gone, or a conversation went from its screen.
    pub fn left(&self, user: UserId) {
        if self.inner.screens.is_some() {
            self.say(Signal::Left(user));
        }
    }

    /// What browsers subscribe with; `None` without Web Push.
    pub fn vapid_key(&self) -> Option<&str> {
        self.inner.lanes.iter().find_map(|lane| match lane.provider() {
            Provider::WebPush(web_push) => Some(web_push.public_key()),
            Provider::Fcm(_) | Provider::Apns(_) => None,
        })
    }

    /// How many pushes wait or are being sent, by push service.
    pub fn depths(&self) -> Vec<(&'static str, usize)> {
        self.inner.lanes.iter().map(|lane| (lane.provider().name(), lane.depth())).collect()
    }

    /// Waits for what is under way, though not for long, and settles it. What is left the sweeper of
    /// another node, or of the next start, takes on.
    pub async fn drain(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let is_busy = || {
            let waiting = self.inner.signals.max_capacity() - self.inner.signals.capacity();
            waiting > 0 || self.inner.lanes.iter().any(|lane| lane.depth() > 0)
        };
        while is_busy() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (done, settled) = oneshot::channel();
        self.say(Signal::Settle(done));
        let _ = tokio::time::timeout(patience, settled).await;
    }

    fn say(&self, signal: Signal) {
        if self.inner.signals.try_send(signal).is_err() {
            tracing::debug!("the notifier has too much to do; the sweeper takes it on");
        }
    }
}

/// Sends a badge through what is configured of FCM, and answers what became of it.
#[cfg(test)]
pub(crate) async fn try_fcm(
    config: &config::Push,
    clock: Clock,
    device: &crate::storage::notifications::PushDevice,
) -> String {
    let account = config.fcm.clone().expect("FCM is configured");
    let fcm = Provider::Fcm(Fcm::new(account, REQUEST_TIMEOUT, clock).expect("a client"));
    let push = message::Push::Badge(message::Badge::new(1, &[]));
    format!("{:?}", fcm.send(device, &push).await)
}

/// The push services in the order in which they are asked whether they reach a device.
async fn providers(config: &config::Push, parts: &Parts) -> io::Result<Vec<Provider>> {
    let (clock, timeout) = (&parts.clock, REQUEST_TIMEOUT);
    let mut providers = Vec::new();
    if let Some(account) = config.web_push.clone() {
        let web_push = WebPush::new(account, &parts.store, timeout, clock.clone()).await?;
        providers.push(Provider::WebPush(web_push));
    }
    if let Some(account) = config.apns.clone() {
        let apns = Apns::new(account, timeout, clock.clone()).map_err(io::Error::other)?;
        providers.push(Provider::Apns(apns));
    }
    if let Some(account) = config.fcm.clone() {
        let fcm = Fcm::new(account, timeout, clock.clone()).map_err(io::Error::other)?;
        providers.push(Provider::Fcm(fcm));
    }
    Ok(providers)
}
