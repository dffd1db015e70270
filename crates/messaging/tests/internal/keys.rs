//! The key: asked for before anything else, two of them at a time, none of them a page's business.

use serde_json::{Value, json};

use crate::{
    on_both_databases,
    service::{ANNA, BEN, KEY, OLD_KEY, Service, assert_refused, token},
    support::{Backend, TestDatabase},
};

on_both_databases!(the_new_key_and_the_one_before_open_and_others_do_not);

fn notice() -> Value {
    json!({"user_ids": [ANNA, BEN], "sender_id": ANNA, "type": "system", "content": "Booked."})
}

async fn the_new_key_and_the_one_before_open_and_others_do_not(database: TestDatabase) {
    let service = Service::start(database).await;
    for key in [KEY, OLD_KEY] {
        let request = service.request("POST", "/internal/messages").json(&notice());
        let by_header = request.try_clone().unwrap().header("x-api-key", key);
        assert_eq!(by_header.send().await.unwrap().status(), 201);
        assert_eq!(request.bearer_auth(key).send().await.unwrap().status(), 201);
    }
    let anna = token(ANNA);
    for wrong in ["", "wrong", &KEY[1..], &format!("{KEY}0"), anna.as_str()] {
        let response = service.request("POST", "/internal/messages").bearer_auth(wrong).json(&notice());
        let response = response.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let answer = (response.status().as_u16(), response.json().await.unwrap());
        assert_refused(&answer, 401, "UNAUTHENTICATED");
        assert!(answer.1["meta"]["request_id"].is_string());
    }
    // The key opens nothing else, and what is unknown is so only to whoever has the key.
    let (status, _) = service.internal("GET", "/api/conversations", Value::Null).await;
    assert_eq!(status, 401);
    assert_refused(&service.internal("GET", "/internal/nothing", Value::Null).await, 404, "NOT_FOUND");
    assert_refused(
        &service.internal("GET", "/internal/messages", Value::Null).await,
        405,
        "METHOD_NOT_ALLOWED",
    );
    assert_eq!(service.request("GET", "/internal/nothing").send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_there_is_nothing_at_these_addresses() {
    let database = TestDatabase::new(Backend::Sqlite).await.unwrap();
    let service = Service::start_with(database, &[]).await;
    for (method, path) in
        [("POST", "/internal/messages"), ("GET", "/internal/messages"), ("DELETE", "/internal/users/1")]
    {
        for key in ["", KEY] {
            let response = service.request(method, path).bearer_auth(key).send().await.unwrap();
            let answer = (response.status().as_u16(), response.json().await.unwrap());
            assert_refused(&answer, 404, "NOT_FOUND");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_are_counted_by_address_and_lock_nobody_out() {
    let database = TestDatabase::new(Backend::Sqlite).await.unwrap();
    let variables = [("SERVICE_API_KEY", KEY), ("TRUSTED_PROXIES", "127.0.0.1")];
    let service = Service::start_with(database, &variables).await;
    let attempt = |address: &str, key: &str| {
        let request = service.request("POST", "/internal/messages").json(&notice());
        request.header("x-forwarded-for", address).bearer_auth(key).send()
    };
    for _ in 0..10 {
        assert_eq!(attempt("192.0.2.1", "wrong").await.unwrap().status(), 401);
    }
    let refused = attempt("192.0.2.1", "wrong").await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(attempt("192.0.2.2", "wrong").await.unwrap().status(), 401, "another address");
    assert_eq!(attempt("192.0.2.1", KEY).await.unwrap().status(), 201, "the main API is not locked out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_is_let_in() {
    let database = TestDatabase::new(Backend::Sqlite).await.unwrap();
    let service = Service::start(database).await;
    let origin = "http://localhost:3000";
    let allowed = |path: &'static str| {
        let preflight = service.request("OPTIONS", path).header("origin", origin);
        let preflight = preflight.header("access-control-request-method", "POST").send();
        async { preflight.await.unwrap().headers().get("access-control-allow-origin").cloned() }
    };
    assert_eq!(allowed("/api/messages").await.unwrap(), origin);
    assert_eq!(allowed("/internal/messages").await, None);
    let posted = service.request("POST", "/internal/messages").bearer_auth(KEY).json(&notice());
    let posted = posted.header("origin", origin).send().await.unwrap();
    assert_eq!(posted.headers().get("access-control-allow-origin"), None);
}
