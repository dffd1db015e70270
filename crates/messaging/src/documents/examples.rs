//! The examples of both documents, made by the code that makes the real things.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    chat::views::{
        AttachmentView, ConversationView, LastMessageView, MessageStatus, MessageView, OtherUserView,
        ReactionView, ReplyView,
    },
    clock::Timestamp,
    delivery::hub::Status,
    identity::{ProductCard, UserProfile},
    ids::{AttachmentId, ConversationId, MessageId, ProductId, UserId},
    storage::rows::MessageType,
};

/// 2025-12-05T10:30:00.000Z, when the examples happen.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_764_930_600_000);
/// The request id of the examples.
pub(super) const REQUEST_ID: &str = "5f0c1f9e-6f0b-4a63-9d5c-1c1f6a3b7e21";

pub(super) const JOHN: UserId = UserId(1);
pub(super) const JANE: UserId = UserId(2);
pub(super) const CONVERSATION: ConversationId = ConversationId(1);
pub(super) const MESSAGE: MessageId = MessageId(123);

pub(super) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("our own types are written without failing")
}

pub(super) fn john() -> UserProfile {
    let avatar_url = Some("https://cdn.example.test/avatars/1.jpg".into());
    UserProfile { id: JOHN, name: "John".into(), avatar_url }
}

pub(super) fn jane() -> UserProfile {
    UserProfile { id: JANE, name: "Jane".into(), avatar_url: None }
}

pub(super) fn attachment() -> AttachmentView {
    AttachmentView {
        id: AttachmentId(9),
        url: "/files/9/garden.jpg?exp=1765017000&sig=hV8…".into(),
        name: "garden.jpg".into(),
        size: 482_133,
        mime_type: "image/jpeg".into(),
        width: Some(1600),
        height: Some(1200),
        thumbnail_url: Some("/files/9/garden.jpg?variant=thumbnail&exp=1765017000&sig=Qm0…".into()),
    }
}

pub(super) fn reactions() -> Vec<ReactionView> {
    vec![ReactionView { emoji: "👍".into(), count: 1, user_ids: vec![JANE] }]
}

/// A text that answers another one and was reacted to.
pub(super) fn message() -> MessageView {
    MessageView {
        id: MESSAGE,
        conversation_id: CONVERSATION,
        seq: 42,
        sender_id: JOHN,
        sender: Arc::new(john()),
        kind: MessageType::Text,
        content: "Hello! Is it free on Friday?".into(),
        file_url: None,
        attachment: None,
        metadata: RawValue::from_string(json!({"draft": 3}).to_string()).ok(),
        offer: None,
        reply_to: Some(ReplyView {
            id: MessageId(122),
            sender_id: JANE,
            kind: "text".into(),
            content: "Which day?".into(),
        }),
        reactions: reactions(),
        status: MessageStatus::Delivered,
        is_read: false,
        read_at: None,
        client_message_id: Some("8d2f3c".into()),
        edited_at: None,
        deleted_at: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(super) fn conversation() -> ConversationView {
    let newest = message();
    ConversationView {
        id: CONVERSATION,
        current_user_id: JOHN,
        other_user: OtherUserView { profile: Arc::new(jane()), status: Status::Online, last_seen: None },
        product: Some(Arc::new(ProductCard {
            id: ProductId(5),
            title: "Camera".into(),
            thumbnail_url: Some("https://cdn.example.test/products/5/small.jpg".into()),
            image_urls: vec!["https://cdn.example.test/products/5/1.jpg".into()],
            price_per_day: Some(12.5),
            owner_id: Some(JANE),
        })),
        last_message: Some(LastMessageView {
            id: newest.id,
            content: newest.content,
            kind: "text".into(),
            sender_id: newest.sender_id,
            is_read: newest.is_read,
            status: newest.status,
            created_at: newest.created_at,
        }),
        unread_count: 3,
        last_message_at: Some(NOW),
        is_archived: false,
        is_muted: false,
        muted_until: None,
        is_blocked: false,
        is_deleted: false,
        created_at: NOW,
        updated_at: NOW,
    }
}

/// A successful answer around this data.
pub(super) fn envelope(data: Value) -> Value {
    json!({"success": true, "data": data, "meta": {"timestamp": NOW}})
}
