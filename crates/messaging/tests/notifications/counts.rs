//! Badges in the app: right at every moment while people do everything at once, and heard as they are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use messaging::clock::Clock;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{nodes::token, on_both_databases, support::TestDatabase, world::World};

on_both_databases!(counters_equal_a_recount_at_every_moment_and_what_was_heard_last);

const USERS: [i64; 4] = [1, 2, 3, 4];
const TASKS: u64 = 6;
const STEPS: usize = 40;

/// A message that was sent: by whom, where, which.
type Sent = (i64, i64, i64);

async fn call(world: &World, user: i64, method: Method, path: &str, body: Value) -> Value {
    let url = format!("http://{}{path}", world.nodes.nodes[0].address);
    let request = world.nodes.http.request(method, url).bearer_auth(token(user)).json(&body);
    let response = request.send().await.unwrap();
    assert!(response.status().as_u16() < 500, "{path}: {}", response.status());
    response.json().await.unwrap_or_default()
}

/// One of everything that moves a counter, by anybody, of anything; what is refused is refused.
async fn act(world: &World, random: &mut StdRng, sent: &Mutex<Vec<Sent>>) {
    let user = USERS[random.random_range(0..USERS.len())];
    let some = {
        let sent = sent.lock();
        if sent.is_empty() { None } else { Some(sent[random.random_range(0..sent.len())]) }
    };
    let (method, path) = match (random.random_range(0..20_u32), some) {
        (0..=8, _) | (_, None) => {
            let other = USERS[random.random_range(0..USERS.len())];
            let product = random.random_range(1..=2_u32);
            let body = json!({"receiver_id": other, "product_id": product, "content": "hello"});
            let answer = call(world, user, Method::POST, "/api/messages", body).await;
            if let (Some(conversation), Some(id)) =
                (answer["data"]["conversation_id"].as_i64(), answer["data"]["id"].as_i64())
            {
                sent.lock().push((user, conversation, id));
            }
            return;
        }
        (9..=12, Some((_, conversation, _))) => {
            (Method::POST, format!("/api/conversations/{conversation}/read"))
        }
        (13..=15, Some((sender, _, id))) => {
            call(world, sender, Method::DELETE, &format!("/api/messages/{id}"), Value::Null).await;
            return;
        }
        (16, Some((_, conversation, _))) => (Method::DELETE, format!("/api/conversations/{conversation}")),
        (17, Some((_, conversation, _))) => {
            (Method::POST, format!("/api/conversations/{conversation}/archive"))
        }
        (18, Some((sender, ..))) => (Method::POST, format!("/api/users/{sender}/block")),
        (_, Some((sender, ..))) => (Method::DELETE, format!("/api/users/{sender}/block")),
    };
    call(world, user, method, &path, json!({})).await;
}

async fn counters_equal_a_recount_at_every_moment_and_what_was_heard_last(database: TestDatabase) {
    let store = database.store(&Clock::System).await;
    let world = Arc::new(World::new(database).await);
    let mut lives = Vec::new();
    for user in USERS {
        lives.push(world.nodes.connect(0, user).await);
    }
    let sent = Arc::new(Mutex::new(Vec::new()));
    let is_over = Arc::new(AtomicBool::new(false));
    let (watched, over) = (store.clone(), Arc::clone(&is_over));
    let watcher = tokio::spawn(async move {
        let mut looks = 0_u32;
        while !over.load(Ordering::Relaxed) {
            // One statement sees counters and messages at one moment.
            let recounted = watched.recount_unread(0, 1000).await.unwrap();
            assert!(recounted.drifted.is_empty(), "after {looks} looks: {:?}", recounted.drifted);
            looks += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        looks
    });
    let seed: u64 = rand::random();
    let tasks = (0..TASKS).map(|task| {
        let (world, sent) = (Arc::clone(&world), Arc::clone(&sent));
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(task));
        tokio::spawn(async move {
            for _ in 0..STEPS {
                act(&world, &mut random, &sent).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(watcher.await.unwrap() > 10, "looked at while it happened");

    let counts = store.unread_counts(&USERS.map(messaging::ids::UserId)).await.unwrap();
    for (user, live) in USERS.into_iter().zip(&lives) {
        let answer = world.nodes.get(0, user, "/api/conversations/unread/count").await;
        let counted = answer["unread_count"].as_i64().unwrap();
        let stored = counts.iter().find(|(id, _)| id.0 == user).map(|(_, count)| *count);
        assert_eq!(Some(counted), stored);
        let heard = || live.all("unread_count").last().map(|data| data["unread_count"].as_i64().unwrap());
        for _ in 0..300 {
            // News are folded.
            if heard().unwrap_or(0) == counted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(heard().unwrap_or(0), counted, "the badge of user {user}, seed {seed}");
        let everything = live.all("unread_count");
        assert!(everything.iter().all(|data| data["unread_count"].as_i64().unwrap() >= 0));
    }
}
