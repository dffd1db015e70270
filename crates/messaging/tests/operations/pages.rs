//! Pages of messages that are kept: never other than what would be read now.

use messaging::{
    chat::{EditMessage, MarkRead, events::to_json},
    content::Emoji,
    ids::{ConversationId, UserId},
    storage::messages::Window,
};
use serde_json::json;

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, World, caller},
};

on_both_databases!(a_page_is_what_would_be_read_now, a_page_that_did_not_change_has_the_same_tag);

/// Both users look at all windows; twice, so that the second look may find what the first one left. Looking
/// delivers, a moment later, so that a page may be newer or older by that than what is read after it: soon
/// both must agree, long before a page that is kept would be thrown away.
async fn assert_current(world: &World, conversation: ConversationId, after: &str) {
    for user in [ANNA, BEN] {
        for window in
            [Window::Page(0), Window::Page(1), Window::Before(4), Window::After(2), Window::Around(3)]
        {
            for _ in 0..2 {
                let mut attempts = 0;
                while !agrees(world, user, conversation, window).await {
                    attempts += 1;
                    assert!(attempts < 100, "{user} {window:?} after {after}");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// Whether the page is what is read.
async fn agrees(world: &World, user: UserId, conversation: ConversationId, window: Window) -> bool {
    let page = world.chat.message_page(&caller(user), conversation, window, 3).await;
    let read = world.chat.list_messages(&caller(user), conversation, window, 3).await;
    match (page, read) {
        (Ok(page), Ok(read)) => {
            let ends = read.items.first().zip(read.items.last()).map(|(first, last)| (first.seq, last.seq));
            page.items.get() == to_json(&read.items)
                && (page.place.total, page.place.has_more, page.ends) == (read.total, read.has_more, ends)
        }
        (page, read) => page.is_err() == read.is_err(),
    }
}

async fn a_page_is_what_would_be_read_now(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, mut last) = world.first_message("one").await;
    assert_current(&world, conversation, "the first message").await;
    for words in ["two", "three", "four", "five"] {
        last = world.say(BEN, conversation, words).await;
        assert_current(&world, conversation, words).await;
    }
    let answer = json!({"conversation_id": conversation, "content": "yes", "reply_to_id": last});
    world.send(ANNA, answer).await.unwrap();
    assert_current(&world, conversation, "a reply").await;
    let edit = EditMessage::parse(r#"{"content":"other words"}"#).unwrap();
    world.chat.edit_message(&caller(BEN), last, edit).await.unwrap();
    assert_current(&world, conversation, "an edit, of what is quoted too").await;
    world.chat.add_reaction(&caller(ANNA), last, Emoji::parse("👍").unwrap()).await.unwrap();
    assert_current(&world, conversation, "a reaction").await;
    world.chat.mark_read(ANNA, MarkRead::all(conversation)).await.unwrap();
    assert_current(&world, conversation, "reading").await;
    world.chat.delete_message(&caller(BEN), last).await.unwrap();
    assert_current(&world, conversation, "a deletion").await;
    world.chat.delete_conversation(&caller(BEN), conversation).await.unwrap();
    assert_current(&world, conversation, "a conversation deleted by one").await;
    world.say(ANNA, conversation, "still there?").await;
    assert_current(&world, conversation, "its return").await;
    let stranger = caller(UserId(99));
    assert!(world.chat.message_page(&stranger, conversation, Window::Page(0), 3).await.is_err());
    assert!(world.chat.message_page(&caller(ANNA), ConversationId(999), Window::Page(0), 3).await.is_err());
}

async fn a_page_that_did_not_change_has_the_same_tag(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("hello").await;
    let tag =
        async || world.chat.message_page(&caller(ANNA), conversation, Window::Page(0), 50).await.unwrap().tag;
    // The first look delivers the message.
    let mut before = tag().await;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let now = tag().await;
        if std::mem::replace(&mut before, now) == now {
            break;
        }
    }
    // Something else of the same user makes the page be read again, to the same end.
    world.send(ANNA, json!({"receiver_id": 77, "content": "elsewhere"})).await.unwrap();
    assert_eq!(tag().await, before);
    world.chat.add_reaction(&caller(BEN), id, Emoji::parse("👍").unwrap()).await.unwrap();
    assert_ne!(tag().await, before);
}
