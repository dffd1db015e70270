//! Several nodes on one database, and nodes that die at the worst moment.

use std::{collections::BTreeMap, time::Duration};

use messaging::{
    ids::UserId,
    storage::{
        batch::{Batch, NewMessage, Target},
        contacts::ContactRow,
        emails::Due,
        rows::MessageType,
    },
};

use crate::{
    on_both_databases,
    smtp_server::Behaviour,
    support::TestDatabase,
    world::{ANNA, BEN, PATIENCE, World, address},
};

on_both_databases!(
    two_nodes_send_each_mail_once,
    claims_of_the_same_messages_at_the_same_time_are_made_once,
    a_mail_that_a_dead_node_had_claimed_is_sent_once_by_another,
    a_mail_that_arrived_before_its_node_died_comes_again_under_the_same_name,
    another_node_goes_on_sweeping_where_one_died,
    a_stopping_node_finishes_what_it_sends,
    a_stopping_node_does_not_wait_for_a_server_that_hangs,
);

/// Longer than any lease of `SMTP_TIMEOUT=1000` or of a sweep.
const LEASES: Duration = Duration::from_secs(120);

async fn two_nodes_send_each_mail_once(database: TestDatabase) {
    let mut world = World::start(database, &[]).await;
    world.add_node().await;
    let people: Vec<i64> = (20..50).collect();
    for id in &people {
        world.set_user(*id, serde_json::json!({"name": format!("Number {id}"), "email": address(*id)}));
    }
    world.sign_in(&people).await;
    for round in 1..=2 {
        for id in &people {
            let (conversation, _) = world.write(ANNA, *id, None, "hello").await;
            if round == 2 {
                world.read(*id, conversation).await;
                world.write(ANNA, *id, None, "hello again").await;
            }
        }
        world.pass();
        let all = people.len() * round;
        world.smtp.until("all mails", |smtp| smtp.mails().len() >= all).await;
        world.quiet().await;
        world.clock.advance(LEASES);
    }
    world.settle().await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for mail in world.smtp.mails() {
        *counts.entry(mail.to[0].clone()).or_default() += 1;
    }
    for id in &people {
        assert_eq!(counts.get(&address(*id)), Some(&2), "{id}: {counts:?}");
    }
}

async fn claims_of_the_same_messages_at_the_same_time_are_made_once(database: TestDatabase) {
    let world = World::prepare(database, &[]).await;
    let store = world.store().await;
    let contacts: Vec<_> =
        (1..=40).map(|id| ContactRow { user_id: UserId(id), email: address(id), language: None }).collect();
    store.upsert_contacts(&contacts).await.unwrap();
    for id in 2..=40 {
        let message = NewMessage {
            sender_id: UserId(1),
            target: Target::User { receiver_id: UserId(id), product_id: None },
            kind: MessageType::Text,
            content: "hello".to_owned(),
            file_url: None,
            attachment_id: None,
            reply_to_id: None,
            metadata: None,
            offer: None,
            client_message_id: None,
            fingerprint: 1,
        };
        store.apply(&Batch { sends: vec![message], receipts: vec![] }).await.unwrap();
    }
    let now = world.clock.now();
    let due = Due { after: 0, to: i64::MAX, until: now, since: now.minus(LEASES) };
    let candidates = store.email_candidates(&due).await.unwrap();
    assert_eq!(candidates.len(), 39);
    let claims = |node: i64| {
        let (store, candidates) = (store.clone(), candidates.clone());
        let names: Vec<_> =
            candidates.iter().map(|one| (one.user_id, format!("{node}-{}", one.user_id))).collect();
        async move { store.claim_emails(&candidates, &names).await.unwrap() }
    };
    let claimed = tokio::join!(claims(1), claims(2), claims(3), claims(4));
    assert_eq!(claimed.0 + claimed.1 + claimed.2 + claimed.3, 39, "{claimed:?}");
    let take = || {
        let store = store.clone();
        async move { store.take_emails(100, now.plus(LEASES)).await.unwrap().len() }
    };
    let taken = tokio::join!(take(), take(), take());
    assert_eq!(taken.0 + taken.1 + taken.2, 39, "{taken:?}");
    assert_eq!(store.email_candidates(&due).await.unwrap(), []);
}

async fn a_mail_that_a_dead_node_had_claimed_is_sent_once_by_another(database: TestDatabase) {
    let mut world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.smtp.behave(Behaviour::Swallow);
    world.write(ANNA, BEN, None, "hello").await;
    world.pass();
    world.smtp.until("an attempt", |smtp| smtp.heard("(swallowed)") == 1).await;
    world.nodes[0].kill();
    world.smtp.behave(Behaviour::Accept);
    world.add_node().await;
    // Until the lease is over it might yet be sent by whoever has it.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.smtp.mails().len(), 0);
    world.clock.advance(LEASES);
    let mail = world.mails(BEN, 1).await.remove(0);
    assert!(mail.text().contains("hello"), "{}", mail.text());
    world.quiet().await;
    world.clock.advance(LEASES);
    world.assert_no_more_than(1).await;
}

async fn a_mail_that_arrived_before_its_node_died_comes_again_under_the_same_name(database: TestDatabase) {
    let mut world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.smtp.behave(Behaviour::KeepAndHang);
    world.write(ANNA, BEN, None, "hello").await;
    world.pass();
    world.mails(BEN, 1).await;
    world.nodes[0].kill();
    world.smtp.behave(Behaviour::Accept);
    world.add_node().await;
    world.clock.advance(LEASES);
    let mails = world.mails(BEN, 2).await;
    assert_eq!(mails[0].message_id(), mails[1].message_id());
    assert!(mails[0].message_id().ends_with("@mail.example.test"), "{}", mails[0].message_id());
    world.quiet().await;
    world.clock.advance(LEASES);
    world.assert_no_more_than(2).await;
}

async fn another_node_goes_on_sweeping_where_one_died(database: TestDatabase) {
    let mut world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    // Seen to sweep.
    world.settle().await;
    world.nodes[0].kill();
    world.add_node().await;
    world.write(ANNA, BEN, None, "hello").await;
    world.pass();
    world.clock.advance(LEASES);
    world.mails(BEN, 1).await;
    world.assert_no_more_than(1).await;
}

async fn a_stopping_node_finishes_what_it_sends(database: TestDatabase) {
    let mut world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.write(ANNA, BEN, None, "hello").await;
    world.pass();
    world.mails(BEN, 1).await;
    world.nodes.remove(0).stop().await;
    world.add_node().await;
    world.quiet().await;
    world.clock.advance(LEASES);
    world.assert_no_more_than(1).await;
}

async fn a_stopping_node_does_not_wait_for_a_server_that_hangs(database: TestDatabase) {
    let mut world = World::start(database, &[("SHUTDOWN_TIMEOUT", "4")]).await;
    world.sign_in(&[BEN]).await;
    world.smtp.behave(Behaviour::Mute);
    world.write(ANNA, BEN, None, "hello").await;
    world.pass();
    world.smtp.until("an attempt", |smtp| smtp.heard("(connected)") == 1).await;
    // `SMTP_TIMEOUT` is as long as anything here may last.
    assert!(PATIENCE <= Duration::from_secs(30));
    let began = std::time::Instant::now();
    world.nodes.remove(0).stop().await;
    assert!(began.elapsed() < Duration::from_secs(25), "it waited for the mail server");
    world.smtp.behave(Behaviour::Accept);
    world.add_node().await;
    world.clock.advance(LEASES);
    world.mails(BEN, 1).await;
}
