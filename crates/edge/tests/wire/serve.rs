//! The accept loop: time limits, TLS, shutdown, running out of descriptors.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge::{ServeConfig, Tls};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{PATIENCE, Server, Ws, config, frame};

fn hasty() -> ServeConfig {
    ServeConfig {
        header_timeout: Duration::from_millis(150),
        body_timeout: Duration::from_millis(150),
        ..ServeConfig::default()
    }
}

/// How long until the server hangs up, and what it said.
async fn hung_up(mut stream: impl crate::support::Io) -> (Duration, String) {
    let start = Instant::now();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end");
    (start.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn connections_that_say_nothing_or_too_slowly_are_closed() {
    let server = Server::start_with(config(), hasty()).await;
    for bytes in [&b""[..], b"GET", b"GET /ws HTTP/1.1\r\nHost: loc", b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let (time, _) = hung_up(stream).await;
        assert!(time < Duration::from_secs(3), "{time:?}");
    }
    // Between requests too.
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let (_, said) = hung_up(stream).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_given_up() {
    let server = Server::start_with(config(), hasty()).await;
    let (_, body) = server.http("GET", "/engine.io/?EIO=4&transport=polling", "", "").await;
    let sid = body.split('"').nth(3).unwrap();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = format!(
        "POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4a"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (time, said) = hung_up(stream).await;
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert!(time < Duration::from_secs(3), "{time:?}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(config()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Large: {}\r\n\r\n", "x".repeat(17_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let (_, said) = hung_up(stream).await;
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let server =
        Server::start_with(config(), ServeConfig { max_connections: 1, ..ServeConfig::default() }).await;
    let first = TcpStream::connect(server.addr).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = TcpStream::connect(server.addr).await.unwrap();
    assert!(hung_up(second).await.0 < Duration::from_secs(3));
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // A live connection frees the place it was made in.
    let _live = server.plain_in().await;
    assert_eq!(server.http("GET", "/peer", "", "").await.0, 200);
}

#[tokio::test]
async fn a_shutdown_answers_requests_under_way_and_takes_no_new_ones() {
    let mut server = Server::start(config()).await;
    let addr = server.addr;
    let mut idle = TcpStream::connect(addr).await.unwrap();
    idle.write_all(b"GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    idle.readable().await.unwrap();
    let mut busy = TcpStream::connect(addr).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop();
    let (_, said) = hung_up(busy).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("done"), "{said}");
    hung_up(idle).await;
    let Server { served, .. } = server;
    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}

/// With the usual backlog of 128, a crowd of reconnecting clients was forgotten by the kernel and waited seconds.
#[tokio::test]
async fn a_crowd_finds_room_before_it_is_accepted() {
    let listener = edge::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut crowd = Vec::new();
    for _ in 0..400 {
        let connect = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(addr));
        crowd.push(connect.await.expect("there is room").unwrap());
    }
    for _ in 0..400 {
        tokio::time::timeout(PATIENCE, listener.accept()).await.expect("none was forgotten").unwrap();
    }
}

#[tokio::test]
async fn the_router_is_told_the_peer() {
    let server = Server::start(config()).await;
    let (_, body) = server.http("GET", "/peer", "", "").await;
    assert!(body.contains("127.0.0.1") && body.contains("tls: false"), "{body}");
}

/// A certificate for `localhost` in files, and a client that trusts it alone.
fn certificate(folder: &std::path::Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session would not look at the certificate.
    client.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(client))
}

async fn tls_stream(
    server: &Server,
    client: &TlsConnector,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.addr).await?;
    client.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

#[tokio::test]
async fn live_connections_speak_tls_and_keep_it_over_a_new_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let old = certificate(folder.path());
    let tls = Tls::from_files(&cert, &key).unwrap();
    let serve = ServeConfig {
        tls: Some(tls.clone()),
        tls_reload: Duration::from_millis(50),
        ..ServeConfig::default()
    };
    let server = Server::start_with(config(), serve).await;
    let path = "/socket.io/?EIO=4&transport=websocket";
    let extra = frame(0x81, b"40{\"token\":\"good\"}");
    let stream = tls_stream(&server, &old).await.unwrap();
    let mut ws = Ws::open_on(stream, path, "", &extra).await.unwrap();
    assert!(ws.text().await.starts_with("0{"));
    assert!(ws.text().await.starts_with("40{"));
    ws.text().await;
    let large = "x".repeat(90_000);
    ws.send_text(&format!("421[\"echo\",\"{large}\"]")).await;
    assert_eq!(ws.text().await, format!("431[\"{large}\"]"));

    // Broken files change nothing.
    std::fs::write(&cert, "nonsense").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("cert.pem"));
    tls_stream(&server, &old).await.unwrap();

    let new = certificate(folder.path());
    let fresh = async {
        while tls_stream(&server, &new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, fresh).await.expect("the new certificate is served");
    assert!(tls_stream(&server, &old).await.is_err());
    ws.send_text("422[\"echo\",2]").await;
    assert_eq!(ws.text().await, "432[2]");
    ws.send_frame(0x88, &1000_u16.to_be_bytes()).await;
    ws.expect_close(1000).await;
}

#[tokio::test]
async fn certificates_that_are_no_good_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    assert!(Tls::from_files(&cert, &key).unwrap_err().to_string().contains("cert.pem"));
    certificate(folder.path());
    std::fs::write(&key, "").unwrap();
    assert!(Tls::from_files(&cert, &key).unwrap_err().to_string().contains("key.pem"));
    // A key of another certificate.
    certificate(folder.path());
    let first = std::fs::read(&cert).unwrap();
    certificate(folder.path());
    std::fs::write(&cert, first).unwrap();
    assert!(Tls::from_files(&cert, &key).unwrap_err().to_string().contains("does not fit"));
}

/// Runs itself again with few descriptors, since the limit is the process's.
#[tokio::test]
async fn running_out_of_descriptors_ends_when_connections_do() {
    const CHILD: &str = "EDGE_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let itself = std::env::current_exe().unwrap();
        let name = "serve::running_out_of_descriptors_ends_when_connections_do";
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(itself)
            .arg(name)
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let server = Server::start(config()).await;
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect(server.addr).await {
        held.push(stream);
        // The server's side of each needs a descriptor too.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(held.len() > 10, "{}", held.len());
    drop(held);
    let mut ws = server.plain_in().await;
    ws.send_text(r#"{"event":"echo","ref":1}"#).await;
    ws.text().await;
}
