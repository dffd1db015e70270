//! What modes have in common: users made and connected, conversations begun, the progress line, the end.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    cli::{Common, Messages},
    record::{Recorder, Row},
    report::{Figure, Report},
    usage::Snapshot,
    user::{Run, User, judge},
    wire::target::Target,
};

/// A run and its users.
#[derive(Debug)]
pub struct Stage {
    /// What they share.
    pub run: Arc<Run>,
    /// They.
    pub users: Vec<Arc<User>>,
    common: Common,
    ticker: tokio::task::JoinHandle<()>,
    began: (Instant, Snapshot),
}

/// How long the first messages of conversations may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Conversations begun at once.
const BEGINNINGS: usize = 256;

impl Stage {
    /// Makes users; nobody is connected yet.
    pub fn new(common: &Common, count: u32, messages: Option<&Messages>) -> Result<Self, String> {
        let target = Target::parse(&common.url)?;
        // A process id and the clock's low bits: runs on one database differ.
        let id = std::process::id().wrapping_mul(0x9e37_79b9) ^ crate::report::seconds_now() as u32;
        let run = Arc::new(Run {
            target,
            id,
            token: common.token.clone(),
            size: messages.map_or(80, |messages| usize::try_from(messages.size).unwrap_or(80)),
            has_client_ids: messages.is_none_or(|messages| !messages.no_client_ids),
            by_ack: messages.is_some_and(|messages| messages.ack),
            is_closed_loop: false.into(),
            is_over: false.into(),
            recorder: Recorder::start(),
        });
        let users = (0..count)
            .map(|index| {
                let id = common.first_user + u64::from(index);
                User::new(&run, index, id, common.transport.of(index))
            })
            .collect();
        let began = (Instant::now(), Snapshot::take(common.pid, &common.watch));
        if common.pid.is_some() && began.1.service().is_none() {
            return Err(format!("there is no process {}", common.pid.unwrap_or(0)));
        }
        let ticker = tokio::spawn(tick(Arc::clone(&run), common.clone()));
        Ok(Self { run, users, common: common.clone(), ticker, began })
    }

    /// The figures' keeper.
    pub fn recorder(&self) -> &Recorder {
        &self.run.recorder
    }

    /// What everything uses now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.common.pid, &self.common.watch)
    }

    /// Connects everybody; answers how long each took, in order of readiness.
    pub async fn connect(&self, in_flight: usize) -> Result<Vec<Duration>, String> {
        let limit = if in_flight == 0 { Semaphore::MAX_PERMITS } else { in_flight };
        let gate = Arc::new(Semaphore::new(limit));
        let mut connecting = JoinSet::new();
        for user in &self.users {
            let (user, gate) = (Arc::clone(user), Arc::clone(&gate));
            connecting.spawn(async move {
                let _place = gate.acquire().await;
                let began = Instant::now();
                user.connect().await.map(|()| began.elapsed())
            });
        }
        let (mut took, mut failures) = (Vec::with_capacity(self.users.len()), Vec::new());
        while let Some(outcome) = connecting.join_next().await {
            match outcome.map_err(|error| error.to_string()).and_then(|outcome| outcome) {
                Ok(duration) => took.push(duration),
                Err(reason) => failures.push(reason),
            }
        }
        match failures.first() {
            Some(first) => Err(format!(
                "{} of {} connections failed; the first: {first}",
                failures.len(),
                self.users.len()
            )),
            None => Ok(took),
        }
    }

    /// Puts two users into a conversation of their own, by their places.
    pub fn pair(&self, index: u32, first: usize, second: usize) {
        let (first, second) = (&self.users[first], &self.users[second]);
        first.add_thread(index, second.id);
        second.add_thread(index, first.id);
    }

    /// Puts everybody in pairs.
    pub fn pair_all(&self) {
        for (index, pair) in (0..).zip(0..self.users.len() / 2) {
            self.pair(index, 2 * pair, 2 * pair + 1);
        }
    }

    /// Sends the first message of every conversation and waits until all have their ids. Each conversation is
    /// begun by the user with the lower place.
    pub async fn begin_conversations(&self) -> Result<(), String> {
        let mut starts = Vec::new();
        for user in &self.users {
            for place in user.beginnings() {
                starts.push((Arc::clone(user), place));
            }
        }
        for chunk in starts.chunks(BEGINNINGS) {
            for (user, place) in chunk {
                if !user.send(*place, self.recorder().now_ns()) {
                    return Err(format!("user {} lost the connection", user.id));
                }
            }
            self.settle(PATIENCE).await.map_err(|()| {
                let faults = self.recorder().finish().faults;
                format!("the conversations did not begin within {} s: {:?}", PATIENCE.as_secs(), faults)
            })?;
        }
        Ok(())
    }

    /// Waits until every message is answered and everywhere.
    pub async fn settle(&self, patience: Duration) -> Result<(), ()> {
        let began = Instant::now();
        loop {
            let total = self.recorder().total();
            let is_answered = total.sent <= total.confirmed + total.refused;
            if is_answered && total.delivered >= total.confirmed && total.echoed >= total.confirmed {
                return Ok(());
            }
            if began.elapsed() > patience {
                return Err(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for what is on its way, judges, and makes the report.
    pub async fn end(self, mode: &str, mut figures: Vec<Figure>, notes: Vec<String>) -> Report {
        let patience = Duration::from_secs_f64(self.common.drain.max(0.0));
        let is_settled = self.settle(patience).await.is_ok();
        if is_settled {
            // A repeated event would come now.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.run.is_over.store(true, Relaxed);
        judge(&self.run, &self.users);
        self.ticker.abort();
        let shares = self.snapshot().since(&self.began.1, self.began.0.elapsed());
        let recorded = self.recorder().finish();
        figures.push(Figure::text("service's CPU, whole run", Figure::cores_or_unknown(shares.service)));
        let mut report = Report::new(mode, &self.common, figures, recorded, &shares);
        report.notes.extend(notes);
        for user in &self.users {
            user.leave(true);
        }
        report
    }
}

/// Once a second: a row, and the line that people watch.
async fn tick(run: Arc<Run>, common: Common) {
    let is_terminal = std::io::stderr().is_terminal();
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut ticks = 0_u64;
    loop {
        every.tick().await;
        let row = run.recorder.tick(Snapshot::take(common.pid, &common.watch));
        if !common.quiet && ticks > 0 {
            let line = progress(&row);
            let mut stderr = std::io::stderr().lock();
            // Progress is a courtesy: a closed terminal does not end the run.
            let _ = if is_terminal {
                write!(stderr, "\r\x1b[2K{line}")
            } else if ticks.is_multiple_of(5) {
                writeln!(stderr, "{line}")
            } else {
                Ok(())
            };
        }
        ticks += 1;
    }
}

fn progress(row: &Row) -> String {
    let a_second = |count: u64| (count as f64 / row.length_s.max(1e-9)).round();
    let mut line = format!(
        "{:5.0} s  {} live  {} sent/s  {} confirmed/s  {} delivered/s",
        row.at_s,
        row.connections,
        a_second(row.counts.sent),
        a_second(row.counts.confirmed),
        a_second(row.counts.delivered)
    );
    if let Some(delivery) = row.delivery {
        let ms = |micros: u64| micros as f64 / 1000.0;
        line += &format!("  p50 {:.2} ms  p99 {:.2} ms", ms(delivery.p50), ms(delivery.p99));
    }
    if let Some(service) = row.cpu.service {
        line += &format!("  service {:.0} %", service * 100.0);
    }
    line + &format!("  own {:.0} %", row.cpu.load_generator * 100.0)
}
