//! Takes the one file of a multipart upload to a temporary file on disk, within the size allowed.
//!
//! The temporary file has no name: the kernel frees it with the last handle, so nothing stays behind
//! when the client leaves, the request is dropped or the process is killed.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    path::Path,
};

use axum::extract::{
    Multipart,
    multipart::{Field, MultipartError},
};
use http::StatusCode;
use tokio::io::AsyncWriteExt;

use super::io_error;
use crate::errors::{Error, Result};

/// The fields that may carry the file.
const FIELDS: [&str; 2] = ["file", "image"];

/// What a request may have around the file: boundaries, headers and other fields.
pub const MULTIPART_OVERHEAD_BYTES: u64 = 64 * 1024;

/// A file as it was sent.
#[derive(Debug)]
pub(super) struct Upload {
    /// The bytes, in a file without a name.
    pub(super) file: File,
    pub(super) size: u64,
    /// The name as the client gave it.
    pub(super) name: String,
}

/// Reads the request to its end. `dir` is where the temporary file lies.
pub(super) async fn receive(mut multipart: Multipart, dir: &Path, max_file_size: u64) -> Result<Upload> {
    let mut upload = None;
    let mut overhead = 0_u64;
    while let Some(mut field) = multipart.next_field().await.map_err(|error| broken(&error, max_file_size))? {
        if field.name().is_some_and(|name| FIELDS.contains(&name)) {
            if upload.is_some() {
                return Err(Error::field("file", "Only one file can be uploaded at a time."));
            }
            upload = Some(receive_file(field, dir, max_file_size).await?);
            continue;
        }
        while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error, max_file_size))? {
            overhead = overhead.saturating_add(chunk.len() as u64);
            if overhead > MULTIPART_OVERHEAD_BYTES {
                return Err(Error::PayloadTooLarge { limit: MULTIPART_OVERHEAD_BYTES });
            }
        }
    }
    let upload = upload.ok_or_else(|| Error::field("file", "The file field is required."))?;
    if upload.size == 0 {
        return Err(Error::field("file", "The file field must not be empty."));
    }
    Ok(upload)
}

async fn receive_file(mut field: Field<'_>, dir: &Path, max_file_size: u64) -> Result<Upload> {
    let name = field.file_name().unwrap_or_default().to_owned();
    let dir = dir.to_owned();
    let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(dir))
        .await
        .map_err(Error::internal)?
        .map_err(io_error)?;
    let mut file = tokio::fs::File::from_std(file);
    let mut size = 0_u64;
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error, max_file_size))? {
        size = size.saturating_add(chunk.len() as u64);
        if size > max_file_size {
            return Err(Error::PayloadTooLarge { limit: max_file_size });
        }
        file.write_all(&chunk).await.map_err(io_error)?;
    }
    file.flush().await.map_err(io_error)?;
    let mut file = file.into_std().await;
    file.seek(SeekFrom::Start(0)).map_err(io_error)?;
    Ok(Upload { file, size, name })
}

/// The body is larger than the server reads, ended early, or is not what its header says.
fn broken(error: &MultipartError, limit: u64) -> Error {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Error::PayloadTooLarge { limit }
    } else {
        Error::BadRequest("The upload ended early or is not multipart form data.".into())
    }
}
