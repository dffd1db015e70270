//! A database that answers nothing: everybody is told so in time, and it heals when it answers again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    nodes::Nodes,
    proxy::Proxy,
    support::{Backend, TestDatabase},
};

const ANNA: i64 = 1;
const BEN: i64 = 2;
const DB_TIMEOUT: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_database_leaves_nobody_waiting_for_ever() {
    let Some(mut database) = TestDatabase::new(Backend::Postgres).await else { return };
    let mut url = url::Url::parse(&database.url).unwrap();
    let server = (url.host_str().unwrap(), url.port().unwrap_or(5432));
    let server = tokio::net::lookup_host(server).await.unwrap().next().unwrap();
    let proxy = Proxy::to(server).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    database.url = url.into();
    let mut nodes = Nodes::new(database, None, &[("DB_TIMEOUT", "1500")]).await;
    nodes.start_node().await;
    let conversation = nodes.send(0, ANNA, BEN, "before").await["conversation_id"].clone();
    let (anna, ben) = (nodes.connect(0, ANNA).await, nodes.connect(0, BEN).await);

    proxy.hold();
    let began = Instant::now();
    let body = json!({"conversation_id": conversation, "content": "meanwhile", "client_message_id": "m-1"});
    let mut asked = Vec::new();
    for _ in 0..20 {
        asked.push(nodes.post(0, ANNA, "/api/messages", &body));
    }
    let reading = async {
        for _ in 0..3 {
            let answer: Value = nodes.get(0, BEN, "/api/conversations").await;
            assert_eq!(answer["error"]["code"], "SERVICE_UNAVAILABLE", "{answer}");
            assert_eq!(answer["error"]["details"]["retryable"], true);
        }
    };
    let (sent, ()) = tokio::join!(futures_util::future::join_all(asked), reading);
    for (status, answer) in sent {
        assert_eq!(status, 503, "nothing is confirmed that is not stored: {answer}");
    }
    assert!(began.elapsed() < 6 * DB_TIMEOUT + Duration::from_secs(2), "{:?}", began.elapsed());
    ben.emit("join_conversation", &json!({"conversation_id": conversation}));
    ben.wait_within(3 * DB_TIMEOUT, "error", |data| data["event"] == "join_conversation").await;
    let ready = nodes.http.get(format!("http://{}/ready", nodes.nodes[0].address)).send().await.unwrap();
    assert_eq!(ready.status(), 503);

    proxy.release();
    let until = Instant::now() + Duration::from_secs(10);
    let stored = loop {
        let (status, answer) = nodes.post(0, ANNA, "/api/messages", &body).await;
        if status == 201 {
            break answer["data"].clone();
        }
        assert!(Instant::now() < until, "it heals by itself: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for live in [&anna, &ben] {
        live.wait_for("message_received", |data| data["message"]["id"] == stored["id"]).await;
        live.assert_no_gap();
        assert_eq!(live.words(), ["meanwhile"], "the same id is one message");
    }
    let history = nodes.get(0, ANNA, &format!("/api/conversations/{conversation}/messages")).await;
    assert_eq!(history["data"].as_array().unwrap().len(), 2, "{history}");
}
