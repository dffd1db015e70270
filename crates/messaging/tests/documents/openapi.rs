//! Every operation of REST, driven against the document that the service gives of it.

use std::{collections::BTreeSet, io::Cursor};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    contract::{Answer, Contract, Schemas},
    on_both_databases,
    service::{ANNA, BEN, CLEO, PRODUCT, TestService, UNKNOWABLE},
    support::TestDatabase,
};

on_both_databases!(every_answer_is_as_the_document_says);

const SERVICE_KEY: &str = "b0f1a4d89c7e4f2a8f6d13c5e7a90b2d4c6e8f01";
/// Links are signed with it.
const SIGNING_KEY: &str = "as good as any other key";

const VARIABLES: [(&str, &str); 12] = [
    ("URL_SIGNING_KEY", SIGNING_KEY),
    ("RATE_LIMIT_MESSAGES", "0"),
    ("RATE_LIMIT_TYPING", "0"),
    ("RATE_LIMIT_READS", "0"),
    ("RATE_LIMIT_UPLOADS", "0"),
    ("RATE_LIMIT_CONVERSATIONS", "0"),
    ("MAX_FILE_SIZE", "100000"),
    // Nobody listens there: what is told becomes dead letters.
    ("WEBHOOK_URL", "http://127.0.0.1:9/"),
    ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("WEBHOOK_MAX_ATTEMPTS", "1"),
    ("SERVICE_API_KEY", SERVICE_KEY),
    ("VAPID_SUBJECT", "mailto:operator@example.test"),
];

struct Driver {
    service: TestService,
    contract: Contract,
}

impl Driver {
    fn request(&self, token: &str, method: &str, path: &str) -> RequestBuilder {
        let request = self.service.request(method.parse::<Method>().unwrap(), path);
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    /// A call whose answer must have this status, and is checked.
    async fn call(&self, status: u16, token: &str, method: &str, path: &str, body: Value) -> Value {
        let mut request = self.request(token, method, path);
        if !body.is_null() {
            request = request.json(&body);
        }
        self.expect(status, request).await.body
    }

    async fn get(&self, status: u16, token: &str, path: &str) -> Value {
        self.call(status, token, "GET", path, Value::Null).await
    }

    /// A call that is refused with this status and code.
    async fn refused(&self, status: u16, code: &str, token: &str, method: &str, path: &str, body: Value) {
        let answer = self.call(status, token, method, path, body).await;
        assert_eq!(answer["error"]["code"], code, "{method} {path}");
    }

    async fn expect(&self, status: u16, request: RequestBuilder) -> Answer {
        let shown = format!("{request:?}");
        let answer = self.contract.send(request).await;
        assert_eq!(answer.status, status, "{shown}: {:#}", answer.body);
        answer
    }

    async fn upload(&self, status: u16, field: &str, bytes: &[u8]) -> Value {
        let head = format!(
            "--XYZ\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"garden.jpg\"\r\n\r\n"
        );
        let body = [head.as_bytes(), bytes, b"\r\n--XYZ--\r\n"].concat();
        let request = self
            .request(ANNA, "POST", "/api/uploads")
            .header("content-type", "multipart/form-data; boundary=XYZ")
            .body(body);
        self.expect(status, request).await.body
    }
}

async fn every_answer_is_as_the_document_says(database: TestDatabase) {
    let service = TestService::start(database, &VARIABLES).await;
    let contract = Contract::of(&service).await;
    let driver = Driver { service, contract };
    sign_in(&driver).await;
    let (conversation, message) = conversations(&driver).await;
    messages(&driver, conversation, message).await;
    files(&driver).await;
    people(&driver).await;
    notifications(&driver).await;
    internal(&driver).await;
    webhooks(&driver).await;
    documents(&driver).await;
    refusals(&driver, conversation, message).await;
    driver.contract.assert_complete();
    let seen = driver.contract.codes();
    for code in [
        "BAD_REQUEST",
        "UNAUTHENTICATED",
        "FORBIDDEN",
        "BLOCKED",
        "NOT_FOUND",
        "CONVERSATION_NOT_FOUND",
        "MESSAGE_NOT_FOUND",
        "CONFLICT",
        "PAYLOAD_TOO_LARGE",
        "UNSUPPORTED_MEDIA_TYPE",
        "VALIDATION_FAILED",
        "AUTH_UNAVAILABLE",
    ] {
        assert!(seen.contains(code), "{code} was never answered: {seen:?}");
    }
}

async fn webhooks(driver: &Driver) {
    let path = "/internal/webhooks/dead";
    let letter = loop {
        let dead = driver.get(200, SERVICE_KEY, path).await;
        if let Some(letter) = dead["data"].get(0) {
            break letter["id"].as_i64().unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    driver.call(200, SERVICE_KEY, "POST", &format!("{path}/{letter}/replay"), Value::Null).await;
    driver
        .refused(404, "NOT_FOUND", SERVICE_KEY, "POST", &format!("{path}/999999/replay"), Value::Null)
        .await;
    driver
        .refused(422, "VALIDATION_FAILED", SERVICE_KEY, "GET", &format!("{path}?page=0"), Value::Null)
        .await;
    driver.call(200, SERVICE_KEY, "POST", &format!("{path}/replay"), Value::Null).await;
    driver.refused(401, "UNAUTHENTICATED", ANNA, "GET", path, Value::Null).await;
}

async fn sign_in(driver: &Driver) {
    let path = "/auth/validate-token";
    let valid = driver.call(200, "", "POST", path, json!({"token": ANNA})).await;
    assert_eq!(valid["valid"], true);
    let invalid = driver.call(200, "", "POST", path, json!({"token": "7|nobody"})).await;
    assert_eq!(invalid["valid"], false);
    driver.refused(422, "VALIDATION_FAILED", "", "POST", path, json!({})).await;
    driver.refused(503, "AUTH_UNAVAILABLE", "", "POST", path, json!({"token": UNKNOWABLE})).await;
}

async fn conversations(driver: &Driver) -> (i64, i64) {
    let body = json!({"receiver_id": 2, "product_id": PRODUCT, "content": "Hello there", "client_message_id": "a", "metadata": {"n": 1}});
    let sent = driver.call(201, ANNA, "POST", "/api/messages", body.clone()).await;
    let again = driver.request(ANNA, "POST", "/api/messages").json(&body);
    let again = driver.expect(201, again).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let (conversation, message) =
        (sent["data"]["conversation_id"].as_i64().unwrap(), sent["data"]["id"].as_i64().unwrap());
    let list = driver.get(200, BEN, "/api/conversations?archived=false&page=1&limit=10").await;
    assert_eq!(list["data"][0]["unread_count"], 1);
    assert_eq!(list["data"][0]["product"]["title"], "Camera");
    known_already(driver, BEN, "/api/conversations").await;
    driver.get(200, BEN, "/api/conversations/unread/count").await;
    let path = format!("/api/conversations/{conversation}");
    driver.get(200, BEN, &path).await;
    let read = driver.call(200, BEN, "POST", &format!("{path}/read"), Value::Null).await;
    assert_eq!(read["count"], 1);
    for action in ["archive", "unarchive", "mute", "unmute"] {
        driver.call(200, BEN, "POST", &format!("{path}/{action}"), Value::Null).await;
    }
    driver.call(200, BEN, "POST", &format!("{path}/mute"), json!({"until": "2999-01-01T00:00:00Z"})).await;
    (conversation, message)
}

/// Who says what they have gets no body again, until something changed.
async fn known_already(driver: &Driver, token: &str, path: &str) {
    // Looking delivers what is looked at: the first answers may say `sent`, the next ones `delivered`.
    let tag = loop {
        let whole = driver.expect(200, driver.request(token, "GET", path)).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let again = driver.expect(200, driver.request(token, "GET", path)).await;
        if whole.headers["etag"] == again.headers["etag"] {
            break whole.headers["etag"].clone();
        }
    };
    driver.expect(304, driver.request(token, "GET", path).header("if-none-match", &tag)).await;
    let several = format!("\"other\", {}", tag.to_str().unwrap());
    driver.expect(304, driver.request(token, "GET", path).header("if-none-match", several)).await;
    driver.expect(200, driver.request(token, "GET", path).header("if-none-match", "W/\"other\"")).await;
}

async fn messages(driver: &Driver, conversation: i64, message: i64) {
    let path = format!("/api/messages/{message}");
    let list = format!("/api/conversations/{conversation}/messages");
    driver.call(200, ANNA, "PUT", &path, json!({"content": "Hello again"})).await;
    driver.call(201, BEN, "POST", &format!("{path}/reactions"), json!({"emoji": "👍"})).await;
    let reply = json!({"conversation_id": conversation, "content": "Hello back", "reply_to_id": message});
    let reply = driver.call(201, BEN, "POST", "/api/messages", reply).await;
    assert_eq!(reply["data"]["reply_to"]["id"], message);
    let page = driver.get(200, ANNA, &format!("{list}?page=1&limit=50")).await;
    assert_eq!(page["data"][0]["reactions"][0]["count"], 1);
    known_already(driver, ANNA, &list).await;
    for window in ["before=2", "after=0", "around=1"] {
        assert_eq!(driver.get(200, ANNA, &format!("{list}?{window}")).await["success"], true);
    }
    let found = driver.get(200, ANNA, "/api/messages/search?query=HELLO&limit=1").await;
    assert_eq!(found["data"][0]["highlight"], json!([{"start": 0, "length": 5}]));
    driver.call(204, BEN, "DELETE", &format!("{path}/reactions/%F0%9F%91%8D"), Value::Null).await;
    let id = reply["data"]["id"].as_i64().unwrap();
    driver.call(204, BEN, "DELETE", &format!("/api/messages/{id}"), Value::Null).await;
    driver.call(200, ANNA, "POST", &format!("/api/conversations/{conversation}/archive"), Value::Null).await;
    let log = driver.get(200, ANNA, "/api/sync?since=0&limit=500").await;
    let events: BTreeSet<_> = log["data"]["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    for event in [
        "message_received",
        "message_updated",
        "message_deleted",
        "message_reaction",
        "message_read",
        "conversation_updated",
    ] {
        assert!(events.contains(event), "{event} is not in the log: {events:?}");
    }
    driver.get(200, ANNA, "/api/sync").await;
    driver.refused(422, "VALIDATION_FAILED", ANNA, "GET", "/api/sync?since=99999", Value::Null).await;
}

async fn files(driver: &Driver) {
    let mut picture = Cursor::new(Vec::new());
    let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(600, 500, Rgb([9, 99, 199])));
    image.write_to(&mut picture, ImageFormat::Jpeg).unwrap();
    let uploaded = driver.upload(201, "image", picture.get_ref()).await;
    let attachment = &uploaded["data"];
    let (url, thumbnail) =
        (attachment["url"].as_str().unwrap(), attachment["thumbnail_url"].as_str().unwrap());
    let whole = driver.expect(200, driver.request("", "GET", url)).await;
    driver.expect(200, driver.request("", "GET", thumbnail)).await;
    driver.expect(206, driver.request("", "GET", url).header("range", "bytes=0-9")).await;
    driver.expect(304, driver.request("", "GET", url).header("if-none-match", &whole.headers["etag"])).await;
    driver.expect(416, driver.request("", "GET", url).header("range", "bytes=999999-")).await;
    let bare = url.split('?').next().unwrap();
    driver.refused(403, "FORBIDDEN", CLEO, "GET", bare, Value::Null).await;
    driver.refused(401, "UNAUTHENTICATED", "", "GET", bare, Value::Null).await;
    driver.refused(404, "NOT_FOUND", ANNA, "GET", "/files/999999/a.jpg", Value::Null).await;
    let body =
        json!({"receiver_id": 2, "product_id": PRODUCT, "type": "image", "attachment_id": attachment["id"]});
    let sent = driver.call(201, ANNA, "POST", "/api/messages", body).await;
    assert_eq!(sent["data"]["attachment"]["width"], 600);
    driver.get(200, BEN, bare).await;
    driver.upload(422, "other", b"x").await;
    driver.upload(415, "file", b"MZ\x90\x00\x03\x00\x00\x00\x04").await;
    driver.upload(413, "file", &[b'a'; 100_001]).await;
    driver.refused(415, "UNSUPPORTED_MEDIA_TYPE", ANNA, "POST", "/api/uploads", json!({})).await;
}

async fn people(driver: &Driver) {
    driver.get(200, ANNA, "/api/presence?user_ids=1,2,3").await;
    driver.call(200, ANNA, "POST", "/api/users/2/block", Value::Null).await;
    assert_eq!(driver.get(200, ANNA, "/api/blocks").await["data"][0]["user_id"], 2);
    let body = json!({"receiver_id": 1, "product_id": PRODUCT, "content": "?"});
    driver.refused(403, "BLOCKED", BEN, "POST", "/api/messages", body).await;
    driver.call(200, ANNA, "DELETE", "/api/users/2/block", Value::Null).await;
    driver.refused(422, "VALIDATION_FAILED", ANNA, "POST", "/api/users/1/block", Value::Null).await;
    for nobody in ["0", "-736", "9223372036854775808"] {
        for method in ["POST", "DELETE"] {
            let path = format!("/api/users/{nobody}/block");
            driver.refused(404, "NOT_FOUND", ANNA, method, &path, Value::Null).await;
        }
    }
    driver.refused(422, "VALIDATION_FAILED", ANNA, "GET", "/api/presence?user_ids=x", Value::Null).await;
}

async fn notifications(driver: &Driver) {
    for path in ["/api/devices", "/api/fcm/token"] {
        let device =
            json!({"token": format!("token of {path}"), "device_type": "android", "device_id": "phone"});
        driver.call(201, ANNA, "POST", path, device.clone()).await;
        driver.call(200, ANNA, "POST", path, device.clone()).await;
        assert_eq!(driver.get(200, ANNA, path).await["data"][0]["device_type"], "android");
        driver.call(200, ANNA, "DELETE", path, json!({"token": device["token"]})).await;
        driver.refused(422, "VALIDATION_FAILED", ANNA, "POST", path, json!({"token": "x"})).await;
        driver.refused(422, "VALIDATION_FAILED", ANNA, "DELETE", path, json!({})).await;
        let half = json!({"token": "x", "device_id": {}});
        driver.refused(422, "VALIDATION_FAILED", ANNA, "DELETE", path, half).await;
    }
    driver.get(200, "", "/api/notifications/vapid-key").await;
    let path = "/api/notifications/preferences";
    driver.get(200, ANNA, path).await;
    let hours = json!({"start": "22:00", "end": "07:00", "time_zone": "Europe/Paris"});
    let changed = driver.call(200, ANNA, "PUT", path, json!({"push": false, "quiet_hours": hours})).await;
    assert_eq!(changed["data"]["quiet_hours"]["start"], "22:00");
    driver.call(200, ANNA, "PUT", path, json!({"quiet_hours": null, "presence": true})).await;
    driver.refused(422, "VALIDATION_FAILED", ANNA, "PUT", path, json!({"push": "yes"})).await;
    let mut mac = Hmac::<Sha256>::new_from_slice(SIGNING_KEY.as_bytes()).unwrap();
    mac.update(b"rented-messaging unsubscribe\n1\n4102444800");
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    let link = format!("/unsubscribe/1?exp=4102444800&sig={signature}");
    for method in ["GET", "POST"] {
        driver.expect(200, driver.request("", method, &link)).await;
        driver.refused(403, "FORBIDDEN", "", method, &link.replace("/1?", "/2?"), Value::Null).await;
        driver.refused(422, "VALIDATION_FAILED", "", method, "/unsubscribe/x", Value::Null).await;
    }
    assert_eq!(driver.get(200, ANNA, path).await["data"]["email"], false);
}

async fn internal(driver: &Driver) {
    let offer = json!({"id": 17, "offer_type": "rental", "amount": "45.50", "start_date": "2026-05-01",
        "end_date": "2026-05-03", "status": "pending", "message": "For the weekend?"});
    let body =
        json!({"user_ids": [7, 8], "product_id": PRODUCT, "sender_id": 7, "type": "offer", "offer": offer});
    let posted = driver.request(SERVICE_KEY, "POST", "/internal/messages").json(&body);
    let posted = driver.expect(201, posted.header("idempotency-key", "offer-17")).await.body;
    assert_eq!(posted["data"]["offer"]["amount"], 45.5);
    let changed =
        driver.call(200, SERVICE_KEY, "PATCH", "/internal/offers/17", json!({"status": "accepted"})).await;
    assert_eq!(changed["data"]["messages"][0]["offer"]["status"], "accepted");
    driver.call(200, SERVICE_KEY, "POST", "/internal/tokens/forget", json!({"token": "7|gone"})).await;
    driver.call(200, SERVICE_KEY, "POST", "/internal/users/7/logout", json!({"reason": "ban"})).await;
    driver.call(200, SERVICE_KEY, "POST", "/internal/users/7/refresh", json!({"name": "Gus"})).await;
    driver.call(200, SERVICE_KEY, "POST", "/internal/products/6/refresh", json!({"title": "Tent"})).await;
    let whole = driver.get(200, SERVICE_KEY, "/internal/users/7/export").await;
    assert_eq!(whole["data"]["conversations"][0]["messages"][0]["is_cleared"], false);
    let erased = driver.call(200, SERVICE_KEY, "DELETE", "/internal/users/7", Value::Null).await;
    assert_eq!(erased["data"]["messages"], 1);
    for (method, path) in [("POST", "/internal/messages"), ("DELETE", "/internal/users/8")] {
        driver.refused(401, "UNAUTHENTICATED", ANNA, method, path, Value::Null).await;
    }
    driver.refused(422, "VALIDATION_FAILED", SERVICE_KEY, "POST", "/internal/messages", json!({})).await;
    let gone = json!({"status": "rejected"});
    driver.refused(404, "NOT_FOUND", SERVICE_KEY, "PATCH", "/internal/offers/17", gone).await;
}

async fn documents(driver: &Driver) {
    for path in ["/health", "/ready", "/metrics"] {
        driver.get(200, "", path).await;
    }
    for path in ["/openapi.json", "/asyncapi.json", "/docs", "/docs/style.css", "/docs/page.js"] {
        let answer = driver.expect(200, driver.request("", "GET", path)).await;
        let known = driver.request("", "GET", path).header("if-none-match", &answer.headers["etag"]);
        driver.expect(304, known).await;
    }
    driver.refused(404, "NOT_FOUND", "", "GET", "/docs/none", Value::Null).await;
}

/// What every operation of its kind refuses.
async fn refusals(driver: &Driver, conversation: i64, message: i64) {
    let own = format!("/api/conversations/{conversation}");
    for (method, path, code, unknown) in [
        ("GET", own.clone(), "CONVERSATION_NOT_FOUND", "/api/conversations/999999".to_owned()),
        ("DELETE", own.clone(), "CONVERSATION_NOT_FOUND", "/api/conversations/999999".to_owned()),
        (
            "GET",
            format!("{own}/messages"),
            "CONVERSATION_NOT_FOUND",
            "/api/conversations/999999/messages".to_owned(),
        ),
        (
            "POST",
            format!("{own}/read"),
            "CONVERSATION_NOT_FOUND",
            "/api/conversations/999999/read".to_owned(),
        ),
        (
            "POST",
            format!("{own}/mute"),
            "CONVERSATION_NOT_FOUND",
            "/api/conversations/999999/mute".to_owned(),
        ),
        (
            "DELETE",
            format!("/api/messages/{message}"),
            "MESSAGE_NOT_FOUND",
            "/api/messages/999999".to_owned(),
        ),
    ] {
        driver.refused(401, "UNAUTHENTICATED", "", method, &path, Value::Null).await;
        driver.refused(401, "UNAUTHENTICATED", "7|nobody", method, &path, Value::Null).await;
        driver.refused(503, "AUTH_UNAVAILABLE", UNKNOWABLE, method, &path, Value::Null).await;
        driver.refused(403, "FORBIDDEN", CLEO, method, &path, Value::Null).await;
        driver.refused(404, code, ANNA, method, &unknown, Value::Null).await;
        let nonsense = unknown.replace("999999", "x");
        driver.refused(422, "VALIDATION_FAILED", ANNA, method, &nonsense, Value::Null).await;
        let unreadable = unknown.replace("999999", "%FF");
        driver.refused(400, "BAD_REQUEST", ANNA, method, &unreadable, Value::Null).await;
    }
    let path = format!("/api/messages/{message}");
    driver.refused(403, "FORBIDDEN", BEN, "PUT", &path, json!({"content": "Mine now"})).await;
    let conflict =
        json!({"receiver_id": 2, "product_id": PRODUCT, "content": "Other", "client_message_id": "a"});
    driver.refused(409, "CONFLICT", ANNA, "POST", "/api/messages", conflict).await;
    let large = json!({"conversation_id": conversation, "content": "x".repeat(110_000)});
    driver.refused(413, "PAYLOAD_TOO_LARGE", ANNA, "POST", "/api/messages", large).await;
    driver.refused(422, "VALIDATION_FAILED", ANNA, "POST", "/api/messages", json!({})).await;
    for (kind, body, status) in [("text/plain", "{}", 415), ("application/json", "{", 400)] {
        let request = driver.request(ANNA, "POST", "/api/messages").header("content-type", kind).body(body);
        driver.expect(status, request).await;
    }
    driver.call(204, BEN, "DELETE", &own, Value::Null).await;
    driver.refused(404, "CONVERSATION_NOT_FOUND", BEN, "GET", &own, Value::Null).await;
    let other = driver.service.request(Method::PATCH, "/api/messages").send().await.unwrap();
    assert_eq!(other.status(), 405);
    assert!(other.headers().contains_key("allow"));
    let body: Value = other.json().await.unwrap();
    let error = json!({"$ref": "#/components/schemas/Error"});
    driver.contract.validate(&error, &body, "405");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_told_as_the_document_says() {
    let database = TestDatabase::new(crate::support::Backend::Sqlite).await.unwrap();
    let limits = [("RATE_LIMIT_MESSAGES", "2"), ("RATE_LIMIT_BURST", "1"), ("RATE_LIMIT_UPLOADS", "1")];
    let service = TestService::start(database, &limits).await;
    let contract = Contract::of(&service).await;
    let driver = Driver { service, contract };
    let body = json!({"receiver_id": 2, "content": "Hello"});
    let sent = driver.expect(201, driver.request(ANNA, "POST", "/api/messages").json(&body)).await;
    assert_eq!(
        (&sent.headers["x-ratelimit-limit"], &sent.headers["x-ratelimit-remaining"]),
        (&"2".parse().unwrap(), &"0".parse().unwrap())
    );
    let refused = driver.expect(429, driver.request(ANNA, "POST", "/api/messages").json(&body)).await;
    assert_eq!(refused.body["error"]["code"], "RATE_LIMITED");
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_cannot_serve_says_so_as_the_document_says() {
    let database = TestDatabase::new(crate::support::Backend::Sqlite).await.unwrap();
    let service = TestService::start(database, &[("MAIN_API_URL", "http://127.0.0.1:9")]).await;
    let contract = Contract::of(&service).await;
    let driver = Driver { service, contract };
    assert_eq!(driver.get(200, "", "/ready").await["data"]["status"], "degraded");
    driver.refused(503, "AUTH_UNAVAILABLE", ANNA, "GET", "/api/conversations", Value::Null).await;
}

/// Every example of the document is of the schema beside it.
#[test]
fn examples_are_of_their_schemas() {
    let document = messaging::documents::openapi("/");
    let schemas = Schemas::of(&document);
    let mut examples = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if let Some(example) = parameter.get("example") {
                    schemas.validate(&parameter["schema"], example, &place);
                    examples += 1;
                }
            }
            let answers = operation["responses"].as_object().unwrap().values();
            for content in
                answers.chain(operation.get("requestBody")).filter_map(|answer| answer["content"].as_object())
            {
                for kind in content.values() {
                    let more =
                        kind["examples"].as_object().into_iter().flat_map(|examples| examples.values());
                    for example in
                        kind.get("example").into_iter().chain(more.map(|example| &example["value"]))
                    {
                        schemas.validate(&kind["schema"], example, &place);
                        examples += 1;
                    }
                }
            }
        }
    }
    assert!(examples > 100, "only {examples} examples");
}
