//! The log: ids that find a request again, repeated lines held back, and nothing of anybody.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    process::{PATIENCE, Program},
    stand_ins::{ANNA, BEN, MainApi, UNKNOWABLE},
};

/// A live connection in the plain dialect.
pub(crate) struct Live(
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
);

impl Live {
    pub(crate) async fn connect(program: &Program, token: &str) -> Self {
        let url = format!("ws://127.0.0.1:{}/?token={}", program.port, token.replace('|', "%7C"));
        let (socket, _) = timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap();
        Self(socket)
    }

    /// Sends an event and gives its ack.
    pub(crate) async fn ask(&mut self, event: &str, data: Value) -> Value {
        let frame = json!({"event": event, "data": data, "ref": event});
        self.0.send(Message::text(frame.to_string())).await.unwrap();
        loop {
            let heard = timeout(PATIENCE, self.0.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(text) = heard else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["ref"] == event {
                return frame["data"].clone();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_is_found_by_the_request_or_the_connection_it_is_about() {
    let main_api = MainApi::start().await;
    let program = Program::start(&main_api, &[]).await;
    let mut live = Live::connect(&program, ANNA).await;
    assert_eq!(live.ask("sync", json!({})).await["success"], true);
    program.break_database().await;

    let request = program.request(Method::GET, "/api/messages/search?query=camera").bearer_auth(ANNA);
    let response = request.header("x-request-id", "a-clients-own-id").send().await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["x-request-id"], "a-clients-own-id");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["meta"]["request_id"], "a-clients-own-id");
    let line = program.wait_for_line("a request failed").await;
    assert_eq!((&line["level"], &line["request_id"]), (&json!("ERROR"), &json!("a-clients-own-id")));
    assert_eq!(line["route"], "/api/messages/search");

    let ack = live.ask("edit_message", json!({"message_id": 1, "content": "new"})).await;
    assert_eq!(ack["error"]["code"], "INTERNAL");
    let line = program.wait_for_line("a live request failed").await;
    assert!(line["connection_id"].as_u64().is_some(), "{line}");

    // What is no id is replaced by one.
    let request = program.request(Method::GET, "/health").header("x-request-id", "two words");
    let id = request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(uuid::Uuid::parse_str(&id).is_ok(), "{id}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_warning_is_written_once_and_counted() {
    let main_api = MainApi::start().await;
    let program = Program::start(&main_api, &[]).await;
    for number in 0..30 {
        let request = program.request(Method::GET, "/api/conversations");
        let response = request.bearer_auth(format!("{UNKNOWABLE}{number}")).send().await.unwrap();
        assert_eq!(response.status(), 503);
    }
    let message = "the main API cannot say whose a token is";
    program.wait_for_line(message).await;
    // One for each five seconds that the thirty took.
    assert!(program.lines(message).len() <= 3, "{}", program.log());
    let metrics = program.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let counted =
        metrics.lines().find_map(|line| line.strip_prefix(r#"messaging_log_lines_total{level="warn"} "#));
    assert!(counted.unwrap().parse::<f64>().unwrap() >= 30.0, "{counted:?}");
    // What was held back is told though nothing follows.
    let told = timeout(PATIENCE, async {
        loop {
            let lines = program.log();
            if lines.lines().any(|line| line.contains("held_back") && line.contains(message)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(told.await.is_ok(), "{}", program.log());
}

/// What must be in no log: tokens, words of messages, names, addresses, secrets of the configuration.
const SECRETS: [&str; 16] = [
    "AnnasToken",
    "BensToken",
    "WrongToken",
    "Rhabarber",
    "Asksalot",
    "Bestowner",
    "people.example.test",
    "person1",
    "the-device",
    "holiday-pictures",
    "MetricsTokenOfOurs",
    "JwtSecretOfOurs",
    "SigningKeyOfOurs",
    "eyJhbGciOi",
    "MyOwnIdForIt",
    "secret-metadata",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_day_at_the_finest_level_leaves_nothing_of_anybody() {
    let main_api = MainApi::start().await;
    let variables = [
        ("LOG_LEVEL", "trace"),
        ("METRICS_TOKEN", "MetricsTokenOfOurs1234567890123456"),
        ("JWT_SECRET", "JwtSecretOfOurs12345678901234567890"),
        ("URL_SIGNING_KEY", "SigningKeyOfOurs1234567890123456789"),
    ];
    let program = Program::start(&main_api, &variables).await;
    let mut anna = Live::connect(&program, ANNA).await;
    let mut ben = Live::connect(&program, BEN).await;
    let sent = json!({
        "receiver_id": 2, "product_id": 5, "content": "Rhabarber for you", "client_message_id": "MyOwnIdForIt",
        "metadata": {"note": "secret-metadata"},
    });
    let ack = anna.ask("send_message", sent.clone()).await;
    assert_eq!(ack["success"], true, "{ack}");
    assert_eq!(anna.ask("send_message", sent).await["success"], true, "a replay");
    let (message, conversation) = (&ack["data"]["id"], &ack["data"]["conversation_id"]);
    for (event, data) in [
        ("join_conversation", json!({"conversation_id": conversation})),
        ("typing", json!({"conversation_id": conversation, "is_typing": true})),
        ("mark_read", json!({"conversation_id": conversation, "message_ids": [message]})),
        ("add_reaction", json!({"message_id": message, "emoji": "👍"})),
        ("edit_message", json!({"message_id": message, "content": "Rhabarber, once more"})),
        ("Rhabarber", json!({"content": "Rhabarber"})),
        ("send_message", json!({"conversation_id": "Rhabarber", "content": ["Rhabarber"]})),
        ("sync", json!({"since": 0})),
    ] {
        ben.ask(event, data).await;
    }
    let call = |method: Method, path: &str, token: &str, body: Value| {
        let request = program.request(method, path).bearer_auth(token).json(&body);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let device = json!({"token": "the-device-token", "device_type": "android"});
    assert_eq!(call(Method::POST, "/api/devices", BEN, device).await, 201);
    for (method, path, token, body) in [
        (Method::GET, "/api/messages/search?query=Rhabarber", ANNA, Value::Null),
        (Method::GET, "/api/conversations/Rhabarber?token=WrongToken", ANNA, Value::Null),
        (Method::GET, "/files/Rhabarber/holiday-pictures.png?signature=WrongToken", ANNA, Value::Null),
        (
            Method::POST,
            "/api/messages",
            ANNA,
            json!({"content": {"Rhabarber": 1}, "conversation_id": "Rhabarber"}),
        ),
        (Method::POST, "/auth/validate-token", "", json!({"token": "3|WrongTokenWrongTokenWrongToken"})),
        (Method::GET, "/api/conversations", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", Value::Null),
        (Method::GET, "/api/conversations", &format!("{UNKNOWABLE}WrongToken"), Value::Null),
        (Method::GET, "/metrics", "WrongToken", Value::Null),
    ] {
        call(method, path, token, body).await;
    }
    let part = reqwest::Body::from(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"holiday-pictures.txt\"\r\n\
         Content-Type: text/plain\r\n\r\nRhabarber\r\n--b--\r\n",
    );
    let upload = program.request(Method::POST, "/api/uploads").bearer_auth(ANNA).body(part);
    let upload = upload.header("content-type", "multipart/form-data; boundary=b").send().await.unwrap();
    assert_eq!(upload.status(), 201);
    // And the worst of days: an internal error about a message's text.
    program.break_database().await;
    let body = json!({"conversation_id": conversation, "content": "Rhabarber at the end"});
    assert_eq!(call(Method::POST, "/api/messages", ANNA, body).await, 500);
    program.wait_for_line("a request failed").await;

    let log = program.log();
    // Batches are committed together or apart; requests are what they are.
    assert!(program.lines("a request was answered").len() >= 10, "it was to be busy:\n{log}");
    assert!(!program.lines("a batch was committed").is_empty(), "{log}");
    for secret in SECRETS {
        let found = log.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{secret} is in the log: {found:?}");
    }
}
