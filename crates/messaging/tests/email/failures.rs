//! Mail servers that refuse, stall, hang and are away.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    smtp_server::Behaviour,
    support::TestDatabase,
    world::{ANNA, BEN, CLEO, World, address},
};

on_both_databases!(
    what_is_not_taken_for_now_is_sent_later,
    a_mailbox_that_does_not_exist_is_left_alone_until_the_address_changes,
    an_operator_lifts_a_refusal_that_was_the_servers_mistake,
    a_refusal_of_the_sender_says_nothing_about_the_recipient,
    a_content_that_is_refused_is_given_up_and_the_next_is_tried,
    a_server_that_is_away_is_tried_again_and_given_up_in_the_end,
    a_server_that_hangs_holds_up_nothing,
    what_is_read_while_the_server_is_away_is_not_sent,
);

/// Longer than the distance to any attempt.
const HOUR: Duration = Duration::from_secs(3600);

async fn what_is_not_taken_for_now_is_sent_later(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    for (attempt, behaviour) in [
        Behaviour::Recipient("450 4.2.0 greylisted user2@people.example.test"),
        Behaviour::Sender("421 4.3.2 going down"),
        Behaviour::Content("452 4.3.1 no room"),
    ]
    .into_iter()
    .enumerate()
    {
        world.smtp.behave(behaviour);
        if attempt == 0 {
            world.write(ANNA, BEN, None, "hello").await;
            world.pass();
        } else {
            // Not before its time has come.
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(world.smtp.heard("MAIL"), attempt);
            world.clock.advance(HOUR);
        }
        world.smtp.until("an attempt", |smtp| smtp.heard("MAIL") == attempt + 1).await;
        world.quiet().await;
    }
    world.smtp.behave(Behaviour::Accept);
    world.clock.advance(HOUR);
    world.mails(BEN, 1).await;
    world.quiet().await;
    world.clock.advance(HOUR);
    world.assert_no_more_than(1).await;
}

async fn a_mailbox_that_does_not_exist_is_left_alone_until_the_address_changes(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    let refused = world.counted("refused").await;
    world.smtp.behave(Behaviour::Recipient("550 5.1.1 no such user"));
    world.write(ANNA, BEN, None, "one").await;
    world.pass();
    world.smtp.until("an attempt", |smtp| smtp.heard("RCPT") == 1).await;
    world.quiet().await;
    assert!(world.counted("refused").await > refused);
    world.smtp.behave(Behaviour::Accept);
    world.write(ANNA, BEN, None, "two").await;
    world.write(CLEO, BEN, None, "three").await;
    world.clock.advance(HOUR);
    world.assert_no_more_than(0).await;
    // Validated once more it is still the same address.
    world.sign_in_again(BEN).await;
    world.write(ANNA, BEN, None, "four").await;
    world.assert_no_more_than(0).await;
    world.set_user(BEN, json!({"name": "Ben", "email": "ben@new.example.test"}));
    world.sign_in_again(BEN).await;
    world.write(ANNA, BEN, None, "five").await;
    world.pass();
    world.smtp.until("a mail", |smtp| smtp.mails_to("ben@new.example.test").len() == 1).await;
    world.assert_no_more_than(1).await;
}

async fn an_operator_lifts_a_refusal_that_was_the_servers_mistake(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.smtp.behave(Behaviour::Recipient("554 5.7.1 relaying denied"));
    world.write(ANNA, BEN, None, "one").await;
    world.pass();
    world.smtp.until("an attempt", |smtp| smtp.heard("RCPT") == 1).await;
    world.quiet().await;
    world.smtp.behave(Behaviour::Accept);
    // As docs/email.md has it.
    world.database.execute("update user_contacts set refused_at = null").await;
    world.write(ANNA, BEN, None, "two").await;
    world.pass();
    world.mails(BEN, 1).await;
}

async fn a_refusal_of_the_sender_says_nothing_about_the_recipient(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    for (attempts, behaviour) in [
        (1, Behaviour::Sender("530 5.7.0 authenticate first")),
        (2, Behaviour::Sender("550 5.7.1 not from you")),
        (3, Behaviour::Recipient("503 5.5.1 bad sequence")),
    ] {
        world.smtp.behave(behaviour);
        if attempts == 1 {
            world.write(ANNA, BEN, None, "hello").await;
            world.pass();
        } else {
            world.clock.advance(HOUR);
        }
        world.smtp.until("an attempt", |smtp| smtp.heard("MAIL") == attempts).await;
        world.quiet().await;
    }
    world.smtp.behave(Behaviour::Accept);
    world.clock.advance(HOUR);
    world.mails(BEN, 1).await;
}

async fn a_content_that_is_refused_is_given_up_and_the_next_is_tried(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.smtp.behave(Behaviour::Content("554 5.6.0 looks like spam"));
    world.write(ANNA, BEN, None, "one").await;
    world.pass();
    world.smtp.until("an attempt", |smtp| smtp.heard("DATA") == 1).await;
    world.quiet().await;
    world.smtp.behave(Behaviour::Accept);
    world.clock.advance(HOUR);
    world.assert_no_more_than(0).await;
    world.write(ANNA, BEN, None, "two").await;
    world.pass();
    world.mails(BEN, 1).await;
}

async fn a_server_that_is_away_is_tried_again_and_given_up_in_the_end(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    let given_up = world.counted("given_up").await;
    world.smtp.behave(Behaviour::Recipient("451 4.7.1 later"));
    world.write(ANNA, BEN, None, "one").await;
    world.pass();
    for attempts in 1..=8 {
        world.smtp.until("an attempt", |smtp| smtp.heard("RCPT") == attempts).await;
        world.quiet().await;
        world.clock.advance(HOUR);
    }
    assert!(world.counted("given_up").await > given_up);
    world.smtp.behave(Behaviour::Accept);
    world.assert_no_more_than(0).await;
    assert_eq!(world.smtp.mails_to(&address(BEN)).len(), 0);
    // The next message has its own chance, and tells of the first one too.
    world.write(ANNA, BEN, None, "two").await;
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    assert!(mail.text().contains("one") && mail.text().contains("two"), "{}", mail.text());
}

async fn a_server_that_hangs_holds_up_nothing(database: TestDatabase) {
    let world = World::start(database, &[("SMTP_TIMEOUT", "700")]).await;
    let people: Vec<i64> = (20..26).collect();
    for id in &people {
        world.set_user(*id, json!({"name": "Somebody", "email": address(*id)}));
    }
    world.sign_in(&people).await;
    for behaviour in [Behaviour::Mute, Behaviour::Swallow] {
        world.smtp.behave(behaviour);
        for id in &people {
            let (conversation, _) = world.write(ANNA, *id, None, "hello").await;
            world.read(*id, conversation).await;
            world.write(ANNA, *id, None, "hello again").await;
        }
        world.pass();
        let sign = if behaviour == Behaviour::Mute { "(connected)" } else { "(swallowed)" };
        world.smtp.until("attempts", |smtp| smtp.heard(sign) >= 4).await;
        // Meanwhile everything else goes on.
        world.write(ANNA, CLEO, None, "hello").await;
        assert_eq!(world.ok(CLEO, Method::GET, "/ready", Value::Null).await["data"]["status"], "ready");
        for _ in 0..10 {
            world.clock.advance(Duration::from_secs(30));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(world.smtp.mails().len(), 0);
    world.smtp.behave(Behaviour::Accept);
    // Past the time-outs: a clock that jumps takes whoever is sending for dead.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    world.quiet().await;
    world.clock.advance(HOUR);
    world.smtp.until("all mails", |smtp| smtp.mails().len() >= people.len()).await;
    for id in &people {
        assert_eq!(world.smtp.mails_to(&address(*id)).len(), 1, "{id}");
    }
    world.quiet().await;
    world.clock.advance(HOUR);
    world.assert_no_more_than(people.len()).await;
}

async fn what_is_read_while_the_server_is_away_is_not_sent(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.smtp.behave(Behaviour::Down);
    let (first, _) = world.write(ANNA, BEN, None, "from Anna").await;
    world.write(CLEO, BEN, None, "from Cleo").await;
    world.pass();
    world.smtp.until("an attempt", |smtp| smtp.heard("(closed)") > 0).await;
    world.quiet().await;
    world.read(BEN, first).await;
    world.smtp.behave(Behaviour::Accept);
    world.clock.advance(HOUR);
    let mail = world.mails(BEN, 1).await.remove(0);
    assert!(mail.text().contains("from Cleo") && !mail.text().contains("from Anna"), "{}", mail.text());
    assert_eq!(mail.subject(), "Cleo wrote to you");
}
