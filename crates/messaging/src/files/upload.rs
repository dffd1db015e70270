//! Takes the one file of a multipart upload to a temporary file on disk, within the size allowed.
//!
//! The temporary file has no name: the kernel frees it with the last handle, so nothing stays behind
//! when the client leaves, the request is dropped or the process is killed.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    path::Path,
};

use axum::{
    body::Body,
    extract::{
        DefaultBodyLimit, FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
};
use futures_util::{StreamExt, stream};
use http::{StatusCode, header};
use tokio::io::AsyncWriteExt;

use super::io_error;
use crate::errors::{Error, Result};

/// The fields that may carry the file.
const FIELDS: [&str; 2] = ["file", "image"];

/// What a request may have around the file: boundaries, headers and other fields.
pub(super) const MULTIPART_OVERHEAD_BYTES: u64 = 64 * 1024;

/// A file as it was sent.
#[derive(Debug)]
pub(super) struct Upload {
    /// The bytes, in a file without a name.
    pub(super) file: File,
    pub(super) size: u64,
    /// The name as the client gave it.
    pub(super) name: String,
}

/// Prepares to read a request of at most `max_body` bytes.
pub(super) async fn open(mut request: Request, max_body: u64) -> Result<Multipart> {
    DefaultBodyLimit::max(usize::try_from(max_body).unwrap_or(usize::MAX)).apply(&mut request);
    // The parser takes all that is there before it looks at it, which from a fast client would be the
    // whole body; so it is given one chunk at a time. The first one at once: the parser gives up if it
    // finds nothing and then, within the same call, everything.
    let request = request.map(|body| {
        Body::from_stream(stream::unfold(
            (body.into_data_stream(), false),
            |(mut chunks, pause)| async move {
                if pause {
                    tokio::task::yield_now().await;
                }
                let chunk = chunks.next().await?;
                Some((chunk, (chunks, true)))
            },
        ))
    });
    Multipart::from_request(request, &())
        .await
        .map_err(|_| Error::UnsupportedMediaType("The body must be multipart/form-data.".into()))
}

/// How long the request says its body is.
pub(super) fn announced_bytes(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads what is left of a refused request and throws it away: a server that closes with bytes unread
/// resets the connection, and the client may never see why it was refused.
pub(super) async fn discard(mut multipart: Multipart) {
    while let Ok(Some(mut field)) = multipart.next_field().await {
        while let Ok(Some(_)) = field.chunk().await {}
    }
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
            // The file is freed at once; the rest of the body is only counted, see `discard`.
            drop(file);
            while let Ok(Some(_)) = field.chunk().await {}
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn bytes_are_taken_a_chunk_at_a_time_however_fast_they_come() {
        let head = "--XYZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let chunks = stream::iter([Bytes::from_static(head.as_bytes())])
            .chain(stream::repeat(Bytes::from(vec![b'a'; 10_000])))
            .map(Ok::<_, Infallible>);
        let request = Request::post("/")
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=XYZ")
            .body(Body::from_stream(chunks))
            .expect("a request");
        let mut multipart = open(request, 1_000_000).await.expect("multipart");
        let mut field = multipart.next_field().await.expect("a field").expect("a field");
        for _ in 0..50 {
            let chunk = field.chunk().await.expect("a chunk").expect("a chunk");
            assert!(chunk.len() <= 20_000, "{} bytes at once", chunk.len());
        }
    }
}
