//! Measures what idle authenticated connections cost: memory, CPU, and the time to make them.
//!
//! `cargo run --release -p edge --example idle -- [--connections 10000] [--dialect socket_io|plain] [--seconds 60]`
//!
//! Starts a server process and counts its resident memory and CPU from outside, before the first connection and
//! with all of them, once after they are made and again after the time to idle, heartbeats included.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use edge::{
    BoxFuture, Client, ClientEvent, CloseReason, Edge, EdgeConfig, Event, Handled, Handler, Hello, Malformed,
    Refusal, ServeConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Quiet;

impl Handler for Quiet {
    type Session = u64;

    fn connect<'a>(&'a self, client: &'a Client<Self>, _hello: Hello) -> BoxFuture<'a, Result<(), Refusal>> {
        client.set_authenticated();
        client.emit(&Event::new("authenticated", r#"{"user_id":1}"#));
        Box::pin(std::future::ready(Ok(())))
    }

    fn event<'a>(&'a self, _client: &'a Client<Self>, _event: ClientEvent) -> BoxFuture<'a, Handled> {
        Box::pin(std::future::ready(Handled::Done(None)))
    }

    fn malformed(&self, _client: &Client<Self>, _problem: Malformed) {}

    fn unauthenticated(&self, _client: &Client<Self>) {}

    fn disconnected(&self, _client: &Client<Self>, _reason: CloseReason) {}
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    if args.iter().any(|arg| arg == "--server") {
        runtime.block_on(serve());
        return ExitCode::SUCCESS;
    }
    let count = value("--connections").and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let seconds = value("--seconds").and_then(|n| n.parse().ok()).unwrap_or(60);
    let plain = value("--dialect").is_some_and(|dialect| dialect == "plain");
    match runtime.block_on(measure(count, seconds, plain)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "its output is its purpose: the port, for the process that measures")]
async fn serve() {
    let listener = edge::listen((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a port is free");
    println!("{}", listener.local_addr().expect("a bound socket has an address").port());
    let config = EdgeConfig { max_unauthenticated_per_ip: 0, ..EdgeConfig::default() };
    let edge = Edge::new(config, Arc::new(Quiet));
    let plain = edge.clone();
    let router = Router::new()
        .route("/socket.io/", any(move |request: Request| async move { edge.socket_io(request).await }))
        .route("/ws", any(move |request: Request| async move { plain.plain(request).await }));
    edge::serve(listener, ServeConfig::default(), router, std::future::pending()).await.expect("it accepts");
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::print_stdout, reason = "its output is its purpose")]
async fn measure(count: usize, seconds: u64, plain: bool) -> std::io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?).arg("--server").stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().expect("its output is piped");
    let server = Server(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let port: u16 = line.trim().parse().map_err(std::io::Error::other)?;
    let pid = server.0.id();

    let before = usage(pid)?;
    let start = Instant::now();
    let mut making = JoinSet::new();
    let mut live = Vec::with_capacity(count);
    for n in 0..count {
        if making.len() >= 200 {
            live.extend(making.join_next().await.transpose().map_err(std::io::Error::other)?.transpose()?);
        }
        // One address has 28,000 ports towards another; every loopback address is the server's, and choosing
        // another target costs the kernel nothing, unlike binding a source.
        let target = Ipv4Addr::new(127, 0, 1, (n / 20_000) as u8 + 1);
        making.spawn(connect(SocketAddr::from((target, port)), plain));
    }
    while let Some(made) = making.join_next().await {
        live.push(made.map_err(std::io::Error::other)??);
    }
    let time = start.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let made = usage(pid)?;
    let dialect = if plain { "plain" } else { "Socket.IO over WebSocket" };
    println!("{count} connections, {dialect}");
    println!(
        "made in {:.2} s, {:.2} s of the server's CPU",
        time.as_secs_f64(),
        (made.cpu - before.cpu).as_secs_f64()
    );
    let per_connection = |now: &Usage| (now.resident.saturating_sub(before.resident)) / count;
    println!(
        "resident: {} kB before, {} kB with all: {} bytes each",
        before.resident / 1024,
        made.resident / 1024,
        per_connection(&made)
    );

    let mut answering = JoinSet::new();
    for stream in live {
        answering.spawn(answer_pings(stream, plain));
    }
    let idle = usage(pid)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = usage(pid)?;
    println!("after {seconds} s idle: {} kB: {} bytes each", after.resident / 1024, per_connection(&after));
    let micros = (after.cpu - idle.cpu).as_micros() as f64 / seconds.max(1) as f64 / count as f64;
    println!("CPU: {micros:.2} µs a second each");
    println!(
        "{} were closed meanwhile",
        count - answering.len() + std::iter::from_fn(|| answering.try_join_next()).count()
    );
    Ok(())
}

async fn connect(server: SocketAddr, plain: bool) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server).await?;
    let path = if plain { "/ws" } else { "/socket.io/?EIO=4&transport=websocket" };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    read_until(&mut stream, if plain { b"authenticated" } else { b"maxPayload" }).await?;
    if !plain {
        // "40", masked with zeros.
        stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'4', b'0']).await?;
        read_until(&mut stream, b"authenticated").await?;
    }
    Ok(stream)
}

async fn read_until(stream: &mut TcpStream, what: &[u8]) -> std::io::Result<()> {
    let mut all = Vec::new();
    while !all.windows(what.len()).any(|window| window == what) {
        if stream.read_buf(&mut all).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn answer_pings(mut stream: TcpStream, plain: bool) {
    let mut bytes = [0; 64];
    let pong: &[u8] = if plain { &[0x8A, 0x80, 0, 0, 0, 0] } else { &[0x81, 0x81, 0, 0, 0, 0, b'3'] };
    while let Ok(1..) = stream.read(&mut bytes).await {
        if stream.write_all(pong).await.is_err() {
            return;
        }
    }
}

struct Usage {
    resident: usize,
    cpu: Duration,
}

/// What the process holds and has used, from /proc.
fn usage(pid: u32) -> std::io::Result<Usage> {
    let bad = || std::io::Error::other("/proc is not as expected");
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).ok_or_else(bad)?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().ok_or_else(bad)?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).ok_or_else(bad);
    // utime and stime, in hundredths of a second; pages are of 4 KiB where this is measured.
    Ok(Usage { resident: pages * 4096, cpu: Duration::from_millis(10 * (ticks(11)? + ticks(12)?)) })
}
