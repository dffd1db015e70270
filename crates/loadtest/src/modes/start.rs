//! `start`: how long a service takes from its start until it is ready.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cli::Start,
    report::{Figure, Report},
    wire::target::Target,
};

/// A service that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to leave.
const LEAVE: Duration = Duration::from_secs(15);

/// Ends the service when the measuring ends, however it ends.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // One that is gone already needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < LEAVE {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it.
pub fn run(options: &Start) -> Result<(), String> {
    let target = Target::parse(&options.url)?;
    if is_ready(&target) {
        return Err(format!("something is ready at {} before anything was started", options.url));
    }
    let mut took = Vec::new();
    for _ in 0..options.rounds.max(1) {
        took.push(start(&target, &options.command)?.as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let figures = vec![
        Figure::number("start until ready, median", took[took.len() / 2], "ms"),
        Figure::number("start until ready, fastest", took[0], "ms"),
        Figure::number("start until ready, slowest", took[took.len() - 1], "ms"),
    ];
    let report = Report::of_figures("start", vec![("rounds".into(), took.len().to_string())], figures);
    report.write(options.json.as_deref(), None)
}

fn start(target: &Target, command: &[String]) -> Result<Duration, String> {
    let [program, arguments @ ..] = command else { return Err("no program was named".into()) };
    let began = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    let mut started = Started(child);
    while !is_ready(target) {
        if let Ok(Some(status)) = started.0.try_wait() {
            return Err(format!("{program} ended before it was ready: {status}"));
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{program} was not ready within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok(began.elapsed())
}

fn is_ready(target: &Target) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(target.addr())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let request = format!(
            "GET {}/ready HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            target.prefix, target.authority
        );
        stream.write_all(request.as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
