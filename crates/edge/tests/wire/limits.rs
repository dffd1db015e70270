//! What a client may not do to the service or to other clients.

use std::time::{Duration, Instant};

use edge::{EdgeConfig, Event};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Server, Ws, config, frame};

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_by_bytes() {
    let server = Server::start(EdgeConfig { queue_bytes: 200_000, ..config() }).await;
    let mut ws = server.plain_in().await;
    ws.send_text(r#"{"event":"flood","data":3000}"#).await;
    server.service.wait_for("gone / SlowConsumer").await;
    let stats = server.edge.stats();
    assert_eq!((stats.slow_consumers, stats.connections), (1, 0));
    assert_eq!(stats.queued_bytes, 0);
}

/// A client of either dialect that reads nothing after it was let in, and for which the kernel holds little.
async fn stuck(server: &Server, speaks_socket_io: bool) -> Ws {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.addr).await.unwrap();
    if !speaks_socket_io {
        return Ws::open_on(stream, "/ws?token=good", "", &[]).await.unwrap();
    }
    let mut ws = Ws::open_on(stream, "/socket.io/?EIO=4&transport=websocket", "", &[]).await.unwrap();
    ws.send_text(r#"40{"token":"good"}"#).await;
    ws
}

/// A hundred users with two devices each: one of them stops reading, and both get the same messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_that_read_nothing_are_closed_by_time_and_others_notice_nothing() {
    const STUCK: u64 = 100;
    const SLOW_AFTER: Duration = Duration::from_millis(400);
    let patient =
        EdgeConfig { slow_after: SLOW_AFTER, queue_bytes: 100_000_000, max_payload: 1_000_000, ..config() };
    let server = Server::start(patient).await;
    let taken = || std::mem::take(&mut *server.service.clients.lock().unwrap());
    let mut reading = Vec::new();
    for _ in 0..STUCK {
        reading.push(server.plain_in().await);
    }
    let readers = taken();
    assert_eq!(readers.len() as u64, STUCK);
    let mut held = Vec::new();
    for number in 0..STUCK {
        held.push(stuck(&server, number % 2 == 0).await);
    }
    server.wait_until(|stats| stats.plain == STUCK + STUCK / 2 && stats.socket_io == STUCK / 2).await;
    server.wait_until(|_| server.service.clients.lock().unwrap().len() as u64 == STUCK).await;
    let stuck = taken();

    // Those who read: each message in its turn, and how long each took.
    let began = Instant::now();
    let readers_done: Vec<_> = reading
        .into_iter()
        .map(|mut ws| {
            tokio::spawn(async move {
                let (mut next, mut took) = (0_u64, Vec::new());
                loop {
                    let frame: serde_json::Value = serde_json::from_str(&ws.text().await).unwrap();
                    if frame["event"] == "end" {
                        return (next, took);
                    }
                    assert_eq!(frame["data"]["number"], next, "a message was lost, repeated or swapped");
                    let sent = Duration::from_micros(frame["data"]["sent_us"].as_u64().unwrap());
                    took.push(began.elapsed().saturating_sub(sent));
                    next += 1;
                }
            })
        })
        .collect();
    let filler = "x".repeat(20_000);
    let mut rounds = 0_u64;
    while server.edge.stats().connections > STUCK {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", server.edge.stats());
        let sent_us = began.elapsed().as_micros();
        let data = format!(r#"{{"number":{rounds},"sent_us":{sent_us},"filler":"{filler}"}}"#);
        let event = Event::new("message", data);
        readers.iter().chain(&stuck).for_each(|client| client.emit(&event));
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= SLOW_AFTER, "nobody is given up before the time is over");
    let stats = server.edge.stats();
    assert_eq!((stats.slow_consumers, stats.connections), (STUCK, STUCK));
    readers.iter().for_each(|client| client.emit(&Event::new("end", "1")));
    let mut times = Vec::new();
    for done in readers_done {
        let (heard, took) = done.await.unwrap();
        assert_eq!(heard, rounds);
        times.extend(took);
    }
    // Far above what it is, far below what waiting for a stuck client would be; the median, since the machine may
    // be busy with other things.
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < SLOW_AFTER, "{median:?} of {}", times.len());
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_stays() {
    let server = Server::start(EdgeConfig { slow_after: Duration::from_millis(600), ..config() }).await;
    let mut ws = server.plain_in().await;
    ws.send_text(r#"{"event":"flood","data":90}"#).await;
    for _ in 0..90 {
        assert!(ws.text().await.contains("flood"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ws.send_text(r#"{"event":"echo","data":1,"ref":1}"#).await;
    assert_eq!(ws.text().await, r#"{"event":"ack","ref":1,"data":1}"#);
}

#[tokio::test]
async fn a_polling_client_that_does_not_poll_is_closed_by_time() {
    let server = Server::start(EdgeConfig { slow_after: Duration::from_millis(200), ..config() }).await;
    let (_, body) = server.http("GET", "/socket.io/?EIO=4&transport=polling", "", "").await;
    let sid = body.split('"').nth(3).unwrap();
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    server.http("POST", &path, "", "40{\"token\":\"good\"}").await;
    server.service.wait_for("gone / SlowConsumer").await;
}

#[tokio::test]
async fn events_beyond_the_rate_wait_and_are_not_lost() {
    let slow = EdgeConfig { events_per_second: 50, events_burst: 10, ..config() };
    let server = Server::start(slow).await;
    let mut ws = server.plain_in().await;
    let all: Vec<u8> = (0..40)
        .flat_map(|n| frame(0x81, format!("{{\"event\":\"echo\",\"data\":{n},\"ref\":{n}}}").as_bytes()))
        .collect();
    let start = Instant::now();
    ws.send_raw(&all).await;
    for n in 0..40 {
        assert_eq!(ws.text().await, format!("{{\"event\":\"ack\",\"ref\":{n},\"data\":{n}}}"));
    }
    // Thirty over the burst at fifty a second.
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn connections_are_limited_in_all_and_per_address() {
    let server = Server::start(EdgeConfig { max_connections: 2, ..config() }).await;
    let first = server.plain_in().await;
    let _second = server.socket_io_in().await;
    for path in ["/ws", "/socket.io/?EIO=4&transport=websocket"] {
        let refused = Ws::open(server.addr, path, "").await.err().unwrap();
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    }
    assert_eq!(server.http("GET", "/socket.io/?EIO=4&transport=polling", "", "").await.0, 503);
    drop(first);
    server.wait_until(|stats| stats.connections == 1).await;
    let _third = server.plain_in().await;
    assert_eq!(server.edge.stats().refused, 3);

    let proxied =
        EdgeConfig { max_connections_per_ip: 1, trusted_proxies: "127.0.0.1".parse().unwrap(), ..config() };
    let server = Server::start(proxied).await;
    let from = |ip: &str| format!("X-Forwarded-For: {ip}\r\n");
    let _one = Ws::open(server.addr, "/ws", &from("9.9.9.1")).await.unwrap();
    let _two = Ws::open(server.addr, "/ws", &from("9.9.9.2")).await.unwrap();
    let refused = Ws::open(server.addr, "/ws", &from("9.9.9.1")).await.err().unwrap();
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    server.service.wait_for("connect / 9.9.9.2").await;
}

#[tokio::test]
async fn unauthenticated_connections_are_limited_per_address() {
    let server = Server::start(EdgeConfig { max_unauthenticated_per_ip: 2, ..config() }).await;
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(server.plain_in().await);
    }
    let mut one = server.ws("/ws").await;
    let two = server.ws("/ws").await;
    assert!(Ws::open(server.addr, "/ws", "").await.is_err());
    // Authenticating makes room, and so does leaving.
    one.text().await;
    one.send_text(r#"{"event":"authenticate","data":{}}"#).await;
    one.text().await;
    let three = server.ws("/ws").await;
    assert!(Ws::open(server.addr, "/ws", "").await.is_err());
    drop((two, three));
    server.wait_until(|stats| stats.connections == 6).await;
    let _four = server.ws("/ws").await;
    let _five = server.ws("/ws").await;
    assert!(Ws::open(server.addr, "/ws", "").await.is_err());
}

#[tokio::test]
async fn a_message_that_is_never_finished_is_given_up() {
    let server = Server::start(EdgeConfig { frame_timeout: Duration::from_millis(150), ..config() }).await;
    let whole = frame(0x81, br#"{"event":"echo"}"#);
    let half = &whole[..10];
    let fragment = frame(0x01, b"{");
    for bytes in [half, &fragment] {
        let mut ws = server.plain_in().await;
        ws.send_raw(bytes).await;
        ws.expect_close(1008).await;
    }
    let mut ws = server.socket_io_in().await;
    ws.send_text("451-[\"a\",{\"_placeholder\":true,\"num\":0}]").await;
    ws.expect_close(1008).await;
    // Time between messages is not time of a message.
    let mut ws = server.plain_in().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ws.send_text(r#"{"event":"echo","ref":1}"#).await;
        ws.text().await;
    }
}

/// A steady sender whose bytes are never cut between two frames was once taken for one that stalls.
#[tokio::test]
async fn a_sender_that_never_pauses_between_frames_is_not_stalled() {
    let server = Server::start(EdgeConfig { frame_timeout: Duration::from_secs(1), ..config() }).await;
    let mut ws = server.plain_in().await;
    let bytes = frame(0x81, br#"{"event":"echo","ref":1}"#);
    let (mut at, start) = (10, Instant::now());
    ws.send_raw(&bytes[..at]).await;
    while start.elapsed() < Duration::from_millis(2500) {
        // To the end of this frame and a bit into the next.
        let rest = [&bytes[at..], &bytes[..7]].concat();
        at = 7;
        tokio::time::sleep(Duration::from_millis(20)).await;
        ws.send_raw(&rest).await;
        assert_eq!(ws.text().await, r#"{"event":"ack","ref":1,"data":{}}"#);
    }
}

#[tokio::test]
async fn attachments_are_limited_in_number_and_in_all() {
    let server = Server::start(EdgeConfig { max_attachments: 2, ..config() }).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("453-[\"a\"]").await;
    ws.expect_close(1002).await;
    let mut ws = server.socket_io_in().await;
    ws.send_text("452-[\"a\"]").await;
    ws.send_frame(0x82, &[0; 60_000]).await;
    ws.send_frame(0x82, &[0; 60_000]).await;
    ws.expect_close(1009).await;
}

/// Mid-handshake, mid-upgrade, mid-frame, before CONNECT, while polling: everything comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_aborted_connections_leave_nothing_behind() {
    let server = Server::start(EdgeConfig { connect_timeout: Duration::from_millis(500), ..config() }).await;
    // Once through, so that pools and tables have their size.
    abort_many(&server, 200).await;
    server.wait_until(|stats| stats.connections == 0 && stats.polling == 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = descriptors();
    abort_many(&server, 2000).await;
    server.wait_until(|stats| stats.connections == 0 && stats.polling == 0).await;
    let settled = Instant::now();
    while descriptors() > before && settled.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(descriptors() <= before, "{before} -> {}", descriptors());
    // Everyone who was let in was said goodbye to.
    let log = server.service.log.lock().unwrap().clone();
    let count = |what: &str| log.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("connect"), count("gone"));
    assert!(server.service.clients.lock().unwrap().is_empty());
    let mut ws = server.plain_in().await;
    ws.send_text(r#"{"event":"echo","ref":1}"#).await;
    ws.text().await;
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn abort_many(server: &Server, count: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..count {
        while tasks.len() >= 50 {
            tasks.join_next().await;
        }
        let addr = server.addr;
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let request = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            match n % 8 {
                0 => {}
                1 => stream.write_all(&request[..n * 31 % request.len()]).await.unwrap(),
                2 => stream.write_all(request).await.unwrap(),
                3 => {
                    stream.write_all(request).await.unwrap();
                    let connect = frame(0x81, b"40{\"token\":\"good\"}");
                    stream.write_all(&connect[..n % connect.len()]).await.unwrap();
                }
                4 => {
                    let all = [&request[..], &frame(0x81, b"40{\"token\":\"good\"}"), &frame(0x81, b"42[\"echo\"")[..9]];
                    stream.write_all(&all.concat()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(n as u64 % 4)).await;
                }
                5 => {
                    let poll = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\r\n";
                    stream.write_all(poll).await.unwrap();
                }
                6 => {
                    let mut ws = Ws::open_on(stream, "/ws?token=good", "", &[]).await.unwrap();
                    ws.text().await;
                    ws.send_raw(&[0x81]).await;
                }
                _ => {
                    let mut ws =
                        Ws::open_on(stream, "/socket.io/?EIO=4&transport=websocket", "", &[]).await.unwrap();
                    ws.send_text("40{\"token\":\"good\"}").await;
                    ws.text().await;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}
