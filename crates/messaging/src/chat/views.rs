//! Messages and conversations in the shapes of the wire (contract section 1).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    content::ClientMessageId,
    delivery::hub::Status,
    identity::cards::{ProductCard, UserProfile},
    ids::{AttachmentId, ConversationId, MessageId, UserId},
    storage::rows::{ConversationRow, MessageRow, MessageType},
};

/// Of a quoted message, so many characters are shown.
const PREVIEW_CHARS: usize = 140;

/// How far a message came; never backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageStatus {
    /// It is stored.
    Sent,
    /// It reached a device of the other one.
    Delivered,
    /// The other one read it.
    Read,
}

impl MessageStatus {
    const fn of(is_delivered: bool, is_read: bool) -> Self {
        if is_read {
            Self::Read
        } else if is_delivered {
            Self::Delivered
        } else {
            Self::Sent
        }
    }
}

/// A message as everybody sees it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Message")]
pub struct MessageView {
    /// The message.
    pub id: MessageId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Its place there.
    pub seq: i64,
    /// Who wrote it.
    pub sender_id: UserId,
    /// The same, with name and picture.
    pub sender: Arc<UserProfile>,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: MessageType,
    /// The words; empty in a tombstone.
    pub content: String,
    /// A link to a file.
    pub file_url: Option<String>,
    /// The uploaded file.
    pub attachment: Option<AttachmentView>,
    /// What the client sent along.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub metadata: Option<Box<RawValue>>,
    /// The offer.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub offer: Option<Box<RawValue>>,
    /// The message answered.
    pub reply_to: Option<ReplyView>,
    /// Reactions by emoji, the first given first.
    pub reactions: Vec<ReactionView>,
    /// How far it came.
    pub status: MessageStatus,
    /// The other one read it.
    pub is_read: bool,
    /// When.
    pub read_at: Option<Timestamp>,
    /// The sender's own id for it.
    pub client_message_id: Option<String>,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
    /// When it became a tombstone.
    pub deleted_at: Option<Timestamp>,
    /// When it was sent.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

/// An uploaded file; both links are signed and expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Attachment")]
pub struct AttachmentView {
    /// The file.
    pub id: AttachmentId,
    /// Where its bytes are.
    pub url: String,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// What its bytes are.
    pub mime_type: String,
    /// Pixels.
    pub width: Option<i32>,
    /// Pixels.
    pub height: Option<i32>,
    /// Where its small picture is.
    pub thumbnail_url: Option<String>,
}

/// A quoted message as it is now.
#[derive(Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ReplyTo")]
pub struct ReplyView {
    /// The quoted message.
    pub id: MessageId,
    /// Who wrote it.
    pub sender_id: UserId,
    /// What it is.
    #[serde(rename = "type")]
    #[schemars(with = "MessageType")]
    pub kind: String,
    /// Its first characters; empty once deleted.
    pub content: String,
}

/// One emoji under a message.
#[derive(Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Reaction")]
pub struct ReactionView {
    /// The emoji.
    pub emoji: String,
    /// How many gave it.
    pub count: usize,
    /// Who gave it.
    pub user_ids: Vec<UserId>,
}

/// What a message refers to that is not in its row.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Profiles by user.
    pub profiles: HashMap<UserId, Arc<UserProfile>>,
    /// Files by id.
    pub attachments: HashMap<AttachmentId, AttachmentView>,
}

impl Surroundings {
    fn profile(&self, user: UserId) -> Arc<UserProfile> {
        self.profiles.get(&user).cloned().unwrap_or_else(|| Arc::new(UserProfile::unknown(user)))
    }
}

impl MessageView {
    /// Puts a message together.
    pub fn new(row: MessageRow, surroundings: &Surroundings) -> Self {
        let is_deleted = row.deleted_at.is_some();
        let attachment = row
            .attachment
            .attachment_id
            .filter(|_| !is_deleted)
            .and_then(|id| surroundings.attachments.get(&id).cloned());
        Self {
            id: row.id,
            conversation_id: row.conversation_id,
            seq: row.seq,
            sender_id: row.sender_id,
            sender: surroundings.profile(row.sender_id),
            kind: row.kind,
            file_url: attachment
                .as_ref()
                .map(|attachment| attachment.url.clone())
                .or(row.file_url)
                .filter(|_| !is_deleted),
            attachment,
            metadata: row.metadata.filter(|_| !is_deleted).and_then(raw),
            offer: row.offer.filter(|_| !is_deleted).and_then(raw),
            reply_to: row.reply.reply_id.filter(|_| !is_deleted).map(|id| ReplyView {
                id,
                sender_id: row.reply.reply_sender_id.unwrap_or(row.sender_id),
                kind: row.reply.reply_type.unwrap_or_default(),
                content: row.reply.reply_content.unwrap_or_default().chars().take(PREVIEW_CHARS).collect(),
            }),
            reactions: row.reactions.as_deref().map(reactions).unwrap_or_default(),
            status: MessageStatus::of(row.is_delivered, row.is_read),
            is_read: row.is_read,
            read_at: row.read_at,
            client_message_id: row.client_message_id.map(ClientMessageId::shown),
            edited_at: row.edited_at,
            deleted_at: row.deleted_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            content: row.content,
        }
    }

    /// Leaves a tombstone of it, for a user who deleted the conversation that it was part of.
    pub(super) fn withhold(&mut self) {
        self.content.clear();
        self.file_url = None;
        self.attachment = None;
        self.metadata = None;
        self.offer = None;
        self.reply_to = None;
        self.reactions.clear();
        self.deleted_at.get_or_insert(self.updated_at);
    }
}

fn raw(json: String) -> Option<Box<RawValue>> {
    RawValue::from_string(json).ok()
}

/// Groups `[["👍", 2], …]` by emoji, in the order of their first.
pub fn reactions(json: &str) -> Vec<ReactionView> {
    let given: Vec<(String, UserId)> = serde_json::from_str(json).unwrap_or_default();
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    let mut views: Vec<ReactionView> = Vec::new();
    for (emoji, user) in given {
        let place = *order.entry(emoji.clone()).or_insert_with(|| {
            views.push(ReactionView { emoji, count: 0, user_ids: Vec::new() });
            views.len() - 1
        });
        views[place].count += 1;
        views[place].user_ids.push(user);
    }
    views
}

/// A conversation as one of its users sees it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Conversation")]
pub struct ConversationView {
    /// The conversation.
    pub id: ConversationId,
    /// The one who looks.
    pub current_user_id: UserId,
    /// The other one.
    pub other_user: OtherUserView,
    /// What it is about.
    pub product: Option<Arc<ProductCard>>,
    /// The newest message, in short.
    pub last_message: Option<LastMessageView>,
    /// Messages of the other one that are not read.
    pub unread_count: i32,
    /// When the newest message came.
    pub last_message_at: Option<Timestamp>,
    /// Out of the list until the next message.
    pub is_archived: bool,
    /// No notifications.
    pub is_muted: bool,
    /// Until when it is muted; null while muted for good or not at all.
    pub muted_until: Option<Timestamp>,
    /// The one who looks blocks the other one.
    pub is_blocked: bool,
    /// The one who looks deleted it; only ever in `conversation_updated`, elsewhere it is not found.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
    /// When it began.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

/// The other user of a conversation.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "OtherUser")]
pub struct OtherUserView {
    /// Name and picture.
    #[serde(flatten)]
    pub profile: Arc<UserProfile>,
    /// Whether they are here.
    pub status: Status,
    /// Since when they are not; null while online.
    pub last_seen: Option<Timestamp>,
}

/// The newest message of a conversation, in short.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "LastMessage")]
pub struct LastMessageView {
    /// The message.
    pub id: MessageId,
    /// Its words.
    pub content: String,
    /// What it is.
    #[serde(rename = "type")]
    #[schemars(with = "MessageType")]
    pub kind: String,
    /// Who wrote it.
    pub sender_id: UserId,
    /// It was read.
    pub is_read: bool,
    /// How far it came.
    pub status: MessageStatus,
    /// When it was sent.
    pub created_at: Timestamp,
}

impl ConversationView {
    /// Puts a conversation together; `status` is what the other one's connections say.
    pub fn new(
        row: ConversationRow,
        profile: Arc<UserProfile>,
        product: Option<Arc<ProductCard>>,
        status: Status,
        now: Timestamp,
    ) -> Self {
        // Between the two sides of a block presence is silent, and a private person has none.
        let is_silent = row.is_blocked || row.is_blocked_by_other || row.other_is_private;
        let status = if is_silent { Status::Offline } else { status };
        let is_muted = row.is_muted && row.muted_until.is_none_or(|until| until > now);
        Self {
            id: row.id,
            current_user_id: row.user_id,
            other_user: OtherUserView {
                profile,
                status,
                last_seen: row.other_last_seen.filter(|_| !is_silent && status != Status::Online),
            },
            product,
            last_message: last_message(&row),
            unread_count: row.unread_count,
            last_message_at: row.last_message_at,
            is_archived: row.is_archived,
            is_muted,
            muted_until: row.muted_until.filter(|_| is_muted),
            is_blocked: row.is_blocked,
            is_deleted: row.is_hidden,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

fn last_message(row: &ConversationRow) -> Option<LastMessageView> {
    let message = &row.last_message;
    let is_read = message.message_is_read.unwrap_or_default();
    Some(LastMessageView {
        id: message.message_id?,
        content: message.message_content.clone().unwrap_or_default(),
        kind: message.message_type.clone().unwrap_or_default(),
        sender_id: message.message_sender_id?,
        is_read,
        status: MessageStatus::of(message.message_is_delivered.unwrap_or_default(), is_read),
        created_at: message.message_created_at?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactions_are_grouped_in_the_order_of_the_first() {
        let views = reactions(r#"[["👍",2],["❤️",1],["👍",1]]"#);
        assert_eq!(
            views,
            [
                ReactionView { emoji: "👍".into(), count: 2, user_ids: vec![UserId(2), UserId(1)] },
                ReactionView { emoji: "❤️".into(), count: 1, user_ids: vec![UserId(1)] },
            ]
        );
        assert!(reactions("[]").is_empty());
    }

    #[test]
    fn a_status_is_as_far_as_the_message_came() {
        assert_eq!(MessageStatus::of(false, false), MessageStatus::Sent);
        assert_eq!(MessageStatus::of(true, false), MessageStatus::Delivered);
        assert_eq!(MessageStatus::of(false, true), MessageStatus::Read);
    }
}
