//! The wire: OTLP/HTTP with binary Protobuf, as far as spans need it.
//!
//! The messages are those of `opentelemetry/proto/trace/v1/trace.proto` and its `common` and `resource`;
//! fields that are never set are left out. The exporter posts batches and never holds anybody up.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};
use prost::Message;
use reqwest::Client;
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

use crate::{
    config::{ConfigError, Traces},
    identity::main_api::install_crypto_provider,
    metrics::{self, Sink},
};

/// Spans that may wait; more are dropped and counted.
const MAX_WAITING: usize = 2048;
/// Spans in one request.
const MAX_BATCH: usize = 512;
/// A span is on its way after this long at most.
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest that a collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    /// 1 is well, 2 an error.
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Kind", tags = "1, 2, 3")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

pub(super) fn attribute(key: &str, kind: Kind) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { kind: Some(kind) }) }
}

/// What the exporter's task is handed.
enum Parcel {
    Span(SpanMessage),
    /// Answered when everything before it is out.
    Flush(oneshot::Sender<()>),
}

/// Hands spans to the collector, behind everybody's back.
#[derive(Debug)]
pub(super) struct Exporter(mpsc::Sender<Parcel>);

impl Exporter {
    pub(super) fn start(settings: &Traces, resource: Vec<KeyValue>) -> Result<Self, ConfigError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let bad =
                || ConfigError::new("OTEL_EXPORTER_OTLP_HEADERS", "has a header that HTTP does not allow.");
            let name = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let url = settings.endpoint.clone().unwrap_or_default() + "/v1/traces";
        let client = client(&url, headers).map_err(|_| {
            ConfigError::new(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "is https, but this machine has no usable CA certificates.",
            )
        })?;
        let (sender, parcels) = mpsc::channel(MAX_WAITING);
        tokio::spawn(export(client, url, resource, parcels));
        Ok(Self(sender))
    }

    pub(super) fn take(&self, span: SpanMessage) {
        if self.0.try_send(Parcel::Span(span)).is_err() {
            metrics::get().telemetry_dropped(Sink::Traces, 1);
        }
    }

    /// Waits until what was taken so far is out, or lost.
    pub(super) async fn flush(&self) {
        let (done, out) = oneshot::channel();
        if self.0.send(Parcel::Flush(done)).await.is_ok() {
            let _ = out.await;
        }
    }
}

/// A client that posts to one place, with time limits and nothing of the environment.
pub(crate) fn client(url: &str, headers: HeaderMap) -> reqwest::Result<Client> {
    install_crypto_provider();
    let builder = Client::builder()
        .user_agent(concat!("rented-messaging/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT);
    // Reading the machine's certificates takes time, and fails on a machine without any.
    if url.starts_with("https:") { builder.build() } else { builder.tls_certs_only([]).build() }
}

async fn export(client: Client, url: String, resource: Vec<KeyValue>, mut parcels: mpsc::Receiver<Parcel>) {
    let mut waiting = Vec::new();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut flushed = None;
        tokio::select! {
            parcel = parcels.recv() => match parcel {
                Some(Parcel::Span(span)) => {
                    waiting.push(span);
                    if waiting.len() < MAX_BATCH {
                        continue;
                    }
                }
                Some(Parcel::Flush(done)) => flushed = Some(done),
                None => return,
            },
            _ = ticks.tick() => {}
        }
        if !waiting.is_empty() {
            let spans = std::mem::take(&mut waiting);
            let count = spans.len();
            if let Err(reason) = post(&client, &url, &resource, spans).await {
                metrics::get().telemetry_dropped(Sink::Traces, count);
                tracing::warn!(reason, spans = count, "the collector took no spans");
            }
        }
        drop(flushed);
    }
}

async fn post(
    client: &Client,
    url: &str,
    resource: &[KeyValue],
    spans: Vec<SpanMessage>,
) -> Result<(), String> {
    let scope = Some(Scope { name: "rented-messaging".into() });
    let request = ExportRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource.to_vec() }),
            scope_spans: vec![ScopeSpans { scope, spans }],
        }],
    };
    let body = request.encode_to_vec();
    // Once more where the specification allows it; more would pile up behind a collector that is away.
    for is_last in [false, true] {
        let answer = client.post(url).body(body.clone()).send().await;
        match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(status) if is_last || !is_passing(status) => return Err(format!("it answered {status}")),
            Err(error) if is_last => return Err(error.without_url().to_string()),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
    Ok(())
}

const fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}
