//! A stored file and the record of it, which the caller writes to the database.

use super::store::FileStore;
use crate::storage::attachments::FileRecord;

/// A file whose bytes are stored and whose record is not yet. Dropped without [`StoredFile::keep`], its
/// bytes are deleted: the client has left, or the record could not be written.
#[derive(Debug)]
pub struct StoredFile {
    store: FileStore,
    record: FileRecord,
    kept: bool,
}

impl StoredFile {
    pub(super) fn new(store: FileStore, record: FileRecord) -> Self {
        Self { store, record, kept: false }
    }

    /// What to write to the database.
    pub const fn record(&self) -> &FileRecord {
        &self.record
    }

    /// The record is written, so the bytes stay.
    pub fn keep(mut self) -> FileRecord {
        self.kept = true;
        self.record.clone()
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (store, record) = (self.store.clone(), self.record.clone());
        // Outside of a runtime the process is about to end, and the bytes stay as waste.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let keys = std::iter::once(record.storage_key).chain(record.thumbnail_key);
                for key in keys {
                    if let Err(error) = store.delete(&key).await {
                        tracing::warn!(%error, "the bytes of an abandoned upload could not be deleted");
                    }
                }
            });
        }
    }
}
