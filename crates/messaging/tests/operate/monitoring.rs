//! `deploy/monitoring`: every metric that the dashboard and the alerts name is served, and every alert has its
//! entry in the runbook.

use std::{collections::BTreeSet, fs, path::PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    logs::Live,
    process::Program,
    stand_ins::{ANNA, BEN, MainApi},
};

/// Metrics that come with parts of the service which are not always on; kept by whoever adds the part.
const WITH_OTHER_PARTS: [&str; 0] = [];

fn read(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of our metrics in a query; a histogram's parts count as the histogram.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == ':'));
    let ours = words.filter(|word| word.starts_with("messaging_") || word.starts_with("process_"));
    ours.map(|word| {
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word).to_owned()
    })
    .collect()
}

fn alerts() -> Vec<(String, String)> {
    let rules = read("deploy/monitoring/alerts.yml");
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(|rest| rest.trim().to_owned());
    let named = rules.lines().filter_map(|line| value(line, "- alert:"));
    let linked = rules.lines().filter_map(|line| value(line, "runbook:"));
    assert_eq!(named.clone().count(), linked.clone().count(), "each alert has one runbook");
    named.zip(linked).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_dashboard_and_the_alerts_is_served() {
    let main_api = MainApi::start().await;
    let program = Program::start(&main_api, &[]).await;
    // Some appear with their first count.
    let _ben = Live::connect(&program, BEN).await;
    let mut anna = Live::connect(&program, ANNA).await;
    assert_eq!(
        anna.ask("send_message", json!({"receiver_id": 2, "content": "hello"})).await["success"],
        true
    );
    let request = program.request(Method::GET, "/api/conversations").bearer_auth(ANNA);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let text = program.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let served: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name)
        .collect();

    // Only queries of the dashboard: its own words look like names too.
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = queries.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 40, "{}", queries.len());
    let rules = read("deploy/monitoring/alerts.yml");
    for (file, named) in [("dashboard.json", names(&queries.join("\n"))), ("alerts.yml", names(&rules))] {
        assert!(named.len() > 8, "{file}: {named:?}");
        for name in named {
            assert!(
                served.contains(name.as_str()) || WITH_OTHER_PARTS.contains(&name.as_str()),
                "{file} names {name}, which is not served"
            );
        }
    }
}

#[test]
fn every_alert_has_its_entry_in_the_runbook() {
    let runbook = read("docs/runbook.md");
    let entries: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    assert!(alerts.len() > 10);
    for (alert, link) in &alerts {
        assert_eq!(*link, format!("docs/runbook.md#{}", alert.to_lowercase()), "{alert}");
        assert!(entries.contains(alert.as_str()), "docs/runbook.md has no `## {alert}`");
    }
    for entry in entries.iter().filter(|entry| entry.starts_with("Messaging")) {
        assert!(alerts.iter().any(|(alert, _)| alert == entry), "{entry} is no alert");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_openmetrics_gets_it() {
    let main_api = MainApi::start().await;
    let program = Program::start(&main_api, &[]).await;
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    let request = program.request(Method::GET, "/metrics").header("accept", accept);
    let response = request.send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.contains("# TYPE messaging_messages counter"), "counters have no suffix in their type");
}
