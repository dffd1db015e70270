//! Long-polling and the upgrade from it, as clients and the protocol documents have it.

use std::time::Duration;

use edge::EdgeConfig;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Server, Ws, config, frame, hasty};

const SOCKET_IO: &str = "/socket.io/?EIO=4&transport=polling";
const ENGINE_IO: &str = "/engine.io/?EIO=4&transport=polling";

/// A session's address.
async fn open(server: &Server, path: &str) -> String {
    let (status, body) = server.http("GET", path, "", "").await;
    assert_eq!(status, 200);
    let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
    format!("{path}&sid={}", open["sid"].as_str().unwrap())
}

/// A Socket.IO session, let in, with nothing left to poll.
async fn open_in(server: &Server) -> String {
    let path = open(server, SOCKET_IO).await;
    assert_eq!(server.http("POST", &path, "", "40{\"token\":\"good\"}").await, (200, "ok".into()));
    let (_, body) = server.http("GET", &path, "", "").await;
    let (connect, auth) = body.split_once('\x1e').unwrap();
    assert!(connect.starts_with("40{\"sid\":\""), "{connect}");
    assert_eq!(auth, r#"42["auth",{"token":"good"}]"#);
    path
}

fn websocket(path: &str) -> String {
    path.replace("transport=polling", "transport=websocket")
}

#[tokio::test]
async fn the_open_packet_offers_the_upgrade() {
    let server = Server::start(config()).await;
    for path in [SOCKET_IO, "/socket.io?EIO=4&transport=polling", ENGINE_IO] {
        let (status, head, body) = server.http_full("GET", path, "", "").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
        let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], serde_json::json!(["websocket"]));
        assert_eq!(open["pingInterval"].as_u64(), Some(25_000));
        assert_eq!(open.as_object().unwrap().len(), 5);
    }
}

#[tokio::test]
async fn bad_handshakes_are_told_by_code() {
    let server = Server::start(config()).await;
    let cases = [
        ("GET", "/socket.io/?transport=polling", 5, "Unsupported protocol version"),
        ("GET", "/socket.io/?EIO=3&transport=polling", 5, "Unsupported protocol version"),
        ("GET", "/socket.io/?EIO=abc&transport=polling", 5, "Unsupported protocol version"),
        ("GET", "/socket.io/?EIO=4", 0, "Transport unknown"),
        ("GET", "/socket.io/?EIO=4&transport=abc", 0, "Transport unknown"),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=nobody", 1, "Session ID unknown"),
        ("POST", "/socket.io/?EIO=4&transport=polling&sid=nobody", 1, "Session ID unknown"),
        ("POST", "/socket.io/?EIO=4&transport=polling", 2, "Bad handshake method"),
        ("PUT", "/socket.io/?EIO=4&transport=polling", 2, "Bad handshake method"),
        ("GET", "/socket.io/?EIO=4&transport=websocket", 3, "Bad request"),
    ];
    for (method, path, code, message) in cases {
        let (status, head, body) = server.http_full(method, path, "", "").await;
        assert_eq!(status, 400, "{method} {path}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, serde_json::json!({"code": code, "message": message}), "{method} {path}");
    }
    assert_eq!(server.edge.stats().connections, 0);
}

#[tokio::test]
async fn packets_go_both_ways_in_payloads() {
    let server = Server::start(config()).await;
    let path = open(&server, ENGINE_IO).await;
    for payload in ["4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "4€亜Б"] {
        assert_eq!(server.http("POST", &path, "", payload).await, (200, "ok".into()));
        assert_eq!(server.http("GET", &path, "", "").await, (200, payload.into()));
    }
}

#[tokio::test]
async fn socket_io_events_acks_and_attachments_go_by_polling() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    let post = "421[\"echo\",{\"a\":1}]\x1e42[\"message\",2]\x1e451-3[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQI=";
    assert_eq!(server.http("POST", &path, "", post).await.0, 200);
    let (_, body) = server.http("GET", &path, "", "").await;
    let expected =
        [r#"431[{"a":1}]"#, r#"42["message-back",2]"#, r#"461-3[{"_placeholder":true,"num":0}]"#, "bAQI="];
    assert_eq!(body.split('\x1e').collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_poll_waits_until_there_is_something() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    let poll = server.http("GET", &path, "", "");
    let event = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.http("POST", &path, "", "42[\"message\",1]").await
    };
    let (poll, posted) = tokio::join!(poll, event);
    assert_eq!(posted, (200, "ok".into()));
    assert_eq!(poll, (200, "42[\"message-back\",1]".into()));
}

#[tokio::test]
async fn a_post_is_answered_when_its_events_were_handled() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    server.http("POST", &path, "", "42[\"wait\",80]").await;
    assert!(server.service.noted("waited 80"));
}

#[tokio::test]
async fn heartbeats_go_by_polling_and_a_silent_session_is_closed() {
    let server = Server::start(hasty()).await;
    let path = open(&server, ENGINE_IO).await;
    for _ in 0..3 {
        assert_eq!(server.http("GET", &path, "", "").await, (200, "2".into()));
        assert_eq!(server.http("POST", &path, "", "3").await, (200, "ok".into()));
    }
    let path = open(&server, ENGINE_IO).await;
    // At 500 ms its time is over, to the millisecond; only on a machine that stood still was the ping late, and
    // then the session is given time to answer it.
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        match server.http("GET", &path, "", "").await {
            (400, _) => break,
            late => assert_eq!(late, (200, "2".into())),
        }
    }
    server.wait_until(|stats| stats.connections == 0 && stats.polling == 0).await;
}

#[tokio::test]
async fn what_is_no_payload_closes_the_session() {
    let server = Server::start(config()).await;
    for bad in ["abc", "", "4a\x1e", "b!", "2", "4\x1e0"] {
        let path = open(&server, ENGINE_IO).await;
        assert_eq!(server.http("POST", &path, "", bad).await.0, 400, "{bad:?}");
        assert_eq!(server.http("GET", &path, "", "").await.0, 400, "{bad:?}");
    }
    let path = open_in(&server).await;
    assert_eq!(server.http("POST", &path, "", "4abc").await.0, 400);
    assert_eq!(server.http("GET", &path, "", "").await.0, 400);
    server.service.wait_for("gone / Protocol").await;
}

#[tokio::test]
async fn two_polls_at_a_time_close_the_session() {
    let server = Server::start(config()).await;
    let path = open(&server, ENGINE_IO).await;
    let second = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.http("GET", &path, "", "").await
    };
    let (first, second) = tokio::join!(server.http("GET", &path, "", ""), second);
    assert_eq!(first, (200, "1".into()));
    assert_eq!(second.0, 400);
    assert_eq!(server.http("GET", &path, "", "").await.0, 400);
}

#[tokio::test]
async fn two_posts_at_a_time_close_the_session() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    let second = async {
        server.service.wait_for("event wait").await;
        server.http("POST", &path, "", "42[\"echo\"]").await
    };
    let (_, second) = tokio::join!(server.http("POST", &path, "", "42[\"wait\",100]"), second);
    assert_eq!(second.0, 400);
    server.service.wait_for("gone / Protocol").await;
}

#[tokio::test]
async fn a_poll_given_up_ends_the_session() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(stream);
    server.service.wait_for("gone / Transport").await;
    assert_eq!(server.http("GET", &path, "", "").await.0, 400);
}

#[tokio::test]
async fn a_goodbye_brings_the_poll_home() {
    let server = Server::start(config()).await;
    let path = open(&server, ENGINE_IO).await;
    let goodbye = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.http("POST", &path, "", "1").await
    };
    let (poll, goodbye) = tokio::join!(server.http("GET", &path, "", ""), goodbye);
    assert_eq!(poll, (200, "6".into()));
    assert_eq!(goodbye, (200, "ok".into()));
    assert_eq!(server.http("GET", &path, "", "").await.0, 400);
}

#[tokio::test]
async fn last_words_go_with_the_next_poll() {
    let server = Server::start(EdgeConfig { auth_timeout: Duration::from_millis(100), ..config() }).await;
    let path = open(&server, SOCKET_IO).await;
    server.http("POST", &path, "", "40").await;
    server.http("GET", &path, "", "").await;
    let (status, body) = server.http("GET", &path, "", "").await;
    assert_eq!(status, 200);
    // The close comes alone: JavaScript's client would drop what stands before it in the same body.
    assert_eq!(body, "42[\"error\",{\"code\":\"UNAUTHENTICATED\"}]\x1e41");
    assert_eq!(server.http("GET", &path, "", "").await, (200, "1".into()));
    server.service.wait_for("gone / Unauthenticated").await;
}

#[tokio::test]
async fn a_body_has_no_more_packets_than_clients_take() {
    let server = Server::start(config()).await;
    let path = open(&server, SOCKET_IO).await;
    server.http("POST", &path, "", "40").await;
    server.http("GET", &path, "", "").await;
    let burst: Vec<_> = (0..40).map(|n| format!("42[\"message\",{n}]")).collect();
    server.http("POST", &path, "", &burst.join("\x1e")).await;
    let mut bodies = Vec::new();
    while bodies.iter().map(|body: &String| body.split('\x1e').count()).sum::<usize>() < 40 {
        bodies.push(server.http("GET", &path, "", "").await.1);
    }
    assert!(bodies.iter().all(|body| body.split('\x1e').count() <= 16), "python-engineio takes 16");
    let heard = bodies.join("\x1e");
    let expected: Vec<_> = (0..40).map(|n| format!("42[\"message-back\",{n}]")).collect();
    assert_eq!(heard, expected.join("\x1e"));
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let server = Server::start(EdgeConfig { max_packets_per_poll: 3, ..config() }).await;
    let path = open(&server, ENGINE_IO).await;
    let (status, _) = server.http("POST", &path, "", &format!("4{}", "x".repeat(100_000))).await;
    assert_eq!(status, 413);
    let path = open(&server, ENGINE_IO).await;
    assert_eq!(server.http("POST", &path, "", &format!("4{}", "x".repeat(99_999))).await.0, 200);
    let path = open(&server, ENGINE_IO).await;
    assert_eq!(server.http("POST", &path, "", "4\x1e4\x1e4").await.0, 200);
    assert_eq!(server.http("POST", &path, "", "4\x1e4\x1e4\x1e4").await.0, 400);
}

#[tokio::test]
async fn a_session_moves_to_websocket_without_loss() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    let mut ws = server.ws(&websocket(&path)).await;
    ws.send_text("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    // The poll comes home, so that the client can stop polling.
    assert_eq!(server.http("GET", &path, "", "").await, (200, "6".into()));
    // Between the poll and the upgrade, something waits.
    assert_eq!(server.http("POST", &path, "", "421[\"echo\",1]\x1e42[\"message\",2]").await.0, 200);
    ws.send_raw(&[frame(0x81, b"5"), frame(0x81, b"423[\"echo\",3]")].concat()).await;
    assert_eq!(ws.text().await, "431[1]");
    assert_eq!(ws.text().await, "42[\"message-back\",2]");
    assert_eq!(ws.text().await, "433[3]");
    assert_eq!(server.http("GET", &path, "", "").await.0, 400);
    assert_eq!(server.http("POST", &path, "", "4").await.0, 400);
    let stats = server.edge.stats();
    assert_eq!((stats.connections, stats.polling), (1, 0));
    drop(ws);
    server.service.wait_for("gone / Transport").await;
    assert_eq!(server.http("GET", &path, "", "").await.0, 400);
}

#[tokio::test]
async fn a_waiting_poll_comes_home_when_the_probe_succeeds() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    let probe = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut ws = server.ws(&websocket(&path)).await;
        ws.send_text("2probe").await;
        assert_eq!(ws.text().await, "3probe");
        ws
    };
    let (poll, mut ws) = tokio::join!(server.http("GET", &path, "", ""), probe);
    assert_eq!(poll, (200, "6".into()));
    ws.send_text("5").await;
    ws.send_text("421[\"echo\",1]").await;
    assert_eq!(ws.text().await, "431[1]");
}

#[tokio::test]
async fn after_the_upgrade_other_requests_change_nothing() {
    let server = Server::start(config()).await;
    let path = open(&server, ENGINE_IO).await;
    let mut ws = server.ws(&websocket(&path)).await;
    ws.send_raw(&[frame(0x81, b"2probe"), frame(0x81, b"5")].concat()).await;
    assert_eq!(ws.text().await, "3probe");
    ws.send_text("4first").await;
    assert_eq!(ws.text().await, "4first");
    assert_eq!(server.http("GET", &path, "", "").await.0, 400);
    let mut second = server.ws(&websocket(&path)).await;
    assert_eq!(second.next().await, None);
    ws.send_text("4hello").await;
    assert_eq!(ws.text().await, "4hello");
}

#[tokio::test]
async fn a_failed_probe_leaves_the_session_polling() {
    let server = Server::start(EdgeConfig { upgrade_timeout: Duration::from_millis(100), ..config() }).await;
    let path = open_in(&server).await;
    for bad in ["2prob", "5", "40", "3probe"] {
        let mut ws = server.ws(&websocket(&path)).await;
        ws.send_text(bad).await;
        assert_eq!(ws.next().await, None, "{bad}");
    }
    // One that says nothing, or not enough, is cut off.
    let mut ws = server.ws(&websocket(&path)).await;
    ws.send_text("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    assert_eq!(ws.next().await, None);
    server.http("POST", &path, "", "421[\"echo\",1]").await;
    assert_eq!(server.http("GET", &path, "", "").await, (200, "431[1]".into()));
    let missing = format!("{}&sid=nobody", websocket(SOCKET_IO));
    assert!(Ws::open(server.addr, &missing, "").await.err().unwrap().starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn browsers_need_an_origin_that_is_let_in_on_every_transport() {
    let server = Server::start(config()).await;
    let good = "Origin: http://app.example.test\r\n";
    let bad = "Origin: http://evil.example.test\r\n";
    let (status, head, _) = server.http_full("GET", SOCKET_IO, good, "").await;
    assert_eq!(status, 200);
    assert!(head.contains("access-control-allow-origin: http://app.example.test"), "{head}");
    assert!(head.contains("access-control-allow-credentials: true"), "{head}");
    assert!(head.contains("vary: origin"), "{head}");

    let ask =
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, x-custom\r\n";
    let (status, head, _) = server.http_full("OPTIONS", SOCKET_IO, &format!("{good}{ask}"), "").await;
    assert_eq!(status, 204);
    assert!(head.contains("access-control-allow-headers: authorization, x-custom"), "{head}");
    assert!(head.contains("access-control-allow-methods: get, post"), "{head}");

    for method in ["GET", "OPTIONS", "POST"] {
        let (status, head, body) = server.http_full(method, SOCKET_IO, bad, "").await;
        assert_eq!(status, 403);
        assert!(!head.contains("access-control"), "{head}");
        assert_eq!(body, "{\"code\":4,\"message\":\"Forbidden\"}");
    }
    for path in ["/socket.io/?EIO=4&transport=websocket", "/ws", "/engine.io/?EIO=4&transport=websocket"] {
        let refused = Ws::open(server.addr, path, bad).await.err().unwrap();
        assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
        assert!(Ws::open(server.addr, path, good).await.is_ok());
    }
    // Errors are readable for browsers too.
    let (_, head, _) = server.http_full("GET", "/socket.io/?EIO=4", good, "").await;
    assert!(head.contains("access-control-allow-origin"), "{head}");
}

#[tokio::test]
async fn a_shutdown_closes_polling_sessions_with_a_close_packet() {
    let server = Server::start(config()).await;
    let path = open_in(&server).await;
    let edge = server.edge.clone();
    let down = async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        edge.shutdown(Duration::ZERO).await;
    };
    let (poll, ()) = tokio::join!(server.http("GET", &path, "", ""), down);
    assert_eq!(poll, (200, "1".into()));
    assert_eq!(server.http("GET", SOCKET_IO, "", "").await.0, 503);
}

/// The hand-over at every moment: events flow all the while, and each arrives once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_while_events_flow_lose_and_repeat_nothing() {
    const EVENTS: usize = 120;
    let server = std::sync::Arc::new(Server::start(config()).await);
    let mut sessions = tokio::task::JoinSet::new();
    for round in 0..24_u64 {
        let path = open_in(&server).await;
        let client = server.service.clients.lock().unwrap().pop().unwrap();
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move {
            for n in 0..EVENTS {
                client.emit(&edge::Event::new("n", n.to_string()));
                if n as u64 % 7 == round % 7 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        sessions.spawn(async move {
            let mut seen = Vec::new();
            let note = |seen: &mut Vec<usize>, packet: &str| {
                if let Some(n) = packet.strip_prefix("42[\"n\",") {
                    seen.push(n.trim_end_matches(']').parse().unwrap());
                }
            };
            for _ in 0..round % 4 {
                let (_, body) = server.http("GET", &path, "", "").await;
                body.split('\x1e').for_each(|packet| note(&mut seen, packet));
            }
            let mut ws = server.ws(&websocket(&path)).await;
            ws.send_text("2probe").await;
            assert_eq!(ws.text().await, "3probe");
            // As clients do: the poll that is out comes home, then the upgrade is sealed.
            let (status, body) = server.http("GET", &path, "", "").await;
            assert_eq!(status, 200);
            body.split('\x1e').for_each(|packet| note(&mut seen, packet));
            tokio::time::sleep(Duration::from_millis(round % 5)).await;
            ws.send_text("5").await;
            while seen.len() < EVENTS {
                note(&mut seen, &ws.text().await);
            }
            assert_eq!(seen, (0..EVENTS).collect::<Vec<_>>(), "round {round}");
        });
    }
    while let Some(done) = sessions.join_next().await {
        done.unwrap();
    }
}
