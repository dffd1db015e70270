//! Reports of panics and internal errors to Sentry (`SENTRY_DSN`), with what finds them again and nothing of
//! anybody: no body, token, user, address, path or text.
//!
//! What may be in a report is listed here; whatever else an event in the log says stays in the log. Errors come
//! from `logging`, panics from the hook; a task sends them and never holds anybody up.

use std::{
    borrow::Cow,
    collections::HashMap,
    panic::PanicHookInfo,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use parking_lot::Mutex;
use reqwest::Client;
use sentry_types::{
    Dsn,
    protocol::v7::{Envelope, Event, Exception, Level, Map},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    clock::Clock,
    config::{Config, ConfigError},
    context::Context,
    logging::{Fields, scrub::scrub_quoted},
    metrics::{self, Sink},
    traces,
};

/// Reports that may wait; more are dropped and counted.
const MAX_WAITING: usize = 64;
/// The same fault is reported once in this time: the first says what is wrong, a count is in the metrics.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Kinds of faults that are told apart.
const MAX_KINDS: usize = 256;
/// How long to keep quiet where Sentry says "too many" and not for how long.
const PAUSE: Duration = Duration::from_secs(60);
/// The fields of a line that go into a report: short words of ours and numbers.
const TAGS: [&str; 8] =
    ["request_id", "connection_id", "method", "route", "status", "cause", "reason", "attempts"];

static REPORTER: OnceLock<Reporter> = OnceLock::new();

#[derive(Debug)]
struct Reporter {
    queue: mpsc::Sender<Parcel>,
    environment: &'static str,
    lately: Mutex<HashMap<String, Instant>>,
    /// How many of them `lately` kept back.
    kept_back: AtomicU32,
}

#[derive(Debug)]
enum Parcel {
    Report(Box<Event<'static>>),
    /// Answered when everything before it is out.
    Flush(oneshot::Sender<()>),
}

/// Starts reporting, if there is somebody to report to; a second call keeps the first.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let Some(dsn) = &config.sentry_dsn else { return Ok(()) };
    if REPORTER.get().is_some() {
        return Ok(());
    }
    let url = dsn.envelope_api_url().to_string();
    let agent = concat!("rented-messaging/", env!("CARGO_PKG_VERSION"));
    let mut auth = HeaderValue::try_from(dsn.to_auth(Some(agent)).to_string())
        .map_err(|_| ConfigError::new("SENTRY_DSN", "has a key that HTTP does not allow."))?;
    auth.set_sensitive(true);
    let headers = HeaderMap::from_iter([
        (HeaderName::from_static("x-sentry-auth"), auth),
        (CONTENT_TYPE, HeaderValue::from_static("application/x-sentry-envelope")),
    ]);
    let client = traces::client(&url, headers).map_err(|_| {
        ConfigError::new("SENTRY_DSN", "is https, but this machine has no usable CA certificates.")
    })?;
    let (queue, parcels) = mpsc::channel(MAX_WAITING);
    tokio::spawn(send(client, url, parcels));
    let environment = if config.environment.is_production() { "production" } else { "development" };
    let _ =
        REPORTER.set(Reporter { queue, environment, lately: Mutex::default(), kept_back: AtomicU32::new(0) });
    Ok(())
}

/// Whether there is somebody to report to.
pub fn is_on() -> bool {
    REPORTER.get().is_some()
}

/// Waits until the reports so far are out, at most this long.
pub async fn flush(patience: Duration) {
    let Some(reporter) = REPORTER.get() else { return };
    let _ = tokio::time::timeout(patience, async {
        let (done, out) = oneshot::channel();
        if reporter.queue.send(Parcel::Flush(done)).await.is_ok() {
            let _ = out.await;
        }
    })
    .await;
}

/// Makes a panic a line in the log, where the standard hook would print its text, which may hold anything.
pub fn watch_panics() {
    std::panic::set_hook(Box::new(|info| {
        metrics::get().panicked();
        let thread = std::thread::current();
        let location = info.location().map_or_else(String::new, ToString::to_string);
        let reason = scrub_quoted(text_of(info));
        // `error` makes it a report too.
        tracing::error!(
            location,
            thread = thread.name().unwrap_or_default(),
            error = reason,
            "panicked at {location}"
        );
    }));
}

fn text_of<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    info.payload_as_str().unwrap_or("without a text")
}

/// Reports a line of the log.
pub(crate) fn report(target: &str, fields: &Fields, context: &Context) {
    let Some(reporter) = REPORTER.get() else { return };
    if reporter.was_told_lately(fault_of(target, fields)) {
        return;
    }
    let event = event_of(target, fields, context, reporter);
    if reporter.queue.try_send(Parcel::Report(Box::new(event))).is_err() {
        metrics::get().telemetry_dropped(Sink::Reports, 1);
    }
}

/// What makes two lines the same fault: where, what, and at which route or event, not for whom.
fn fault_of(target: &str, fields: &Fields) -> String {
    let mut fault = format!("{target} {}", fields.message);
    for (name, value) in &fields.values {
        if matches!(*name, "route" | "error") {
            fault.push(' ');
            fault.push_str(&value.to_string());
        }
    }
    fault
}

impl Reporter {
    fn was_told_lately(&self, fault: String) -> bool {
        let now = Instant::now();
        let mut lately = self.lately.lock();
        lately.retain(|_, told| now.duration_since(*told) < REPEAT_AFTER);
        let is_repeated = lately.contains_key(&fault) || lately.len() >= MAX_KINDS;
        if is_repeated {
            self.kept_back.fetch_add(1, Ordering::Relaxed);
        } else {
            lately.insert(fault, now);
        }
        is_repeated
    }
}

fn event_of(target: &str, fields: &Fields, context: &Context, reporter: &Reporter) -> Event<'static> {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let mut tags: Map<String, String> = Map::new();
    if let Some(id) = &context.request_id {
        tags.insert("request_id".into(), id.to_string());
    }
    if let Some(id) = context.connection_id {
        tags.insert("connection_id".into(), id.to_string());
    }
    if let Some(trace) = &context.trace {
        tags.insert("trace_id".into(), trace.trace_id());
    }
    let mut value = None;
    let mut location = None;
    for (name, field) in &fields.values {
        match *name {
            "error" => value = Some(scrub_quoted(&word(field))),
            "location" => location = Some(word(field)),
            name if TAGS.contains(&name) => {
                tags.insert(name.into(), scrub_quoted(&word(field)));
            }
            _ => {}
        }
    }
    let kept_back = reporter.kept_back.swap(0, Ordering::Relaxed);
    if kept_back > 0 {
        tags.insert("kept_back".into(), kept_back.to_string());
    }
    let exception = Exception {
        ty: scrub_quoted(&fields.message),
        value,
        module: Some(target.to_owned()),
        ..Exception::default()
    };
    Event {
        event_id: uuid::Uuid::new_v4(),
        level: if location.is_some() { Level::Fatal } else { Level::Error },
        culprit: location,
        logger: Some(target.to_owned()),
        timestamp: Clock::System.now().to_datetime().into(),
        release: Some(Cow::Borrowed(concat!("rented-messaging@", env!("CARGO_PKG_VERSION")))),
        environment: Some(Cow::Borrowed(reporter.environment)),
        exception: vec![exception].into(),
        tags,
        ..Event::default()
    }
}

async fn send(client: Client, url: String, mut parcels: mpsc::Receiver<Parcel>) {
    let mut quiet_until = Instant::now();
    while let Some(parcel) = parcels.recv().await {
        let event = match parcel {
            Parcel::Report(event) => event,
            Parcel::Flush(done) => {
                drop(done);
                continue;
            }
        };
        let mut body = Vec::new();
        let is_written = Envelope::from(*event).to_writer(&mut body).is_ok();
        if !is_written || Instant::now() < quiet_until {
            metrics::get().telemetry_dropped(Sink::Reports, 1);
            continue;
        }
        // A warning is no report of its own: a Sentry that is away does not feed itself.
        match client.post(&url).body(body).send().await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                    let seconds = answer.headers().get(http::header::RETRY_AFTER);
                    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
                    quiet_until = Instant::now() + seconds.map_or(PAUSE, Duration::from_secs).min(60 * PAUSE);
                }
                metrics::get().telemetry_dropped(Sink::Reports, 1);
                tracing::warn!(status = answer.status().as_u16(), "Sentry took no report");
            }
            Err(error) => {
                metrics::get().telemetry_dropped(Sink::Reports, 1);
                tracing::warn!(error = %error.without_url(), "Sentry took no report");
            }
        }
    }
}

/// What the DSN is, or the rule it breaks.
pub(crate) fn parse_dsn(value: &str) -> Result<Dsn, String> {
    value.parse().map_err(|_| "must be a DSN such as https://key@sentry.example.test/1.".to_owned())
}
