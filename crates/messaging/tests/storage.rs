//! The storage on both databases: what is stored, in which order, and what is refused.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod support;

use std::collections::BTreeMap;

use messaging::{
    clock::Clock,
    errors::Error,
    ids::{ConversationId, MessageId, ProductId, UserId},
    storage::{
        Store,
        batch::{Applied, Batch, NewMessage, Receipt, ReceiptKind, Sent, Target, Which},
        log::{EventKind, LogPage},
        messages::Window,
        rows::{ConversationRow, MessageRow, MessageType},
    },
};
use support::{START, TestDatabase};

const ANNA: UserId = UserId(1);
const BEN: UserId = UserId(2);
const CLEO: UserId = UserId(3);

on_both_databases!(
    messages_are_numbered_without_gaps,
    both_logs_count_by_themselves,
    a_repeated_client_message_id_is_the_original_message,
    a_bad_row_is_refused_alone,
    a_hundred_first_messages_make_one_conversation,
    concurrent_batches_leave_no_gap,
    reading_moves_counters_and_marks,
    delivery_is_a_mark_that_only_grows,
    the_log_tells_what_is_missing,
    a_newer_schema_is_refused,
    a_null_product_is_one_product,
    pages_are_windows_from_the_newest,
);

fn words(sender: UserId, target: Target, content: &str) -> NewMessage {
    NewMessage {
        sender_id: sender,
        target,
        kind: MessageType::Text,
        content: content.to_owned(),
        file_url: None,
        attachment_id: None,
        reply_to_id: None,
        metadata: None,
        offer: None,
        client_message_id: None,
        fingerprint: i64::try_from(content.len()).unwrap(),
    }
}

fn to(receiver_id: UserId) -> Target {
    Target::User { receiver_id, product_id: Some(ProductId(5)) }
}

async fn send_all(store: &Store, sends: Vec<NewMessage>) -> Applied {
    store.apply(&Batch { sends, receipts: vec![] }).await.expect("the batch is applied")
}

fn new_message(outcome: &Result<Sent, Error>) -> &MessageRow {
    match outcome {
        Ok(Sent::New { message, .. }) => message,
        other => panic!("not a new message: {other:?}"),
    }
}

async fn first_message(store: &Store) -> MessageRow {
    let applied = send_all(store, vec![words(ANNA, to(BEN), "hello")]).await;
    new_message(&applied.sends[0]).clone()
}

async fn receipt(
    store: &Store,
    user: UserId,
    id: ConversationId,
    kind: ReceiptKind,
    which: Which,
) -> Vec<MessageId> {
    let receipt = Receipt { conversation_id: id, user_id: user, kind, which };
    let mut applied = store.apply(&Batch { sends: vec![], receipts: vec![receipt] }).await.unwrap();
    applied.receipts.remove(0).unwrap().message_ids
}

/// What somebody sees whose history begins after `cleared_seq`.
async fn stretch(
    store: &Store,
    id: ConversationId,
    cleared_seq: i64,
    window: Window,
    limit: i64,
) -> Vec<MessageRow> {
    let user = store.participants(id).await.unwrap().unwrap().user1_id;
    let seen = store.conversation(user, id).await.unwrap().unwrap();
    store.messages(&ConversationRow { cleared_seq, ..seen }, window, limit).await.unwrap()
}

async fn history(store: &Store, id: ConversationId) -> Vec<MessageRow> {
    stretch(store, id, 0, Window::After(0), 10_000).await
}

async fn assert_counters_equal_a_recount(store: &Store, id: ConversationId) {
    for user in [ANNA, BEN] {
        let view = store.conversation(user, id).await.unwrap().unwrap();
        let unread =
            history(store, id).await.iter().filter(|row| row.sender_id != user && !row.is_read).count();
        assert_eq!(usize::try_from(view.unread_count).unwrap(), unread, "unread of {user}");
    }
}

async fn messages_are_numbered_without_gaps(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let first = first_message(&store).await;
    assert_eq!((first.seq, first.created_at), (1, START));
    let sends = (0..50).map(|n| {
        words(if n % 2 == 0 { ANNA } else { BEN }, Target::Conversation(first.conversation_id), "x")
    });
    send_all(&store, sends.collect()).await;
    let seqs: Vec<_> = history(&store, first.conversation_id).await.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (1..=51).collect::<Vec<_>>());
    assert_counters_equal_a_recount(&store, first.conversation_id).await;
    let stored = store.message(first.id).await.unwrap().unwrap();
    assert_eq!(stored, first);
}

async fn both_logs_count_by_themselves(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let applied = send_all(
        &store,
        vec![words(ANNA, to(BEN), "one"), words(CLEO, to(ANNA), "two"), words(ANNA, to(BEN), "three")],
    )
    .await;
    let mut by_user: BTreeMap<UserId, Vec<i64>> = BTreeMap::new();
    for entry in &applied.entries {
        assert_eq!(entry.entry.kind, EventKind::MessageReceived);
        by_user.entry(entry.entry.user_id).or_default().push(entry.event_seq);
    }
    assert_eq!(by_user, BTreeMap::from([(ANNA, vec![1, 2, 3]), (BEN, vec![1, 2]), (CLEO, vec![1])]));
    let heads = store.log_heads(&[ANNA, BEN, UserId(99)]).await.unwrap();
    assert_eq!((heads[&ANNA], heads[&BEN], heads[&UserId(99)]), (3, 2, 0));
}

async fn a_repeated_client_message_id_is_the_original_message(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let send =
        |content: &str| NewMessage { client_message_id: Some("a-1".into()), ..words(ANNA, to(BEN), content) };
    let applied = send_all(&store, vec![send("hello"), send("hello"), send("something else")]).await;
    let id = new_message(&applied.sends[0]).id;
    assert!(matches!(applied.sends[1], Ok(Sent::Before(before)) if before == id));
    assert!(matches!(applied.sends[2], Err(Error::Conflict(_))));

    let applied = send_all(&store, vec![send("hello"), send("another"), words(ANNA, to(BEN), "new")]).await;
    assert!(matches!(applied.sends[0], Ok(Sent::Before(before)) if before == id));
    assert!(matches!(applied.sends[1], Err(Error::Conflict(_))));
    assert_eq!(new_message(&applied.sends[2]).seq, 2);
    assert_eq!(applied.entries.len(), 2, "a repetition is told to nobody");
    // Another sender's id is another id.
    let other = NewMessage { client_message_id: Some("a-1".into()), ..words(BEN, to(ANNA), "hello") };
    assert_eq!(new_message(&send_all(&store, vec![other]).await.sends[0]).seq, 3);
}

async fn a_bad_row_is_refused_alone(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let first = first_message(&store).await;
    let here = Target::Conversation(first.conversation_id);
    let reply = NewMessage { reply_to_id: Some(first.id), ..words(BEN, here, "yes") };
    let foreign_reply = NewMessage { reply_to_id: Some(MessageId(999)), ..words(BEN, here, "yes") };
    let no_upload =
        NewMessage { attachment_id: Some(messaging::ids::AttachmentId(9)), ..words(BEN, here, "") };
    let applied = send_all(
        &store,
        vec![
            words(CLEO, here, "let me in"),
            words(ANNA, here, "fine"),
            words(ANNA, Target::Conversation(ConversationId(999)), "nowhere"),
            reply,
            foreign_reply,
            no_upload,
        ],
    )
    .await;
    assert!(matches!(applied.sends[0], Err(Error::Forbidden(_))));
    assert_eq!(new_message(&applied.sends[1]).seq, 2);
    assert!(matches!(applied.sends[2], Err(Error::ConversationNotFound)));
    assert_eq!(new_message(&applied.sends[3]).reply.reply_content.as_deref(), Some("hello"));
    assert!(
        matches!(&applied.sends[4], Err(Error::Validation(fields)) if fields.contains_key("reply_to_id"))
    );
    assert!(
        matches!(&applied.sends[5], Err(Error::Validation(fields)) if fields.contains_key("attachment_id"))
    );
    assert_eq!(history(&store, first.conversation_id).await.len(), 3);
}

async fn a_hundred_first_messages_make_one_conversation(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            let (sender, receiver) = if n % 2 == 0 { (ANNA, BEN) } else { (BEN, ANNA) };
            tokio::spawn(async move { send_all(&store, vec![words(sender, to(receiver), "hi")]).await })
        })
        .collect();
    let mut conversations = Vec::new();
    for task in tasks {
        conversations.push(new_message(&task.await.unwrap().sends[0]).conversation_id);
    }
    conversations.dedup();
    assert_eq!(conversations.len(), 1);
    assert_eq!(history(&store, conversations[0]).await.len(), 100);
    assert_eq!(store.count_conversations(ANNA, false).await.unwrap(), 1);
}

async fn concurrent_batches_leave_no_gap(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let one = first_message(&store).await.conversation_id;
    let two =
        new_message(&send_all(&store, vec![words(CLEO, to(ANNA), "hi")]).await.sends[0]).conversation_id;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let sends = vec![
                        words(ANNA, Target::Conversation(if task % 2 == 0 { one } else { two }), "x"),
                        NewMessage {
                            client_message_id: Some(format!("same-{round}")),
                            ..words(ANNA, Target::Conversation(one), "same")
                        },
                        words(if task % 2 == 0 { BEN } else { ANNA }, Target::Conversation(one), "y"),
                    ];
                    let receipts = vec![Receipt {
                        conversation_id: one,
                        user_id: if task % 2 == 0 { ANNA } else { BEN },
                        kind: if round % 2 == 0 { ReceiptKind::Read } else { ReceiptKind::Delivered },
                        which: Which::All,
                    }];
                    let applied = store.apply(&Batch { sends, receipts }).await.unwrap();
                    assert!(applied.sends.iter().all(Result::is_ok), "{:?}", applied.sends);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for conversation in [one, two] {
        let seqs: Vec<_> = history(&store, conversation).await.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, (1..=i64::try_from(seqs.len()).unwrap()).collect::<Vec<_>>());
    }
    let same = history(&store, one).await.iter().filter(|row| row.content == "same").count();
    assert_eq!(same, 10);
    assert_counters_equal_a_recount(&store, one).await;
    for user in [ANNA, BEN, CLEO] {
        let head = store.log_heads(&[user]).await.unwrap()[&user];
        let LogPage::Entries { entries, .. } = store.read_log(user, 0, 10_000).await.unwrap() else {
            panic!()
        };
        let seqs: Vec<_> = entries.iter().map(|entry| entry.event_seq).collect();
        assert_eq!(seqs, (1..=head).collect::<Vec<_>>());
    }
}

async fn reading_moves_counters_and_marks(database: TestDatabase) {
    let clock = Clock::manual(START);
    let store = database.store(&clock).await;
    let first = first_message(&store).await;
    let id = first.conversation_id;
    let here = Target::Conversation(id);
    let applied =
        send_all(&store, vec![words(ANNA, here, "2"), words(ANNA, here, "3"), words(BEN, here, "4")]).await;
    let third = new_message(&applied.sends[1]).id;
    let own = new_message(&applied.sends[2]).id;
    assert_eq!(store.unread_counts(&[ANNA, BEN, CLEO]).await.unwrap().len(), 3);

    // One in the middle, a foreign one, one's own and one that does not exist.
    let read =
        receipt(&store, BEN, id, ReceiptKind::Read, Which::Ids(vec![third, own, MessageId(999)])).await;
    assert_eq!(read, [third]);
    assert_counters_equal_a_recount(&store, id).await;
    assert!(receipt(&store, BEN, id, ReceiptKind::Read, Which::Ids(vec![third])).await.is_empty());

    clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(receipt(&store, BEN, id, ReceiptKind::Read, Which::UpToId(first.id)).await, [first.id]);
    assert_eq!(receipt(&store, BEN, id, ReceiptKind::Read, Which::All).await.len(), 1);
    assert!(receipt(&store, BEN, id, ReceiptKind::Read, Which::All).await.is_empty());
    assert_counters_equal_a_recount(&store, id).await;
    let stored = store.message(first.id).await.unwrap().unwrap();
    assert!(stored.is_read && stored.is_delivered);
    assert_eq!(stored.read_at, Some(START.plus(std::time::Duration::from_secs(5))));

    send_all(&store, vec![words(ANNA, here, "5")]).await;
    assert_eq!(receipt(&store, BEN, id, ReceiptKind::Read, Which::All).await.len(), 1);
    // Somebody else's conversation.
    let stranger = Receipt { conversation_id: id, user_id: CLEO, kind: ReceiptKind::Read, which: Which::All };
    let applied = store.apply(&Batch { sends: vec![], receipts: vec![stranger] }).await.unwrap();
    assert!(matches!(applied.receipts[0], Err(Error::Forbidden(_))));
    assert!(applied.entries.is_empty());
}

async fn delivery_is_a_mark_that_only_grows(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let first = first_message(&store).await;
    let id = first.conversation_id;
    let here = Target::Conversation(id);
    let applied = send_all(&store, vec![words(ANNA, here, "2"), words(ANNA, here, "3")]).await;
    let (second, third) = (new_message(&applied.sends[0]).id, new_message(&applied.sends[1]).id);

    let delivered =
        receipt(&store, BEN, id, ReceiptKind::Delivered, Which::Ids(vec![second, MessageId(77)])).await;
    assert_eq!(delivered, [first.id, second], "what came before is delivered too");
    assert!(receipt(&store, BEN, id, ReceiptKind::Delivered, Which::UpToSeq(1)).await.is_empty());
    assert!(store.message(second).await.unwrap().unwrap().is_delivered);
    assert!(!store.message(third).await.unwrap().unwrap().is_delivered);
    assert_eq!(receipt(&store, BEN, id, ReceiptKind::Delivered, Which::All).await, [third]);
    assert_eq!(store.conversation(BEN, id).await.unwrap().unwrap().unread_count, 3);
    // The sender does not receive their own.
    assert!(receipt(&store, ANNA, id, ReceiptKind::Delivered, Which::All).await.is_empty());
}

async fn the_log_tells_what_is_missing(database: TestDatabase) {
    let clock = Clock::manual(START);
    let store = database.store(&clock).await;
    let id = first_message(&store).await.conversation_id;
    clock.advance(std::time::Duration::from_secs(60));
    send_all(
        &store,
        vec![words(ANNA, Target::Conversation(id), "2"), words(ANNA, Target::Conversation(id), "3")],
    )
    .await;

    let LogPage::Entries { entries, last_event_seq } = store.read_log(BEN, 1, 1).await.unwrap() else {
        panic!()
    };
    assert_eq!((entries[0].event_seq, entries.len(), last_event_seq), (2, 1, 3));
    assert_eq!(
        store.read_log(BEN, 3, 10).await.unwrap(),
        LogPage::Entries { entries: vec![], last_event_seq: 3 }
    );
    assert_eq!(store.read_log(BEN, 4, 10).await.unwrap(), LogPage::Ahead { last_event_seq: 3 });

    let gone = store.prune_log(START.plus(std::time::Duration::from_secs(1)), 1000).await.unwrap();
    assert_eq!(gone, 2, "one entry of each of the two");
    assert_eq!(store.read_log(BEN, 0, 10).await.unwrap(), LogPage::Expired { last_event_seq: 3 });
    assert!(
        matches!(store.read_log(BEN, 1, 10).await.unwrap(), LogPage::Entries { entries, .. } if entries.len() == 2)
    );
    store.prune_log(START.plus(std::time::Duration::from_secs(100)), 1000).await.unwrap();
    assert_eq!(store.read_log(BEN, 1, 10).await.unwrap(), LogPage::Expired { last_event_seq: 3 });
}

async fn a_newer_schema_is_refused(database: TestDatabase) {
    let clock = Clock::manual(START);
    let store = database.store(&clock).await;
    store.close().await;
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'from the future', true, 'x', 0)";
    database.execute(newer).await;
    let error = Store::open(&database.options(), clock).await.unwrap_err().to_string();
    assert!(error.contains("9999") && error.contains("newer version"), "{error}");
}

async fn a_null_product_is_one_product(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let none = Target::User { receiver_id: BEN, product_id: None };
    let applied = send_all(&store, vec![words(ANNA, none, "a"), words(ANNA, to(BEN), "b")]).await;
    let again =
        send_all(&store, vec![words(BEN, Target::User { receiver_id: ANNA, product_id: None }, "c")]).await;
    let id = new_message(&applied.sends[0]).conversation_id;
    assert_eq!(new_message(&again.sends[0]).conversation_id, id);
    assert_ne!(new_message(&applied.sends[1]).conversation_id, id);
    assert_eq!(store.find_conversation(BEN, ANNA, None).await.unwrap(), Some(id));
    assert_eq!(store.find_conversation(BEN, ANNA, Some(ProductId(6))).await.unwrap(), None);
}

async fn pages_are_windows_from_the_newest(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let id = first_message(&store).await.conversation_id;
    send_all(&store, (0..9).map(|_| words(ANNA, Target::Conversation(id), "x")).collect()).await;
    for (window, expected) in [
        (Window::Page(0), vec![7, 8, 9, 10]),
        (Window::Page(2), vec![1, 2]),
        (Window::Page(3), vec![]),
        (Window::Page(i64::MAX), vec![]),
        (Window::Before(4), vec![1, 2, 3]),
        (Window::After(8), vec![9, 10]),
        (Window::Around(5), vec![3, 4, 5, 6]),
        (Window::Before(i64::MIN), vec![]),
        (Window::After(i64::MAX), vec![]),
    ] {
        let rows = stretch(&store, id, 0, window, 4).await;
        assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), expected, "{window:?}");
    }
    let rows = stretch(&store, id, 8, Window::Page(0), 4).await;
    assert_eq!(
        rows.iter().map(|row| row.seq).collect::<Vec<_>>(),
        [9, 10],
        "history before the deletion is gone"
    );
}

#[tokio::test]
async fn both_schemas_have_the_same_tables_and_columns() {
    use sqlx::Connection;
    let (Some(sqlite), Some(postgres)) = (
        TestDatabase::new(support::Backend::Sqlite).await,
        TestDatabase::new(support::Backend::Postgres).await,
    ) else {
        return;
    };
    let clock = Clock::manual(START);
    sqlite.store(&clock).await;
    postgres.store(&clock).await;
    let mut connection = sqlx::SqliteConnection::connect(&sqlite.url).await.unwrap();
    let ours: Vec<(String, String)> = sqlx::query_as(
        "select t.name, c.name from sqlite_master t, pragma_table_info(t.name) c
         where t.type = 'table' and t.name not like '\\_%' escape '\\' and t.name not like 'sqlite%' order by 1, 2",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut connection = sqlx::PgConnection::connect(&postgres.url).await.unwrap();
    let mut theirs: Vec<(String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text from information_schema.columns
         where table_schema = 'public' and table_name not like '\\_%'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    // PostgreSQL sorts by the language of the server.
    theirs.sort();
    assert!(ours.len() > 50);
    assert_eq!(ours, theirs);
}
