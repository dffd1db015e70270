//! `/metrics`: it counts what happened, says nothing of anybody, and is listed in `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    service::{ANNA, BEN, Dialect, Live, PRODUCT, TestService},
    support::{Backend, TestDatabase},
};

async fn service(variables: &[(&str, &str)]) -> TestService {
    let database = TestDatabase::new(Backend::Sqlite).await.unwrap();
    TestService::start(database, variables).await
}

/// The values of the series whose line begins with `series`, added up.
fn value(text: &str, series: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(series));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

async fn get_metrics(service: &TestService, token: Option<&str>) -> (u16, String) {
    let mut request = service.request(Method::GET, "/metrics");
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

const PRODUCTION: [(&str, &str); 2] =
    [("NODE_ENV", "production"), ("CORS_ORIGIN", "https://shop.example.test")];

/// A message that is sent, replayed, refused and read; a refused event; a limit that is reached.
async fn some_traffic(service: &TestService) {
    let mut ben = Live::connect(service, Dialect::SocketIo, BEN).await;
    let body = json!({"receiver_id": 2, "product_id": PRODUCT, "content": "Secret words", "client_message_id": "once"});
    let (status, sent) = service.call(ANNA, Method::POST, "/api/messages", body.clone()).await;
    assert_eq!(status, 201);
    let conversation_id = &sent["data"]["conversation_id"];
    assert_eq!(service.call(ANNA, Method::POST, "/api/messages", body).await.0, 201);
    let foreign = json!({"conversation_id": 999, "content": "Secret words"});
    assert_eq!(service.call(ANNA, Method::POST, "/api/messages", foreign).await.0, 404);
    ben.wait_for("message_received").await;
    ben.ask("mark_read", json!({"conversation_id": conversation_id, "up_to_id": sent["data"]["id"]})).await;
    ben.ask("no_such_event", json!({})).await;
    for _ in 0..50 {
        ben.ask("typing", json!({"conversation_id": conversation_id, "is_typing": false})).await;
    }
    assert_eq!(service.request(Method::GET, "/made/up").send().await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted() {
    let service = service(&[]).await;
    let before = service.metrics().await;
    some_traffic(&service).await;
    let _plain = Live::connect(&service, Dialect::Plain, ANNA).await;
    let after = service.metrics().await;
    let grown = |series: &str| value(&after, series) - value(&before, series);
    for (series, expected) in [
        (r#"messaging_messages_total{type="text",outcome="stored"}"#, 1.0),
        (r#"messaging_messages_total{type="text",outcome="replayed"}"#, 1.0),
        (r#"messaging_messages_total{type="text",outcome="refused"}"#, 1.0),
        (r#"messaging_receipts_total{kind="read"}"#, 1.0),
        (r#"messaging_live_events_total{event="mark_read",outcome="ok"}"#, 1.0),
        (r#"messaging_live_events_total{event="unknown",outcome="BAD_REQUEST"}"#, 1.0),
        (r#"messaging_http_requests_total{method="POST",route="/api/messages",status="201"}"#, 2.0),
        (r#"messaging_http_requests_total{method="GET",route="none",status="404"}"#, 1.0),
        (r#"messaging_live_connections{dialect="plain",transport="websocket"}"#, 1.0),
        (r#"messaging_live_handshakes_total{outcome="accepted"}"#, 2.0),
    ] {
        assert!((grown(series) - expected).abs() < 0.5, "{series} grew by {}", grown(series));
    }
    for series in [
        "messaging_batch_commands_count",
        "messaging_batch_commit_seconds_count",
        "messaging_delivery_seconds_count",
        "messaging_events_delivered_total",
        r#"messaging_rate_limited_total{kind="typing"}"#,
        r#"messaging_token_lookups_total{result="valid"}"#,
        r#"messaging_main_api_requests_total{outcome="ok"}"#,
    ] {
        assert!(grown(series) > 0.5, "{series} did not grow");
    }
    for series in [
        r#"messaging_dependency_up{dependency="database"}"#,
        r#"messaging_dependency_up{dependency="main_api"}"#,
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        assert!(value(&after, series) > 0.0, "{series}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_listed_and_every_listed_metric_is_served() {
    let service = service(&[]).await;
    some_traffic(&service).await;
    assert_eq!(listed(), served(&service.metrics().await));
}

/// Name, type, labels and meaning of each metric, as the page has them.
fn listed() -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = columns[..] else { panic!("four columns: {columns:?}") };
        let labels = labels.split('`').map(str::trim).filter(|label| !label.is_empty());
        let labels = labels.map(str::to_owned).collect();
        (name.trim_matches('`').to_owned(), (kind.to_owned(), labels, meaning.to_owned()))
    })
    .collect()
}

/// The same, as the exposition has them.
fn served(text: &str) -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let mut metrics: BTreeMap<String, (String, BTreeSet<String>, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().2 = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else if let Some((series, labels)) = line.split_once('{') {
            let labels =
                labels.split_once('}').unwrap().0.split("\",").map(|pair| pair.split_once('=').unwrap().0);
            let parts = ["_bucket", "_sum", "_count"];
            let name = parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series);
            let known = metrics.get_mut(name).unwrap_or_else(|| panic!("{series} has no type"));
            known.1.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    metrics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_anybody_is_told() {
    let service = service(&[]).await;
    some_traffic(&service).await;
    let text = service.metrics().await;
    for secret in ["Secret", "anna", "Anna", "once", "no_such_event", "/made/up", "example.test"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_development_metrics_are_open() {
    let (status, text) = get_metrics(&service(&[]).await, None).await;
    assert_eq!(status, 200);
    assert!(text.contains("# TYPE messaging_messages_total counter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_production_metrics_are_closed_without_a_token() {
    let (status, text) = get_metrics(&service(&PRODUCTION).await, None).await;
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, body["error"]["code"].as_str()), (403, Some("FORBIDDEN")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_opens_metrics_and_nothing_else_does() {
    let variables = [PRODUCTION[0], PRODUCTION[1], ("METRICS_TOKEN", "the-scraper-only-knows")];
    let service = service(&variables).await;
    assert_eq!(get_metrics(&service, Some("the-scraper-only-knows")).await.0, 200);
    for other in [None, Some("the-scraper-only-know"), Some("the-scraper-only-knows!"), Some(ANNA), Some("")]
    {
        let (status, text) = get_metrics(&service, other).await;
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, body["error"]["code"].as_str()), (401, Some("UNAUTHENTICATED")), "{other:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_their_own_has_metrics_and_nothing_else() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let port = free.to_string();
    let variables = [PRODUCTION[0], PRODUCTION[1], ("METRICS_PORT", &port), ("HOST", "127.0.0.1")];
    let mut service = service(&variables).await;
    assert_eq!(get_metrics(&service, None).await.0, 403);
    service.base = format!("http://127.0.0.1:{port}");
    let (status, text) = get_metrics(&service, None).await;
    assert_eq!(status, 200);
    assert!(text.contains("messaging_live_connections"));
    for (method, path, expected) in [
        (Method::GET, "/api/conversations", 404),
        (Method::GET, "/health", 404),
        (Method::POST, "/metrics", 405),
    ] {
        let response = service.request(method, path).send().await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["success"], false);
    }
}
