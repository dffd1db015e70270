//! Reports to Sentry: what finds a fault again, and nothing of anybody.

use std::{collections::HashMap, time::Duration};

use messaging::{config::Config, context::Context, logging, reports};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    logs::Live,
    process::Program,
    stand_ins::{ANNA, MainApi, Posted, Taker},
};

fn dsn(sentry: &Taker) -> String {
    format!("http://publickey@{}/42", sentry.address)
}

/// The event of an envelope: a header, an item's header, the item.
fn event(posted: &Posted) -> Value {
    let text = std::str::from_utf8(&posted.body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["event_id"].is_string(), "{text}");
    assert_eq!(lines[1]["type"], "event");
    assert_eq!(posted.path, "/api/42/envelope/");
    let auth = posted.headers["x-sentry-auth"].to_str().unwrap();
    assert!(auth.contains("sentry_key=publickey") && auth.contains("sentry_version=7"), "{auth}");
    lines[2].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_internal_error_is_reported_with_its_ids_and_nothing_of_anybody() {
    let (main_api, sentry) = (MainApi::start().await, Taker::start().await);
    let dsn = dsn(&sentry);
    let mut program = Program::start(&main_api, &[("SENTRY_DSN", &dsn), ("NODE_ENV", "production")]).await;
    let mut live = Live::connect(&program, ANNA).await;
    assert_eq!(live.ask("sync", json!({})).await["success"], true);
    program.break_database().await;
    for number in 0..3 {
        let request = program.request(Method::GET, "/api/messages/search?query=Rhabarber").bearer_auth(ANNA);
        let id = format!("request-{number}");
        assert_eq!(request.header("x-request-id", id).send().await.unwrap().status(), 500);
    }
    let ack = live.ask("edit_message", json!({"message_id": 1, "content": "Rhabarber"})).await;
    assert_eq!(ack["error"]["code"], "INTERNAL");
    // Another fault at another route, though its line says the same.
    let request = program.request(Method::GET, "/api/conversations").bearer_auth(ANNA);
    assert_eq!(request.send().await.unwrap().status(), 500);
    // What waits goes out with the end at the latest.
    assert_eq!(program.end().await, Some(0));

    let events: Vec<Value> = sentry.taken().iter().map(event).collect();
    let [first, second, third] = events.as_slice() else {
        panic!("the same fault was reported again: {events:#?}")
    };
    assert_eq!(first["tags"]["request_id"], "request-0");
    assert_eq!(first["tags"]["route"], "/api/messages/search");
    assert_eq!(first["exception"]["values"][0]["type"], "a request failed");
    assert_eq!(first["environment"], "production");
    assert_eq!(first["release"], concat!("rented-messaging@", env!("CARGO_PKG_VERSION")));
    assert!(second["tags"]["connection_id"].is_string(), "{second}");
    assert_eq!(third["tags"]["route"], "/api/conversations");
    for posted in sentry.taken() {
        let text = String::from_utf8(posted.body.to_vec()).unwrap();
        for secret in ["AnnasToken", "Rhabarber", "Asksalot", "people.example.test", "127.0.0.1"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for absent in ["\"user\"", "\"request\"", "\"breadcrumbs\"", "\"server_name\""] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_reported_by_its_place_without_what_it_quotes() {
    let sentry = Taker::start().await;
    let config = Config::from_env(HashMap::from([("SENTRY_DSN".to_owned(), dsn(&sentry))])).unwrap();
    logging::start(&config.log);
    reports::watch_panics();
    reports::start(&config).unwrap();
    let context = Context { connection_id: Some(77), ..Context::default() };
    let text = "Rhabarber é";
    let crashed = tokio::spawn(context.scope(async move { text[..text.len() - 1].len() })).await;
    assert!(crashed.unwrap_err().is_panic());
    reports::flush(Duration::from_secs(20)).await;
    let taken = sentry.taken();
    let event = event(&taken[0]);
    assert_eq!((&event["level"], &event["tags"]["connection_id"]), (&json!("fatal"), &json!("77")));
    assert!(event["culprit"].as_str().unwrap().contains("tests/operate/reports.rs"), "{event}");
    assert!(!event.to_string().contains("Rhabarber"), "{event}");
    assert_eq!(taken.len(), 1);
}

#[test]
fn an_address_that_is_none_stops_the_start() {
    for bad in ["sentry.example.test", "https://sentry.example.test/1", "https://key@sentry.example.test/"] {
        let vars = HashMap::from([("SENTRY_DSN".to_owned(), bad.to_owned())]);
        let sentence = Config::from_env(vars).map(|_| ()).unwrap_err().to_string();
        assert!(sentence.starts_with("SENTRY_DSN must be a DSN"), "{sentence}");
    }
}
