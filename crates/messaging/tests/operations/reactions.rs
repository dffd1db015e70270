//! Emoji under messages.

use messaging::{
    chat::{parse_emoji, parse_reaction},
    content::Emoji,
    errors::Error,
    ids::MessageId,
};
use serde_json::json;

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, CLEO, World, caller, code, refused_field},
};

on_both_databases!(
    a_reaction_is_told_to_both_and_seen_by_both,
    a_reaction_is_given_and_taken_once,
    a_reaction_is_refused_to_strangers_and_under_tombstones,
    a_message_has_at_most_twenty_kinds,
    a_deleted_message_loses_its_reactions,
    reactions_between_blocked_users_are_silent,
    simultaneous_reactions_are_all_kept,
);

fn emoji(text: &str) -> Emoji {
    Emoji::parse(text).unwrap()
}

async fn a_reaction_is_told_to_both_and_seen_by_both(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("hello").await;
    let heads = world.heads().await;
    let live = world.connect(ANNA).await;
    let answer = world.chat.add_reaction(&caller(BEN), id, emoji("👩🏽‍❤️‍💋‍👨🏿")).await.unwrap();
    world.chat.add_reaction(&caller(ANNA), id, emoji("👍")).await.unwrap();
    world.chat.add_reaction(&caller(BEN), id, emoji("👍")).await.unwrap();
    assert_eq!(live.count("message_reaction"), 3);
    world.assert_news(heads, [&["message_reaction"; 3]; 2]).await;
    assert_eq!(
        serde_json::to_value(&answer).unwrap(),
        json!({"message_id": id, "conversation_id": conversation, "user_id": BEN,
            "emoji": "👩🏽‍❤️‍💋‍👨🏿", "action": "added",
            "reactions": [{"emoji": "👩🏽‍❤️‍💋‍👨🏿", "count": 1, "user_ids": [BEN]}]})
    );
    let reactions = json!([
        {"emoji": "👩🏽‍❤️‍💋‍👨🏿", "count": 1, "user_ids": [BEN]},
        {"emoji": "👍", "count": 2, "user_ids": [ANNA, BEN]},
    ]);
    for (user, head) in [(ANNA, heads[0]), (BEN, heads[1])] {
        assert_eq!(world.seen(user, conversation, id).await["reactions"], reactions);
        let (_, event) = world.log(user, head).await.pop().unwrap();
        assert_eq!(
            event,
            json!({"message_id": id, "conversation_id": conversation, "user_id": BEN, "emoji": "👍",
                "action": "added", "reactions": reactions, "event_seq": head + 3})
        );
    }
    assert_eq!(world.chat.unread_count(ANNA).await.unwrap(), 0, "a reaction is no message");
}

async fn a_reaction_is_given_and_taken_once(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("hello").await;
    let heads = world.heads().await;
    for _ in 0..2 {
        world.chat.remove_reaction(&caller(BEN), id, emoji("👍")).await.unwrap();
    }
    world.assert_news(heads, [&[], &[]]).await;
    for _ in 0..2 {
        world.chat.add_reaction(&caller(BEN), id, emoji("👍")).await.unwrap();
    }
    world.chat.remove_reaction(&caller(ANNA), id, emoji("👍")).await.unwrap();
    assert_eq!(world.seen(ANNA, conversation, id).await["reactions"][0]["user_ids"], json!([BEN]));
    for _ in 0..2 {
        let answer = world.chat.remove_reaction(&caller(BEN), id, emoji("👍")).await.unwrap();
        assert!(answer.reactions.is_empty());
    }
    world.assert_news(heads, [&["message_reaction"; 2]; 2]).await;
    let (_, event) = world.log(ANNA, heads[0]).await.pop().unwrap();
    assert_eq!((&event["action"], &event["reactions"]), (&json!("removed"), &json!([])));
    assert_eq!(world.seen(ANNA, conversation, id).await["reactions"], json!([]));
}

async fn a_reaction_is_refused_to_strangers_and_under_tombstones(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("hello").await;
    let chat = &world.chat;
    for (who, id, expected) in [
        (CLEO, id, "FORBIDDEN"),
        (BEN, MessageId(999), "MESSAGE_NOT_FOUND"),
        (CLEO, MessageId(999), "MESSAGE_NOT_FOUND"),
    ] {
        assert_eq!(code(chat.add_reaction(&caller(who), id, emoji("👍")).await), expected);
        assert_eq!(code(chat.remove_reaction(&caller(who), id, emoji("👍")).await), expected);
    }
    chat.delete_message(&caller(ANNA), id).await.unwrap();
    assert_eq!(code(chat.add_reaction(&caller(BEN), id, emoji("👍")).await), "MESSAGE_NOT_FOUND");
    assert_eq!(code(chat.remove_reaction(&caller(BEN), id, emoji("👍")).await), "MESSAGE_NOT_FOUND");
    for bad in ["{}", r#"{"emoji":"ab"}"#, r#"{"emoji":"👍👍"}"#, r#"{"emoji":7}"#, r#"{"emoji":null}"#] {
        match parse_emoji(bad) {
            Err(Error::Validation(fields)) => assert_eq!(fields["emoji"].len(), 1, "{bad}"),
            other => panic!("not refused: {bad} {other:?}"),
        }
    }
    assert!(parse_reaction(r#"{"emoji":"👍"}"#).is_err());
    assert_eq!(parse_reaction(r#"{"message_id":7,"emoji":"👍"}"#).unwrap(), (MessageId(7), emoji("👍")));
}

async fn a_message_has_at_most_twenty_kinds(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("hello").await;
    let kinds: Vec<String> = (0..21).map(|n| char::from_u32(0x1F600 + n).unwrap().to_string()).collect();
    for (n, kind) in kinds.iter().take(20).enumerate() {
        let who = if n % 2 == 0 { ANNA } else { BEN };
        world.chat.add_reaction(&caller(who), id, emoji(kind)).await.unwrap();
    }
    let refused = world.chat.add_reaction(&caller(BEN), id, emoji(&kinds[20])).await;
    assert_eq!(refused_field(refused), "emoji");
    // One that is there already is no new kind.
    world.chat.add_reaction(&caller(BEN), id, emoji(&kinds[0])).await.unwrap();
    world.chat.remove_reaction(&caller(BEN), id, emoji(&kinds[1])).await.unwrap();
    let answer = world.chat.add_reaction(&caller(BEN), id, emoji(&kinds[20])).await.unwrap();
    assert_eq!(answer.reactions.len(), 20);
}

async fn a_deleted_message_loses_its_reactions(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("hello").await;
    world.chat.add_reaction(&caller(BEN), id, emoji("👍")).await.unwrap();
    let reacted = world.log(ANNA, 0).await.len();
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    assert_eq!(world.seen(BEN, conversation, id).await["reactions"], json!([]));
    let (_, event) = world.log(ANNA, 0).await.remove(reacted - 1);
    assert_eq!((&event["emoji"], &event["reactions"]), (&json!("👍"), &json!([])));
}

async fn reactions_between_blocked_users_are_silent(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("hello").await;
    world.chat.add_reaction(&caller(ANNA), id, emoji("❤️")).await.unwrap();
    world.chat.block_user(&caller(BEN), ANNA).await.unwrap();
    let heads = world.heads().await;
    for user in [ANNA, BEN] {
        let answer = world.chat.add_reaction(&caller(user), id, emoji("👍")).await.unwrap();
        assert_eq!(answer.reactions.len(), 1);
        world.chat.remove_reaction(&caller(user), id, emoji("❤️")).await.unwrap();
    }
    world.assert_news(heads, [&[], &[]]).await;
    let seen = world.seen(BEN, conversation, id).await;
    assert_eq!(seen["reactions"], json!([{"emoji": "❤️", "count": 1, "user_ids": [ANNA]}]));
}

async fn simultaneous_reactions_are_all_kept(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("hello").await;
    let heads = world.heads().await;
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let chat = world.chat.clone();
            let user = if n % 2 == 0 { ANNA } else { BEN };
            let kind = char::from_u32(0x1F600 + n % 10).unwrap().to_string();
            tokio::spawn(async move { chat.add_reaction(&caller(user), id, emoji(&kind)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let seen = world.seen(BEN, conversation, id).await;
    let given: usize = seen["reactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["user_ids"].as_array().unwrap().len())
        .sum();
    assert_eq!(given, 10, "each of the two gave five kinds, each of them twice");
    world.assert_news(heads, [&["message_reaction"; 10]; 2]).await;
}
