//! RFC 6455, case by case, over real sockets. The plain dialect's `echo` shows what arrived.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Frame, Server, Ws, config, frame};

fn echo(text: &str) -> String {
    format!("{{\"event\":\"echo\",\"data\":\"{text}\",\"ref\":1}}")
}

fn echoed(text: &str) -> String {
    format!("{{\"event\":\"ack\",\"ref\":1,\"data\":\"{text}\"}}")
}

async fn expect_echo(ws: &mut Ws) {
    ws.send_text(&echo("still here")).await;
    assert_eq!(ws.text().await, echoed("still here"));
}

#[tokio::test]
async fn the_handshake_answers_the_key() {
    let server = Server::start(config()).await;
    let ws = server.ws("/ws").await;
    let head = ws.head.to_ascii_lowercase();
    assert!(ws.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

#[tokio::test]
async fn extensions_that_are_offered_are_not_taken() {
    let server = Server::start(config()).await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut ws = Ws::open(server.addr, "/ws?token=good", offer).await.unwrap();
    assert!(!ws.head.to_ascii_lowercase().contains("sec-websocket-extensions"));
    ws.text().await;
    expect_echo(&mut ws).await;
}

#[tokio::test]
async fn bad_handshakes_are_no_upgrade() {
    let server = Server::start(config()).await;
    let request = |headers: &str| format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let cases = [
        (format!("{upgrade}{key}Sec-WebSocket-Version: 8\r\n"), 426),
        (format!("{upgrade}{key}"), 426),
        (format!("{upgrade}Sec-WebSocket-Version: 13\r\n"), 400),
        (format!("{upgrade}Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n"), 400),
        (format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{key}Sec-WebSocket-Version: 13\r\n"), 426),
        (format!("Upgrade: websocket\r\n{key}Sec-WebSocket-Version: 13\r\n"), 426),
    ];
    for (headers, status) in cases {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(request(&headers).as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {status}"), "{headers}");
    }
    assert_eq!(server.edge.stats().connections, 0);
}

#[tokio::test]
async fn messages_of_every_length_arrive_whole() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    let around = echo("").len();
    for len in [0, 1, 125 - around, 126 - around, 127 - around, 0xFFFF - around, 0x10000 - around, 99_000] {
        let text = "x".repeat(len);
        ws.send_text(&echo(&text)).await;
        assert_eq!(ws.text().await, echoed(&text), "{len}");
    }
}

#[tokio::test]
async fn a_message_may_come_byte_by_byte() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    for byte in frame(0x81, echo("é🚲").as_bytes()) {
        ws.send_raw(&[byte]).await;
    }
    assert_eq!(ws.text().await, echoed("é🚲"));
    // Two and a half frames at once, then the rest.
    let mut bytes = frame(0x81, echo("one").as_bytes());
    bytes.extend(frame(0x81, echo("two").as_bytes()));
    let third = frame(0x81, echo("three").as_bytes());
    bytes.extend(&third[..9]);
    ws.send_raw(&bytes).await;
    assert_eq!(ws.text().await, echoed("one"));
    assert_eq!(ws.text().await, echoed("two"));
    ws.send_raw(&third[9..]).await;
    assert_eq!(ws.text().await, echoed("three"));
}

#[tokio::test]
async fn fragments_are_joined_with_control_frames_in_between() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    let text = echo("é🚲");
    let bytes = text.as_bytes();
    // Every character of more than one byte is cut.
    ws.send_frame(0x01, &bytes[..0]).await;
    for byte in &bytes[..bytes.len() - 1] {
        ws.send_frame(0x00, &[*byte]).await;
    }
    ws.send_frame(0x89, b"between").await;
    assert_eq!(ws.next().await, Some(Frame { opcode: 10, payload: b"between".to_vec() }));
    ws.send_frame(0x8A, b"unasked").await;
    ws.send_frame(0x80, &bytes[bytes.len() - 1..]).await;
    assert_eq!(ws.text().await, echoed("é🚲"));
}

#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    for payload in [&b""[..], b"hello", &[0xFF, 0xFE], &[7; 125]] {
        ws.send_frame(0x89, payload).await;
        assert_eq!(ws.next().await, Some(Frame { opcode: 10, payload: payload.to_vec() }));
    }
    expect_echo(&mut ws).await;
}

#[tokio::test]
async fn what_breaks_the_framing_closes_with_1002() {
    let server = Server::start(config()).await;
    let text = echo("x");
    let masked = |first| frame(first, text.as_bytes());
    let mut cases = vec![
        ("reserved bit 1", masked(0xC1)),
        ("reserved bit 2", masked(0xA1)),
        ("reserved bit 3", masked(0x91)),
        ("reserved bit in a control frame", frame(0xC9, b"")),
        ("a continuation of nothing", masked(0x80)),
        ("a fragment of nothing", masked(0x00)),
        ("a new message inside one", [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
        ("a new binary message inside one", [frame(0x01, b"a"), frame(0x82, b"b")].concat()),
        ("a fragmented ping", frame(0x09, b"")),
        ("a fragmented close", frame(0x08, b"")),
        ("a long ping", frame(0x89, &[0; 126])),
        ("a long close", frame(0x88, &[3; 126])),
        ("no mask", [&[0x81, text.len() as u8][..], text.as_bytes()].concat()),
        ("a length not in its shortest form", [&[0x81, 0xFE, 0, 5][..], &[0; 9]].concat()),
        ("a length of 2^63", vec![0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a close of one byte", frame(0x88, &[3])),
    ];
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        cases.push(("a reserved opcode", frame(0x80 | opcode, b"")));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535_u16] {
        cases.push(("a close code that must not be sent", frame(0x88, &code.to_be_bytes())));
    }
    for (what, bytes) in cases {
        let mut ws = server.plain_in().await;
        ws.send_raw(&bytes).await;
        let told = ws.next().await.map(|frame| String::from_utf8(frame.payload).unwrap());
        let error = r#"{"event":"error","data":{"message":"BadFrame"}}"#;
        assert_eq!(told.as_deref(), Some(error), "{what}: {bytes:x?}");
        let close = ws.next().await;
        let code = close.as_ref().map(|frame| (frame.opcode, frame.payload.clone()));
        assert_eq!(code, Some((8, 1002_u16.to_be_bytes().to_vec())), "{what}: {bytes:x?}");
        assert_eq!(ws.next().await, None, "{what}");
    }
    server.wait_until(|stats| stats.connections == 0).await;
    assert!(!server.service.log.lock().unwrap().iter().any(|line| line.starts_with("event")));
}

#[tokio::test]
async fn texts_that_are_not_utf8_close_with_1007() {
    let server = Server::start(config()).await;
    let bad: [&[u8]; 7] = [
        &[0xFF],
        &[0xC0, 0xAF],
        &[0xED, 0xA0, 0x80],
        &[0xF4, 0x90, 0x80, 0x80],
        &[0xE2, 0x82],
        &[0x80],
        b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited",
    ];
    for bytes in bad {
        let mut ws = server.plain_in().await;
        ws.send_frame(0x81, bytes).await;
        ws.expect_error_and_close("NotUtf8", 1007).await;
        let mut ws = server.plain_in().await;
        ws.send_frame(0x01, &bytes[..bytes.len() - 1]).await;
        ws.send_frame(0x80, &bytes[bytes.len() - 1..]).await;
        ws.expect_error_and_close("NotUtf8", 1007).await;
    }
    let mut ws = server.plain_in().await;
    ws.send_frame(0x88, &[3, 0xE8, 0xFF]).await;
    ws.expect_error_and_close("NotUtf8", 1007).await;
}

#[tokio::test]
async fn close_codes_that_may_be_sent_come_back() {
    let server = Server::start(config()).await;
    for code in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999_u16]
    {
        let mut ws = server.plain_in().await;
        let payload = [&code.to_be_bytes()[..], "sí".as_bytes()].concat();
        ws.send_frame(0x88, &payload).await;
        ws.expect_close(code).await;
    }
}

#[tokio::test]
async fn nothing_is_taken_after_a_close() {
    let server = Server::start(config()).await;
    let mut ws = server.plain_in().await;
    let late = frame(0x81, echo("late").as_bytes());
    ws.send_raw(&[frame(0x88, &1000_u16.to_be_bytes()), late].concat()).await;
    ws.expect_close(1000).await;
    assert!(!server.service.noted("event echo \"late\""));
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009_before_it_is_sent() {
    let server = Server::start(config()).await;
    // A header that claims too much is enough; nothing waits for the payload.
    for claimed in [100_001_u64, 1 << 32, (1 << 63) - 1] {
        let mut ws = server.plain_in().await;
        ws.send_raw(&[&[0x81, 0xFF][..], &claimed.to_be_bytes(), &[0; 4]].concat()).await;
        ws.expect_error_and_close("TooBig", 1009).await;
    }
    // Over all fragments.
    let mut ws = server.plain_in().await;
    ws.send_frame(0x01, &[b'x'; 60_000]).await;
    ws.send_raw(&[0x80, 0xFE, 0xEA, 0x60, 0, 0, 0, 0]).await;
    ws.expect_error_and_close("TooBig", 1009).await;
}

#[tokio::test]
async fn a_claimed_length_costs_no_memory() {
    let server = Server::start(config()).await;
    let mut all = Vec::new();
    let before = resident_kb();
    for _ in 0..200 {
        let mut ws = server.plain_in().await;
        ws.send_raw(&[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0x86, 0xA0, 0, 0, 0, 0]).await;
        all.push(ws);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Two hundred claims of 100 kB are 20 MB.
    assert!(resident_kb() < before + 12_000, "{} -> {}", before, resident_kb());
}

fn resident_kb() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap() * 4
}
