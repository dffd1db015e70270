//! Search: what is found, in which order, where in the text, and by whom.

use messaging::{
    chat::{EditMessage, Page, PageRequest, SearchHit, SearchMessages},
    content::Needle,
    errors::Result,
    ids::{ConversationId, MessageId, UserId},
    storage::batch::{Batch, NewMessage, Target},
    storage::rows::MessageType,
};
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, CLEO, World, caller, code, refused_field},
};

on_both_databases!(
    words_are_found_whatever_their_case_and_script,
    hits_are_messages_with_the_places_of_the_words,
    the_newest_comes_first_page_by_page,
    everybody_finds_only_what_they_may_see,
    an_edit_and_a_deletion_change_what_is_found,
    what_was_deleted_with_its_conversation_is_not_found,
    a_long_history_is_searched_to_its_beginning,
    chunks_change_nothing_but_the_time_it_takes,
    a_thousand_hits_are_enough,
);

const FIRST_PAGE: PageRequest = PageRequest { page: 1, limit: 20 };

async fn search_in(
    world: &World,
    user: UserId,
    words: &str,
    conversation_id: Option<ConversationId>,
    page: PageRequest,
) -> Result<Page<SearchHit>> {
    let request = SearchMessages { needle: Needle::parse(words)?, conversation_id };
    world.chat.search_messages(&caller(user), &request, page).await
}

async fn found(world: &World, user: UserId, words: &str) -> Vec<MessageId> {
    let page = search_in(world, user, words, None, FIRST_PAGE).await.unwrap();
    page.items.iter().map(|hit| hit.message.id).collect()
}

/// Many messages at once, past the rules; `words` makes the text of each.
async fn fill(world: &World, conversation: ConversationId, count: usize, words: impl Fn(usize) -> String) {
    for start in (0..count).step_by(256) {
        let sends = (start..count.min(start + 256)).map(|n| NewMessage {
            sender_id: if n % 2 == 0 { ANNA } else { BEN },
            target: Target::Conversation(conversation),
            kind: MessageType::Text,
            content: words(n),
            file_url: None,
            attachment_id: None,
            reply_to_id: None,
            metadata: None,
            offer: None,
            client_message_id: None,
            fingerprint: 0,
        });
        let applied = world.store.apply(&Batch { sends: sends.collect(), receipts: vec![] }).await.unwrap();
        assert!(applied.sends.iter().all(Result::is_ok));
    }
}

async fn words_are_found_whatever_their_case_and_script(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, _) = world.first_message("Die Straße ist 100% frei").await;
    let mut ids = vec![];
    for words in [
        "DIE STRASSE IST ZU",
        "une École",
        "E\u{301}cole",
        "مرحبا بالعالم",
        "我想租相机",
        "thumbs 👍🏽 up",
        r"C:\temp_files\a%b",
        "İstanbul ve ISPARTA",
        "ΟΔΟΣ",
        "ＦＵＬＬ width",
    ] {
        ids.push(world.say(ANNA, conversation, words).await);
    }
    let first = world.history(ANNA, conversation).await[0]["id"].as_i64().map(MessageId).unwrap();
    for (words, expected) in [
        ("straße", vec![ids[0], first]),
        ("STRASSE", vec![ids[0], first]),
        ("école", vec![ids[2], ids[1]]),
        ("ÉCOLE", vec![ids[2], ids[1]]),
        ("e\u{301}COLE", vec![ids[2], ids[1]]),
        ("ecole", vec![]),
        ("بالعالم", vec![ids[3]]),
        ("相机", vec![ids[4]]),
        ("机", vec![ids[4]]),
        ("相 机", vec![]),
        ("👍🏽", vec![ids[5]]),
        ("👎", vec![]),
        ("%", vec![ids[6], first]),
        ("100%", vec![first]),
        ("p_f", vec![ids[6]]),
        ("_", vec![ids[6]]),
        (r"\", vec![ids[6]]),
        (r":\t", vec![ids[6]]),
        ("a%B", vec![ids[6]]),
        ("istanbul", vec![ids[7]]),
        ("ısparta", vec![ids[7]]),
        ("οδος", vec![ids[8]]),
        ("full", vec![ids[9]]),
        ("' or 1=1 --", vec![]),
        ("zzz", vec![]),
    ] {
        assert_eq!(found(&world, BEN, words).await, expected, "{words}");
    }
}

async fn hits_are_messages_with_the_places_of_the_words(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, id) = world.first_message("👋 Hello, hello Straße").await;
    let page = search_in(&world, ANNA, "HELLO", Some(conversation), FIRST_PAGE).await.unwrap();
    assert_eq!((page.total, page.has_more, page.per_page, page.page), (1, false, 20, 1));
    let hit = serde_json::to_value(&page.items[0]).unwrap();
    assert_eq!(hit["highlight"], json!([{"start": 2, "length": 5}, {"start": 9, "length": 5}]));
    let mut message = hit.clone();
    message.as_object_mut().unwrap().remove("highlight");
    assert_eq!(message, world.seen(ANNA, conversation, id).await, "the message as everywhere else");
    let page = search_in(&world, ANNA, "ss", None, FIRST_PAGE).await.unwrap();
    let places: Value = serde_json::to_value(&page.items[0].highlight).unwrap();
    assert_eq!(places, json!([{"start": 19, "length": 1}]));
}

async fn the_newest_comes_first_page_by_page(database: TestDatabase) {
    let world = World::new(database).await;
    let (one, first) = world.first_message("needle").await;
    let mut ids = vec![first];
    let two = world.send(CLEO, json!({"receiver_id": ANNA, "content": "needle"})).await.unwrap();
    let other = world.store.message(two).await.unwrap().unwrap().conversation_id;
    ids.push(two);
    for n in 0..23 {
        ids.push(world.say(ANNA, if n % 3 == 0 { other } else { one }, "a Needle in the hay").await);
        world.say(ANNA, one, "hay").await;
    }
    ids.reverse();
    let mut seen = vec![];
    for page in 1..=4 {
        let answer = search_in(&world, ANNA, "needle", None, PageRequest { page, limit: 10 }).await.unwrap();
        assert_eq!((answer.total, answer.total_pages(), answer.has_more), (25, 3, page < 3));
        seen.extend(answer.items.iter().map(|hit| hit.message.id));
    }
    assert_eq!(seen, ids);
    let here = search_in(&world, ANNA, "needle", Some(other), FIRST_PAGE).await.unwrap();
    assert!(here.items.iter().all(|hit| hit.message.conversation_id == other));
    assert_eq!(here.total, 9);
    let far = PageRequest { page: i64::MAX, limit: 100 };
    assert!(search_in(&world, ANNA, "needle", None, far).await.unwrap().items.is_empty());
}

async fn everybody_finds_only_what_they_may_see(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, _) = world.first_message("the secret").await;
    assert!(found(&world, CLEO, "secret").await.is_empty());
    let foreign = search_in(&world, CLEO, "secret", Some(conversation), FIRST_PAGE).await;
    assert_eq!(code(foreign), "FORBIDDEN");
    let unknown = search_in(&world, CLEO, "secret", Some(ConversationId(999)), FIRST_PAGE).await;
    assert_eq!(code(unknown), "CONVERSATION_NOT_FOUND");
    assert_eq!(refused_field(search_in(&world, ANNA, "  ", None, FIRST_PAGE).await), "query");
    assert_eq!(refused_field(search_in(&world, ANNA, &"x".repeat(201), None, FIRST_PAGE).await), "query");
    // Archived, muted and blocked conversations are still one's own.
    world.chat.archive_conversation(&caller(BEN), conversation).await.unwrap();
    world.chat.block_user(&caller(BEN), ANNA).await.unwrap();
    assert_eq!(found(&world, BEN, "secret").await.len(), 1);
    assert_eq!(found(&world, ANNA, "secret").await.len(), 1);
}

async fn an_edit_and_a_deletion_change_what_is_found(database: TestDatabase) {
    let world = World::new(database).await;
    let (_, id) = world.first_message("before").await;
    let edit = EditMessage::parse(r#"{"content":"after"}"#).unwrap();
    world.chat.edit_message(&caller(ANNA), id, edit).await.unwrap();
    assert_eq!((found(&world, BEN, "before").await, found(&world, BEN, "AFTER").await), (vec![], vec![id]));
    world.chat.delete_message(&caller(ANNA), id).await.unwrap();
    for words in ["before", "after", "a"] {
        assert!(found(&world, BEN, words).await.is_empty(), "{words}");
    }
}

async fn what_was_deleted_with_its_conversation_is_not_found(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, old) = world.first_message("word").await;
    world.chat.delete_conversation(&caller(BEN), conversation).await.unwrap();
    assert!(found(&world, BEN, "word").await.is_empty());
    let gone = search_in(&world, BEN, "word", Some(conversation), FIRST_PAGE).await;
    assert_eq!(code(gone), "CONVERSATION_NOT_FOUND");
    let new = world.say(ANNA, conversation, "word again").await;
    assert_eq!(found(&world, BEN, "word").await, [new]);
    assert_eq!(found(&world, ANNA, "word").await, [new, old]);
}

async fn a_long_history_is_searched_to_its_beginning(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, first) = world.first_message("x marks the spot").await;
    fill(&world, conversation, 8000, |_| "hay".into()).await;
    let last = world.say(BEN, conversation, "X").await;
    assert_eq!(found(&world, ANNA, "x").await, [last, first]);
    world.chat.finish_indexing().await;
    assert_eq!(found(&world, ANNA, "x").await, [last, first]);
}

/// The history, or nothing while the user has deleted the conversation or is no part of it.
async fn visible(world: &World, user: UserId, conversation: ConversationId) -> Vec<Value> {
    match world.conversation(user, conversation).await {
        Ok(_) => world.history(user, conversation).await,
        Err(_) => vec![],
    }
}

/// Random changes by both, with chunks made at random moments: a search finds what the history says.
async fn chunks_change_nothing_but_the_time_it_takes(database: TestDatabase) {
    let world = World::new(database).await;
    let (one, _) = world.first_message("the first").await;
    let other = world.send(CLEO, json!({"receiver_id": ANNA, "content": "the other"})).await.unwrap();
    let other = world.store.message(other).await.unwrap().unwrap().conversation_id;
    let mut random = 7_u64;
    let mut below = move |end: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % end
    };
    const TEXTS: [&str; 5] = ["Straße frei?", "100% a_b", "ok", "相机 OK", "É\nok"];
    for round in 0..40 {
        for _ in 0..below(30) {
            let (sender, into) = [(ANNA, one), (BEN, one), (ANNA, other), (CLEO, other)][below(4)];
            world.say(sender, into, TEXTS[below(5)]).await;
        }
        for _ in 0..below(4) {
            let (user, of) = [(ANNA, one), (BEN, one), (ANNA, other), (CLEO, other)][below(4)];
            let history = visible(&world, user, of).await;
            let Some(message) = history.get(below(history.len().max(1))) else { continue };
            let id = MessageId(message["id"].as_i64().unwrap());
            let author = caller(UserId(message["sender_id"].as_i64().unwrap()));
            match below(5) {
                // Whoever deleted the conversation can change nothing in it until it is back.
                0 => drop(world.chat.delete_message(&author, id).await),
                1 if round % 8 == 7 => drop(world.chat.delete_conversation(&caller(user), of).await),
                _ if message["deleted_at"].is_null() => {
                    let words = json!({"content": format!("{} again", TEXTS[below(5)])}).to_string();
                    let edit = EditMessage::parse(&words).unwrap();
                    drop(world.chat.edit_message(&author, id, edit).await);
                }
                _ => {}
            }
        }
        if below(3) == 0 {
            world.store.index_for_search(&[one, other]).await.unwrap();
        }
        for user in [ANNA, BEN, CLEO] {
            for words in ["ok", "strasse", "é", "%", "again", "机", "the", "k\na", "zzz"] {
                let needle = Needle::parse(words).unwrap();
                let mut expected = vec![];
                for conversation in [one, other] {
                    for message in visible(&world, user, conversation).await {
                        if needle.is_in(message["content"].as_str().unwrap()) {
                            expected.push(MessageId(message["id"].as_i64().unwrap()));
                        }
                    }
                }
                expected.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
                let request = SearchMessages { needle, conversation_id: None };
                let page = PageRequest { page: 1, limit: 100 };
                let page = world.chat.search_messages(&caller(user), &request, page).await.unwrap();
                assert_eq!(page.total, i64::try_from(expected.len()).unwrap(), "{words} in round {round}");
                let ids: Vec<_> = page.items.iter().map(|hit| hit.message.id).collect();
                assert_eq!(ids, expected[..ids.len()], "{words} in round {round}");
            }
        }
    }
}

async fn a_thousand_hits_are_enough(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, _) = world.first_message("hello").await;
    fill(&world, conversation, 1200, |n| format!("hello {n}")).await;
    let last_page = PageRequest { page: 10, limit: 100 };
    for _ in 0..2 {
        let page = search_in(&world, ANNA, "hello", None, last_page).await.unwrap();
        assert_eq!((page.total, page.items.len(), page.has_more), (1000, 100, false));
        assert_eq!(page.items[0].message.content, "hello 299");
        world.chat.finish_indexing().await;
    }
}
