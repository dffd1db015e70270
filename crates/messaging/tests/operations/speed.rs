//! Measurements by hand, no tests:
//! `cargo test --release -p messaging --test operations speed -- --ignored --nocapture --test-threads 1`.

use std::time::{Duration, Instant};

use messaging::{
    chat::{PageRequest, SearchMessages},
    content::Needle,
    ids::{ConversationId, UserId},
    storage::{
        batch::{Batch, NewMessage, Target},
        rows::MessageType,
    },
};
use serde_json::json;

use crate::{
    support::{Backend, TestDatabase},
    world::{ANNA, World, caller},
};

const BACKENDS: [Backend; 2] = [Backend::Sqlite, Backend::Postgres];
const CONVERSATIONS: i64 = 250;

const WORDS: [&str; 40] = [
    "hello",
    "the",
    "camera",
    "is",
    "still",
    "available",
    "for",
    "next",
    "weekend",
    "yes",
    "price",
    "per",
    "day",
    "deposit",
    "tripod",
    "lens",
    "bag",
    "pick",
    "it",
    "up",
    "tomorrow",
    "morning",
    "at",
    "nine",
    "please",
    "thanks",
    "see",
    "you",
    "there",
    "battery",
    "charger",
    "card",
    "how",
    "much",
    "can",
    "we",
    "meet",
    "near",
    "station",
    "Straße",
];

const QUERIES: [&str; 16] = [
    "camera",
    "hello the",
    "zzzzzz",
    "tomorrow morning",
    "STRASSE",
    "e",
    "qx",
    "ca",
    "xylophone",
    "station lens bag",
    "相机",
    "th",
    "nine please tripod",
    "%",
    "unavailable",
    "zq",
];

/// The same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn words(&mut self) -> String {
        let words: Vec<_> = (0..3 + self.below(16)).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }
}

/// Conversations of Anna with others.
async fn conversations(world: &World) -> Vec<ConversationId> {
    let mut ids = vec![];
    for n in 0..CONVERSATIONS {
        let body = json!({"receiver_id": UserId(1000 + n % 125), "product_id": 1 + n / 125, "content": "hi"});
        let id = world.send(ANNA, body).await.unwrap();
        ids.push(world.store.message(id).await.unwrap().unwrap().conversation_id);
    }
    ids
}

/// Stores messages in batches as the group commit does; answers how many a second.
async fn write(
    world: &World,
    into: &[ConversationId],
    batches: usize,
    size: usize,
    random: &mut Random,
) -> f64 {
    let began = Instant::now();
    for _ in 0..batches {
        let sends: Vec<NewMessage> = (0..size)
            .map(|_| NewMessage {
                sender_id: ANNA,
                target: Target::Conversation(into[random.below(into.len())]),
                kind: MessageType::Text,
                content: random.words(),
                file_url: None,
                attachment_id: None,
                reply_to_id: None,
                metadata: None,
                offer: None,
                client_message_id: None,
                fingerprint: 0,
            })
            .collect();
        world.store.apply(&Batch { sends, receipts: vec![] }).await.unwrap();
    }
    f64::from(u32::try_from(batches * size).unwrap()) / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn speed_of_search_over_a_hundred_thousand_messages() {
    for backend in BACKENDS {
        let Some(database) = TestDatabase::new(backend).await else { continue };
        let world = World::new(database).await;
        let into = conversations(&world).await;
        let rate = write(&world, &into, 400, 250, &mut Random(7)).await;
        println!("{backend:?}: 100,000 messages stored, {rate:.0}/s");
        for round in ["fresh", "analyzed"] {
            if round == "analyzed" {
                let statement = if backend == Backend::Sqlite { "analyze" } else { "vacuum analyze" };
                world.database.execute(statement).await;
            }
            let mut all = vec![];
            for words in QUERIES {
                let request = SearchMessages { needle: Needle::parse(words).unwrap(), conversation_id: None };
                let page = PageRequest { page: 1, limit: 20 };
                let mut times: Vec<Duration> = vec![];
                let mut total = 0;
                for _ in 0..50 {
                    let began = Instant::now();
                    total = world.chat.search_messages(&caller(ANNA), &request, page).await.unwrap().total;
                    times.push(began.elapsed());
                }
                times.sort_unstable();
                println!(
                    "{backend:?} {round} {words:>20}: {total:>5} hits, fastest {:?}, median {:?}, slowest {:?}",
                    times[0], times[25], times[49]
                );
                all.extend(times);
            }
            all.sort_unstable();
            println!(
                "{backend:?} {round}: p50 {:?}, p99 {:?}",
                all[all.len() / 2],
                all[all.len() * 99 / 100]
            );
        }
    }
}

/// With the signature in an index, and without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn speed_of_writing_what_can_be_searched() {
    for backend in BACKENDS {
        // In turns: the machine is not equally busy all the time.
        let mut worlds = vec![];
        for without in [false, true] {
            let Some(database) = TestDatabase::new(backend).await else { continue };
            let world = World::new(database).await;
            if without && backend == Backend::Sqlite {
                world.database.execute("drop index idx_messages_search").await;
            } else if without {
                world.database.execute("drop index idx_messages_conversation").await;
                let plain =
                    "create unique index idx_messages_conversation on messages (conversation_id, seq)";
                world.database.execute(plain).await;
            }
            let into = conversations(&world).await;
            worlds.push((without, world, into, Random(7), vec![]));
        }
        for _ in 0..8 {
            for (_, world, into, random, rates) in &mut worlds {
                rates.push(write(world, into, 100, 64, random).await);
            }
        }
        for (without, _, _, _, mut rates) in worlds {
            rates.sort_unstable_by(f64::total_cmp);
            println!("{backend:?} {}: {rates:.0?} messages/s", if without { "without" } else { "with" });
        }
    }
}
