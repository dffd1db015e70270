//! Work on many conversations, a small transaction at a time, beside everything else.
//!
//! Where it stands is in the database: a node that is killed leaves a lease behind, which lapses, and
//! another one goes on.

use std::time::Duration;

use super::{Chat, live::WeakChat};
use crate::{
    errors::Result,
    storage::jobs::{Job, JobKind, Step},
};

/// Jobs that another node left are looked for this often.
const INTERVAL: Duration = Duration::from_secs(15);
/// Many times longer than a step takes.
const LEASE: Duration = Duration::from_secs(60);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Between two steps, for those who wait for the same locks.
const PAUSE: Duration = Duration::from_millis(2);
/// Conversations told of in one transaction.
const CONVERSATIONS: i64 = 100;
/// Messages looked at in one transaction.
const MESSAGES: i64 = 500;

/// Starts the worker, which ends when the service's last handle is gone.
pub(super) fn start(chat: &Chat) {
    let (weak, has_jobs) = (chat.downgrade(), std::sync::Arc::clone(&chat.inner.has_jobs));
    tokio::spawn(async move {
        loop {
            let Some(pause) = work(&weak).await else { return };
            tokio::select! {
                () = has_jobs.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

/// Does what there is to do. Answers when to look again, or `None` at the end.
async fn work(weak: &WeakChat) -> Option<Duration> {
    loop {
        let chat = Chat::upgrade(weak)?;
        let job = match chat.inner.store.claim_job(chat.lease()).await {
            Ok(Some(job)) => job,
            Ok(None) => return Some(INTERVAL),
            Err(error) => {
                tracing::debug!(%error, "jobs cannot be looked for");
                return Some(INTERVAL);
            }
        };
        drop(chat);
        if let Err(error) = carry_through(weak, job).await {
            tracing::warn!(%error, job = job.kind.name(), "a job is interrupted and goes on soon");
            let chat = Chat::upgrade(weak)?;
            let soon = chat.inner.clock.now().plus(RETRY);
            // Otherwise the lease lapses.
            let _ = chat.inner.store.release_job(&job, soon).await;
            return Some(RETRY + RETRY / 2);
        }
    }
}

async fn carry_through(weak: &WeakChat, mut job: Job) -> Result<()> {
    let mut is_begun = false;
    while let Some(chat) = Chat::upgrade(weak) {
        if !is_begun && job.kind == JobKind::Erase {
            chat.begin_erasure(&job).await?;
        }
        is_begun = true;
        let step = chat.step(&job).await?;
        if !step.entries.is_empty() {
            chat.publish_entries(step.entries).await;
        }
        // Asked for once more: it is claimed again.
        let Some(next) = step.job else { return Ok(()) };
        job = next;
        if step.is_last {
            if job.kind == JobKind::Erase {
                chat.end_erasure(&job).await?;
            }
            return Ok(chat.inner.store.finish_job(&job).await?);
        }
        drop(chat);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

impl Chat {
    fn lease(&self) -> crate::clock::Timestamp {
        self.inner.clock.now().plus(LEASE)
    }

    async fn step(&self, job: &Job) -> Result<Step> {
        let store = &self.inner.store;
        Ok(match job.kind {
            JobKind::Profile | JobKind::Product => {
                store.tell_conversations(job, CONVERSATIONS, self.lease()).await?
            }
            JobKind::Erase => store.erase_stretch(job, MESSAGES, self.lease()).await?,
        })
    }

    /// Starts a job, or starts it over; it goes on behind the answer.
    pub(super) async fn start_job(&self, kind: JobKind, subject_id: i64) -> Result<()> {
        self.inner.store.start_job(kind, subject_id).await?;
        self.inner.has_jobs.notify_one();
        Ok(())
    }
}
