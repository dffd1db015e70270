//! Socket.IO over WebSocket, as a client sees it.

use std::time::Duration;

use crate::support::{Frame, Server, Ws, config, frame, hasty};
use edge::EdgeConfig;
use serde_json::Value;

#[tokio::test]
async fn the_handshake_tells_integers_and_no_upgrades() {
    let server = Server::start(config()).await;
    for path in ["/socket.io/?EIO=4&transport=websocket", "/socket.io?EIO=4&transport=websocket"] {
        let mut ws = server.ws(path).await;
        let open = ws.text().await;
        let open: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["pingInterval"].as_u64(), Some(25_000));
        assert_eq!(open["pingTimeout"].as_u64(), Some(20_000));
        assert_eq!(open["maxPayload"].as_u64(), Some(100_000));
        assert_eq!(open["upgrades"], serde_json::json!([]));
        assert_eq!(open["sid"].as_str().map(str::len), Some(20));
        assert_eq!(open.as_object().unwrap().len(), 5);
    }
}

#[tokio::test]
async fn a_websocket_may_call_itself_polling() {
    let server = Server::start(config()).await;
    let mut ws = server.ws("/socket.io/?EIO=4&transport=polling").await;
    assert!(ws.text().await.starts_with("0{"));
    ws.send_text("40").await;
    assert!(ws.text().await.starts_with("40{\"sid\":"));
}

#[tokio::test]
async fn bytes_behind_the_request_are_not_lost() {
    let server = Server::start(config()).await;
    let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let path = "/socket.io/?EIO=4&transport=websocket";
    let mut extra = frame(0x81, b"40");
    extra.extend(frame(0x81, b"421[\"echo\",1]"));
    let mut ws = Ws::open_on(stream, path, "", &extra).await.unwrap();
    assert!(ws.text().await.starts_with("0{"));
    assert!(ws.text().await.starts_with("40{"));
    assert_eq!(ws.text().await, "42[\"auth\",{}]");
    assert_eq!(ws.text().await, "431[1]");
}

#[tokio::test]
async fn the_connect_reply_comes_before_what_was_emitted_meanwhile() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io().await;
    ws.send_text("40{\"token\":\"good\"}").await;
    let reply = ws.text().await;
    assert!(reply.starts_with("40{\"sid\":\""), "{reply}");
    assert_eq!(ws.text().await, r#"42["auth",{"token":"good"}]"#);
}

#[tokio::test]
async fn a_refusal_has_a_message_and_a_code_and_nothing_else_is_sent() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io().await;
    ws.send_text("40{\"token\":\"bad\"}").await;
    let refusal = ws.text().await;
    let refusal: Value = serde_json::from_str(refusal.strip_prefix("44").unwrap()).unwrap();
    assert_eq!(
        refusal,
        serde_json::json!({"message": "The token is not valid.", "data": {"code": "UNAUTHENTICATED"}})
    );
    // The connection is still there for another try.
    ws.send_text("40{\"token\":\"good\"}").await;
    assert!(ws.text().await.starts_with("40{"));
}

#[tokio::test]
async fn tokens_come_four_ways() {
    let server = Server::start(config()).await;
    let path = "/socket.io/?EIO=4&transport=websocket";
    let cases = [
        (path.to_owned(), "", "40{\"token\":\"Bearer 7|AbC\"}"),
        (path.to_owned(), "Authorization: Bearer 7|AbC\r\n", "40"),
        (format!("{path}&token=7%7CAbC"), "", "40"),
        (format!("{path}&token=Bearer%207%7CAbC"), "", "40{}"),
    ];
    for (path, headers, connect) in cases {
        let mut ws = Ws::open(server.addr, &path, headers).await.unwrap();
        ws.text().await;
        ws.send_text(connect).await;
        assert!(ws.text().await.starts_with("40{"), "{path} {headers} {connect}");
        let client = server.service.clients.lock().unwrap().pop().unwrap();
        assert_eq!(*client.session().token.lock().unwrap(), "7|AbC");
        assert!(client.is_authenticated());
    }
}

#[tokio::test]
async fn namespaces_are_separate_clients_and_unknown_ones_are_refused() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("40/custom,{\"token\":\"good\"}").await;
    assert!(ws.text().await.starts_with("40/custom,{\"sid\":\""));
    assert_eq!(ws.text().await, r#"42/custom,["auth",{"token":"good"}]"#);
    ws.send_text("42/custom,7[\"echo\",1]").await;
    assert_eq!(ws.text().await, "43/custom,7[1]");
    ws.send_text("42/custom,[\"message\",2]").await;
    assert_eq!(ws.text().await, "42/custom,[\"message-back\",2]");

    ws.send_text("40/random").await;
    assert_eq!(ws.text().await, r#"44/random,{"message":"Invalid namespace"}"#);

    ws.send_text("41/custom,").await;
    server.service.wait_for("gone /custom Client").await;
    ws.send_text("421[\"echo\",3]").await;
    assert_eq!(ws.text().await, "431[3]");
}

#[tokio::test]
async fn an_ack_carries_what_the_handler_replied() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("42456[\"echo\",1,\"2\",{\"3\":[false]}]").await;
    assert_eq!(ws.text().await, r#"43456[1,"2",{"3":[false]}]"#);
    // Nobody asked: no ack.
    ws.send_text("42[\"echo\",1]").await;
    ws.send_text("420[\"echo\"]").await;
    assert_eq!(ws.text().await, "430[]");
}

#[tokio::test]
async fn attachments_travel_both_ways() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    let args = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    ws.send_text(&format!("452-[\"message\",{args}]")).await;
    ws.send_frame(0x82, &[4, 1, 2]).await;
    ws.send_frame(0x82, &[]).await;
    assert_eq!(ws.text().await, format!("452-[\"message-back\",{args}]"));
    assert_eq!(ws.next().await, Some(Frame { opcode: 2, payload: vec![4, 1, 2] }));
    assert_eq!(ws.next().await, Some(Frame { opcode: 2, payload: vec![] }));

    ws.send_text(&format!("452-789[\"echo\",{args}]")).await;
    ws.send_frame(0x82, &[7]).await;
    ws.send_frame(0x82, &[8]).await;
    assert_eq!(ws.text().await, format!("462-789[{args}]"));
    assert_eq!(ws.next().await, Some(Frame { opcode: 2, payload: vec![7] }));
    assert_eq!(ws.next().await, Some(Frame { opcode: 2, payload: vec![8] }));
}

#[tokio::test]
async fn broken_packets_close_the_connection() {
    let server = Server::start(config()).await;
    for bad in [
        "4abc",
        "42{}",
        "42[]",
        "42abc[\"a\",1]",
        "abc",
        "",
        "2",
        "2probe",
        "5",
        "9",
        "451-[\"a\"",
        "40",
        "4511-[\"a\"]",
    ] {
        let mut ws = server.socket_io_in().await;
        ws.send_text(bad).await;
        ws.expect_close(1002).await;
    }
    // A binary message that nobody announced, and a text where one was.
    let mut ws = server.socket_io_in().await;
    ws.send_frame(0x82, &[1]).await;
    ws.expect_close(1002).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("451-[\"a\",{\"_placeholder\":true,\"num\":0}]").await;
    ws.send_text("42[\"a\"]").await;
    ws.expect_close(1002).await;
    server.service.wait_for("gone / Protocol").await;
}

#[tokio::test]
async fn an_event_before_connect_closes_the_connection() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io().await;
    ws.send_text("42[\"echo\"]").await;
    ws.expect_close(1002).await;
}

#[tokio::test]
async fn reserved_and_missing_names_are_answered_and_the_connection_stays() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    for (bad, problem) in [
        ("42[\"connect\"]", "ReservedName"),
        ("42[\"disconnecting\",1]", "ReservedName"),
        ("42[\"\"]", "NoName"),
        ("42[5]", "NoName"),
    ] {
        ws.send_text(bad).await;
        assert_eq!(ws.text().await, format!("42[\"error\",{{\"message\":\"{problem}\"}}]"));
    }
    // One that asked for an ack is told by it too.
    ws.send_text("427[\"connect\"]").await;
    assert_eq!(ws.text().await, "42[\"error\",{\"message\":\"ReservedName\"}]");
    assert_eq!(ws.text().await, "437[{\"success\":false,\"problem\":\"ReservedName\"}]");
    ws.send_text("421[\"echo\",1]").await;
    assert_eq!(ws.text().await, "431[1]");
}

#[tokio::test]
async fn acks_that_nobody_awaits_are_ignored() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("431[1]").await;
    ws.send_text("461-2[{\"_placeholder\":true,\"num\":0}]").await;
    ws.send_frame(0x82, &[1]).await;
    ws.send_text("421[\"echo\",1]").await;
    assert_eq!(ws.text().await, "431[1]");
}

#[tokio::test]
async fn events_are_handled_one_after_the_other() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("421[\"wait\",60]").await;
    ws.send_text("422[\"wait\",0]").await;
    ws.send_text("423[\"echo\",3]").await;
    assert_eq!(ws.text().await, "431[60]");
    assert_eq!(ws.text().await, "432[0]");
    assert_eq!(ws.text().await, "433[3]");
    let log = server.service.log.lock().unwrap().join(",");
    assert!(log.contains("event wait 60,waited 60,event wait 0,waited 0,event echo 3"), "{log}");
}

#[tokio::test]
async fn later_replies_overlap_where_allowed_and_stay_in_order() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("421[\"later_held\",1]").await;
    ws.send_text("422[\"later\",0]").await;
    ws.send_text("423[\"echo\",3]").await;
    // The second is handed in while the first is under way, the third is not.
    server.service.wait_for("event later 0").await;
    ws.expect_quiet(Duration::from_millis(50)).await;
    assert!(!server.service.noted("event echo 3"));
    server.service.permits.add_permits(1);
    assert_eq!(ws.text().await, "431[1]");
    assert_eq!(ws.text().await, "432[0]");
    assert_eq!(ws.text().await, "433[3]");
}

#[tokio::test]
async fn reading_stops_at_the_limit_of_later_replies() {
    let server = Server::start(EdgeConfig { max_later: 2, ..config() }).await;
    let mut ws = server.socket_io_in().await;
    for id in 1..=3 {
        ws.send_text(&format!("42{id}[\"later_held\",{id}]")).await;
    }
    server.service.wait_for("event later_held 2").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!server.service.noted("event later_held 3"));
    server.service.permits.add_permits(1);
    server.service.wait_for("event later_held 3").await;
    server.service.permits.add_permits(2);
    for id in 1..=3 {
        assert_eq!(ws.text().await, format!("43{id}[{id}]"));
    }
}

#[tokio::test]
async fn two_hundred_quick_events_keep_their_order() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    let mut all = Vec::new();
    for id in 0..200 {
        all.extend(frame(0x81, format!("42{id}[\"echo\",{id}]").as_bytes()));
    }
    ws.send_raw(&all).await;
    for id in 0..200 {
        assert_eq!(ws.text().await, format!("43{id}[{id}]"));
    }
}

#[tokio::test]
async fn the_server_pings_and_a_silent_client_is_closed() {
    let server = Server::start(hasty()).await;
    let mut ws = server.socket_io_in().await;
    for _ in 0..3 {
        assert_eq!(ws.text().await, "2");
        ws.send_text("3").await;
    }
    assert_eq!(ws.text().await, "2");
    ws.expect_close(1008).await;
    server.service.wait_for("gone / PingTimeout").await;
}

/// A process that was stopped for a while must not take its own silence for its clients'.
#[tokio::test]
async fn a_pong_that_came_while_the_process_stood_still_counts() {
    let server = Server::start(hasty()).await;
    let mut ws = server.socket_io_in().await;
    for _ in 0..3 {
        assert_eq!(ws.text().await, "2");
        ws.send_text("3").await;
        // The one thread of this test runs the server too.
        std::thread::sleep(Duration::from_millis(450));
    }
    assert_eq!(ws.text().await, "2");
    ws.send_text("3").await;
    ws.send_text("421[\"echo\",1]").await;
    assert_eq!(ws.text().await, "431[1]");
}

#[tokio::test]
async fn a_connection_without_connect_is_closed() {
    let server = Server::start(EdgeConfig { connect_timeout: Duration::from_millis(100), ..config() }).await;
    let mut ws = server.socket_io().await;
    ws.expect_close(1008).await;
    server.wait_until(|stats| stats.connections == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_authenticate_is_told_and_closed() {
    let server = Server::start(EdgeConfig { auth_timeout: Duration::from_millis(100), ..config() }).await;
    let mut ws = server.socket_io().await;
    ws.send_text("40").await;
    ws.text().await;
    ws.text().await;
    assert_eq!(ws.text().await, r#"42["error",{"code":"UNAUTHENTICATED"}]"#);
    assert_eq!(ws.text().await, "41");
    ws.expect_close(4401).await;
    server.service.wait_for("gone / Unauthenticated").await;

    let mut ws = server.socket_io().await;
    ws.send_text("40").await;
    ws.text().await;
    ws.text().await;
    ws.send_text("421[\"authenticate\",{}]").await;
    assert_eq!(ws.text().await, r#"42["authenticated",{"user_id":1}]"#);
    assert_eq!(ws.text().await, r#"431[{"success":true}]"#);
    ws.expect_quiet(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn leaving_the_last_namespace_keeps_the_transport() {
    let server = Server::start(hasty()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("41").await;
    server.service.wait_for("gone / Client").await;
    assert_eq!(ws.text().await, "2");
    ws.send_text("3").await;
    ws.send_text("40{\"token\":\"good\"}").await;
    assert!(ws.text().await.starts_with("40{"));
}

#[tokio::test]
async fn goodbyes_end_the_connection() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("1").await;
    ws.expect_close(1000).await;
    let mut ws = server.socket_io_in().await;
    ws.send_frame(0x88, &4321_u16.to_be_bytes()).await;
    ws.expect_close(4321).await;
    let mut ws = server.socket_io_in().await;
    ws.send_frame(0x88, &[]).await;
    ws.expect_close(1000).await;
    let ws = server.socket_io_in().await;
    drop(ws);
    server.service.wait_for("gone / Transport").await;
    server.wait_until(|stats| stats.connections == 0).await;
    let log = server.service.log.lock().unwrap();
    assert_eq!(log.iter().filter(|line| line.starts_with("gone")).count(), 4);
}

#[tokio::test]
async fn one_who_is_put_out_gets_what_was_queued_then_disconnect() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_raw(&[frame(0x81, b"42[\"kick\"]"), frame(0x81, b"42[\"echo\",\"late\"]")].concat()).await;
    assert_eq!(ws.text().await, "42[\"bye\",1]");
    assert_eq!(ws.text().await, "41");
    ws.expect_close(4403).await;
    assert!(!server.service.noted("event echo \"late\""));
}

#[tokio::test]
async fn a_shutdown_answers_what_is_under_way_and_sends_no_disconnect() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("421[\"later\",100]").await;
    server.service.wait_for("event later").await;
    let edge = server.edge.clone();
    let down = tokio::spawn(async move { edge.shutdown(Duration::from_millis(20)).await });
    assert_eq!(ws.text().await, "431[100]");
    ws.expect_close(1001).await;
    down.await.unwrap();
    assert_eq!(server.edge.stats().connections, 0);
    let refused = Ws::open(server.addr, "/socket.io/?EIO=4&transport=websocket", "").await.err().unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("retry-after: "), "{refused}");
}

#[tokio::test]
async fn a_panic_of_the_service_costs_that_connection_only() {
    let server = Server::start(config()).await;
    let mut other = server.socket_io_in().await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("42[\"panic\"]").await;
    assert_eq!(ws.next().await, None);
    server.service.wait_for("gone / Transport").await;
    server.wait_until(|stats| stats.connections == 1).await;
    other.send_text("421[\"echo\",1]").await;
    assert_eq!(other.text().await, "431[1]");
}

#[tokio::test]
async fn a_connect_that_is_under_way_is_finished_even_if_the_client_is_gone() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io().await;
    ws.send_text("40{\"token\":\"slow\"}").await;
    server.service.wait_for("connect /").await;
    drop(ws);
    // Let in and then told of the end: the service is never left with a client it was not told about.
    server.service.wait_for("gone / ").await;
}

#[tokio::test]
async fn bare_engine_io_echoes_text_and_binary() {
    let server = Server::start(config()).await;
    let mut ws = server.ws("/engine.io/?EIO=4&transport=websocket").await;
    assert!(ws.text().await.starts_with("0{"));
    ws.send_text("4hello").await;
    ws.send_text("4").await;
    ws.send_frame(0x82, &[1, 2, 3]).await;
    assert_eq!(ws.text().await, "4hello");
    assert_eq!(ws.text().await, "4");
    assert_eq!(ws.next().await, Some(Frame { opcode: 2, payload: vec![1, 2, 3] }));
}

#[tokio::test]
async fn the_server_may_ask_for_acks_too() {
    let server = Server::start(config()).await;
    let mut ws = server.socket_io_in().await;
    let client = server.service.clients.lock().unwrap().pop().unwrap();
    let first = client.emit_with_ack(&edge::Event::new("ask", "1"));
    let second = client.emit_with_ack(&edge::Event::new("ask", "2"));
    let third = client.emit_with_ack(&edge::Event::new("ask", "3"));
    for id in 1..=3 {
        assert_eq!(ws.text().await, format!("42{id}[\"ask\",{id}]"));
    }
    ws.send_text("461-2[\"b\",{\"_placeholder\":true,\"num\":0}]").await;
    ws.send_frame(0x82, &[9]).await;
    ws.send_text("431[\"a\"]").await;
    let ack = first.await.unwrap();
    assert_eq!((ack.args[0].get(), ack.attachments.len()), ("\"a\"", 0));
    let ack = second.await.unwrap();
    assert_eq!((ack.args.len(), &ack.attachments[0][..]), (2, &[9][..]));
    drop(ws);
    assert_eq!(third.await.err(), Some(edge::NoAck));
    assert_eq!(client.emit_with_ack(&edge::Event::new("ask", "4")).await.err(), Some(edge::NoAck));
}
