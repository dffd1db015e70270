//! `echo`: what frames alone cost on this machine, as the measure for a service that also stores them.
//!
//! The server is this program once more, as a process of its own, doing nothing but sending frames back.

use std::{
    io,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::{
    cli::{Echo, EchoServer},
    record::{Latencies, Recorder, latencies},
    report::{Figure, Latency, Report},
    usage::{Snapshot, Watched},
    wire::{
        event::Event,
        frame::{self, Opcode},
        link::{Closed, Link},
        packet::{Dialect, Incoming},
        target::Target,
    },
};

/// Runs it.
pub async fn run(options: &Echo) -> Result<Report, String> {
    let program =
        std::env::current_exe().map_err(|error| format!("this program is not to be found: {error}"))?;
    let mut server = Command::new(program)
        .args(["echo-server", "--copies", &options.copies.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the echo's server does not start: {error}"))?;
    let output = server.stdout.take().ok_or("the echo's server has no output")?;
    let mut port = String::new();
    BufReader::new(output)
        .read_line(&mut port)
        .await
        .map_err(|error| format!("the echo's server says nothing: {error}"))?;
    let target = Target::parse(&format!("http://127.0.0.1:{}", port.trim()))?;
    let watched: Vec<Watched> =
        server.id().map(|pid| Watched { name: "echo server".into(), pid }).into_iter().collect();

    let (echoes, round_trips) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(latencies())));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..options.connections {
        let (link, mut reader) = Link::open(&target, index, Dialect::Plain, "echo", None).await?;
        let (echoes, round_trips) = (Arc::clone(&echoes), Arc::clone(&round_trips));
        let (size, depth, copies) = (options.size, options.depth, u64::from(options.copies.max(1)));
        tasks.spawn(async move {
            for _ in 0..depth {
                link.send(&frame_of(start, size));
            }
            let mut seen = 0_u64;
            link.read(&mut reader, |link, incoming, at| {
                if let Incoming::Event(Event::Other(sent)) = incoming {
                    seen += 1;
                    if seen.is_multiple_of(copies) {
                        let now_ns = u64::try_from((at - start).as_nanos()).unwrap_or(u64::MAX);
                        let took_ns = now_ns.saturating_sub(sent.event_seq.unwrap_or(now_ns));
                        round_trips.lock().saturating_record((took_ns / 1000).max(1));
                        echoes.fetch_add(1, Relaxed);
                        link.send_soon(&frame_of(start, size));
                    }
                }
                Ok(())
            })
            .await
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let recorder = Recorder::start();
    let (began, first) = (Instant::now(), echoes.load(Relaxed));
    let before = Snapshot::take(None, &watched);
    *round_trips.lock() = latencies();
    tokio::time::sleep(Duration::from_secs_f64(options.duration)).await;
    let (elapsed, last) = (began.elapsed(), echoes.load(Relaxed));
    let shares = Snapshot::take(None, &watched).since(&before, elapsed);
    let round_trips: Latencies = round_trips.lock().clone();
    // What ended by itself before this point broke off.
    if let Some(Ok(closed)) = tasks.try_join_next() {
        let closed: Closed = closed;
        return Err(format!("an echo connection ended: {closed}"));
    }
    tasks.abort_all();
    let rate = (last - first) as f64 / elapsed.as_secs_f64();
    let figures = vec![
        Figure::number("frames there and back a second", rate, ""),
        Figure::text(
            "echo server's CPU",
            Figure::cores_or_unknown(shares.watched.first().map(|(_, share)| *share)),
        ),
        Figure::text("load generator's CPU", Figure::cores_or_unknown(Some(shares.load_generator))),
    ];
    let mut report = Report::new("echo", &options.common, figures, recorder.finish(), &shares);
    report.latencies = Latency::of("there and back", &round_trips).into_iter().collect();
    report.settings[0] = ("service".into(), "a bare WebSocket echo, started by this run".into());
    report.setting("connections", options.connections);
    report.setting("frames on the way per connection", options.depth);
    report.setting("bytes of a frame", options.size);
    report.setting("frames sent back for each", options.copies);
    // A failure to end it is no failure of the measurement; it dies with this process in any case.
    let _ = server.kill().await;
    Ok(report)
}

/// A frame that says when it was sent, in the shape of an event.
fn frame_of(start: Instant, size: usize) -> Vec<u8> {
    let now_ns = start.elapsed().as_nanos();
    let mut text = format!("{{\"event\":\"echo\",\"data\":{{\"event_seq\":{now_ns},\"filler\":\"");
    while text.len() + 3 < size {
        text.push('x');
    }
    text.push_str("\"}}");
    let mut out = Vec::with_capacity(text.len() + 14);
    frame::encode(&mut out, Opcode::Text, &[text.as_bytes()]);
    out
}

/// Serves until it is killed.
pub async fn serve(options: &EchoServer) -> Result<(), String> {
    let failed = |error: io::Error| format!("the echo's server failed: {error}");
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    {
        use std::io::Write as _;
        writeln!(std::io::stdout().lock(), "{port}").map_err(failed)?;
    }
    let copies = options.copies;
    loop {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        tokio::spawn(async move {
            // A client that breaks off ends its own echo and nothing else.
            let _ = echo(stream, copies).await;
        });
    }
}

async fn echo(mut stream: TcpStream, copies: u8) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(16 * 1024);
    while !input.windows(4).any(|window| window == b"\r\n\r\n") {
        if input.len() > 16 * 1024 || stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
    input.clear();
    // Its only client always sends the same key.
    stream
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .await?;
    let mut output = Vec::with_capacity(16 * 1024);
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut used = 0;
        while let Some((size, length)) = head(&input[used..]) {
            let whole = size + 4 + length;
            if input.len() - used < whole {
                break;
            }
            let (mask, payload) = input[used + size..used + whole].split_at_mut(4);
            for (index, byte) in payload.iter_mut().enumerate() {
                *byte ^= mask[index & 3];
            }
            for _ in 0..copies {
                output.push(0x81);
                match u8::try_from(length) {
                    Ok(short) if short < 126 => output.push(short),
                    _ => {
                        output.push(126);
                        output.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
                    }
                }
                output.extend_from_slice(payload);
            }
            used += whole;
        }
        input.drain(..used);
        stream.write_all(&output).await?;
        output.clear();
    }
}

/// Of a masked frame shorter than 64 KiB: bytes before the mask, bytes of the payload.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => {
            let length = bytes.get(2..4)?.try_into().ok()?;
            Some((4, usize::from(u16::from_be_bytes(length))))
        }
        short => Some((2, usize::from(short))),
    }
}
