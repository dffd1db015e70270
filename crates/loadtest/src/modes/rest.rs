//! `rest`: reads over keep-alive connections, each asking again as soon as it is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::stage::Stage;
use crate::{
    cli::{Call, Rest},
    pace::Random,
    record::{Latencies, latencies},
    report::{Figure, Latency, Report},
    usage::Snapshot,
    wire::http::{Answer, Http},
};

/// One answer in so many is read in full; of the others status and length are looked at.
const READ_EVERY: u64 = 32;
/// The default pages of the contract.
const LIST_PAGE: usize = 100;
const HISTORY_PAGE: usize = 50;
const SYNC_PAGE: usize = 100;

/// Whom and what workers ask for.
#[derive(Debug)]
struct Person {
    token: String,
    conversation_ids: Vec<u64>,
    last_event_seq: u64,
}

/// What one call came to.
struct Outcome {
    call: Call,
    answers: u64,
    bytes: u64,
    elapsed: Duration,
    latencies: Latencies,
    service_cpu: Option<f64>,
}

/// Runs it.
pub async fn run(options: &Rest) -> Result<Report, String> {
    if options.conversations >= options.users {
        return Err("--conversations must be fewer than --users: each is with another user".into());
    }
    let stage = Stage::new(&options.common, options.users, None)?;
    let people = Arc::new(furnish(&stage, options).await?);
    let calls = [Call::List, Call::History, Call::Search, Call::Sync];
    let mut outcomes = Vec::new();
    for call in calls.into_iter().filter(|call| options.only.is_empty() || options.only.contains(call)) {
        outcomes.push(ask(&stage, options, &people, call).await?);
    }
    let mut figures = Vec::new();
    for outcome in &outcomes {
        let name = name(outcome.call);
        let rate = outcome.answers as f64 / outcome.elapsed.as_secs_f64();
        figures.push(Figure::number(format!("{name}: requests a second"), rate, ""));
        let each = outcome.bytes as f64 / outcome.answers.max(1) as f64;
        figures.push(Figure::number(format!("{name}: bytes an answer"), each, ""));
        if let Some(cpu) = outcome.service_cpu {
            let each = cpu * 1e6 / outcome.answers.max(1) as f64;
            figures.push(Figure::number(format!("{name}: service's CPU a request"), each, "µs"));
        }
    }
    let mut report = stage.end("rest", figures, Vec::new()).await;
    report.latencies =
        outcomes.iter().filter_map(|outcome| Latency::of(name(outcome.call), &outcome.latencies)).collect();
    report.setting("users", options.users);
    report.setting("conversations of each", options.conversations);
    report.setting("messages of each conversation", options.messages);
    report.setting("keep-alive connections", options.workers);
    Ok(report)
}

fn name(call: Call) -> &'static str {
    match call {
        Call::List => "conversation list",
        Call::History => "history page",
        Call::Search => "search",
        Call::Sync => "sync",
    }
}

/// Connects everybody, fills their conversations, and lets them go.
async fn furnish(stage: &Stage, options: &Rest) -> Result<Vec<Person>, String> {
    stage.connect(options.common.in_flight).await?;
    let users = options.users as usize;
    let mut index = 0;
    // Each with the next ones around a ring: everybody gets as many.
    for step in 1..=options.conversations.div_ceil(2) as usize {
        for first in 0..users {
            stage.pair(index, first, (first + step) % users);
            index += 1;
        }
    }
    stage.begin_conversations().await?;
    for _ in 1..options.messages.div_ceil(2).max(1) {
        for user in &stage.users {
            for place in 0..user.thread_count() {
                user.send(place, stage.recorder().now_ns());
            }
        }
        stage
            .settle(Duration::from_secs(60))
            .await
            .map_err(|()| "the messages were not answered in a minute")?;
    }
    // `message_delivered` and the like settle too.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let people = stage.users.iter().map(|user| Person {
        token: user.token(),
        conversation_ids: user.conversation_ids(),
        last_event_seq: user.last_event_seq().unwrap_or(0),
    });
    let people = people.collect();
    for user in &stage.users {
        user.leave(false);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(people)
}

async fn ask(
    stage: &Stage,
    options: &Rest,
    people: &Arc<Vec<Person>>,
    call: Call,
) -> Result<Outcome, String> {
    let is_measuring = Arc::new(AtomicBool::new(false));
    let is_done = Arc::new(AtomicBool::new(false));
    let tally = Arc::new(Mutex::new((0_u64, 0_u64, latencies())));
    let mut workers = JoinSet::new();
    for index in 0..options.workers {
        let mut http = Http::open(&stage.run.target, index).await?;
        let (run, people, tally) = (Arc::clone(&stage.run), Arc::clone(people), Arc::clone(&tally));
        let (is_measuring, is_done) = (Arc::clone(&is_measuring), Arc::clone(&is_done));
        let mut random = Random(options.common.seed.wrapping_add(u64::from(index)));
        workers.spawn(async move {
            let mut asked = u64::from(index);
            while !is_done.load(Relaxed) {
                let person = &people[random.below(people.len())];
                let path = path(call, person, &mut random);
                let began = Instant::now();
                let answer = http.request(Method::GET, &path, Some(&person.token)).await;
                let elapsed = began.elapsed();
                asked += 1;
                let checked = answer.and_then(|answer| {
                    check(call, &answer, asked.is_multiple_of(READ_EVERY)).map(|()| answer)
                });
                match checked {
                    Ok(answer) if is_measuring.load(Relaxed) => {
                        let mut tally = tally.lock();
                        tally.0 += 1;
                        tally.1 += answer.body.len() as u64;
                        tally
                            .2
                            .saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1));
                    }
                    Ok(_) => {}
                    Err(reason) => {
                        let reason = format!("{}: {reason}", name(call));
                        run.recorder.fault(|faults| *faults.bad_answers.entry(reason).or_default() += 1);
                        // A service that refuses is not asked again at full speed.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        if let Ok(again) = Http::open(&run.target, index).await {
                            http = again;
                        }
                    }
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs_f64(options.warm_up)).await;
    let before: Snapshot = stage.snapshot();
    let began = Instant::now();
    is_measuring.store(true, Relaxed);
    tokio::time::sleep(Duration::from_secs_f64(options.duration)).await;
    is_measuring.store(false, Relaxed);
    let elapsed = began.elapsed();
    let after = stage.snapshot();
    is_done.store(true, Relaxed);
    while workers.join_next().await.is_some() {}
    let (answers, bytes, latencies) = tally.lock().clone();
    let service_cpu = match (after.service_cpu(), before.service_cpu()) {
        (Some(now), Some(before)) => Some(now.saturating_sub(before).as_secs_f64()),
        _ => None,
    };
    Ok(Outcome { call, answers, bytes, elapsed, latencies, service_cpu })
}

fn path(call: Call, person: &Person, random: &mut Random) -> String {
    let mut conversation =
        || person.conversation_ids.get(random.below(person.conversation_ids.len())).copied().unwrap_or(0);
    match call {
        Call::List => "/api/conversations".into(),
        Call::History => format!("/api/conversations/{}/messages", conversation()),
        Call::Search => format!("/api/messages/search?query=camera&conversation_id={}", conversation()),
        Call::Sync => {
            format!("/api/sync?since={}", person.last_event_seq.saturating_sub(SYNC_PAGE as u64))
        }
    }
}

/// The parts of answers that are checked.
#[derive(Deserialize)]
struct Envelope<'a> {
    success: bool,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct ListItem {
    last_message_at: Option<String>,
}

#[derive(Deserialize)]
struct PageItem {
    seq: u64,
}

#[derive(Deserialize)]
struct Hit {
    content: String,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<LogItem>,
}

#[derive(Deserialize)]
struct LogItem {
    event_seq: u64,
}

fn check(call: Call, answer: &Answer, in_full: bool) -> Result<(), String> {
    if answer.status != StatusCode::OK {
        return Err(format!("status {}", answer.status.as_u16()));
    }
    if answer.body.is_empty() {
        return Err("an empty body".into());
    }
    if !in_full {
        return Ok(());
    }
    let kind = answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return Err(format!("Content-Type {kind:?}"));
    }
    let unreadable = |error: serde_json::Error| format!("the body cannot be read: {error}");
    let envelope: Envelope<'_> = serde_json::from_slice(&answer.body).map_err(unreadable)?;
    if !envelope.success {
        return Err("success is false".into());
    }
    let data = envelope.data.get();
    match call {
        Call::List => {
            let list: Vec<ListItem> = serde_json::from_str(data).map_err(unreadable)?;
            let newest_first = list.windows(2).all(|pair| pair[0].last_message_at >= pair[1].last_message_at);
            expect(!list.is_empty() && list.len() <= LIST_PAGE && newest_first, "not a list, newest first")
        }
        Call::History => {
            let page: Vec<PageItem> = serde_json::from_str(data).map_err(unreadable)?;
            let in_order = page.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq);
            expect(
                !page.is_empty() && page.len() <= HISTORY_PAGE && in_order,
                "not a page, oldest first, without gaps",
            )
        }
        Call::Search => {
            let hits: Vec<Hit> = serde_json::from_str(data).map_err(unreadable)?;
            let all_hit = hits.iter().all(|hit| hit.content.to_lowercase().contains("camera"));
            expect(!hits.is_empty() && all_hit, "not messages with the word asked for")
        }
        Call::Sync => {
            let events: Events = serde_json::from_str(data).map_err(unreadable)?;
            let in_order = events.events.windows(2).all(|pair| pair[0].event_seq + 1 == pair[1].event_seq);
            expect(!events.events.is_empty() && in_order, "not events in order without gaps")
        }
    }
}

fn expect(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}
