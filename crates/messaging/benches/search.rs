//! How long a search takes for a user with 100,000 messages in 250 conversations, on each database:
//! `scripts/bench search`, or with PostgreSQL at `TEST_DATABASE_URL`: `cargo bench -p messaging --bench search`.
//!
//! First as everything lies after a flood, then with all of it in chunks, then as the databases know it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a measurement on the tests' own world"
)]

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/operations/world.rs"]
mod world;

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

use self::{
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

/// Searches for everything, often, and prints how long it took.
async fn search(world: &World, backend: Backend, round: &str) {
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
        let [fastest, median, slowest] =
            [times[0], times[25], times[49]].map(|time| time.as_secs_f64() * 1e3);
        println!(
            "{backend:?} {round} {words:>20}: {total:>5} hits, {fastest:>6.1} {median:>6.1} {slowest:>6.1} ms"
        );
        all.extend(times);
    }
    all.sort_unstable();
    let (p50, p99) = (all[all.len() / 2], all[all.len() * 99 / 100]);
    println!(
        "{backend:?} {round} all: p50 {:.1} ms, p99 {:.1} ms",
        p50.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3
    );
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    for backend in BACKENDS {
        let Some(database) = TestDatabase::new(backend).await else { continue };
        let world = World::new(database).await;
        let into = conversations(&world).await;
        let rate = write(&world, &into, 400, 250, &mut Random(7)).await;
        println!("{backend:?}: 100,000 messages stored, {rate:.0}/s");
        search(&world, backend, "fresh").await;
        world.chat.finish_indexing().await;
        search(&world, backend, "indexed").await;
        let statement = if backend == Backend::Sqlite { "analyze" } else { "vacuum analyze" };
        world.database.execute(statement).await;
        search(&world, backend, "analyzed").await;
    }
}
