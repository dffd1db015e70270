//! The plain dialect, as the app sees it.

use std::time::Duration;

use crate::support::{Frame, Server, Ws, config, frame, hasty};
use edge::EdgeConfig;

#[tokio::test]
async fn frames_are_events_both_ways_and_a_ref_is_answered() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    ws.send_text(r#"{"event":"message","data":{"a":1}}"#).await;
    assert_eq!(ws.text().await, r#"{"event":"message-back","data":{"a":1}}"#);
    ws.send_text(r#"{"event":"echo","data":{"a":2},"ref":"r-1"}"#).await;
    assert_eq!(ws.text().await, r#"{"event":"ack","ref":"r-1","data":{"a":2}}"#);
    ws.send_text(r#"{"event":"echo","ref":7}"#).await;
    assert_eq!(ws.text().await, r#"{"event":"ack","ref":7,"data":{}}"#);
}

#[tokio::test]
async fn a_bad_token_is_told_and_closed_with_4401() {
    let server = Server::start(config()).await;
    let cases = [("/ws?token=bad", ""), ("/ws", "Authorization: Bearer bad\r\n")];
    for (path, headers) in cases {
        let mut ws = Ws::open(server.addr, path, headers).await.unwrap();
        assert_eq!(ws.text().await, r#"{"event":"auth","data":{}}"#);
        let error = ws.json().await;
        assert_eq!(error["event"], "error");
        assert_eq!(error["data"]["code"], "UNAUTHENTICATED");
        ws.expect_close(4401).await;
    }
    server.wait_until(|stats| stats.connections == 0).await;
    assert!(!server.service.log.lock().unwrap().iter().any(|line| line.starts_with("gone")));
}

#[tokio::test]
async fn tokens_are_percent_decoded() {
    let server = Server::start(config()).await;
    let mut ws = server.ws("/ws?token=7%7CAbC").await;
    ws.text().await;
    let client = server.service.clients.lock().unwrap().pop().unwrap();
    assert_eq!(*client.session().token.lock().unwrap(), "7|AbC");
}

#[tokio::test]
async fn a_client_that_does_not_authenticate_is_told_and_closed_with_4401() {
    let server = Server::start(EdgeConfig { auth_timeout: Duration::from_millis(100), ..config() }).await;
    let mut ws = server.ws("/ws").await;
    ws.text().await;
    assert_eq!(ws.text().await, r#"{"event":"error","data":{"code":"UNAUTHENTICATED"}}"#);
    ws.expect_close(4401).await;

    let mut ws = server.ws("/ws").await;
    ws.text().await;
    ws.send_text(r#"{"event":"authenticate","data":{"token":"good"}}"#).await;
    assert_eq!(ws.text().await, r#"{"event":"authenticated","data":{"user_id":1}}"#);
    ws.expect_quiet(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn what_is_no_json_is_told_and_closed() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    ws.send_raw(&[frame(0x81, b"hello"), frame(0x81, br#"{"event":"echo","ref":1}"#)].concat()).await;
    assert_eq!(ws.text().await, r#"{"event":"error","data":{"message":"NotJson"}}"#);
    ws.expect_close(1007).await;

    let mut ws = server.plain_in().await;
    ws.send_frame(0x82, &[1, 2, 3]).await;
    assert_eq!(ws.text().await, r#"{"event":"error","data":{"message":"Binary"}}"#);
    ws.expect_close(1003).await;
}

#[tokio::test]
async fn json_that_is_no_event_is_told_and_stays() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    for (bad, problem) in [
        ("[]", "NotAnObject"),
        ("\"echo\"", "NotAnObject"),
        ("{}", "NoName"),
        ("{\"event\":\"\"}", "NoName"),
        ("{\"event\":\"echo\",\"ref\":[]}", "BadRef"),
    ] {
        ws.send_text(bad).await;
        assert_eq!(
            ws.text().await,
            format!("{{\"event\":\"error\",\"data\":{{\"message\":\"{problem}\"}}}}")
        );
    }
    // One that asked for an ack is told by it too.
    ws.send_text(r#"{"data":1,"ref":"x"}"#).await;
    assert_eq!(ws.text().await, r#"{"event":"error","data":{"message":"NoName"}}"#);
    assert_eq!(ws.text().await, r#"{"event":"ack","ref":"x","data":{"success":false,"problem":"NoName"}}"#);
    ws.send_text(r#"{"event":"nonsense","ref":1}"#).await;
    assert_eq!(ws.text().await, r#"{"event":"error","data":{"code":"BAD_REQUEST"}}"#);
    assert_eq!(ws.text().await, r#"{"event":"ack","ref":1,"data":{"success":false}}"#);
}

#[tokio::test]
async fn the_server_pings_and_a_silent_client_is_closed() {
    let server = Server::start(hasty()).await;
    let mut ws = server.plain_in().await;
    for _ in 0..3 {
        assert_eq!(ws.next().await, Some(Frame { opcode: 9, payload: vec![] }));
        ws.send_frame(0x8A, &[]).await;
    }
    assert_eq!(ws.next().await, Some(Frame { opcode: 9, payload: vec![] }));
    ws.expect_close(1008).await;
}

#[tokio::test]
async fn replies_that_come_later_stay_in_order() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    ws.send_text(r#"{"event":"later","data":80,"ref":1}"#).await;
    ws.send_text(r#"{"event":"later","data":0,"ref":2}"#).await;
    ws.send_text(r#"{"event":"echo","data":3,"ref":3}"#).await;
    for (reference, data) in [(1, 80), (2, 0), (3, 3)] {
        assert_eq!(ws.text().await, format!("{{\"event\":\"ack\",\"ref\":{reference},\"data\":{data}}}"));
    }
}

#[tokio::test]
async fn a_shutdown_closes_with_1001() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    server.edge.shutdown(Duration::ZERO).await;
    ws.expect_close(1001).await;
}

#[tokio::test]
async fn requests_that_want_no_websocket_are_told_so() {
    let server = Server::start(config()).await;
    let (status, head, body) = server.http_full("GET", "/ws", "", "").await;
    assert_eq!(status, 426);
    assert!(head.contains("upgrade: websocket"), "{head}");
    assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
}
