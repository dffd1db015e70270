//! Traces: `traceparent` goes on to the main API, and spans arrive at a collector.

use prost::Message;
use reqwest::Method;
use serde_json::json;

use crate::{
    logs::Live,
    process::Program,
    stand_ins::{ANNA, BEN, MainApi, Taker},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

// What the collector reads of opentelemetry/proto/trace/v1, written down once more.

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(span: &Span, key: &str) -> Option<i64> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_at_the_collector_under_the_callers_trace() {
    let (main_api, collector) = (MainApi::start().await, Taker::start().await);
    let endpoint = format!("http://{}", collector.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=of%20ours"),
        ("OTEL_SERVICE_NAME", "chat"),
    ];
    let mut program = Program::start(&main_api, &variables).await;
    let request = program.request(Method::GET, "/api/conversations").bearer_auth(ANNA);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(request.header("traceparent", parent).send().await.unwrap().status(), 200);
    // One that its caller does not keep is not kept here either.
    let request = program.request(Method::GET, "/api/blocks").bearer_auth(ANNA);
    let unsampled = "00-11111111111111111111111111111111-2222222222222222-00";
    assert_eq!(request.header("traceparent", unsampled).send().await.unwrap().status(), 200);
    // What machines ask every few seconds is no trace.
    assert_eq!(program.request(Method::GET, "/ready").send().await.unwrap().status(), 200);
    let mut live = Live::connect(&program, BEN).await;
    let sent = json!({"receiver_id": 1, "content": "Rhabarber"});
    assert_eq!(live.ask("send_message", sent).await["success"], true);
    assert_eq!(program.end().await, Some(0));

    let taken = collector.taken();
    assert!(!taken.is_empty(), "the end hands on what is left");
    let mut spans = Vec::new();
    for posted in &taken {
        assert_eq!(posted.path, "/v1/traces");
        assert_eq!(posted.headers["content-type"], "application/x-protobuf");
        assert_eq!(posted.headers["x-collector-key"], "of ours");
        for resource in Request::decode(posted.body.clone()).unwrap().resources {
            let attributes = resource.resource.unwrap().attributes;
            let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            assert_eq!(name.value.as_ref().unwrap().text.as_deref(), Some("chat"));
            spans.extend(resource.scopes.into_iter().flat_map(|scope| scope.spans));
        }
        for secret in ["Rhabarber", "AnnasToken", "BensToken", "Asksalot"] {
            assert!(!posted.body.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
        }
    }
    let named = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| {
            panic!("no span {name} in {:?}", spans.iter().map(|s| &s.name).collect::<Vec<_>>())
        })
    };
    let request = named("GET /api/conversations");
    assert_eq!((hex(&request.trace_id).as_str(), hex(&request.parent_span_id).as_str()), (TRACE, CALLER));
    assert_eq!((request.kind, number(request, "http.response.status_code")), (2, Some(200)));
    assert!(request.start > 1_700_000_000_000_000_000 && request.end >= request.start);
    let question = spans
        .iter()
        .find(|span| span.name == "GET /user" && hex(&span.trace_id) == TRACE)
        .expect("the question to the main API belongs to the request");
    assert_eq!((question.kind, &question.parent_span_id), (3, &request.span_id));
    assert!(spans.iter().all(|span| span.name != "GET /api/blocks" && span.name != "GET /ready"));
    let event = named("event send_message");
    assert!(number(event, "connection.id").is_some());
    assert!(event.parent_span_id.is_empty(), "a trace of its own");

    let heard = main_api.heard("traceparent");
    assert!(heard.contains(&format!("00-{TRACE}-{}-01", hex(&question.span_id))), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_the_callers_trace_goes_on_as_it_came() {
    let main_api = MainApi::start().await;
    let program = Program::start(&main_api, &[]).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let request = program.request(Method::GET, "/api/conversations").bearer_auth(ANNA);
    let request = request.header("traceparent", &parent).header("tracestate", "shop=7");
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(main_api.heard("traceparent"), [parent]);
    assert_eq!(main_api.heard("tracestate"), ["shop=7"]);
    let request = program.request(Method::GET, "/api/conversations").bearer_auth(BEN);
    assert_eq!(request.header("traceparent", "00-nonsense").send().await.unwrap().status(), 200);
    assert_eq!(main_api.heard("traceparent").len(), 1, "what is malformed goes nowhere");
}
