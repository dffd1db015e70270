//! The records of uploaded files, on both databases.

use std::time::Duration;

use messaging::{
    clock::Clock,
    ids::{AttachmentId, UserId},
    storage::{
        Store,
        attachments::FileRecord,
        batch::{Batch, NewMessage, Sent, Target},
        rows::{MessageRow, MessageType},
    },
};

use crate::{
    on_both_databases,
    support::{START, TestDatabase},
};

const ANNA: UserId = UserId(1);
const BEN: UserId = UserId(2);

on_both_databases!(
    an_upload_is_its_uploaders_until_a_message_carries_it,
    orphans_are_those_without_a_message_and_old_enough,
    bytes_are_counted_by_uploader,
);

fn file(size: i64) -> FileRecord {
    FileRecord {
        name: "größe 1.jpg".into(),
        mime_type: "image/jpeg".into(),
        size,
        width: Some(600),
        height: None,
        storage_key: "ab/abc".into(),
        thumbnail_key: Some("ab/abc-thumbnail.jpg".into()),
        sha256: "0".repeat(64),
    }
}

async fn send(store: &Store, attachment: AttachmentId) -> MessageRow {
    let message = NewMessage {
        sender_id: ANNA,
        target: Target::User { receiver_id: BEN, product_id: None },
        kind: MessageType::Image,
        content: String::new(),
        file_url: None,
        attachment_id: Some(attachment),
        reply_to_id: None,
        metadata: None,
        offer: None,
        client_message_id: None,
        fingerprint: 0,
    };
    let mut applied = store.apply(&Batch { sends: vec![message], receipts: vec![] }).await.unwrap();
    match applied.sends.remove(0).unwrap() {
        Sent::New { message, .. } => *message,
        other => panic!("not a new message: {other:?}"),
    }
}

async fn an_upload_is_its_uploaders_until_a_message_carries_it(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    let id = store.insert_attachment(ANNA, &file(10)).await.unwrap();
    let unsent = store.attachment(id).await.unwrap().unwrap();
    assert_eq!((unsent.id, unsent.uploader_id, &unsent.file), (id, ANNA, &file(10)));
    assert_eq!((unsent.conversation_id, unsent.seq, unsent.created_at), (None, None, START));

    let message = send(&store, id).await;
    let sent = store.attachment(id).await.unwrap().unwrap();
    assert_eq!((sent.conversation_id, sent.seq), (Some(message.conversation_id), Some(message.seq)));
    assert_eq!(message.attachment.attachment_name.as_deref(), Some("größe 1.jpg"));
    assert_eq!(store.attachment(AttachmentId(id.0 + 1)).await.unwrap(), None);

    database.execute("update attachments set message_id = null").await;
    assert_eq!(store.attachment(id).await.unwrap(), Some(unsent));
}

async fn orphans_are_those_without_a_message_and_old_enough(database: TestDatabase) {
    let clock = Clock::manual(START);
    let store = database.store(&clock).await;
    let (sent, old) = (
        store.insert_attachment(ANNA, &file(1)).await.unwrap(),
        store.insert_attachment(ANNA, &file(2)).await.unwrap(),
    );
    send(&store, sent).await;
    clock.advance(Duration::from_secs(60));
    let young = store.insert_attachment(ANNA, &file(3)).await.unwrap();

    let orphans = store.orphaned_attachments(clock.now(), 10).await.unwrap();
    assert_eq!(orphans.iter().map(|orphan| orphan.id).collect::<Vec<_>>(), [old]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(store.orphaned_attachments(clock.now(), 10).await.unwrap().len(), 2);
    assert_eq!(store.orphaned_attachments(clock.now(), 1).await.unwrap().len(), 1);

    assert!(store.delete_orphaned_attachment(young).await.unwrap());
    assert!(!store.delete_orphaned_attachment(young).await.unwrap());
    assert!(!store.delete_orphaned_attachment(sent).await.unwrap());
    assert!(store.attachment(sent).await.unwrap().is_some());
}

async fn bytes_are_counted_by_uploader(database: TestDatabase) {
    let store = database.store(&Clock::manual(START)).await;
    assert_eq!(store.uploaded_bytes(ANNA).await.unwrap(), 0);
    for size in [5, i64::from(u32::MAX)] {
        store.insert_attachment(ANNA, &file(size)).await.unwrap();
    }
    store.insert_attachment(BEN, &file(7)).await.unwrap();
    assert_eq!(store.uploaded_bytes(ANNA).await.unwrap(), 5 + i64::from(u32::MAX));
}
