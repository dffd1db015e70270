//! What the tables hold, as plain structs: the words of the schema, no rules.

use serde::{Deserialize, Serialize};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use crate::{
    clock::Timestamp,
    ids::{AttachmentId, ConversationId, MessageId, ProductId, UserId},
};

/// What a message is (contract section 1); `system` and `offer` come from the main API only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageType {
    /// Words.
    Text,
    /// A picture.
    Image,
    /// Another file.
    File,
    /// A notice of the marketplace.
    System,
    /// A rental or sale offer.
    Offer,
}

impl MessageType {
    /// As the database and the wire write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::File => "file",
            Self::System => "system",
            Self::Offer => "offer",
        }
    }
}

/// A type that this version does not know.
#[derive(Debug)]
pub struct UnknownMessageType;

impl std::fmt::Display for UnknownMessageType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("unknown message type")
    }
}

impl std::error::Error for UnknownMessageType {}

impl TryFrom<String> for MessageType {
    type Error = UnknownMessageType;

    fn try_from(text: String) -> Result<Self, UnknownMessageType> {
        text.parse()
    }
}

impl std::str::FromStr for MessageType {
    type Err = UnknownMessageType;

    fn from_str(text: &str) -> Result<Self, UnknownMessageType> {
        Ok(match text {
            "text" => Self::Text,
            "image" => Self::Image,
            "file" => Self::File,
            "system" => Self::System,
            "offer" => Self::Offer,
            _ => return Err(UnknownMessageType),
        })
    }
}

/// A message with all that is shown with it. Read by place, in this order: fifty of them by name are looked up
/// fourteen hundred times.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageRow {
    /// The message.
    pub id: MessageId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Its place there: 1, 2, 3 … without gaps.
    pub seq: i64,
    /// Who wrote it.
    pub sender_id: UserId,
    /// What it is.
    pub kind: MessageType,
    /// The words; empty in a tombstone.
    pub content: String,
    /// A link to a picture or file elsewhere.
    pub file_url: Option<String>,
    /// What the client sent along, JSON text.
    pub metadata: Option<String>,
    /// The offer, JSON text.
    pub offer: Option<String>,
    /// The sender's own id for it.
    pub client_message_id: Option<String>,
    /// What was asked for under that id.
    pub fingerprint: Option<i64>,
    /// The other one read it.
    pub is_read: bool,
    /// When.
    pub read_at: Option<Timestamp>,
    /// It reached a device of the other one.
    pub is_delivered: bool,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
    /// When it was sent.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
    /// When it was deleted; then it is a tombstone.
    pub deleted_at: Option<Timestamp>,
    /// `[["👍", 2], …]` in the order given, JSON text.
    pub reactions: Option<String>,
    /// The message this one answers.
    pub reply: ReplyRow,
    /// The uploaded file.
    pub attachment: AttachmentColumns,
}

/// A row read column by column.
struct Columns<'r, R> {
    row: &'r R,
    place: usize,
}

impl<'r, R: Row> Columns<'r, R>
where
    usize: ColumnIndex<R>,
{
    fn next<T: Decode<'r, R::Database> + Type<R::Database>>(&mut self) -> Result<T, sqlx::Error> {
        let value = self.row.try_get(self.place);
        self.place += 1;
        value
    }
}

macro_rules! message_by_place {
    ($row:ty) => {
        impl FromRow<'_, $row> for MessageRow {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let mut columns = Columns { row, place: 0 };
                Ok(Self {
                    id: columns.next()?,
                    conversation_id: columns.next()?,
                    seq: columns.next()?,
                    sender_id: columns.next()?,
                    kind: columns
                        .next::<&str>()?
                        .parse()
                        .map_err(|unknown: UnknownMessageType| sqlx::Error::Decode(unknown.into()))?,
                    content: columns.next()?,
                    file_url: columns.next()?,
                    metadata: columns.next()?,
                    offer: columns.next()?,
                    client_message_id: columns.next()?,
                    fingerprint: columns.next()?,
                    is_read: columns.next()?,
                    read_at: columns.next()?,
                    is_delivered: columns.next()?,
                    edited_at: columns.next()?,
                    created_at: columns.next()?,
                    updated_at: columns.next()?,
                    deleted_at: columns.next()?,
                    reactions: columns.next()?,
                    reply: ReplyRow {
                        reply_id: columns.next()?,
                        reply_sender_id: columns.next()?,
                        reply_type: columns.next()?,
                        reply_content: columns.next()?,
                    },
                    attachment: AttachmentColumns {
                        attachment_id: columns.next()?,
                        attachment_name: columns.next()?,
                        attachment_mime_type: columns.next()?,
                        attachment_size: columns.next()?,
                        attachment_width: columns.next()?,
                        attachment_height: columns.next()?,
                        attachment_thumbnail_key: columns.next()?,
                    },
                })
            }
        }
    };
}
message_by_place!(sqlx::postgres::PgRow);
message_by_place!(sqlx::sqlite::SqliteRow);

/// The quoted message of a reply; all `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyRow {
    /// The quoted message.
    pub reply_id: Option<MessageId>,
    /// Who wrote it.
    pub reply_sender_id: Option<UserId>,
    /// What it is.
    pub reply_type: Option<String>,
    /// Its words as they are now.
    pub reply_content: Option<String>,
}

/// The uploaded file of a message; all `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct AttachmentColumns {
    /// The file.
    pub attachment_id: Option<AttachmentId>,
    /// Its name as the uploader gave it, made safe.
    pub attachment_name: Option<String>,
    /// What its bytes are.
    pub attachment_mime_type: Option<String>,
    /// Bytes.
    pub attachment_size: Option<i64>,
    /// Pixels.
    pub attachment_width: Option<i32>,
    /// Pixels.
    pub attachment_height: Option<i32>,
    /// Where its thumbnail lies; `None` if it has none.
    pub attachment_thumbnail_key: Option<String>,
}

/// A conversation as one of its two users sees it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ConversationRow {
    /// The conversation.
    pub id: ConversationId,
    /// The one who looks.
    pub user_id: UserId,
    /// The other one.
    pub other_user_id: UserId,
    /// What it is about.
    pub product_id: Option<ProductId>,
    /// Messages of the other one that this user has not read.
    pub unread_count: i32,
    /// When the newest message came.
    pub last_message_at: Option<Timestamp>,
    /// Out of the list until the next message.
    pub is_archived: bool,
    /// No notifications.
    pub is_muted: bool,
    /// Until when; `None` while muted means for good.
    pub muted_until: Option<Timestamp>,
    /// Deleted by this user and not yet brought back by a message.
    pub is_hidden: bool,
    /// This user blocks the other one.
    pub is_blocked: bool,
    /// The other one blocks this user, who is not told.
    pub is_blocked_by_other: bool,
    /// When the other one was last seen.
    pub other_last_seen: Option<Timestamp>,
    /// The other one hides their presence.
    pub other_is_private: bool,
    /// The newest message's place.
    pub last_seq: i64,
    /// The history up to here is gone for this user.
    pub cleared_seq: i64,
    /// Up to here everything reached a device of this user.
    pub delivered_seq: i64,
    /// Up to here everything reached a device of the other one.
    pub other_delivered_seq: i64,
    /// The newest entry of this user's log when this was read.
    pub event_seq: i64,
    /// When it began.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
    /// The newest message, if this user may see one.
    #[sqlx(flatten)]
    pub last_message: LastMessageColumns,
}

/// The newest message of a conversation, in short; all `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct LastMessageColumns {
    /// The message.
    pub message_id: Option<MessageId>,
    /// Its words.
    pub message_content: Option<String>,
    /// What it is.
    pub message_type: Option<String>,
    /// Who wrote it.
    pub message_sender_id: Option<UserId>,
    /// It was read.
    pub message_is_read: Option<bool>,
    /// It reached a device of the one it is for.
    pub message_is_delivered: Option<bool>,
    /// When it was sent.
    pub message_created_at: Option<Timestamp>,
    /// When it was deleted.
    pub message_deleted_at: Option<Timestamp>,
}

/// Who takes part in a conversation, and who blocks whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Participants {
    /// The conversation.
    pub id: ConversationId,
    /// The one with the smaller id.
    pub user1_id: UserId,
    /// The one with the larger id.
    pub user2_id: UserId,
    /// The newest message's place.
    pub last_seq: i64,
    /// User 1 blocks user 2.
    pub user1_blocks: bool,
    /// User 2 blocks user 1.
    pub user2_blocks: bool,
}

impl Participants {
    /// The other one, or `None` if `user` takes no part.
    pub fn other(&self, user: UserId) -> Option<UserId> {
        if user == self.user1_id {
            Some(self.user2_id)
        } else if user == self.user2_id {
            Some(self.user1_id)
        } else {
            None
        }
    }

    /// Either blocks the other.
    pub const fn is_blocked(&self) -> bool {
        self.user1_blocks || self.user2_blocks
    }

    /// `user` blocks the other one.
    pub fn blocks(&self, user: UserId) -> bool {
        if user == self.user1_id { self.user1_blocks } else { user == self.user2_id && self.user2_blocks }
    }
}
