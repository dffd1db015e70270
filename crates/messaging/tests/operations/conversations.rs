//! Archiving, muting, deleting for one side, blocking.

use std::time::Duration;

use messaging::{
    chat::{EditMessage, MarkRead, MuteConversation},
    errors::Error,
    ids::{ConversationId, UserId},
};
use serde_json::json;

use crate::{
    on_both_databases,
    support::{START, TestDatabase},
    world::{ANNA, BEN, CLEO, World, caller, code, refused_field},
};

on_both_databases!(
    an_archived_conversation_comes_back_with_the_next_message,
    muting_ends_at_its_time_or_by_hand,
    a_change_that_changes_nothing_is_told_to_nobody,
    somebody_elses_conversation_is_refused,
    a_deleted_conversation_is_gone_for_one_side_alone,
    a_later_message_brings_back_only_what_is_new,
    the_log_does_not_bring_back_what_was_deleted,
    a_change_is_told_to_the_own_connections_alone,
    between_blocked_users_nothing_is_sent,
    only_the_blocker_is_shown_the_block,
    blocking_is_idempotent_and_told_for_each_shared_conversation,
    a_user_cannot_block_without_end,
);

async fn an_archived_conversation_comes_back_with_the_next_message(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("hello").await;
    let heads = world.heads().await;
    let view = world.chat.archive_conversation(&caller(BEN), id).await.unwrap();
    assert!(view.is_archived && view.unread_count == 1);
    world.assert_news(heads, [&[], &["conversation_updated"]]).await;
    let (_, event) = world.log(BEN, heads[1]).await.remove(0);
    assert_eq!(event, json!({"conversation": view, "event_seq": heads[1] + 1}));
    assert_eq!((world.list(BEN, false).await, world.list(BEN, true).await), (vec![], vec![id]));
    assert_eq!(world.list(ANNA, false).await, [id]);
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 1, "archived ones count too");

    let view = world.chat.unarchive_conversation(&caller(BEN), id).await.unwrap();
    assert!(!view.is_archived);
    assert_eq!(world.list(BEN, false).await, [id]);
    world.chat.archive_conversation(&caller(BEN), id).await.unwrap();
    world.say(ANNA, id, "are you there?").await;
    assert_eq!((world.list(BEN, false).await, world.list(BEN, true).await), (vec![id], vec![]));
}

async fn muting_ends_at_its_time_or_by_hand(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("hello").await;
    let until = START.plus(Duration::from_secs(3600));
    let parse = |body: &str| MuteConversation::parse(body).unwrap();

    let view = world.chat.mute_conversation(&caller(BEN), id, parse("")).await.unwrap();
    assert_eq!((view.is_muted, view.muted_until), (true, None));
    let timed = parse(&json!({"until": until}).to_string());
    let view = world.chat.mute_conversation(&caller(BEN), id, timed).await.unwrap();
    assert_eq!((view.is_muted, view.muted_until), (true, Some(until)));
    assert!(!world.conversation(ANNA, id).await.unwrap().is_muted);
    world.clock.advance(Duration::from_secs(3600));
    assert!(!world.conversation(BEN, id).await.unwrap().is_muted);

    let refused = world.chat.mute_conversation(&caller(BEN), id, timed).await;
    assert_eq!(refused_field(refused), "until");
    for bad in [r#"{"until":"tomorrow"}"#, r#"{"until":5}"#, r#"{"muted_until":"x"}"#] {
        assert!(matches!(MuteConversation::parse(bad), Err(Error::Validation(_))), "{bad}");
    }
    world.chat.mute_conversation(&caller(BEN), id, parse("{}")).await.unwrap();
    world.say(ANNA, id, "x").await;
    assert!(world.conversation(BEN, id).await.unwrap().is_muted, "a message does not end it");
    let view = world.chat.unmute_conversation(&caller(BEN), id).await.unwrap();
    assert_eq!((view.is_muted, view.muted_until), (false, None));
}

async fn a_change_that_changes_nothing_is_told_to_nobody(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("hello").await;
    let heads = world.heads().await;
    world.chat.unarchive_conversation(&caller(BEN), id).await.unwrap();
    world.chat.unmute_conversation(&caller(BEN), id).await.unwrap();
    world.assert_news(heads, [&[], &[]]).await;
    for _ in 0..2 {
        world.chat.archive_conversation(&caller(BEN), id).await.unwrap();
        world.chat.mute_conversation(&caller(BEN), id, MuteConversation::default()).await.unwrap();
    }
    world.assert_news(heads, [&[], &["conversation_updated", "conversation_updated"]]).await;
}

async fn somebody_elses_conversation_is_refused(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("hello").await;
    let (chat, cleo, nowhere) = (&world.chat, caller(CLEO), ConversationId(999));
    let mute = MuteConversation::default();
    for (id, expected) in [(id, "FORBIDDEN"), (nowhere, "CONVERSATION_NOT_FOUND")] {
        assert_eq!(code(chat.archive_conversation(&cleo, id).await), expected);
        assert_eq!(code(chat.unarchive_conversation(&cleo, id).await), expected);
        assert_eq!(code(chat.mute_conversation(&cleo, id, mute).await), expected);
        assert_eq!(code(chat.unmute_conversation(&cleo, id).await), expected);
        assert_eq!(code(chat.delete_conversation(&cleo, id).await), expected);
    }
}

async fn a_deleted_conversation_is_gone_for_one_side_alone(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, message) = world.first_message("hello").await;
    world.chat.archive_conversation(&caller(BEN), id).await.unwrap();
    let heads = world.heads().await;
    let before = serde_json::to_value(world.conversation(ANNA, id).await.unwrap()).unwrap();
    world.chat.delete_conversation(&caller(BEN), id).await.unwrap();
    world.assert_news(heads, [&[], &["conversation_updated"]]).await;
    let (_, event) = world.log(BEN, heads[1]).await.remove(0);
    assert_eq!(
        (&event["conversation"]["id"], &event["conversation"]["is_deleted"], &event["cleared_seq"]),
        (&json!(id), &json!(true), &json!(1))
    );

    assert_eq!((world.list(BEN, false).await, world.list(BEN, true).await), (vec![], vec![]));
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 0);
    let (chat, ben) = (&world.chat, caller(BEN));
    assert_eq!(code(world.conversation(BEN, id).await), "CONVERSATION_NOT_FOUND");
    assert_eq!(code(chat.delete_conversation(&ben, id).await), "CONVERSATION_NOT_FOUND");
    assert_eq!(code(chat.archive_conversation(&ben, id).await), "CONVERSATION_NOT_FOUND");
    assert_eq!(code(chat.mark_read(BEN, MarkRead::all(id)).await), "CONVERSATION_NOT_FOUND");
    // Not even one's own message can be changed any more.
    let own = world.say(BEN, id, "own").await;
    chat.delete_conversation(&ben, id).await.unwrap();
    assert_eq!(code(chat.delete_message(&ben, own).await), "MESSAGE_NOT_FOUND");

    let after = world.conversation(ANNA, id).await.unwrap();
    assert_eq!(world.history(ANNA, id).await.len(), 2);
    assert_eq!((after.unread_count, after.is_archived), (1, false));
    assert_eq!(before["created_at"], json!(after.created_at));
    assert!(!world.store.message(message).await.unwrap().unwrap().is_read, "deleting is not reading");
}

async fn a_later_message_brings_back_only_what_is_new(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, old) = world.first_message("old").await;
    world.chat.delete_conversation(&caller(BEN), id).await.unwrap();
    // A change to what is gone is told to the other side alone.
    let heads = world.heads().await;
    let edit = EditMessage::parse(r#"{"content":"older"}"#).unwrap();
    world.chat.edit_message(&caller(ANNA), old, edit).await.unwrap();
    world.chat.delete_message(&caller(ANNA), old).await.unwrap();
    world.assert_news(heads, [&["message_updated", "message_deleted"], &[]]).await;

    let new = world.say(ANNA, id, "new").await;
    assert_eq!(world.list(BEN, false).await, [id]);
    let view = world.conversation(BEN, id).await.unwrap();
    assert_eq!((view.unread_count, view.last_message.unwrap().id), (1, new));
    let history = world.history(BEN, id).await;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["content"], "new");
    assert_eq!(world.history(ANNA, id).await.len(), 2);
    let read = world.chat.mark_read(BEN, MarkRead::all(id)).await.unwrap();
    assert_eq!((read.message_ids, read.unread_count), (vec![new], 0));
}

async fn the_log_does_not_bring_back_what_was_deleted(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("secret").await;
    world.chat.delete_conversation(&caller(BEN), id).await.unwrap();
    world.say(ANNA, id, "new").await;
    let log = world.log(BEN, 0).await;
    let names: Vec<_> = log.iter().map(|(name, _)| *name).collect();
    assert_eq!(names[..2], ["message_received", "conversation_updated"]);
    assert_eq!((&log[0].1["message"]["content"], &log[0].1["message"]["seq"]), (&json!(""), &json!(1)));
    assert!(!log[0].1["message"]["deleted_at"].is_null());
    assert_eq!(log[1].1["cleared_seq"], 1, "the conversation is back by now, its history is not");
    assert_eq!(log.last().unwrap().1["message"]["content"], "new");
    assert_eq!(world.log(ANNA, 0).await[0].1["message"]["content"], "secret");
}

async fn a_change_is_told_to_the_own_connections_alone(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("hello").await;
    let (anna, ben, phone) = (world.connect(ANNA).await, world.connect(BEN).await, world.connect(BEN).await);
    world.chat.delete_conversation(&caller(BEN), id).await.unwrap();
    for connection in [&ben, &phone] {
        assert_eq!(connection.count("conversation_updated"), 1);
        connection.wait_for("unread_count", 1).await;
    }
    assert_eq!(anna.count("conversation_updated"), 0);
}

async fn between_blocked_users_nothing_is_sent(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, message) = world.first_message("hello").await;
    let answer = world.chat.block_user(&caller(BEN), ANNA).await.unwrap();
    assert_eq!(serde_json::to_value(answer).unwrap(), json!({"user_id": ANNA, "is_blocked": true}));
    let heads = world.heads().await;
    let blocked = |outcome| match outcome {
        Err(Error::Blocked { by_caller }) => by_caller,
        Err(other) => panic!("another refusal: {other}"),
        Ok(_) => panic!("not refused"),
    };
    let here = json!({"conversation_id": id, "content": "x"});
    assert!(!blocked(world.send(ANNA, here.clone()).await), "the blocker is not named");
    assert!(blocked(world.send(BEN, here).await), "the blocker is told how to go on");
    assert!(!blocked(world.send(ANNA, json!({"receiver_id": BEN, "content": "x"})).await));
    let other_product = json!({"receiver_id": BEN, "product_id": 5, "content": "x"});
    assert!(!blocked(world.send(ANNA, other_product).await), "nor in a new conversation");
    let edit = EditMessage::parse(r#"{"content":"new words"}"#).unwrap();
    let edited = world.chat.edit_message(&caller(ANNA), message, edit).await.map(|view| view.id);
    assert!(!blocked(edited), "an edit is a way to write");
    world.assert_news(heads, [&[], &[]]).await;

    assert_eq!(world.history(ANNA, id).await.len(), 1, "history stays readable");
    world.chat.mark_read(BEN, MarkRead::all(id)).await.unwrap();
    world.chat.delete_message(&caller(ANNA), message).await.unwrap();
    world.chat.unblock_user(&caller(BEN), ANNA).await.unwrap();
    world.say(ANNA, id, "thank you").await;
}

async fn only_the_blocker_is_shown_the_block(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("hello").await;
    let heads = world.heads().await;
    world.chat.block_user(&caller(BEN), ANNA).await.unwrap();
    world.assert_news(heads, [&[], &["conversation_updated"]]).await;
    assert_eq!(world.log(BEN, heads[1]).await[0].1["conversation"]["is_blocked"], true);
    assert!(world.conversation(BEN, id).await.unwrap().is_blocked);
    assert!(!world.conversation(ANNA, id).await.unwrap().is_blocked);
    assert!(world.chat.list_blocks(&caller(ANNA)).await.unwrap().is_empty());
    let listed = serde_json::to_value(world.chat.list_blocks(&caller(BEN)).await.unwrap()).unwrap();
    assert_eq!(listed, json!([{"user_id": ANNA, "name": "User 1", "avatar_url": null, "created_at": START}]));
    world.chat.unblock_user(&caller(BEN), ANNA).await.unwrap();
    assert!(!world.conversation(BEN, id).await.unwrap().is_blocked);
    assert!(world.chat.list_blocks(&caller(BEN)).await.unwrap().is_empty());
}

async fn blocking_is_idempotent_and_told_for_each_shared_conversation(database: TestDatabase) {
    let world = World::new(database).await;
    let (one, _) = world.first_message("hello").await;
    let two = json!({"receiver_id": BEN, "product_id": 5, "content": "hello"});
    world.send(ANNA, two).await.unwrap();
    let three = json!({"receiver_id": BEN, "product_id": 6, "content": "hello"});
    world.send(ANNA, three).await.unwrap();
    world.chat.delete_conversation(&caller(BEN), one).await.unwrap();
    let heads = world.heads().await;
    for _ in 0..2 {
        world.chat.block_user(&caller(BEN), ANNA).await.unwrap();
    }
    world.assert_news(heads, [&[], &["conversation_updated"; 2]]).await;
    // The other direction is a block of its own.
    world.chat.block_user(&caller(ANNA), BEN).await.unwrap();
    for _ in 0..2 {
        world.chat.unblock_user(&caller(BEN), ANNA).await.unwrap();
    }
    world.assert_news(heads, [&["conversation_updated"; 3], &["conversation_updated"; 4]]).await;
    assert_eq!(code(world.send(BEN, json!({"receiver_id": ANNA, "content": "x"})).await), "BLOCKED");
    let oneself = world.chat.block_user(&caller(BEN), BEN).await;
    assert_eq!(refused_field(oneself), "user_id");
    // Somebody never met.
    assert!(world.chat.block_user(&caller(BEN), UserId(77)).await.unwrap().is_blocked);
}

async fn a_user_cannot_block_without_end(database: TestDatabase) {
    let world = World::new(database).await;
    let many = "insert into blocks (blocker_id, blocked_id, created_at)
        with recursive n (i) as (select 100 union all select i + 1 from n where i < 1099)
        select 1, i, (select max(created_at) from conversations) from n";
    world.first_message("hello").await;
    world.database.execute(many).await;
    assert_eq!(code(world.chat.block_user(&caller(ANNA), UserId(2000)).await), "CONFLICT");
    assert!(world.chat.block_user(&caller(ANNA), UserId(100)).await.unwrap().is_blocked, "that one is in");
    assert_eq!(world.chat.list_blocks(&caller(ANNA)).await.unwrap().len(), 1000);
    world.chat.unblock_user(&caller(ANNA), UserId(100)).await.unwrap();
    world.chat.block_user(&caller(ANNA), UserId(2000)).await.unwrap();
}
