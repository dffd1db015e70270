//! Traces: what a request, an event of a client or a question to the main API took, for an OpenTelemetry
//! collector (`OTEL_EXPORTER_OTLP_ENDPOINT`). Off, a span is a look at one pointer and nothing else.
//!
//! `parent` reads and continues `traceparent`, `otlp` speaks to the collector. A span has routes, events,
//! statuses and ids of requests and connections in it; never a path, a token or a text.

mod otlp;
mod parent;

use std::{
    borrow::Cow,
    sync::OnceLock,
    time::{Duration, Instant},
};

pub use parent::Parent;

pub(crate) use otlp::client;
use otlp::{Exporter, Kind, SpanMessage, Status, attribute};

use crate::{
    clock::{Clock, Timestamp},
    config::{Config, ConfigError},
};

static TRACER: OnceLock<Tracer> = OnceLock::new();

#[derive(Debug)]
struct Tracer {
    exporter: Exporter,
    /// The share of the traces begun here that are kept.
    share: f64,
    /// Spans begin and end on a clock that never goes back.
    started: (Timestamp, Instant),
}

/// Which side of a question a span is (`SpanKind`).
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub enum Side {
    /// The one that answers.
    Server = 2,
    /// The one that asks.
    Client = 3,
}

/// Starts handing spans to the collector, if there is one; a second call keeps the first.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let settings = &config.traces;
    if settings.endpoint.is_none() || TRACER.get().is_some() {
        return Ok(());
    }
    let environment = if config.environment.is_production() { "production" } else { "development" };
    let instance = uuid::Uuid::new_v4().to_string();
    let resource = [
        ("service.name", settings.service_name.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &instance),
        ("deployment.environment.name", environment),
    ];
    let resource = resource.map(|(key, value)| attribute(key, Kind::Text(value.to_owned())));
    let exporter = Exporter::start(settings, resource.into())?;
    let started = (Clock::System.now(), Instant::now());
    let _ = TRACER.set(Tracer { exporter, share: settings.share, started });
    Ok(())
}

/// Waits until the spans so far are with the collector, at most this long.
pub async fn flush(patience: Duration) {
    if let Some(tracer) = TRACER.get() {
        let _ = tokio::time::timeout(patience, tracer.exporter.flush()).await;
    }
}

/// A stretch of work. It is handed on when it is dropped; where traces are off, or this one is not kept, it is
/// nothing.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    tracer: &'static Tracer,
    message: SpanMessage,
    place: Parent,
}

impl Span {
    /// What is not traced.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Begins a span below `parent`, or a trace of its own.
    pub fn start(side: Side, parent: Option<&Parent>, name: impl FnOnce() -> Cow<'static, str>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let is_kept = match parent {
            Some(parent) => parent.is_sampled,
            None => tracer.share >= 1.0 || rand::random::<f64>() < tracer.share,
        };
        if !is_kept {
            return Self(None);
        }
        // Zero is no id; it comes up never, and would cost one span.
        let span_id: u64 = rand::random();
        let place = Parent {
            trace_id: parent.map_or_else(rand::random, |parent| parent.trace_id),
            span_id,
            is_sampled: true,
            state: parent.and_then(|parent| parent.state.clone()),
        };
        let message = SpanMessage {
            trace_id: place.trace_id.to_be_bytes().into(),
            span_id: span_id.to_be_bytes().into(),
            trace_state: place.state.as_deref().unwrap_or_default().to_owned(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.span_id.to_be_bytes().into()),
            name: name().into_owned(),
            kind: side as i32,
            start_time_unix_nano: tracer.now(),
            end_time_unix_nano: 0,
            attributes: Vec::new(),
            status: None,
        };
        Self(Some(Box::new(Open { tracer, message, place })))
    }

    /// Where work below it hangs from: this span, or what it would have hung from itself.
    pub fn place(&self, parent: Option<Parent>) -> Option<Parent> {
        self.0.as_ref().map(|open| open.place.clone()).or(parent)
    }

    /// Adds a word to it.
    pub fn set(&mut self, key: &'static str, value: &str) {
        self.put(key, || Kind::Text(value.to_owned()));
    }

    /// Adds a number to it.
    pub fn set_number(&mut self, key: &'static str, value: impl TryInto<i64>) {
        if let Ok(number) = value.try_into() {
            self.put(key, || Kind::Number(number));
        }
    }

    /// Marks it as failed for a reason of ours.
    pub fn fail(&mut self) {
        if let Some(open) = &mut self.0 {
            open.message.status = Some(Status { code: 2 });
        }
    }

    fn put(&mut self, key: &'static str, value: impl FnOnce() -> Kind) {
        if let Some(open) = &mut self.0 {
            open.message.attributes.push(attribute(key, value()));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { tracer, mut message, .. } = *open;
            message.end_time_unix_nano = tracer.now();
            tracer.exporter.take(message);
        }
    }
}

impl Tracer {
    /// Nanoseconds since the Unix epoch.
    fn now(&self) -> u64 {
        let (at, instant) = self.started;
        let start = u64::try_from(at.as_millis()).unwrap_or_default().saturating_mul(1_000_000);
        start.saturating_add(u64::try_from(instant.elapsed().as_nanos()).unwrap_or_default())
    }
}
