//! The queue in the database: leases, and what keeps it bounded.

use std::{sync::Arc, time::Duration};

use messaging::{
    clock::Clock,
    ids::UserId,
    storage::{
        Store,
        batch::{Batch, NewMessage, Target},
        rows::MessageType,
        webhooks::{Outbox, WebhookEvent},
    },
};

use crate::{
    on_both_databases,
    support::{START, TestDatabase},
};

on_both_databases!(
    a_claim_is_nobody_elses_until_its_lease_is_over,
    a_late_outcome_of_a_lapsed_claim_changes_nothing,
    what_is_old_goes,
    a_refused_message_is_not_told,
);

const TARGET: &str = "https://shop.example.test/hook";
const LEASE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

async fn store(database: &TestDatabase, clock: &Clock) -> Store {
    let outbox = Outbox::new(vec![WebhookEvent::MessageCreated], vec![TARGET.into()]);
    database.store(clock).await.with_outbox(Arc::new(outbox))
}

async fn send(store: &Store, client_message_id: &str) {
    let message = NewMessage {
        sender_id: UserId(1),
        target: Target::User { receiver_id: UserId(2), product_id: None },
        kind: MessageType::Text,
        content: "hello".into(),
        file_url: None,
        attachment_id: None,
        reply_to_id: None,
        metadata: None,
        offer: None,
        client_message_id: Some(client_message_id.into()),
        fingerprint: 1,
    };
    store.apply(&Batch { sends: vec![message], receipts: Vec::new() }).await.unwrap();
}

async fn a_claim_is_nobody_elses_until_its_lease_is_over(database: TestDatabase) {
    let clock = Clock::manual(START);
    let store = store(&database, &clock).await;
    send(&store, "a").await;
    send(&store, "b").await;
    let first = store.claim_webhooks(TARGET, 1, LEASE).await.unwrap();
    let second = store.claim_webhooks(TARGET, 10, LEASE).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(first[0].id < second[0].id);
    assert!(store.claim_webhooks(TARGET, 10, LEASE).await.unwrap().is_empty());
    assert!(store.claim_webhooks("https://other.example.test/", 10, LEASE).await.unwrap().is_empty());
    assert_eq!(store.next_webhook_due(TARGET).await.unwrap(), Some(START.plus(LEASE)));

    store.webhooks_delivered(&[first[0].id]).await.unwrap();
    clock.advance(LEASE);
    let again = store.claim_webhooks(TARGET, 10, LEASE).await.unwrap();
    assert_eq!((again.len(), again[0].id, again[0].attempts), (1, second[0].id, 2));
    store.release_webhooks(&[again[0].id]).await.unwrap();
    let given_back = store.claim_webhooks(TARGET, 10, LEASE).await.unwrap();
    assert_eq!((given_back.len(), given_back[0].attempts), (1, 2));
}

async fn a_late_outcome_of_a_lapsed_claim_changes_nothing(database: TestDatabase) {
    let clock = Clock::manual(START);
    let store = store(&database, &clock).await;
    send(&store, "a").await;
    let lapsed = store.claim_webhooks(TARGET, 1, LEASE).await.unwrap().remove(0);
    clock.advance(LEASE);
    let current = store.claim_webhooks(TARGET, 1, LEASE).await.unwrap().remove(0);
    store.webhook_failed(lapsed.id, lapsed.attempts, None, "too late").await.unwrap();
    assert_eq!(store.webhook_depth().await.unwrap().dead, 0);
    store.webhooks_delivered(&[current.id]).await.unwrap();
    store.webhook_failed(current.id, current.attempts, None, "after it arrived").await.unwrap();
    let depth = store.webhook_depth().await.unwrap();
    assert_eq!((depth.pending, depth.dead), (0, 0));
}

async fn what_is_old_goes(database: TestDatabase) {
    let clock = Clock::manual(START);
    let store = store(&database, &clock).await;
    send(&store, "a").await;
    send(&store, "b").await;
    send(&store, "c").await;
    let claimed = store.claim_webhooks(TARGET, 2, LEASE).await.unwrap();
    store.webhooks_delivered(&[claimed[0].id]).await.unwrap();
    let later = clock.now().plus(DAY * 5);
    store.webhook_failed(claimed[1].id, claimed[1].attempts, Some(later), "answered 500").await.unwrap();

    clock.advance(DAY * 4 + Duration::from_secs(1));
    let before = clock.now().minus(DAY * 4);
    assert_eq!(store.expire_webhooks(before, "waited").await.unwrap(), 1, "not what is due later");
    let (dead, total) = store.dead_webhooks(0, 10).await.unwrap();
    assert_eq!((dead.len(), total, dead[0].last_error.as_deref()), (1, 1, Some("waited")));
    assert_eq!(store.forget_webhooks(clock.now().minus(DAY), clock.now().minus(DAY * 30)).await.unwrap(), 1);
    clock.advance(DAY * 30 + Duration::from_secs(1));
    assert_eq!(store.forget_webhooks(clock.now().minus(DAY), clock.now().minus(DAY * 30)).await.unwrap(), 1);
    assert_eq!(store.dead_webhooks(0, 10).await.unwrap().1, 0);
    assert_eq!(store.webhook_depth().await.unwrap().pending, 1);
    assert_eq!(store.bury_webhooks(TARGET, "gone").await.unwrap(), 1);
}

async fn a_refused_message_is_not_told(database: TestDatabase) {
    let store = store(&database, &Clock::manual(START)).await;
    send(&store, "a").await;
    // A repetition, and a message to a user who blocks the sender.
    send(&store, "a").await;
    store.set_block(UserId(2), UserId(1), true).await.unwrap().unwrap();
    send(&store, "b").await;
    assert_eq!(store.claim_webhooks(TARGET, 10, LEASE).await.unwrap().len(), 1);
}
