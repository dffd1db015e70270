//! The records of uploaded files. Their bytes lie elsewhere, see `files`; a message takes one with it
//! in [`super::batch`].

use super::{Result, Store, on};
use crate::{
    clock::Timestamp,
    ids::{AttachmentId, ConversationId, UserId},
};

/// What is known of a file itself, whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FileRecord {
    /// The name as the uploader gave it, made safe.
    pub name: String,
    /// What its bytes are.
    pub mime_type: String,
    /// Bytes.
    pub size: i64,
    /// Pixels, of a picture.
    pub width: Option<i32>,
    /// Pixels, of a picture.
    pub height: Option<i32>,
    /// Where its bytes lie.
    pub storage_key: String,
    /// Where its small picture lies; `None` if it has none.
    pub thumbnail_key: Option<String>,
    /// SHA-256 of its bytes as they are kept, hexadecimal.
    pub sha256: String,
}

/// An uploaded file, and the message that carries it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AttachmentRow {
    /// The file.
    pub id: AttachmentId,
    /// Who uploaded it.
    pub uploader_id: UserId,
    /// The conversation and place of its message; `None` while it is not sent.
    pub conversation_id: Option<ConversationId>,
    /// See `conversation_id`.
    pub seq: Option<i64>,
    /// When it was uploaded; the epoch once its message was deleted.
    pub created_at: Timestamp,
    /// The file itself.
    #[sqlx(flatten)]
    pub file: FileRecord,
}

/// The columns of [`AttachmentRow`], then the rest of the statement.
macro_rules! select_attachments {
    ($rest:literal) => {
        concat!(
            "select a.id, a.uploader_id, m.conversation_id, m.seq, a.created_at,
                 a.name, a.mime_type, a.size, a.width, a.height, a.storage_key, a.thumbnail_key, a.sha256
             from attachments a left join messages m on m.id = a.message_id ",
            $rest
        )
    };
}

impl Store {
    /// Records an uploaded file that belongs to no message yet.
    pub async fn insert_attachment(&self, uploader: UserId, file: &FileRecord) -> Result<AttachmentId> {
        Ok(on!(self, write, pool => sqlx::query_scalar(
            "insert into attachments (uploader_id, name, mime_type, size, width, height, storage_key,
                 thumbnail_key, sha256, created_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning id",
        )
        .bind(uploader)
        .bind(&file.name)
        .bind(&file.mime_type)
        .bind(file.size)
        .bind(file.width)
        .bind(file.height)
        .bind(&file.storage_key)
        .bind(&file.thumbnail_key)
        .bind(&file.sha256)
        .bind(self.clock.now())
        .fetch_one(pool)
        .await?))
    }

    /// An uploaded file.
    pub async fn attachment(&self, id: AttachmentId) -> Result<Option<AttachmentRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(select_attachments!("where a.id = $1"))
            .bind(id)
            .fetch_optional(pool)
            .await?))
    }

    /// Bytes of all files that a user uploaded and that are kept.
    pub async fn uploaded_bytes(&self, uploader: UserId) -> Result<i64> {
        // PostgreSQL sums `bigint` into `numeric`.
        Ok(on!(self, read, pool => sqlx::query_scalar(
            "select cast(coalesce(sum(size), 0) as bigint) from attachments where uploader_id = $1",
        )
        .bind(uploader)
        .fetch_one(pool)
        .await?))
    }

    /// Files that were uploaded before a time and belong to no message, the oldest first.
    pub async fn orphaned_attachments(&self, before: Timestamp, limit: i64) -> Result<Vec<AttachmentRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(select_attachments!(
            "where a.message_id is null and a.created_at < $1 order by a.id limit $2"
        ))
        .bind(before)
        .bind(limit)
        .fetch_all(pool)
        .await?))
    }

    /// Files of a user that belong to no message, after one of them, the oldest first.
    pub async fn unsent_attachments(
        &self,
        user: UserId,
        after: AttachmentId,
        limit: i64,
    ) -> Result<Vec<AttachmentRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(select_attachments!(
            "where a.uploader_id = $1 and a.message_id is null and a.id > $2 order by a.id limit $3"
        ))
        .bind(user)
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await?))
    }

    /// Forgets a file that belongs to no message; `false` if it does by now, or is gone.
    pub async fn delete_orphaned_attachment(&self, id: AttachmentId) -> Result<bool> {
        let deleted = on!(self, write, pool => {
            sqlx::query("delete from attachments where id = $1 and message_id is null")
                .bind(id)
                .execute(pool)
                .await?
                .rows_affected()
        });
        Ok(deleted > 0)
    }
}
