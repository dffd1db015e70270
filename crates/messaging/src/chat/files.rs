//! Uploaded files: who may send and see them. Their bytes are the business of [`crate::files`].

use std::time::Duration;

use super::{Chat, views::AttachmentView};
use crate::{
    errors::{Error, RateLimit, Result},
    files::{Files, StoredFile},
    ids::{AttachmentId, UserId},
    limits::Kind,
    storage::{
        attachments::{AttachmentRow, FileRecord},
        rows::AttachmentColumns,
    },
};

/// Orphaned files are looked for this often.
pub(super) const ORPHANS_INTERVAL: Duration = Duration::from_secs(600);

/// Orphans deleted before the next are looked for.
const ORPHANS_CHUNK: i64 = 100;

/// Leave to upload a file.
#[derive(Debug, Clone, Copy)]
pub struct UploadPermit {
    /// Bytes that the user keeps already.
    pub used: u64,
    /// The user's upload bucket after this one; `None` without a limit.
    pub rate_limit: Option<RateLimit>,
}

impl Chat {
    /// The bytes of uploaded files.
    pub fn files(&self) -> &Files {
        &self.inner.files
    }

    /// Asks whether the user may upload a file now, before any of it is read.
    pub async fn start_upload(&self, user: UserId) -> Result<UploadPermit> {
        let rate_limit = self.inner.limits.take(user, Kind::Uploads).await?;
        let used = self.inner.store.uploaded_bytes(user).await?;
        Ok(UploadPermit { used: u64::try_from(used).unwrap_or(0), rate_limit })
    }

    /// Records a file whose bytes are stored; from now on the user may send it with a message.
    pub async fn finish_upload(&self, user: UserId, stored: StoredFile) -> Result<AttachmentView> {
        let id = self.inner.store.insert_attachment(user, stored.record()).await?;
        let file = stored.keep();
        let links = self.inner.files.links(id, &file.name, file.thumbnail_key.is_some());
        Ok(AttachmentView {
            id,
            url: links.url,
            name: file.name,
            size: file.size,
            mime_type: file.mime_type,
            width: file.width,
            height: file.height,
            thumbnail_url: links.thumbnail_url,
        })
    }

    /// A file that the user may see: a participant who has not deleted its message, or its uploader
    /// before it is sent.
    pub async fn visible_file(&self, user: UserId, id: AttachmentId) -> Result<FileRecord> {
        let row = self.existing_file(id).await?;
        let foreign = || Error::Forbidden("You cannot see this file.".into());
        match row.conversation_id {
            Some(conversation) => {
                let view = self.inner.store.conversation(user, conversation).await?.ok_or_else(foreign)?;
                // Deleting a conversation takes its history so far away from the user.
                if row.seq.is_none_or(|seq| seq <= view.cleared_seq) {
                    return Err(no_file());
                }
            }
            None if row.uploader_id != user => return Err(foreign()),
            None => {}
        }
        Ok(row.file)
    }

    /// A file for someone who holds a link to it, which only those get who may see it.
    pub async fn linked_file(&self, id: AttachmentId) -> Result<FileRecord> {
        Ok(self.existing_file(id).await?.file)
    }

    /// An orphan that was not collected yet is as good as gone: its message may have been deleted.
    async fn existing_file(&self, id: AttachmentId) -> Result<AttachmentRow> {
        let row = self.inner.store.attachment(id).await?;
        let orphaned_before = self.inner.files.orphans_before();
        row.filter(|row| row.conversation_id.is_some() || row.created_at >= orphaned_before)
            .ok_or_else(no_file)
    }

    /// The attachment of a message as it is shown, with links that hold from now on.
    pub(super) fn attachment_view(&self, columns: &AttachmentColumns) -> Option<AttachmentView> {
        let id = columns.attachment_id?;
        let name = columns.attachment_name.clone()?;
        let links = self.inner.files.links(id, &name, columns.attachment_thumbnail_key.is_some());
        Some(AttachmentView {
            id,
            url: links.url,
            name,
            size: columns.attachment_size?,
            mime_type: columns.attachment_mime_type.clone()?,
            width: columns.attachment_width,
            height: columns.attachment_height,
            thumbnail_url: links.thumbnail_url,
        })
    }

    /// Deletes files that were uploaded long ago and never sent, or whose message let go of them.
    pub(super) async fn collect_orphans(&self) {
        match self.delete_orphans().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "orphaned files were deleted"),
            Err(error) => tracing::warn!(%error, "orphaned files could not be deleted"),
        }
    }

    async fn delete_orphans(&self) -> Result<usize> {
        let before = self.inner.files.orphans_before();
        let mut count = 0;
        loop {
            let orphans = self.inner.store.orphaned_attachments(before, ORPHANS_CHUNK).await?;
            if orphans.is_empty() {
                return Ok(count);
            }
            for orphan in orphans {
                count += usize::from(self.delete_orphan(orphan).await?);
            }
        }
    }

    /// Deletes the file of a message that was deleted: nobody sees it from now on. What fails here is
    /// left to the collection of orphans.
    pub(super) async fn release_file(&self, id: AttachmentId) {
        let outcome = async {
            match self.inner.store.attachment(id).await? {
                Some(row) => self.delete_orphan(row).await,
                None => Ok(false),
            }
        };
        if let Err(error) = outcome.await {
            tracing::warn!(%error, attachment_id = id.0, "the file of a deleted message is not deleted yet");
        }
    }

    async fn delete_orphan(&self, orphan: AttachmentRow) -> Result<bool> {
        // The record first: a message that takes the file at this moment keeps it.
        let is_orphan = self.inner.store.delete_orphaned_attachment(orphan.id).await?;
        if is_orphan {
            let file = orphan.file;
            self.inner.files.delete(&file.storage_key, file.thumbnail_key.as_deref()).await?;
        }
        Ok(is_orphan)
    }
}

fn no_file() -> Error {
    Error::NotFound("File not found.".into())
}
