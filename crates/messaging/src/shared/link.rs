//! One connection to Redis and its life: made, watched, lost, made again.
//!
//! Redis is down, restarted, frozen or out of reach: all of it is noticed within two seconds and
//! mended within one of its return. Those who subscribed over a connection see by its number
//! (`epochs`) that it is a new one and begin again; what was published meanwhile is in the log.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use redis::{PushInfo, PushKind};
use tokio::sync::{Notify, watch};

use super::connect::{CONNECT_PATIENCE, Pushed, Target, Wire};

/// Between attempts to connect.
const RETRY: Duration = Duration::from_millis(300);
/// How often a sign of life is asked for.
const PULSE: Duration = Duration::from_secs(1);
/// Redis answers in well under a millisecond; one that takes this long is away.
const PULSE_PATIENCE: Duration = Duration::from_secs(1);
/// A key that does not exist, for signs of life from a cluster.
const PULSE_KEY: &str = "rented:pulse";

/// A connection that is made again whenever it is lost; ends with its last handle.
pub(crate) struct Link {
    state: Arc<State>,
}

struct State {
    wire: RwLock<Option<Wire>>,
    epochs: watch::Sender<Option<u64>>,
    /// Somebody doubts that the connection still works.
    doubted: Notify,
}

impl Link {
    /// With a receiver of what is pushed, or as the one that tells of its losses. `alive` is told how long each sign of life took.
    pub(super) fn start(
        target: Target,
        pushed: Option<Pushed>,
        alive: impl Fn(Duration) + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(State {
            wire: RwLock::default(),
            epochs: watch::Sender::new(None),
            doubted: Notify::new(),
        });
        tokio::spawn(keep(Arc::downgrade(&state), target, pushed, alive));
        Self { state }
    }

    /// The connection, if it stands.
    pub(crate) fn wire(&self) -> Option<Wire> {
        self.state.wire.read().clone()
    }

    /// See [`super::Redis::epochs`].
    pub(crate) fn epochs(&self) -> watch::Receiver<Option<u64>> {
        self.state.epochs.subscribe()
    }

    /// Asks for a sign of life now.
    pub(crate) fn doubt(&self) {
        self.state.doubted.notify_one();
    }
}

async fn keep(
    weak: Weak<State>,
    target: Target,
    pushed: Option<Pushed>,
    alive: impl Fn(Duration) + Send + Sync + 'static,
) {
    let mut epoch = 0;
    let mut away_since: Option<Instant> = None;
    let handler = pushed;
    // One connection tells for both.
    let is_told = handler.is_none();
    loop {
        let Some(state) = weak.upgrade() else { return };
        // One for each connection: the end of an old one is no news of the next.
        let closed = Arc::new(Notify::new());
        let pushed = watched(&closed, &handler);
        let connected = tokio::time::timeout(CONNECT_PATIENCE, target.connect(Some(pushed))).await;
        let reason = match connected {
            Ok(Ok(wire)) => {
                epoch += 1;
                match away_since.take() {
                    Some(since) if is_told => tracing::info!(
                        away_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                        "Redis is back"
                    ),
                    _ => tracing::debug!(is_told, "Redis is there"),
                }
                *state.wire.write() = Some(wire.clone());
                state.epochs.send_replace(Some(epoch));
                drop(state);
                let Some(reason) = watch_over(&weak, wire, &closed, &alive).await else { return };
                let Some(state) = weak.upgrade() else { return };
                *state.wire.write() = None;
                state.epochs.send_replace(None);
                reason
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        // Once for each time that it goes, however often it is tried.
        if away_since.is_none() {
            away_since = Some(Instant::now());
            if is_told {
                tracing::warn!(reason, "Redis is away; this node goes on by itself");
            } else {
                tracing::debug!(reason, "the second connection to Redis is away");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Until the connection is gone; answers why, or `None` when nobody needs it any more.
async fn watch_over(
    weak: &Weak<State>,
    mut wire: Wire,
    closed: &Notify,
    alive: &(impl Fn(Duration) + Sync),
) -> Option<String> {
    loop {
        let began = Instant::now();
        match tokio::time::timeout(PULSE_PATIENCE, wire.ping(PULSE_KEY)).await {
            Ok(Ok(())) => alive(began.elapsed()),
            Ok(Err(error)) => return Some(error.to_string()),
            Err(_) => return Some("no answer".to_owned()),
        }
        let state = weak.upgrade()?;
        tokio::select! {
            () = tokio::time::sleep(PULSE) => {}
            () = state.doubted.notified() => {}
            () = closed.notified() => return Some("the connection was closed".to_owned()),
        }
    }
}

/// Passes pushes on, and takes note of the one that says that the connection is closed.
fn watched(closed: &Arc<Notify>, pushed: &Option<Pushed>) -> Pushed {
    let (closed, pushed) = (Arc::clone(closed), pushed.clone());
    Arc::new(move |info: PushInfo| {
        if info.kind == PushKind::Disconnection {
            closed.notify_one();
        } else if let Some(pushed) = &pushed {
            pushed(info);
        }
    })
}
