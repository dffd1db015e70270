//! Uploaded files: taken in, checked, made harmless, kept, linked and served.
//!
//! [`Files`] is the door. It owns the bytes and the rules about them (contract sections 2 and 7), not
//! the records: which file belongs to whom is in the table `attachments`, and who may see it is decided
//! in `chat`. Start with `kind` for what is accepted and with `picture` for what happens to pictures.

mod archive;
mod kind;
mod links;
mod name;
mod picture;
mod prepare;
#[cfg(test)]
mod samples;
mod serve;
mod store;
mod stored;
mod upload;
mod webp;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Multipart, Request},
    response::Response,
};
use http::HeaderMap;
use tokio::sync::Semaphore;

pub use self::{
    links::{Links, Signer, Variant, signing_key},
    serve::{Plan, Served, plan, respond},
    store::{Content, FileStore},
    stored::StoredFile,
};
use self::{
    picture::MAX_PIXELS,
    prepare::Prepared,
    upload::{MULTIPART_OVERHEAD_BYTES, Upload},
};
use crate::{
    clock::{Clock, Timestamp},
    errors::{Error, Result},
    ids::AttachmentId,
    storage::attachments::FileRecord,
};

/// How long an upload waits for its message before it is collected. Longer than anybody writes at one.
pub const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Uploads that are received or worked on at a time. Each holds a few buffers and a temporary file.
const MAX_UPLOADS: usize = 64;

/// Megapixels decoded at a time, by all uploads together: one of the largest pictures, or four from a
/// common phone. A megapixel takes three to ten megabytes while it is decoded.
const MEGAPIXELS_AT_ONCE: u32 = (MAX_PIXELS / MEGAPIXEL) as u32;
const MEGAPIXEL: u64 = 1_000_000;

/// What [`Files`] needs to know.
#[derive(Debug, Clone)]
pub struct FilesOptions {
    /// `UPLOAD_DIR`: a folder, or `s3://bucket/prefix`.
    pub location: String,
    /// Where files lie while they are received; on a disk, with room for some uploads.
    pub temporary_dir: PathBuf,
    /// `MAX_FILE_SIZE`, in bytes.
    pub max_file_size: u64,
    /// Bytes that one user may keep; 0 is no limit.
    pub quota: u64,
}

/// The service's files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    store: FileStore,
    signer: Signer,
    clock: Clock,
    temporary_dir: PathBuf,
    max_file_size: u64,
    quota: u64,
    uploads: Arc<Semaphore>,
    megapixels: Arc<Semaphore>,
}

impl Files {
    /// Opens the place where files lie. The error goes on after the name of the setting.
    pub fn open(options: &FilesOptions, signer: Signer, clock: Clock) -> Result<Self, String> {
        std::fs::create_dir_all(&options.temporary_dir)
            .map_err(|error| format!("has no room for temporary files: {error}."))?;
        Ok(Self {
            store: FileStore::open(&options.location)?,
            signer,
            clock,
            temporary_dir: options.temporary_dir.clone(),
            max_file_size: options.max_file_size,
            quota: options.quota,
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            megapixels: Arc::new(Semaphore::new(MEGAPIXELS_AT_ONCE as usize)),
        })
    }

    /// Prepares to read an upload; the request's own limit of the body does not apply. One that says
    /// that it is far too large is refused before any of it is read.
    pub async fn open_upload(&self, request: Request) -> Result<Multipart> {
        // Twice a file: of one that is somewhat too large the rest is read and thrown away, so that the
        // client hears why.
        let max_body = self.max_file_size.saturating_mul(2).saturating_add(MULTIPART_OVERHEAD_BYTES);
        if upload::announced_bytes(&request).is_some_and(|bytes| bytes > max_body) {
            return Err(Error::PayloadTooLarge { limit: self.max_file_size });
        }
        upload::open(request, max_body).await
    }

    /// Reads a refused upload to its end and throws it away, so that the client hears why.
    pub async fn discard(&self, multipart: Multipart, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, upload::discard(multipart)).await;
    }

    /// Takes an upload in and stores it; the caller writes the record and then keeps it.
    /// `used` is how many bytes the uploader keeps already; the body has to arrive within `timeout`.
    ///
    /// Refuses with `PAYLOAD_TOO_LARGE`, `UNSUPPORTED_MEDIA_TYPE`, `BAD_REQUEST` for a body that ends
    /// early, or `VALIDATION_FAILED` on `file`.
    pub async fn receive(&self, multipart: Multipart, used: u64, timeout: Duration) -> Result<StoredFile> {
        let _permit = self.uploads.try_acquire().map_err(|_| Error::unavailable())?;
        if let Err(error) = self.check_quota(used, 1) {
            self.discard(multipart, timeout).await;
            return Err(error);
        }
        let receiving = upload::receive(multipart, &self.temporary_dir, self.max_file_size);
        let upload = tokio::time::timeout(timeout, receiving)
            .await
            .map_err(|_| Error::BadRequest("The upload took too long to arrive.".into()))??;
        let prepared = self.prepare(upload).await?;
        self.check_quota(used, u64::try_from(prepared.record.size).unwrap_or(u64::MAX))?;
        // On a task of its own: a write that is cut short may still come to pass after the bytes were
        // deleted, one that ends gives them up in order.
        let files = self.clone();
        tokio::spawn(async move { files.store(prepared).await }).await.map_err(Error::internal)?
    }

    /// The addresses of an attachment as they are given out now.
    pub fn links(&self, id: AttachmentId, name: &str, has_thumbnail: bool) -> Links {
        self.signer.links(id, name, has_thumbnail, self.clock.now())
    }

    /// Whether `exp` and `sig` of an address open this file now; [`Error::Forbidden`] if not.
    pub fn verify(&self, id: AttachmentId, variant: Variant, exp: &str, sig: &str) -> Result<()> {
        self.signer.verify(id, variant, exp, sig, self.clock.now())
    }

    /// Answers a request for a file that the caller may see. The bytes of a file never change, so a
    /// client may keep them for as long as a link holds.
    pub async fn serve(&self, file: &FileRecord, variant: Variant, request: &HeaderMap) -> Result<Response> {
        let gone = || Error::NotFound("File not found.".into());
        let max_age = self.signer.lifetime().as_secs();
        match variant {
            Variant::Original => {
                let served = Served {
                    name: &file.name,
                    mime_type: &file.mime_type,
                    size: u64::try_from(file.size).unwrap_or(0),
                    tag: &file.sha256,
                };
                let plan = plan(request, &served);
                let body = match &plan {
                    Plan::Full => self.body(&file.storage_key, None).await?.ok_or_else(gone)?.1,
                    Plan::Part(range) => {
                        self.body(&file.storage_key, Some(range.clone())).await?.ok_or_else(gone)?.1
                    }
                    Plan::NotModified | Plan::NotSatisfiable => Body::empty(),
                };
                Ok(respond(&served, &plan, max_age, body))
            }
            Variant::Thumbnail => {
                let key = file.thumbnail_key.as_deref().ok_or_else(gone)?;
                let mime_type = if key.ends_with(".png") { "image/png" } else { "image/jpeg" };
                let tag = format!("{}-thumbnail", file.sha256);
                let (size, body) = self.body(key, None).await?.ok_or_else(gone)?;
                let served = Served { name: &file.name, mime_type, size, tag: &tag };
                // Small enough that a range of it is not worth the second request.
                let plan = match plan(request, &served) {
                    Plan::NotModified => Plan::NotModified,
                    _ => Plan::Full,
                };
                Ok(respond(&served, &plan, max_age, body))
            }
        }
    }

    /// Deletes the bytes of a file whose record is gone.
    pub async fn delete(&self, storage_key: &str, thumbnail_key: Option<&str>) -> Result<()> {
        self.store.delete(storage_key).await?;
        match thumbnail_key {
            Some(key) => self.store.delete(key).await,
            None => Ok(()),
        }
    }

    /// Uploads that belong to no message and were made before this time are collected: first the
    /// record, as long as it is still without a message, then the bytes with [`Files::delete`].
    pub fn orphans_before(&self) -> Timestamp {
        self.clock.now().minus(ORPHAN_AGE)
    }

    fn check_quota(&self, used: u64, size: u64) -> Result<()> {
        if self.quota > 0 && used.saturating_add(size) > self.quota {
            return Err(Error::field("file", "There is no space left for your files."));
        }
        Ok(())
    }

    async fn body(&self, key: &str, range: Option<std::ops::Range<u64>>) -> Result<Option<(u64, Body)>> {
        let content = self.store.get(key, range).await?;
        Ok(content.map(|content| (content.size, Body::from_stream(content.stream))))
    }

    /// Finds out what the file is and makes it harmless, off the async threads.
    async fn prepare(&self, upload: Upload) -> Result<Prepared> {
        let identified = blocking(move || prepare::identify(upload)).await?;
        let megapixels = u32::try_from(identified.pixels.div_ceil(MEGAPIXEL)).unwrap_or(u32::MAX);
        let permit = self
            .megapixels
            .clone()
            .acquire_many_owned(megapixels.min(MEGAPIXELS_AT_ONCE))
            .await
            .map_err(Error::internal)?;
        let dir = self.temporary_dir.clone();
        blocking(move || {
            // Held until the pixels are gone, even if the client has left by then.
            let _permit = permit;
            prepare::prepare(identified, &dir)
        })
        .await
    }

    async fn store(&self, prepared: Prepared) -> Result<StoredFile> {
        let Prepared { file, thumbnail, record } = prepared;
        // From here on a failure deletes what was written.
        let stored = StoredFile::new(self.store.clone(), record);
        self.store.put_file(&stored.record().storage_key, file).await?;
        if let (Some(key), Some(bytes)) = (&stored.record().thumbnail_key, thumbnail) {
            self.store.put_bytes(key, bytes).await?;
        }
        Ok(stored)
    }
}

/// Runs work that blocks on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

/// A disk that is full is a state that passes; everything else is a fault.
fn io_error(error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        tracing::error!(%error, "there is no room for uploaded files");
        Error::unavailable()
    } else {
        Error::internal(error)
    }
}

#[cfg(test)]
mod tests;
