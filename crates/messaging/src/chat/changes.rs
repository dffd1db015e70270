//! How a change to something stored is carried through: committed, then told, whatever its caller does.
//!
//! Sends and receipts have a way of their own, the group commit in `writer`.

use crate::{
    errors::{Error, Result},
    storage::{Decided, log::Entry},
};

use super::Chat;

impl Chat {
    /// Waits for a change to be committed and its events to be handed on. It goes on behind a caller
    /// who hangs up: what is committed is also told.
    pub(super) async fn carry_out<F>(&self, change: F) -> Result<()>
    where
        F: Future<Output = Decided<Vec<Entry>>> + Send + 'static,
    {
        let chat = self.clone();
        let work = tokio::spawn(async move {
            match tokio::time::timeout(chat.inner.settings.db_timeout, change).await {
                Ok(Ok(Ok(entries))) => {
                    chat.publish_entries(entries).await;
                    Ok(())
                }
                Ok(Ok(Err(refusal))) => Err(refusal),
                // The commit may have gone through and only its answer been lost.
                Ok(Err(error)) => {
                    chat.inner.uncertain.notify_one();
                    Err(error.into())
                }
                Err(_) => {
                    chat.inner.uncertain.notify_one();
                    Err(Error::unavailable())
                }
            }
        });
        work.await.map_err(Error::internal)?
    }
}
