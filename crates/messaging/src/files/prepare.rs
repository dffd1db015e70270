//! Turns an upload into what is kept: checked, made harmless, named and measured. Everything here
//! blocks.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    io_error,
    kind::{self, Class, Kind},
    name::safe_name,
    picture::{self, Picture},
    upload::Upload,
};
use crate::{
    errors::{Error, Result},
    storage::attachments::FileRecord,
};

/// An upload that is known and will be accepted if its bytes hold what they promise.
pub(super) struct Identified {
    upload: Upload,
    kind: &'static Kind,
    /// How many pixels will be decoded; 0 if none.
    pub(super) pixels: u64,
}

/// What is kept of an upload.
pub(super) struct Prepared {
    pub(super) file: File,
    pub(super) thumbnail: Option<Vec<u8>>,
    pub(super) record: FileRecord,
}

/// Finds out what the upload is.
pub(super) fn identify(mut upload: Upload) -> Result<Identified> {
    let kind = kind::identify(&mut upload.file)?;
    let pixels = match kind.class {
        Class::Picture(format) => picture::pixels(&upload.file, format)?,
        Class::Media | Class::Document => 0,
    };
    Ok(Identified { upload, kind, pixels })
}

/// Writes a picture anew, in another temporary file in `dir`; takes everything else as it is.
pub(super) fn prepare(identified: Identified, dir: &Path) -> Result<Prepared> {
    let Identified { upload, kind, .. } = identified;
    let (mut file, picture) = match kind.class {
        Class::Picture(format) => {
            let mut recoded = tempfile::tempfile_in(dir).map_err(io_error)?;
            let picture = picture::recode(&upload.file, format, &mut recoded)?;
            (recoded, Some(picture))
        }
        Class::Media | Class::Document => (upload.file, None),
    };
    let (size, sha256) = measure(&mut file)?;

    let id = Uuid::new_v4().simple().to_string();
    // Two letters of folder: no folder of a disk gets too many entries.
    let base = format!("{}/{id}", id.get(..2).unwrap_or_default());
    let (width, height) = picture.as_ref().map_or((None, None), |picture| {
        (i32::try_from(picture.width).ok(), i32::try_from(picture.height).ok())
    });
    let thumbnail = picture.and_then(|Picture { thumbnail, .. }| thumbnail);
    let record = FileRecord {
        name: safe_name(&upload.name, kind.extensions),
        mime_type: kind.mime_type.to_owned(),
        size,
        width,
        height,
        thumbnail_key: thumbnail
            .as_ref()
            .map(|thumbnail| format!("{base}-thumbnail.{}", thumbnail.extension)),
        storage_key: base,
        sha256,
    };
    Ok(Prepared { file, thumbnail: thumbnail.map(|thumbnail| thumbnail.bytes), record })
}

/// Bytes and their SHA-256.
fn measure(file: &mut File) -> Result<(i64, String)> {
    file.seek(SeekFrom::Start(0)).map_err(io_error)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0_i64;
    loop {
        let length = file.read(&mut buffer).map_err(io_error)?;
        if length == 0 {
            break;
        }
        hasher.update(buffer.get(..length).unwrap_or_default());
        size += i64::try_from(length).map_err(Error::internal)?;
    }
    let digest = hasher.finalize();
    Ok((size, digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}
