//! Delivers to one target: claims what is due, posts it, notes what became of it.
//!
//! A round takes what is due, conversations beside each other and the events of one after the other;
//! the next round begins when it is done. While nothing arrives, a single delivery knocks at the
//! target and all others keep their attempts. A target that hangs holds up nobody but itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::watch;
use url::Url;

use super::{schedule::Schedule, signature::Signer};
use crate::{
    chat::{Chat, WebhookBody},
    clock::Clock,
    errors::Result,
    metrics::{self, WebhookOutcome},
    shared::outbound::{Answered, Failure, Outbound, retry_after},
    storage::webhooks::{DeliveryRow, Outbox, OutboxTarget},
};

/// Deliveries claimed at once.
const ROUND: i64 = 128;
/// Requests under way to one target.
const CONCURRENCY: usize = 16;
/// So many failures without a success end a round: the target is down, not the delivery wrong.
const DOWN_AFTER: u32 = 8;
/// How often the queue is looked at when nothing woke the worker: other nodes write to it too.
const POLL: Duration = Duration::from_secs(2);
/// What is written within this time goes out in one round.
const FOLD: Duration = Duration::from_millis(25);
/// While the database is away.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait that a target may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

pub(super) struct Worker {
    pub(super) chat: Chat,
    pub(super) outbox: Arc<Outbox>,
    /// The target's place in the outbox.
    pub(super) index: usize,
    pub(super) url: Url,
    pub(super) outbound: Outbound,
    pub(super) signer: Arc<Signer>,
    pub(super) schedule: Schedule,
    pub(super) include_text: bool,
    pub(super) timeout: Duration,
    pub(super) clock: Clock,
    pub(super) stopped: watch::Receiver<bool>,
}

/// What became of a claimed delivery.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Delivered,
    /// What it is about is no longer there.
    Dropped,
    Failed {
        error: String,
        retry_after: Option<Duration>,
    },
    /// 410: the target wants nothing any more.
    Gone,
    /// Not attempted.
    Skipped,
}

/// What the deliveries of a round know of each other.
struct Round {
    began: Instant,
    has_success: AtomicBool,
    failures: AtomicU32,
    is_over: AtomicBool,
}

/// What a round came to.
#[derive(Debug, Default)]
struct Summary {
    attempted: usize,
    arrived: usize,
    wait: Option<Duration>,
}

impl Worker {
    pub(super) async fn run(self) {
        let mut failed_rounds = 0_u32;
        loop {
            if *self.stopped.borrow() {
                return;
            }
            let pause = match self.work(failed_rounds).await {
                Ok(Some(summary)) if summary.attempted > 0 && summary.arrived == 0 => {
                    failed_rounds = failed_rounds.saturating_add(1);
                    let pause = self.schedule.pause(failed_rounds);
                    Some(summary.wait.map_or(pause, |wait| wait.max(pause)))
                }
                Ok(Some(summary)) => {
                    if summary.arrived > 0 {
                        failed_rounds = 0;
                    }
                    summary.wait
                }
                Ok(None) => {
                    self.rest().await;
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "webhooks cannot be delivered: the database does not answer");
                    Some(RETRY)
                }
            };
            if let Some(pause) = pause {
                self.pause(pause).await;
            }
        }
    }

    fn target(&self) -> &OutboxTarget {
        &self.outbox.targets()[self.index]
    }

    /// A round; `None` if nothing is due.
    async fn work(&self, failed_rounds: u32) -> Result<Option<Summary>> {
        let (store, target) = (self.chat.store(), self.target());
        // On every round: another node may have heard that it is gone, or that it is back.
        let is_disabled = store.disabled_webhook_targets().await?.contains_key(&target.url);
        target.is_disabled.store(is_disabled, Ordering::Relaxed);
        if is_disabled {
            store.bury_webhooks(&target.url, GONE).await?;
            return Ok(None);
        }
        let limit = if failed_rounds == 0 { ROUND } else { 1 };
        let claimed = store.claim_webhooks(&target.url, limit, self.lease()).await?;
        if claimed.is_empty() {
            return Ok(None);
        }
        let round = Round {
            began: Instant::now(),
            has_success: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            is_over: AtomicBool::new(false),
        };
        let bodies = self.chat.webhook_bodies(&claimed, self.include_text).await?;
        let mut outcomes = std::pin::pin!(
            futures_util::stream::iter(lines(claimed))
                .map(|line| self.deliver_line(line, &bodies, &round))
                .buffer_unordered(CONCURRENCY)
                .ready_chunks(CONCURRENCY)
        );
        let mut summary = Summary::default();
        while let Some(settled) = outcomes.next().await {
            self.settle(settled.into_iter().flatten().collect(), &mut summary).await?;
        }
        Ok(Some(summary))
    }

    /// Four requests after each other must fit in: what would not is given back.
    fn lease(&self) -> Duration {
        self.timeout * 4 + Duration::from_secs(2)
    }

    /// The events of one conversation, one after the other.
    async fn deliver_line(
        &self,
        line: Vec<DeliveryRow>,
        bodies: &HashMap<i64, WebhookBody>,
        round: &Round,
    ) -> Vec<(DeliveryRow, Outcome)> {
        let mut outcomes = Vec::with_capacity(line.len());
        for delivery in line {
            let is_late = round.began.elapsed() + self.timeout > self.lease();
            let outcome = if is_late || round.is_over.load(Ordering::Relaxed) || *self.stopped.borrow() {
                Outcome::Skipped
            } else {
                self.deliver(&delivery, bodies.get(&delivery.id)).await
            };
            match &outcome {
                Outcome::Delivered => round.has_success.store(true, Ordering::Relaxed),
                Outcome::Failed { retry_after, .. } => {
                    let failures = round.failures.fetch_add(1, Ordering::Relaxed) + 1;
                    let is_down = failures >= DOWN_AFTER && !round.has_success.load(Ordering::Relaxed);
                    if is_down || retry_after.is_some() {
                        round.is_over.store(true, Ordering::Relaxed);
                    }
                }
                Outcome::Gone => round.is_over.store(true, Ordering::Relaxed),
                Outcome::Dropped | Outcome::Skipped => {}
            }
            outcomes.push((delivery, outcome));
        }
        outcomes
    }

    async fn deliver(&self, delivery: &DeliveryRow, body: Option<&WebhookBody>) -> Outcome {
        let body = match body {
            Some(WebhookBody::Ready(body)) => body.clone(),
            Some(WebhookBody::Missing) | None => return Outcome::Dropped,
            Some(WebhookBody::Unknown) => {
                let error = "this version does not know the event".to_owned();
                return Outcome::Failed { error, retry_after: None };
            }
        };
        let timestamp = self.clock.now().as_seconds();
        let Some(headers) =
            headers(&delivery.event_id, timestamp, &self.signer.sign(&delivery.event_id, timestamp, &body))
        else {
            return Outcome::Failed { error: "the event has no usable id".to_owned(), retry_after: None };
        };
        match self.outbound.post(&self.url, headers, body).await {
            Ok(answered) => self.judge(&answered),
            Err(failure @ (Failure::NotPublic | Failure::TimedOut | Failure::Unreachable)) => {
                Outcome::Failed { error: failure.to_string(), retry_after: None }
            }
        }
    }

    fn judge(&self, answered: &Answered) -> Outcome {
        match answered.status {
            status if status.is_success() => Outcome::Delivered,
            StatusCode::GONE => Outcome::Gone,
            status => Outcome::Failed {
                error: format!("answered {}", status.as_u16()),
                retry_after: retry_after(&answered.headers, self.clock.now(), LONGEST_WAIT),
            },
        }
    }

    /// Notes what became of deliveries.
    async fn settle(&self, outcomes: Vec<(DeliveryRow, Outcome)>, summary: &mut Summary) -> Result<()> {
        let (store, now) = (self.chat.store(), self.clock.now());
        let (mut done, mut released) = (Vec::new(), Vec::new());
        for (delivery, outcome) in outcomes {
            let counted = match outcome {
                Outcome::Skipped => {
                    released.push(delivery.id);
                    continue;
                }
                Outcome::Delivered => {
                    done.push(delivery.id);
                    summary.arrived += 1;
                    WebhookOutcome::Delivered
                }
                Outcome::Dropped => {
                    done.push(delivery.id);
                    WebhookOutcome::Dropped
                }
                Outcome::Failed { error, retry_after } => {
                    summary.attempted += 1;
                    summary.wait = summary.wait.max(retry_after);
                    let again = self.schedule.after(delivery.attempts);
                    let again = again.map(|step| now.plus(retry_after.map_or(step, |wait| wait.max(step))));
                    tracing::info!(
                        event_id = delivery.event_id,
                        event = delivery.event,
                        attempt = delivery.attempts,
                        error,
                        is_last = again.is_none(),
                        "a webhook did not arrive"
                    );
                    store.webhook_failed(delivery.id, delivery.attempts, again, &error).await?;
                    if again.is_some() { WebhookOutcome::Failed } else { WebhookOutcome::Dead }
                }
                Outcome::Gone => {
                    summary.attempted += 1;
                    tracing::warn!("a target of webhooks answered 410 and gets none any more until a replay");
                    let target = self.target();
                    target.is_disabled.store(true, Ordering::Relaxed);
                    store.disable_webhook_target(&target.url).await?;
                    store.webhook_failed(delivery.id, delivery.attempts, None, GONE).await?;
                    WebhookOutcome::Dead
                }
            };
            metrics::get().webhook(&delivery.event, counted);
        }
        if !done.is_empty() {
            store.webhooks_delivered(&done).await?;
        }
        if !released.is_empty() {
            store.release_webhooks(&released).await?;
        }
        Ok(())
    }

    /// Until something is written, due, or worth a look.
    async fn rest(&self) {
        let due = self.chat.store().next_webhook_due(&self.target().url).await.ok().flatten();
        let wait = due.map_or(POLL, |due| due.since(self.clock.now()).clamp(Duration::from_millis(5), POLL));
        tokio::select! {
            () = self.target().written.notified() => self.pause(FOLD).await,
            () = self.pause(wait) => {}
        }
    }

    async fn pause(&self, wait: Duration) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}

const GONE: &str = "answered 410: the target is gone";

/// Deliveries by conversation, in their order; those without one stand alone.
fn lines(claimed: Vec<DeliveryRow>) -> Vec<Vec<DeliveryRow>> {
    let mut lines: BTreeMap<(i64, i64), Vec<DeliveryRow>> = BTreeMap::new();
    for delivery in claimed {
        let key = delivery.conversation_id.map_or((0, delivery.id), |conversation| (conversation.0, 0));
        lines.entry(key).or_default().push(delivery);
    }
    let mut lines: Vec<_> = lines.into_values().collect();
    lines.sort_by_key(|line| line.first().map(|delivery| delivery.id));
    lines
}

fn headers(id: &str, timestamp: i64, signature: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("webhook-id"), HeaderValue::from_str(id).ok()?);
    headers.insert(HeaderName::from_static("webhook-timestamp"), timestamp.into());
    headers.insert(HeaderName::from_static("webhook-signature"), HeaderValue::from_str(signature).ok()?);
    Some(headers)
}
