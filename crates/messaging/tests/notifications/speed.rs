//! A measurement by hand, no test: from the commit until the request is at the push service.
//! `cargo test -p messaging --test notifications speed -- --ignored --nocapture --test-threads 1`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    support::{Backend, TestDatabase},
    world::{ANNA, World},
};

/// People with a device, each of whom gets one message.
const PEOPLE: i64 = 1000;
/// Messages a second.
const RATE: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement by hand"]
async fn from_the_confirmation_to_the_push_service() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::new(backend).await else { continue };
        let world = World::with(database, None, 1, &[]).await;
        for user in 100..100 + PEOPLE {
            world.register(user, &format!("token-{user}"), "android").await;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        let mut sent = HashMap::new();
        for user in 100..100 + PEOPLE {
            ticks.tick().await;
            let body = json!({"receiver_id": user, "content": "Is it free?"});
            let (status, _) = world.nodes.post(0, ANNA, "/api/messages", &body).await;
            assert_eq!(status, 201);
            sent.insert(format!("token-{user}"), Instant::now());
        }
        world.fcm.wait_for(&format!("token-{}", 99 + PEOPLE), 1).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The answer to the sender comes after the commit and is read later still: a little too early
        // a beginning of the time would be a little too good a figure, so both ends are outside.
        let mut times: Vec<Duration> = world
            .fcm
            .sends()
            .iter()
            .filter_map(|push| {
                let confirmed = sent.get(push.message["token"].as_str()?)?;
                Some(push.at.saturating_duration_since(*confirmed))
            })
            .collect();
        times.sort_unstable();
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place in a short list"
            )]
            #[expect(clippy::cast_precision_loss, reason = "a place in a short list")]
            let place = (times.len() as f64 * part) as usize;
            times[place.min(times.len() - 1)]
        };
        let metrics = format!("http://{}/metrics", world.nodes.nodes[0].address);
        let metrics = world.nodes.http.get(metrics).send().await.unwrap().text().await.unwrap();
        println!(
            "{backend:?}: {} pushes at {RATE}/s; confirmation read -> request at the push service: p50 {:?}, p99 {:?}, longest {:?}",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
        metrics
            .lines()
            .filter(|line| line.starts_with("messaging_notification_seconds"))
            .for_each(|line| println!("  {line}"));
    }
}
