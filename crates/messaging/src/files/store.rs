//! Where the bytes lie: a folder of this machine, or a bucket that speaks S3.
//!
//! Keys are random, so an address of the bucket tells nothing of a file, and one write never meets
//! another. Which file belongs to whom is the database's business.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, RetryConfig, aws::AmazonS3Builder,
    local::LocalFileSystem, memory::InMemory, path::Path as Key, prefix::PrefixStore,
};
use tokio::io::AsyncReadExt;
use url::Url;

use super::io_error;
use crate::errors::{Error, Result};

/// Bytes held at a time while a file is written: the smallest part that S3 takes. Smaller files go in
/// one request.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// Bytes read at a time from a local file.
const CHUNK_BYTES: u64 = 64 * 1024;

/// The bytes of all uploaded files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileStore {
    objects: Arc<dyn ObjectStore>,
}

/// The bytes of a file, or of a range of it.
pub struct Content {
    /// Bytes of the whole file.
    pub size: u64,
    /// The bytes that were asked for.
    pub stream: BoxStream<'static, std::io::Result<Bytes>>,
}

impl FileStore {
    /// Opens a folder, which is made if need be, or a bucket: `s3://bucket/prefix`, with the account in
    /// the usual `AWS_…` variables (`AWS_ENDPOINT` for others than Amazon). The error goes on
    /// after the name of the setting.
    pub fn open(location: &str) -> Result<Self, String> {
        if !location.contains("://") {
            return Self::open_folder(Path::new(location));
        }
        // The address may hold a secret: it is not repeated.
        let url = Url::parse(location).map_err(|_| "is not a valid URL.".to_owned())?;
        let objects: Arc<dyn ObjectStore> = match url.scheme() {
            "s3" | "s3a" => return Self::open_bucket(AmazonS3Builder::from_env(), &url),
            "memory" => Arc::new(InMemory::new()),
            _ => return Err("must be a folder or an s3:// URL.".to_owned()),
        };
        Ok(Self { objects })
    }

    fn open_bucket(account: AmazonS3Builder, url: &Url) -> Result<Self, String> {
        // The client finds its cryptography here; whoever came first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A person waits for the answer; the default goes on for three minutes.
        let retries =
            RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(15), ..RetryConfig::default() };
        let bucket = account
            .with_url(url.as_str())
            // Files are deleted one at a time, and not every bucket knows how to delete several.
            .with_disable_bulk_delete(true)
            .with_retry(retries)
            .build()
            .map_err(|error| format!("cannot be used as a bucket: {error}."))?;
        let prefix =
            Key::from_url_path(url.path()).map_err(|_| "has a path that no bucket can have.".to_owned())?;
        Ok(Self { objects: Arc::new(PrefixStore::new(bucket, prefix)) })
    }

    fn open_folder(folder: &Path) -> Result<Self, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot be used as a folder: {error}.");
        std::fs::create_dir_all(folder).map_err(|error| cannot(&error))?;
        // A confirmed message survives a power failure, and so must its picture.
        let files =
            LocalFileSystem::new_with_prefix(folder).map_err(|error| cannot(&error))?.with_fsync(true);
        Ok(Self { objects: Arc::new(files) })
    }

    /// Writes a file from its beginning, a part at a time.
    pub async fn put_file(&self, key: &str, mut file: File) -> Result<()> {
        file.seek(SeekFrom::Start(0)).map_err(io_error)?;
        let mut file = tokio::fs::File::from_std(file);
        let first = read_part(&mut file).await?;
        if first.len() < PART_BYTES {
            return self.put_bytes(key, first).await;
        }
        let mut upload = self.objects.put_multipart(&Key::from(key)).await.map_err(store_error)?;
        let written = async {
            let mut part = first;
            while !part.is_empty() {
                upload.put_part(part.into()).await.map_err(store_error)?;
                part = read_part(&mut file).await?;
            }
            upload.complete().await.map_err(store_error)
        };
        if let Err(error) = written.await {
            // Parts that were sent take room until they are called off.
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "a broken upload could not be called off");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Writes bytes that are in memory anyway.
    pub async fn put_bytes(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        self.objects.put(&Key::from(key), bytes.into()).await.map(drop).map_err(store_error)
    }

    /// Reads a file or a range of it; `None` if there is no such file.
    pub async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = match self.objects.get_opts(&Key::from(key), options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(store_error(error)),
        };
        let size = found.meta.size;
        let stream = match found.payload {
            GetResultPayload::File(file, _) => local_stream(file, found.range),
            GetResultPayload::Stream(stream) => {
                stream.map(|chunk| chunk.map_err(std::io::Error::other)).boxed()
            }
        };
        Ok(Some(Content { size, stream }))
    }

    /// Deletes a file; one that is not there counts as deleted.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.objects.delete(&Key::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }
}

/// The next part; shorter than a part, or empty, at the end of the file.
async fn read_part(file: &mut tokio::fs::File) -> Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part).await.map_err(io_error)?;
    Ok(part)
}

/// Reads a range of a local file in larger steps than the 8 KB of the library, each of which costs a
/// hop to a blocking thread.
fn local_stream(file: File, range: Range<u64>) -> BoxStream<'static, std::io::Result<Bytes>> {
    stream::try_unfold((file, range), |(mut file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let step = range.start..range.end.min(range.start + CHUNK_BYTES);
        let left = step.end..range.end;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(CHUNK_BYTES as usize);
            file.seek(SeekFrom::Start(step.start))?;
            (&mut file).take(step.end - step.start).read_to_end(&mut bytes)?;
            if (bytes.len() as u64) < step.end - step.start {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            }
            Ok((Bytes::from(bytes), file))
        });
        let (bytes, file) = read.await.map_err(std::io::Error::other)??;
        Ok(Some((bytes, (file, left))))
    })
    .boxed()
}

/// A bucket that does not answer may answer later.
fn store_error(error: object_store::Error) -> Error {
    match error {
        object_store::Error::Generic { source, .. } => {
            tracing::warn!(error = %source, "the file store did not answer");
            Error::unavailable()
        }
        other => Error::internal(other),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
