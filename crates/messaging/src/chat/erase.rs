//! Erasing a user for good, and telling others that somebody or something is shown in another way.
//!
//! The other side keeps its conversations: the user's messages become tombstones, each told as any
//! deletion is, and the name becomes `Deleted user`. How far it came is a job's (`jobs`).

use std::time::Duration;

use serde::Serialize;

use super::Chat;
use crate::{
    clock::Timestamp,
    errors::Result,
    ids::{AttachmentId, ProductId, UserId},
    storage::jobs::{Job, JobKind},
};

/// Most histories are erased within this time; of others the answer says that it goes on.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(50);
/// Files deleted before the next are looked for.
const FILES: i64 = 100;
/// Log entries deleted in one transaction.
const ENTRIES: i64 = 2000;

/// How an erasure stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Erasure")]
pub struct EraseAnswer {
    /// Who.
    pub user_id: UserId,
    /// `erased`, or `erasing` while it goes on; ask again.
    #[schemars(extend("enum" = ["erasing", "erased"]))]
    pub status: &'static str,
    /// Messages that became tombstones.
    pub messages: i64,
    /// When it was done.
    pub erased_at: Option<Timestamp>,
}

impl Chat {
    /// Erases a user, or goes on with it. Their tokens are to be forgotten and their card replaced before.
    pub async fn erase_user(&self, user: UserId) -> Result<EraseAnswer> {
        self.start_job(JobKind::Erase, user.0).await?;
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.inner.store.job_status(JobKind::Erase, user.0).await?;
            let finished_at = status.and_then(|status| status.finished_at);
            if finished_at.is_some() || tokio::time::Instant::now() >= until {
                return Ok(EraseAnswer {
                    user_id: user,
                    status: if finished_at.is_some() { "erased" } else { "erasing" },
                    messages: status.map_or(0, |status| status.changed),
                    erased_at: finished_at,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What comes before the conversations: what is the user's alone.
    pub(super) async fn begin_erasure(&self, job: &Job) -> Result<()> {
        Ok(self.inner.store.erase_belongings(UserId(job.subject_id)).await?)
    }

    /// What comes after them: files that no message has any more, and the user's own log.
    pub(super) async fn end_erasure(&self, job: &Job) -> Result<()> {
        let user = UserId(job.subject_id);
        loop {
            let files = self.inner.store.unsent_attachments(user, AttachmentId(0), FILES).await?;
            if files.is_empty() {
                break;
            }
            for file in files {
                // The bytes first, unlike elsewhere: no message can take it any more, and a failure in
                // between must leave something that leads back to them.
                let record = &file.file;
                self.inner.files.delete(&record.storage_key, record.thumbnail_key.as_deref()).await?;
                self.inner.store.delete_orphaned_attachment(file.id).await?;
            }
        }
        while self.inner.store.erase_log(user, ENTRIES).await? > 0 {}
        // What came in between: somebody signed in at this very moment.
        Ok(self.inner.store.erase_belongings(user).await?)
    }

    /// Tells those who talk with a user that they are shown in another way.
    pub async fn tell_of_user(&self, user: UserId) -> Result<()> {
        self.start_job(JobKind::Profile, user.0).await
    }

    /// Tells those who talk about a product that it is shown in another way.
    pub async fn tell_of_product(&self, product: ProductId) -> Result<()> {
        self.start_job(JobKind::Product, product.0).await
    }
}
