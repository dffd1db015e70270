//! Who gets a mail, about what, and how often.

use std::time::Duration;

use messaging::ids::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, CAMERA, CLEO, DELAY, World, address},
};

on_both_databases!(
    one_mail_tells_of_all_that_is_unread,
    a_conversation_is_mailed_about_once_until_it_is_read,
    reading_some_of_it_is_not_reading_what_was_mailed,
    what_is_read_in_time_is_not_mailed,
    nothing_is_mailed_before_the_delay_is_over,
    muted_blocked_deleted_and_switched_off_are_not_mailed,
    an_archived_conversation_and_one_whose_mute_is_over_are_mailed,
    a_deleted_message_is_not_shown,
    only_verified_addresses_of_the_persons_own_account_are_used,
    an_address_follows_the_account,
    without_mail_no_address_is_kept,
    what_was_written_before_mail_was_switched_on_is_not_mailed,
);

async fn one_mail_tells_of_all_that_is_unread(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[ANNA, BEN]).await;
    let (with_anna, _) = world.write(ANNA, BEN, Some(CAMERA), "Is it free on Friday?").await;
    world.write(ANNA, BEN, Some(CAMERA), "Or on Monday?").await;
    let (with_cleo, _) = world.write(CLEO, BEN, None, "Hello Ben").await;
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("no-reply@mail.example.test", [address(BEN)].as_slice())
    );
    assert_eq!(mail.subject(), "2 people wrote to you");
    assert!(mail.text().contains("Anna about Camera"), "{}", mail.text());
    for shown in
        ["You have 3 unread messages.", "Is it free on Friday?", "Or on Monday?", "Cleo", "Hello Ben"]
    {
        assert!(mail.text().contains(shown) && mail.html().contains(shown), "{shown}: {}", mail.text());
    }
    for id in [with_anna, with_cleo] {
        assert!(
            mail.text().contains(&format!("https://app.example.test/conversations/{id}\r\n")),
            "{}",
            mail.text()
        );
    }
    assert!(mail.text().find("Hello Ben") < mail.text().find("Is it free"), "the newest comes first");
    world.assert_no_more_than(1).await;
}

async fn a_conversation_is_mailed_about_once_until_it_is_read(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    let (conversation, _) = world.write(ANNA, BEN, Some(CAMERA), "one").await;
    world.pass();
    assert_eq!(world.mails(BEN, 1).await[0].subject(), "Anna about Camera");
    world.write(ANNA, BEN, Some(CAMERA), "two").await;
    world.assert_no_more_than(1).await;
    world.write(ANNA, BEN, Some(CAMERA), "three").await;
    world.assert_no_more_than(1).await;
    // Another conversation is another matter.
    world.write(CLEO, BEN, Some(CAMERA), "hello").await;
    world.pass();
    let mails = world.mails(BEN, 2).await;
    assert_eq!(mails[1].subject(), "Cleo about Camera");
    assert!(!mails[1].text().contains("Anna"), "{}", mails[1].text());

    world.read(BEN, conversation).await;
    world.assert_no_more_than(2).await;
    world.write(ANNA, BEN, Some(CAMERA), "four").await;
    world.pass();
    let mails = world.mails(BEN, 3).await;
    assert_eq!(mails[2].subject(), "Anna about Camera");
    assert!(mails[2].text().contains("four") && !mails[2].text().contains("three"), "{}", mails[2].text());
    let ids: std::collections::HashSet<_> = mails.iter().map(crate::smtp_server::Mail::message_id).collect();
    assert_eq!(ids.len(), 3, "each mail has a name of its own");
    world.assert_no_more_than(3).await;
}

async fn reading_some_of_it_is_not_reading_what_was_mailed(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    let (conversation, first) = world.write(ANNA, BEN, None, "one").await;
    let (_, second) = world.write(ANNA, BEN, None, "two").await;
    world.pass();
    world.mails(BEN, 1).await;
    world.mark_read(BEN, conversation, &[first]).await;
    world.write(ANNA, BEN, None, "three").await;
    world.assert_no_more_than(1).await;
    // All that was mailed is read now, though not all there is.
    world.mark_read(BEN, conversation, &[second]).await;
    world.write(ANNA, BEN, None, "four").await;
    world.pass();
    let mails = world.mails(BEN, 2).await;
    assert!(mails[1].text().contains("three") && mails[1].text().contains("four"), "{}", mails[1].text());
    assert!(!mails[1].text().contains("two"), "{}", mails[1].text());
}

async fn what_is_read_in_time_is_not_mailed(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    let (conversation, _) = world.write(ANNA, BEN, None, "one").await;
    world.clock.advance(Duration::from_secs(DELAY - 1));
    world.read(BEN, conversation).await;
    world.assert_no_more_than(0).await;
}

async fn nothing_is_mailed_before_the_delay_is_over(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.write(ANNA, BEN, None, "one").await;
    world.clock.advance(Duration::from_millis(DELAY * 1000 - 1));
    // Several looks of the sweep.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.smtp.mails().len(), 0);
    world.clock.advance(Duration::from_millis(1));
    world.mails(BEN, 1).await;
}

async fn muted_blocked_deleted_and_switched_off_are_not_mailed(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[ANNA, BEN, CLEO]).await;
    let (muted, _) = world.write(ANNA, BEN, Some(CAMERA), "one").await;
    world.ok(BEN, Method::POST, &format!("/api/conversations/{muted}/mute"), Value::Null).await;
    world.ok(BEN, Method::POST, &format!("/api/conversations/{muted}/archive"), Value::Null).await;
    let (for_a_while, _) = world.write(ANNA, BEN, Some(6), "one").await;
    let until = json!({"until": "2026-06-01T00:00:00Z"});
    world.ok(BEN, Method::POST, &format!("/api/conversations/{for_a_while}/mute"), until).await;
    let (deleted, _) = world.write(ANNA, BEN, Some(7), "one").await;
    world.ok(BEN, Method::DELETE, &format!("/api/conversations/{deleted}"), Value::Null).await;
    world.write(CLEO, BEN, None, "one").await;
    world.ok(BEN, Method::POST, &format!("/api/users/{CLEO}/block"), Value::Null).await;
    // Who blocked somebody hears nothing of what they wrote before, and the other way round.
    world.write(BEN, ANNA, Some(8), "one").await;
    world.ok(BEN, Method::POST, &format!("/api/users/{ANNA}/block"), Value::Null).await;
    let preferences = "/api/notifications/preferences";
    world.write(ANNA, CLEO, None, "one").await;
    world.ok(CLEO, Method::PUT, preferences, json!({"email": false})).await;
    world.assert_no_more_than(0).await;
    // Switched on again, later messages count.
    world.ok(CLEO, Method::PUT, preferences, json!({"email": true})).await;
    world.write(ANNA, CLEO, None, "two").await;
    world.pass();
    let mail = world.mails(CLEO, 1).await.remove(0);
    assert!(mail.text().contains("one") && mail.text().contains("two"), "{}", mail.text());
    world.assert_no_more_than(1).await;
}

async fn an_archived_conversation_and_one_whose_mute_is_over_are_mailed(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    let (archived, _) = world.write(ANNA, BEN, None, "one").await;
    world.ok(BEN, Method::POST, &format!("/api/conversations/{archived}/archive"), Value::Null).await;
    let (muted, _) = world.write(CLEO, BEN, None, "one").await;
    let until = world.clock.now().plus(Duration::from_secs(3)).to_string();
    world.ok(BEN, Method::POST, &format!("/api/conversations/{muted}/mute"), json!({"until": until})).await;
    world.pass();
    assert_eq!(world.mails(BEN, 1).await[0].subject(), "2 people wrote to you");
    world.assert_no_more_than(1).await;
}

async fn a_deleted_message_is_not_shown(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN, CLEO]).await;
    let (_, first) = world.write(ANNA, BEN, None, "a slip").await;
    world.write(ANNA, BEN, None, "as meant").await;
    let (_, only) = world.write(ANNA, CLEO, None, "another slip").await;
    for id in [first, only] {
        world.ok(ANNA, Method::DELETE, &format!("/api/messages/{id}"), Value::Null).await;
    }
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    assert!(mail.text().contains("as meant") && !mail.text().contains("slip"), "{}", mail.text());
    assert!(mail.text().contains("You have an unread message."), "{}", mail.text());
    world.assert_no_more_than(1).await;
}

async fn only_verified_addresses_of_the_persons_own_account_are_used(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.set_user(BEN, json!({"name": "Ben", "email": address(BEN), "email_verified_at": null}));
    world.set_user(4, json!({"name": "Dora"}));
    world.set_user(6, json!({"name": "Emil", "email": "not an address"}));
    for user in [BEN, 4, 6] {
        world.ok(user, Method::GET, "/api/conversations/unread/count", Value::Null).await;
        world.write(ANNA, user, Some(CAMERA), "one").await;
    }
    // The owner of the product, whose address the product's answer has, never signed in.
    world.write(ANNA, 97, Some(CAMERA), "one").await;
    world.assert_no_more_than(0).await;
    let verified = json!({"name": "Ben", "email": address(BEN), "email_verified_at": "2025-12-05T10:30:00Z"});
    world.set_user(BEN, verified);
    world.sign_in_again(BEN).await;
    world.write(ANNA, BEN, Some(CAMERA), "two").await;
    world.pass();
    world.mails(BEN, 1).await;
    world.assert_no_more_than(1).await;
}

async fn an_address_follows_the_account(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.set_user(BEN, json!({"name": "Ben", "email": "ben@new.example.test"}));
    world.sign_in_again(BEN).await;
    world.write(ANNA, BEN, None, "one").await;
    world.pass();
    world.smtp.until("a mail", |smtp| !smtp.mails_to("ben@new.example.test").is_empty()).await;
    // An account without a verified address has none any more.
    world.set_user(BEN, json!({"name": "Ben", "email": "ben@other.example.test", "email_verified_at": null}));
    world.sign_in_again(BEN).await;
    world.read(BEN, 1).await;
    world.write(ANNA, BEN, None, "two").await;
    world.assert_no_more_than(1).await;
}

async fn without_mail_no_address_is_kept(database: TestDatabase) {
    let mut world = World::prepare(database, &[]).await;
    world.add_node_with(&[("SMTP_URL", "")]).await;
    world.ok(BEN, Method::GET, "/api/conversations/unread/count", Value::Null).await;
    world.write(ANNA, BEN, None, "one").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let known = world.store().await.contacts(&[UserId(ANNA), UserId(BEN)]).await.unwrap();
    assert!(known.is_empty());
}

async fn what_was_written_before_mail_was_switched_on_is_not_mailed(database: TestDatabase) {
    let mut world = World::prepare(database, &[]).await;
    world.add_node_with(&[("SMTP_URL", "")]).await;
    world.write(ANNA, BEN, None, "one").await;
    world.add_node().await;
    world.sign_in(&[BEN]).await;
    world.assert_no_more_than(0).await;
    world.write(ANNA, BEN, None, "two").await;
    world.pass();
    world.mails(BEN, 1).await;
}
