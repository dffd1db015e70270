//! One push service's way out: so many pushes wait, so many are sent at once, failures are tried again.
//!
//! Each service has its own, so that one that hangs fills its own places and nobody else's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::Rng;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until},
};

use super::{
    REQUEST_TIMEOUT,
    message::Push,
    provider::{Answer, Provider},
};
use crate::{
    metrics::{self, PushOutcome},
    storage::{
        Store,
        notifications::{Claim, PushDevice},
    },
};

/// Pushes of one service that may wait, those that wait for their next try included.
const MAX_WAITING: usize = 2048;
/// Requests to one service at once.
const AT_ONCE: usize = 32;
/// Tries of one push under one claim.
const MAX_TRIES: u32 = 4;
/// The first pause between two tries is up to this long, each later one up to twice the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// So many failures in a row, and the service is left alone for a moment.
const FAILURES: u32 = 8;
/// For this long.
const REST: Duration = Duration::from_secs(5);
/// The longest that all wait because one was told to: the limit may have been that one device's.
const MAX_REST: Duration = Duration::from_secs(60);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    provider: Provider,
    store: Store,
    waiting: Arc<Semaphore>,
    at_once: Semaphore,
    /// The service asked not to be asked before.
    paused_until: Mutex<Instant>,
    failures: AtomicU32,
}

/// A push to one device.
pub(super) struct Job {
    pub(super) push: Arc<Push>,
    pub(super) device: PushDevice,
    /// The claim that this is sent under; a badge has none.
    pub(super) ticket: Option<Arc<Ticket>>,
    /// When the message was committed, where that is known.
    pub(super) committed_at: Option<Instant>,
    /// Nothing is sent after this: the claim is about to lapse.
    pub(super) deadline: Instant,
}

/// A claim that several devices are pushed under; when the last of them is done it is settled, or left
/// to lapse if no device got it and one may still.
pub(super) struct Ticket {
    pub(super) claim: Claim,
    sent: AtomicBool,
    may_work_later: AtomicBool,
    settled: mpsc::UnboundedSender<(Claim, bool)>,
}

impl Ticket {
    pub(super) fn new(claim: Claim, settled: mpsc::UnboundedSender<(Claim, bool)>) -> Arc<Self> {
        Arc::new(Self {
            claim,
            sent: AtomicBool::new(false),
            may_work_later: AtomicBool::new(false),
            settled,
        })
    }
}

impl Ticket {
    /// Somebody did not get it who may get it later.
    pub(super) fn fail(&self) {
        self.may_work_later.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let sent = *self.sent.get_mut();
        if sent || !*self.may_work_later.get_mut() {
            // Nobody listens only when the service ends: then it lapses.
            let _ = self.settled.send((self.claim, sent));
        }
    }
}

impl Job {
    fn note_sent(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.sent.store(true, Ordering::Relaxed);
        }
    }

    fn note_failed(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.fail();
        }
    }
}

impl Lane {
    pub(super) fn new(provider: Provider, store: Store) -> Self {
        Self {
            inner: Arc::new(Inner {
                provider,
                store,
                waiting: Arc::new(Semaphore::new(MAX_WAITING)),
                at_once: Semaphore::new(AT_ONCE),
                paused_until: Mutex::new(Instant::now()),
                failures: AtomicU32::new(0),
            }),
        }
    }

    pub(super) fn provider(&self) -> &Provider {
        &self.inner.provider
    }

    /// How many pushes wait or are being sent.
    pub(super) fn depth(&self) -> usize {
        MAX_WAITING - self.inner.waiting.available_permits()
    }

    /// Sends a push as soon as there is a place for it. Never waits; with all places taken it is left
    /// to the sweeper.
    pub(super) fn push(&self, job: Job) {
        match Arc::clone(&self.inner.waiting).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(Arc::clone(&self.inner).carry(job, place))),
            Err(_) => {
                job.note_failed();
                metrics::get().pushed(self.inner.provider.name(), PushOutcome::Dropped);
            }
        }
    }
}

impl Inner {
    async fn carry(self: Arc<Self>, job: Job, place: OwnedSemaphorePermit) {
        let outcome = self.try_until_done(&job).await;
        metrics::get().pushed(self.provider.name(), outcome);
        match outcome {
            PushOutcome::Sent => {
                job.note_sent();
                if let Some(committed_at) = job.committed_at {
                    metrics::get().push_sent(committed_at.elapsed());
                }
            }
            PushOutcome::GaveUp | PushOutcome::Dropped => job.note_failed(),
            PushOutcome::DeadToken
            | PushOutcome::Rejected
            | PushOutcome::Withdrawn
            | PushOutcome::Retried => {}
        }
        drop((job, place));
    }

    async fn try_until_done(&self, job: &Job) -> PushOutcome {
        let mut tries = 0;
        loop {
            let paused_until = *self.paused_until.lock();
            if paused_until > Instant::now() {
                if paused_until >= job.deadline {
                    return PushOutcome::GaveUp;
                }
                // Not all at the same moment.
                sleep_until(paused_until + jitter(REST / 5)).await;
                // Another answer may have asked for more time meanwhile.
                continue;
            }
            let gate = self.provider.gate(&job.device).await;
            let Ok(permit) = self.at_once.acquire().await else { return PushOutcome::GaveUp };
            if Instant::now() >= job.deadline {
                return PushOutcome::GaveUp;
            }
            if tries > 0 && !self.is_still_unread(job).await {
                return PushOutcome::Withdrawn;
            }
            // It may wait for more than its own request: an access token that does not come.
            let sending = self.provider.send(&job.device, &job.push);
            let answer = tokio::time::timeout_at(job.deadline + REQUEST_TIMEOUT, sending).await;
            let answer = answer.unwrap_or(Answer::Retry { after: None, reason: "timed out" });
            drop((permit, gate));
            tries += 1;
            match answer {
                Answer::Sent => {
                    self.failures.store(0, Ordering::Relaxed);
                    return PushOutcome::Sent;
                }
                Answer::Dead { since } => {
                    let gone = self.store.forget_dead_device(&job.device.token, since).await;
                    if let Err(error) = gone {
                        // The next push finds it dead again.
                        tracing::warn!(%error, "a dead device could not be forgotten");
                    }
                    return PushOutcome::DeadToken;
                }
                Answer::Rejected(reason) => {
                    tracing::warn!(provider = self.provider.name(), reason, "a push was refused");
                    return PushOutcome::Rejected;
                }
                Answer::Retry { after, reason } => {
                    tracing::debug!(provider = self.provider.name(), reason, tries, "a push failed");
                    let pause =
                        after.unwrap_or_else(|| jitter(FIRST_PAUSE * 2_u32.saturating_pow(tries - 1)));
                    let again = Instant::now() + pause;
                    self.note_failure(after);
                    if tries >= MAX_TRIES || again >= job.deadline {
                        return PushOutcome::GaveUp;
                    }
                    metrics::get().pushed(self.provider.name(), PushOutcome::Retried);
                    sleep_until(again).await;
                }
            }
        }
    }

    /// Leaves the service alone for as long as it asked for, or for a moment after many failures.
    fn note_failure(&self, after: Option<Duration>) {
        if !self.provider.is_one_service() {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let after = after.map(|after| after.min(MAX_REST));
        let rest = after.or_else(|| failures.is_multiple_of(FAILURES).then_some(REST));
        if let Some(rest) = rest {
            let mut paused_until = self.paused_until.lock();
            *paused_until = (*paused_until).max(Instant::now() + rest);
            drop(paused_until);
            tracing::warn!(
                provider = self.provider.name(),
                rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX),
                "a push service is left alone for a while"
            );
        }
    }

    /// Whether there is still something to notify of: it may have been read while this waited.
    async fn is_still_unread(&self, job: &Job) -> bool {
        let Some(ticket) = &job.ticket else { return true };
        let key = (ticket.claim.user, ticket.claim.conversation);
        match self.store.notification_facts(&[key]).await {
            Ok(facts) => facts.first().is_some_and(|facts| facts.seq.is_some()),
            // A push too many is better than one too few.
            Err(_) => true,
        }
    }
}

/// A random part of a duration: those who failed together do not come back together.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random::<f64>())
}
