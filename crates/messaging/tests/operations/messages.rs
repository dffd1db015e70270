//! Editing and deleting.

use std::time::Duration;

use messaging::{
    chat::{EditMessage, MarkRead},
    errors::Error,
    ids::MessageId,
    storage::attachments::FileRecord,
};
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::{START, TestDatabase},
    world::{ANNA, BEN, CLEO, EDIT_WINDOW, World, caller, code, refused_field, texts},
};

on_both_databases!(
    an_edit_is_told_to_both_and_seen_by_both,
    the_same_words_change_nothing_and_are_told_to_nobody,
    editing_is_refused_to_all_but_the_sender,
    editing_after_the_window_is_refused,
    only_words_can_be_edited,
    what_was_said_is_kept_for_the_operator_alone,
    a_deleted_message_is_a_tombstone,
    deleting_is_refused_to_all_but_the_sender,
    a_deleted_unread_message_no_longer_counts,
    a_counter_that_drifted_is_not_driven_below_zero,
    a_deleted_message_is_quoted_without_its_words,
    the_file_of_a_deleted_message_is_gone_at_once,
    live_connections_of_both_hear_of_an_edit_and_a_deletion,
);

fn edit(words: &str) -> EditMessage {
    EditMessage::parse(&json!({"content": words}).to_string()).unwrap()
}

async fn an_edit_is_told_to_both_and_seen_by_both(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("helo").await;
    world.chat.mark_delivered(BEN, MarkRead::all(conversation)).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    let heads = world.heads().await;
    let answer = world.chat.edit_message(&caller(ANNA), id, edit(" <b>hello</b> ")).await.unwrap();
    let edited_at = START.plus(Duration::from_secs(60));
    assert_eq!((answer.content.as_str(), answer.edited_at), ("hello", Some(edited_at)));
    world.assert_news(heads, [&["message_updated"], &["message_updated"]]).await;
    for user in [ANNA, BEN] {
        let seen = world.seen(user, conversation, id).await;
        assert_eq!(seen, serde_json::to_value(&answer).unwrap());
        assert_eq!(seen["updated_at"], json!(edited_at));
        let view = world.conversation(user, conversation).await.unwrap();
        assert_eq!(view.last_message.unwrap().content, "hello");
        assert_eq!(view.updated_at, edited_at);
    }
    let (_, event) = world.log(BEN, heads[1]).await.remove(0);
    assert_eq!(event, json!({"message": answer, "conversation_id": conversation, "event_seq": heads[1] + 1}));
}

async fn the_same_words_change_nothing_and_are_told_to_nobody(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("hello").await;
    let heads = world.heads().await;
    // Also when the window has closed: a repeated request is answered as the first one was.
    world.clock.advance(EDIT_WINDOW + Duration::from_secs(5));
    let answer = world.chat.edit_message(&caller(ANNA), id, edit("hello ")).await.unwrap();
    assert_eq!((answer.edited_at, answer.updated_at), (None, START));
    world.assert_news(heads, [&[], &[]]).await;
}

async fn editing_is_refused_to_all_but_the_sender(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("hello").await;
    let heads = world.heads().await;
    assert_eq!(code(world.chat.edit_message(&caller(BEN), id, edit("ho")).await), "FORBIDDEN");
    assert_eq!(code(world.chat.edit_message(&caller(CLEO), id, edit("ho")).await), "FORBIDDEN");
    let unknown = world.chat.edit_message(&caller(ANNA), MessageId(999), edit("ho")).await;
    assert_eq!(code(unknown), "MESSAGE_NOT_FOUND");
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    assert_eq!(code(world.chat.edit_message(&caller(ANNA), id, edit("ho")).await), "MESSAGE_NOT_FOUND");
    world.assert_news(heads, [&["message_deleted"], &["message_deleted"]]).await;
    assert_eq!(world.seen(BEN, conversation, id).await["content"], "");
}

async fn editing_after_the_window_is_refused(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("hello").await;
    world.clock.advance(EDIT_WINDOW);
    world.chat.edit_message(&caller(ANNA), id, edit("just in time")).await.unwrap();
    world.clock.advance(Duration::from_millis(1));
    match world.chat.edit_message(&caller(ANNA), id, edit("too late")).await {
        Err(Error::EditWindowClosed { closed_at }) => assert_eq!(closed_at, START.plus(EDIT_WINDOW)),
        other => panic!("not refused: {other:?}"),
    }
}

async fn only_words_can_be_edited(database: TestDatabase) {
    let world = World::new(database).await;
    let picture = json!({"receiver_id": BEN, "type": "image", "content": "look",
        "file_url": "https://cdn.example.test/a.jpg"});
    let id = world.send(ANNA, picture).await.unwrap();
    assert_eq!(refused_field(world.chat.edit_message(&caller(ANNA), id, edit("ho")).await), "content");
    for bad in [r#"{}"#, r#"{"content":" "}"#, r#"{"content":null}"#, r#"{"content":5}"#] {
        match EditMessage::parse(bad) {
            Err(Error::Validation(fields)) => assert_eq!(fields["content"].len(), 1, "{bad}"),
            other => panic!("not refused: {bad} {other:?}"),
        }
    }
    assert!(EditMessage::parse_event(r#"{"content":"x"}"#).is_err());
    let (id, edit) = EditMessage::parse_event(r#"{"message_id":7,"content":"x"}"#).unwrap();
    assert_eq!((id, edit.content.as_str()), (MessageId(7), "x"));
}

async fn what_was_said_is_kept_for_the_operator_alone(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("one").await;
    for words in ["two", "three"] {
        world.chat.edit_message(&caller(ANNA), id, edit(words)).await.unwrap();
    }
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    let kept = texts(&world.database, "select content from message_edits order by id").await;
    assert_eq!(kept, ["one", "two", "three"]);
    let shown = format!("{:?}{:?}", world.history(BEN, conversation).await, world.log(BEN, 0).await);
    assert!(!shown.contains("one") && !shown.contains("two") && !shown.contains("three"), "{shown}");
}

async fn a_deleted_message_is_a_tombstone(database: TestDatabase) {
    let world = World::new(database).await;
    let body = json!({"receiver_id": BEN, "content": "look", "file_url": "https://cdn.example.test/a.jpg",
        "metadata": {"a": 1}, "client_message_id": "c-1"});
    let id = world.send(ANNA, body.clone()).await.unwrap();
    let conversation = world.store.message(id).await.unwrap().unwrap().conversation_id;
    // The edit window does not hold up a deletion.
    world.clock.advance(EDIT_WINDOW * 2);
    let heads = world.heads().await;
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    world.assert_news(heads, [&["message_deleted"], &["message_deleted"]]).await;
    let deleted_at = START.plus(EDIT_WINDOW * 2);
    let (_, event) = world.log(ANNA, heads[0]).await.remove(0);
    assert_eq!(
        event,
        json!({"message_id": id, "conversation_id": conversation, "deleted_at": deleted_at,
            "event_seq": heads[0] + 1})
    );
    let seen = world.seen(BEN, conversation, id).await;
    assert_eq!(seen["content"], "");
    assert_eq!(seen["deleted_at"], json!(deleted_at));
    for gone in ["file_url", "attachment", "metadata", "offer", "reply_to"] {
        assert_eq!(seen[gone], Value::Null, "{gone}");
    }
    assert_eq!(seen["reactions"], json!([]));
    assert_eq!(seen["seq"], 1, "it keeps its place");
    assert_eq!(world.conversation(BEN, conversation).await.unwrap().last_message.unwrap().content, "");
    // Its client message id stays taken: a late repetition must not send it again.
    assert_eq!(world.send(ANNA, body).await.unwrap(), id);
    // The log's older entry shows the tombstone too.
    assert_eq!(world.log(BEN, 0).await[0].1["message"]["content"], "");
}

async fn deleting_is_refused_to_all_but_the_sender(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("hello").await;
    let heads = world.heads().await;
    assert_eq!(code(world.chat.delete_message(&caller(BEN), id).await), "FORBIDDEN");
    assert_eq!(code(world.chat.delete_message(&caller(CLEO), id).await), "FORBIDDEN");
    assert_eq!(code(world.chat.delete_message(&caller(ANNA), MessageId(999)).await), "MESSAGE_NOT_FOUND");
    world.assert_news(heads, [&[], &[]]).await;
}

async fn a_deleted_unread_message_no_longer_counts(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, first) = world.first_message("1").await;
    let second = world.say(ANNA, conversation, "2").await;
    let third = world.say(ANNA, conversation, "3").await;
    let read = format!(r#"{{"conversation_id":{conversation},"message_ids":[{second}]}}"#);
    world.chat.mark_read(BEN, MarkRead::parse(&read).unwrap()).await.unwrap();
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 2);

    world.chat.delete_message(&caller(ANNA), second).await.unwrap();
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 2, "it was read already");
    world.chat.delete_message(&caller(ANNA), first).await.unwrap();
    world.chat.delete_message(&caller(ANNA), first).await.unwrap();
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 1);
    let read = world.chat.mark_read(BEN, MarkRead::all(conversation)).await.unwrap();
    assert_eq!(read.unread_count, 0);
    world.chat.delete_message(&caller(ANNA), third).await.unwrap();
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 0);
    assert_eq!(world.chat.unread_count(ANNA).await.unwrap(), 0);
}

async fn a_counter_that_drifted_is_not_driven_below_zero(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("hello").await;
    world.database.execute("update conversation_participants set unread_count = 0").await;
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 0);
}

async fn a_deleted_message_is_quoted_without_its_words(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("first words").await;
    let reply = json!({"conversation_id": conversation, "content": "yes", "reply_to_id": id});
    let reply = world.send(BEN, reply).await.unwrap();
    world.chat.edit_message(&caller(ANNA), id, edit("other words")).await.unwrap();
    let quoted = world.seen(ANNA, conversation, reply).await["reply_to"].clone();
    assert_eq!(quoted, json!({"id": id, "sender_id": ANNA, "type": "text", "content": "other words"}));
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    let quoted = world.seen(ANNA, conversation, reply).await["reply_to"].clone();
    assert_eq!(quoted, json!({"id": id, "sender_id": ANNA, "type": "text", "content": ""}));
}

async fn the_file_of_a_deleted_message_is_gone_at_once(database: TestDatabase) {
    let world = World::new(database).await;
    let record = FileRecord {
        name: "plan.txt".into(),
        mime_type: "text/plain".into(),
        size: 4,
        width: None,
        height: None,
        storage_key: "ab/plan".into(),
        thumbnail_key: None,
        sha256: "0".repeat(64),
    };
    let file = world.store.insert_attachment(ANNA, &record).await.unwrap();
    let body = json!({"receiver_id": BEN, "type": "file", "attachment_id": file});
    let id = world.send(ANNA, body.clone()).await.unwrap();
    assert_eq!(world.chat.visible_file(BEN, file).await.unwrap(), record);
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    for user in [ANNA, BEN] {
        assert_eq!(code(world.chat.visible_file(user, file).await), "NOT_FOUND");
    }
    assert_eq!(code(world.chat.linked_file(file).await), "NOT_FOUND", "nor by a link that has not expired");
    assert_eq!(refused_field(world.send(ANNA, body).await), "attachment_id");
}

async fn live_connections_of_both_hear_of_an_edit_and_a_deletion(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("hello").await;
    let (anna, ben) = (world.connect(ANNA).await, world.connect(BEN).await);
    let second = world.connect(BEN).await;
    world.chat.edit_message(&caller(ANNA), id, edit("ho")).await.unwrap();
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    for connection in [&anna, &ben, &second] {
        // Told before the answer; the folded news a little later.
        assert_eq!(connection.count("message_updated"), 1);
        assert_eq!(connection.count("message_deleted"), 1);
        connection.wait_for("conversation_updated", 1).await;
        connection.wait_for("unread_count", 1).await;
    }
}
