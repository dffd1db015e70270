//! What is counted while the service works: one set for the process, told at `/metrics`.
//!
//! Whoever counts calls one method of [`Metrics`]; names, labels and buckets are here alone and listed
//! in `docs/metrics.md`, which a test compares. What can be looked at when somebody asks (connections,
//! queues, memory) is not counted but read then, in `snapshot` and `process`. No label ever holds a
//! user, a token, a text or anything else of which there is no short list.

mod process;
mod series;
mod snapshot;

use std::{sync::LazyLock, time::Duration};

use http::{Method, StatusCode};
use prometheus_client::{
    encoding::{prometheus_text, text as open_metrics_text},
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

pub use snapshot::{Dependency, Snapshot};

use self::series::{Counters, Grid, Histograms, LazyCounters, histogram};
use crate::{
    errors::{Error, Result},
    identity::main_api::Cause,
    limits::Kind,
    storage::{
        batch::{Applied, Batch, ReceiptKind, Sent},
        rows::MessageType,
        webhooks::WebhookEvent,
    },
};

/// The `Content-Type` of the exposition.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The `Content-Type` of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a fast commit on a good disk to the longest that anybody waits.
const SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0];
/// To the largest batch that a writer takes.
const BATCH_SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const TYPES: [&str; 5] = ["text", "image", "file", "system", "offer"];
const OUTCOMES: [&str; 4] = ["stored", "replayed", "refused", "failed"];
const WEBHOOK_OUTCOMES: [&str; 4] = ["delivered", "failed", "dead", "dropped"];
/// Push services, as `notify` calls them.
const PUSH_SERVICES: [&str; 3] = ["fcm", "apns", "web_push"];
const PUSH_OUTCOMES: [&str; 7] =
    ["sent", "dead_token", "rejected", "gave_up", "dropped", "withdrawn", "retried"];
const CACHES: [&str; 2] = ["users", "products"];
const ANSWERS: [&str; 8] =
    ["ok", "refused", "server_error", "redirected", "timed_out", "unreachable", "busy", "unusable"];

const EMAILS: [&str; 5] = ["sent", "withdrawn", "retried", "refused", "given_up"];

/// The counts of this process since its start. Services that share a process share them.
pub fn get() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// What a message came to.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Stored,
    Replayed,
    Refused,
    Failed,
}

/// What a push to one device came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The push service took it.
    Sent,
    /// There is no such device any more; it was forgotten.
    DeadToken,
    /// The push service will not take it.
    Rejected,
    /// It failed too often, or for too long.
    GaveUp,
    /// Too many waited for this push service.
    Dropped,
    /// It was read before it could be sent.
    Withdrawn,
    /// It failed and is tried again; counted besides what becomes of it.
    Retried,
}

/// Where a token was found (see `identity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLookUp {
    /// In memory, and valid.
    Valid,
    /// In memory, and refused a moment ago.
    Refused,
    /// Nowhere: the main API is asked, or somebody's question to it is joined.
    Unknown,
}

/// What an attempt to deliver a webhook came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// It arrived.
    Delivered,
    /// It is tried again.
    Failed,
    /// It is a dead letter.
    Dead,
    /// What it is about is no longer there.
    Dropped,
}

/// What an attempt to mail somebody came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailOutcome {
    /// The mail server has it.
    Sent,
    /// There was nothing left to tell of.
    Withdrawn,
    /// It is tried again later.
    Retried,
    /// There is no such mailbox.
    Refused,
    /// It is not tried again.
    GivenUp,
}

/// Where users and products are kept in memory (see `identity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardCache {
    /// Names and pictures.
    Users,
    /// What conversations are about.
    Products,
}

/// What is told to others about the service itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Sentry.
    Reports,
    /// The collector of traces.
    Traces,
}

/// Handles of everything that is counted. They are made once: counting is an addition to an atomic, of
/// a histogram a short lock, taken once a batch or request and never once an event.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages: Grid<{ TYPES.len() }, { OUTCOMES.len() }>,
    receipts: Counters<2>,
    batch_commands: Histogram,
    batch_seconds: Histogram,
    delivery_seconds: Histogram,
    events_delivered: Counter,
    stream_gaps: Counter,
    publications: Counter,
    publications_lost: Counter,
    live_events: LazyCounters<2>,
    requests: LazyCounters<3>,
    request_seconds: Histograms<2>,
    token_lookups: Counters<3>,
    main_api_requests: Counters<{ ANSWERS.len() }>,
    main_api_seconds: Histogram,
    rate_limited: Counters<{ Kind::ALL.len() }>,
    drift_repairs: Counter,
    webhooks: Grid<{ WebhookEvent::ALL.len() }, { WEBHOOK_OUTCOMES.len() }>,
    emails: Counters<{ EMAILS.len() }>,
    notifications: Grid<{ PUSH_SERVICES.len() }, { PUSH_OUTCOMES.len() }>,
    notification_seconds: Histogram,
    cache_lookups: Grid<{ CACHES.len() }, 2>,
    log_lines: Counters<2>,
    panics: Counter,
    telemetry_dropped: Counters<2>,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        let all = &mut registry;
        Self {
            messages: Grid::new(
                all,
                "messaging_messages",
                "Messages by what became of them",
                ["type", "outcome"],
                TYPES,
                OUTCOMES,
            ),
            receipts: Counters::new(
                all,
                "messaging_receipts",
                "Messages marked as delivered or read",
                "kind",
                ["delivered", "read"],
            ),
            batch_commands: histogram(
                all,
                "messaging_batch_commands",
                "Messages and marks in one committed batch",
                &BATCH_SIZES,
            ),
            batch_seconds: histogram(
                all,
                "messaging_batch_commit_seconds",
                "How long a batch took to commit",
                &SECONDS,
            ),
            delivery_seconds: histogram(
                all,
                "messaging_delivery_seconds",
                "From a checked message in the queue until it is committed, handed to the live connections here and confirmed",
                &SECONDS,
            ),
            events_delivered: series::counter(
                all,
                "messaging_events_delivered",
                "Stored events handed to live connections, one for each connection",
            ),
            stream_gaps: series::counter(
                all,
                "messaging_stream_gaps",
                "Gaps in users' streams that were filled from their logs",
            ),
            publications: series::counter(
                all,
                "messaging_publications",
                "Publications to other nodes through Redis, each with all that came together for a user",
            ),
            publications_lost: series::counter(
                all,
                "messaging_publications_lost",
                "Events that could not be published; other nodes read them from the log",
            ),
            live_events: LazyCounters::new(
                all,
                "messaging_live_events",
                "Events of clients by their outcome, ok or the code of the error",
                ["event", "outcome"],
            ),
            requests: LazyCounters::new(
                all,
                "messaging_http_requests",
                "Answered requests",
                ["method", "route", "status"],
            ),
            request_seconds: Histograms::new(
                all,
                "messaging_http_request_seconds",
                "How long requests took to answer",
                ["method", "route"],
                || Histogram::new(SECONDS),
            ),
            token_lookups: Counters::new(
                all,
                "messaging_token_lookups",
                "Tokens looked up in memory: known as valid, known as refused, or unknown",
                "result",
                ["valid", "refused", "unknown"],
            ),
            main_api_requests: Counters::new(
                all,
                "messaging_main_api_requests",
                "Questions to the main API by its answer",
                "outcome",
                ANSWERS,
            ),
            main_api_seconds: histogram(
                all,
                "messaging_main_api_seconds",
                "How long the main API took to answer, the wait for a free place included",
                &SECONDS,
            ),
            rate_limited: Counters::new(
                all,
                "messaging_rate_limited",
                "Requests and events refused by a rate limit",
                "kind",
                Kind::ALL.map(Kind::name),
            ),
            drift_repairs: series::counter(
                all,
                "messaging_drift_repairs",
                "Unread counters that were found wrong and repaired",
            ),
            webhooks: Grid::new(
                all,
                "messaging_webhook_deliveries",
                "Attempts to deliver webhooks by what became of them",
                ["event", "outcome"],
                WebhookEvent::ALL.map(WebhookEvent::name),
                WEBHOOK_OUTCOMES,
            ),
            emails: Counters::new(
                all,
                "messaging_emails",
                "Mails about unread messages by what an attempt to send them came to",
                "outcome",
                EMAILS,
            ),
            notifications: Grid::new(
                all,
                "messaging_notifications",
                "Pushes to one device by what became of them",
                ["provider", "outcome"],
                PUSH_SERVICES,
                PUSH_OUTCOMES,
            ),
            notification_seconds: histogram(
                all,
                "messaging_notification_seconds",
                "From a message's commit until a push service took the push, of those not put off by a burst",
                &SECONDS,
            ),
            cache_lookups: Grid::new(
                all,
                "messaging_cache_lookups",
                "Users and products looked up in memory",
                ["cache", "result"],
                CACHES,
                ["hit", "miss"],
            ),
            log_lines: Counters::new(
                all,
                "messaging_log_lines",
                "Errors and warnings, written or held back as repeated",
                "level",
                ["error", "warn"],
            ),
            panics: series::counter(all, "messaging_panics", "Panics, each of which is a defect"),
            telemetry_dropped: Counters::new(
                all,
                "messaging_telemetry_dropped",
                "Reports to Sentry and spans for the collector that were lost",
                "kind",
                ["report", "span"],
            ),
            registry,
        }
    }

    /// A batch was committed.
    pub fn batch_committed(&self, batch: &Batch, applied: &Applied, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has a few hundred commands")]
        self.batch_commands.observe((batch.sends.len() + batch.receipts.len()) as f64);
        self.batch_seconds.observe(took.as_secs_f64());
        for (send, outcome) in batch.sends.iter().zip(&applied.sends) {
            self.message(
                send.kind,
                match outcome {
                    Ok(Sent::New { .. }) => Outcome::Stored,
                    Ok(Sent::Before(_)) => Outcome::Replayed,
                    Err(_) => Outcome::Refused,
                },
            );
        }
        for (receipt, outcome) in batch.receipts.iter().zip(&applied.receipts) {
            if let Ok(receipted) = outcome {
                let kind = match receipt.kind {
                    ReceiptKind::Delivered => 0,
                    ReceiptKind::Read => 1,
                };
                self.receipts.add(kind, receipted.message_ids.len() as u64);
            }
        }
    }

    /// A batch was given up.
    pub fn batch_failed(&self, batch: &Batch) {
        for send in &batch.sends {
            self.message(send.kind, Outcome::Failed);
        }
    }

    fn message(&self, kind: MessageType, outcome: Outcome) {
        self.messages.add(kind as usize, outcome as usize, 1);
    }

    /// A message that waited so long is confirmed.
    pub fn message_confirmed(&self, after: Duration) {
        self.delivery_seconds.observe(after.as_secs_f64());
    }

    /// A stored event was handed to so many connections.
    pub fn event_delivered(&self, connections: usize) {
        self.events_delivered.inc_by(connections as u64);
    }

    /// A user's stream has a gap, which is filled from the log.
    pub fn stream_gap(&self) {
        self.stream_gaps.inc();
    }

    /// So much was published to other nodes.
    pub fn published(&self, publications: usize) {
        self.publications.inc_by(publications as u64);
    }

    /// Something could not be published.
    pub fn publication_lost(&self) {
        self.publications_lost.inc();
    }

    /// An event of a client was answered. Clients make names up: only those that exist may come here.
    pub fn live_event<T>(&self, name: &'static str, outcome: &Result<T>) {
        self.live_events.add([name, outcome.as_ref().map_or_else(Error::code, |_| "ok")]);
    }

    /// A request was answered; `route` is the path of the list of routes, `None` where none matched.
    pub fn request_answered(&self, method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            Method::HEAD => "HEAD",
            Method::OPTIONS => "OPTIONS",
            _ => "other",
        };
        let route = route.unwrap_or("none");
        self.requests.add([method, route, status.as_str()]);
        self.request_seconds.observe([method, route], took.as_secs_f64());
    }

    /// A token was looked up.
    pub fn token_looked_up(&self, found: TokenLookUp) {
        self.token_lookups.add(found as usize, 1);
    }

    /// The main API answered a question, or did not.
    pub fn main_api_answered(&self, answer: std::result::Result<StatusCode, Cause>, took: Duration) {
        let place = match answer {
            Ok(status) if status.is_success() => 0,
            Ok(status) if status.is_client_error() => 1,
            Ok(status) if status.is_server_error() => 2,
            Ok(status) if status.is_redirection() => 3,
            Err(Cause::TimedOut) => 4,
            Err(Cause::Unreachable) => 5,
            Err(Cause::Busy) => 6,
            Ok(_) | Err(_) => 7,
        };
        self.main_api_requests.add(place, 1);
        self.main_api_seconds.observe(took.as_secs_f64());
    }

    /// A rate limit refused something.
    pub fn rate_limited(&self, kind: Kind) {
        self.rate_limited.add(kind as usize, 1);
    }

    /// An unread counter was wrong and is repaired.
    pub fn drift_repaired(&self) {
        self.drift_repairs.inc();
    }

    /// A webhook was attempted. Events of newer versions are not counted.
    pub fn webhook(&self, event: &str, outcome: WebhookOutcome) {
        if let Some(event) = WebhookEvent::parse(event) {
            self.webhooks.add(event as usize, outcome as usize, 1);
        }
    }

    /// An attempt to mail somebody ended.
    pub fn email(&self, outcome: EmailOutcome) {
        self.emails.add(outcome as usize, 1);
    }

    /// A push to one device came to something.
    pub fn pushed(&self, service: &str, outcome: PushOutcome) {
        if let Some(place) = PUSH_SERVICES.iter().position(|name| *name == service) {
            self.notifications.add(place, outcome as usize, 1);
        }
    }

    /// A push was taken so long after its message was committed.
    pub fn push_sent(&self, after: Duration) {
        self.notification_seconds.observe(after.as_secs_f64());
    }

    /// So many users or products were asked for, and so many of them were not in memory.
    pub fn cache_looked_up(&self, cache: CardCache, asked: usize, missing: usize) {
        self.cache_lookups.add(cache as usize, 0, asked.saturating_sub(missing) as u64);
        self.cache_lookups.add(cache as usize, 1, missing as u64);
    }

    /// A line was logged.
    pub fn logged(&self, level: tracing::Level) {
        match level {
            tracing::Level::ERROR => self.log_lines.add(0, 1),
            tracing::Level::WARN => self.log_lines.add(1, 1),
            _ => {}
        }
    }

    /// Something panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// So many reports or spans could not be handed on.
    pub fn telemetry_dropped(&self, sink: Sink, count: usize) {
        self.telemetry_dropped.add(sink as usize, count as u64);
    }

    /// Everything in the Prometheus text format: what was counted, how things stand, and the process.
    pub fn exposition(&self, snapshot: &Snapshot) -> Result<String> {
        let mut text = String::new();
        for registry in [&self.registry, &snapshot.registry(), &process::registry()] {
            prometheus_text::encode(&mut text, registry).map_err(Error::internal)?;
        }
        Ok(text)
    }

    /// The same as OpenMetrics 1.0.
    pub fn open_metrics(&self, snapshot: &Snapshot) -> Result<String> {
        let mut text = String::new();
        for registry in [&self.registry, &snapshot.registry(), &process::registry()] {
            open_metrics_text::encode_registry(&mut text, registry).map_err(Error::internal)?;
        }
        open_metrics_text::encode_eof(&mut text).map_err(Error::internal)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_kinds_stand_at_their_numbers() {
        for kind in [
            MessageType::Text,
            MessageType::Image,
            MessageType::File,
            MessageType::System,
            MessageType::Offer,
        ] {
            assert_eq!(TYPES[kind as usize], kind.as_str());
        }
        for (outcome, name) in [
            (Outcome::Stored, "stored"),
            (Outcome::Replayed, "replayed"),
            (Outcome::Refused, "refused"),
            (Outcome::Failed, "failed"),
        ] {
            assert_eq!(OUTCOMES[outcome as usize], name);
        }
        for (outcome, name) in [
            (EmailOutcome::Sent, "sent"),
            (EmailOutcome::Withdrawn, "withdrawn"),
            (EmailOutcome::Retried, "retried"),
            (EmailOutcome::Refused, "refused"),
            (EmailOutcome::GivenUp, "given_up"),
        ] {
            assert_eq!(EMAILS[outcome as usize], name);
        }
        for (outcome, name) in [
            (PushOutcome::Sent, "sent"),
            (PushOutcome::DeadToken, "dead_token"),
            (PushOutcome::Rejected, "rejected"),
            (PushOutcome::GaveUp, "gave_up"),
            (PushOutcome::Dropped, "dropped"),
            (PushOutcome::Withdrawn, "withdrawn"),
            (PushOutcome::Retried, "retried"),
        ] {
            assert_eq!(PUSH_OUTCOMES[outcome as usize], name);
        }
    }

    #[test]
    fn a_method_that_a_client_makes_up_does_not_become_a_label() {
        let metrics = Metrics::new();
        metrics.request_answered(
            &Method::from_bytes(b"MADEUP").expect("a method"),
            None,
            StatusCode::NOT_FOUND,
            Duration::ZERO,
        );
        let text = metrics.exposition(&Snapshot::default()).expect("text");
        assert!(
            text.contains(r#"messaging_http_requests_total{method="other",route="none",status="404"} 1"#)
        );
        assert!(!text.contains("MADEUP"));
    }
}
