//! Tells office documents from other archives, and programs from both, by the names inside.
//!
//! Nothing is unpacked: of a ZIP archive the central directory is read, of an OLE compound file the
//! names of its streams. Reading stops at fixed bounds, so a file cannot make it long.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use memchr::memmem;

use super::{io_error, kind::refused};
use crate::errors::Result;

const END_RECORD: &[u8] = b"PK\x05\x06";
const END_RECORD_BYTES: usize = 22;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;

/// The end record lies before a comment of at most 64 KB.
const MAX_TAIL_BYTES: u64 = END_RECORD_BYTES as u64 + u16::MAX as u64;

/// Names of about ten thousand entries; what tells the kind comes among the first of any real archive.
const MAX_DIRECTORY_BYTES: u64 = 1 << 20;

/// Where an OpenDocument file says what it is: the content of its first entry, `mimetype`, stored
/// uncompressed (OpenDocument 1.3, part 2, section 3.3).
const OPEN_DOCUMENT: &str = "mimetypeapplication/vnd.oasis.opendocument.";

/// The type of a ZIP archive; `None` for one that is not accepted. `head` is the start of the file.
pub(super) fn zip_mime_type(file: &mut File, head: &[u8]) -> Result<Option<&'static str>> {
    let directory =
        central_directory(file).map_err(io_error)?.ok_or_else(|| refused("The archive is damaged."))?;
    let mut office = None;
    let mut is_package = false;
    for name in entry_names(&directory) {
        match name {
            // Android and Java programs are ZIP archives too.
            b"AndroidManifest.xml" | b"classes.dex" | b"META-INF/MANIFEST.MF" => return Ok(None),
            b"[Content_Types].xml" => is_package = true,
            _ if name.starts_with(b"word/") => {
                office = Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document");
            }
            _ if name.starts_with(b"xl/") => {
                office = Some("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet");
            }
            _ if name.starts_with(b"ppt/") => {
                office = Some("application/vnd.openxmlformats-officedocument.presentationml.presentation");
            }
            _ => {}
        }
    }
    if is_package && office.is_some() {
        return Ok(office);
    }
    Ok(Some(open_document(head).unwrap_or("application/zip")))
}

fn open_document(head: &[u8]) -> Option<&'static str> {
    let subtype = head.get(30..)?.strip_prefix(OPEN_DOCUMENT.as_bytes())?;
    [
        ("text", "application/vnd.oasis.opendocument.text"),
        ("spreadsheet", "application/vnd.oasis.opendocument.spreadsheet"),
        ("presentation", "application/vnd.oasis.opendocument.presentation"),
    ]
    .into_iter()
    // What follows is the next entry's signature.
    .find(|(name, _)| subtype.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"PK")))
    .map(|(_, mime_type)| mime_type)
}

/// The central directory, cut at [`MAX_DIRECTORY_BYTES`]; `None` if there is none where it should be.
fn central_directory(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let size = file.seek(SeekFrom::End(0))?;
    let tail_start = size.saturating_sub(MAX_TAIL_BYTES);
    let tail = read_at(file, tail_start, MAX_TAIL_BYTES)?;
    let Some(end) = memmem::rfind(&tail, END_RECORD) else { return Ok(None) };
    let (Some(length), Some(offset)) = (u32_at(&tail, end + 12), u32_at(&tail, end + 16)) else {
        return Ok(None);
    };
    if u64::from(offset) + u64::from(length) > tail_start + end as u64 {
        return Ok(None);
    }
    read_at(file, offset.into(), MAX_DIRECTORY_BYTES.min(length.into())).map(Some)
}

fn entry_names(directory: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = directory;
    std::iter::from_fn(move || {
        let name_length = usize::from(u16_at(rest, 28)?);
        let extra_length = usize::from(u16_at(rest, 30)?);
        let comment_length = usize::from(u16_at(rest, 32)?);
        let name = rest.strip_prefix(ENTRY).and_then(|_| rest.get(ENTRY_BYTES..ENTRY_BYTES + name_length))?;
        rest = rest.get(ENTRY_BYTES + name_length + extra_length + comment_length..).unwrap_or_default();
        Some(name)
    })
}

/// The type of an OLE compound file (Office before 2007); `None` for one that is not accepted, such as
/// an installer. The names of its streams are UTF-16 and can lie anywhere in the file.
pub(super) fn ole_mime_type(file: &mut File) -> Result<Option<&'static str>> {
    const STREAMS: [(&str, &str); 4] = [
        ("WordDocument", "application/msword"),
        ("Workbook", "application/vnd.ms-excel"),
        ("Book", "application/vnd.ms-excel"),
        ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ];
    // Directory entries are 128 bytes, aligned, and begin with the name; its length in bytes, with the
    // NUL that ends it, is at 64.
    const ENTRY_BYTES: usize = 128;
    let names = STREAMS.map(|(name, mime_type)| {
        let utf16: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        (utf16, mime_type)
    });
    file.seek(SeekFrom::Start(0)).map_err(io_error)?;
    let mut reader = io::BufReader::new(file);
    let mut entry = [0; ENTRY_BYTES];
    loop {
        match reader.read_exact(&mut entry) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(io_error(error)),
        }
        let found = names.iter().find(|(name, _)| {
            entry.starts_with(name) && u16_at(&entry, 64).map(usize::from) == Some(name.len())
        });
        if let Some((_, mime_type)) = found {
            return Ok(Some(mime_type));
        }
    }
}

fn read_at(file: &mut File, start: u64, max_bytes: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], index: usize) -> Option<u16> {
    bytes.get(index..index + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], index: usize) -> Option<u32> {
    bytes.get(index..index + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::kind::{identify, tests::file_of};

    /// A ZIP archive of stored entries.
    pub(in crate::files) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        let mut directory = Vec::new();
        for (name, content) in entries {
            let offset = u32::try_from(archive.len()).unwrap();
            let name_length = u16::try_from(name.len()).unwrap();
            let length = u32::try_from(content.len()).unwrap();
            let mut header = Vec::new();
            // Version, flags, method (stored), time and date; the checksum plays no part here.
            header.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            header.extend(length.to_le_bytes());
            header.extend(length.to_le_bytes());
            header.extend(name_length.to_le_bytes());
            header.extend([0, 0]);
            archive.extend(b"PK\x03\x04");
            archive.extend(&header);
            archive.extend(name.as_bytes());
            archive.extend(*content);
            directory.extend(ENTRY);
            directory.extend([20, 0]);
            directory.extend(&header);
            directory.extend([0; 10]);
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
        let (start, length) = (archive.len() as u32, directory.len() as u32);
        archive.extend(directory);
        archive.extend(END_RECORD);
        archive.extend([0; 4]);
        archive.extend(count);
        archive.extend(count);
        archive.extend(length.to_le_bytes());
        archive.extend(start.to_le_bytes());
        archive.extend([0, 0]);
        archive
    }

    /// The first sectors of a compound file with one stream of this name.
    fn ole(stream: &str) -> Vec<u8> {
        let mut bytes = vec![0; 512 + 128];
        bytes[..8].copy_from_slice(b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1");
        let mut entry: Vec<u8> = stream.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let length = entry.len() as u8;
        entry.resize(128, 0);
        entry[64] = length;
        bytes.extend(entry);
        bytes
    }

    fn mime_type(bytes: &[u8]) -> &'static str {
        identify(&mut file_of(bytes)).unwrap().mime_type
    }

    #[test]
    fn office_documents_are_told_by_what_is_inside() {
        for (folder, ending) in [
            ("word/document.xml", "wordprocessingml.document"),
            ("xl/workbook.xml", "spreadsheetml.sheet"),
            ("ppt/presentation.xml", "presentationml.presentation"),
        ] {
            // In an order that no common writer uses.
            let bytes = zip(&[("docProps/app.xml", b"x"), (folder, b"x"), ("[Content_Types].xml", b"x")]);
            assert!(mime_type(&bytes).ends_with(ending));
        }
        for kind in ["text", "spreadsheet", "presentation"] {
            let content = format!("application/vnd.oasis.opendocument.{kind}");
            let bytes = zip(&[("mimetype", content.as_bytes()), ("META-INF/manifest.xml", b"x")]);
            assert_eq!(mime_type(&bytes), content);
        }
        assert_eq!(mime_type(&ole("WordDocument")), "application/msword");
        assert_eq!(mime_type(&ole("Workbook")), "application/vnd.ms-excel");
        assert_eq!(mime_type(&ole("PowerPoint Document")), "application/vnd.ms-powerpoint");
    }

    #[test]
    fn other_archives_are_archives() {
        assert_eq!(mime_type(&zip(&[])), "application/zip");
        assert_eq!(mime_type(&zip(&[("a.txt", b"x"), ("word/a.txt", b"x")])), "application/zip");
    }

    #[test]
    fn programs_in_archives_and_installers_are_refused() {
        for bytes in [
            zip(&[("META-INF/MANIFEST.MF", b"x"), ("A.class", b"x")]),
            zip(&[("res/a.png", b"x"), ("AndroidManifest.xml", b"x"), ("classes.dex", b"x")]),
            ole("Property"),
            ole("WordDocuments"),
        ] {
            assert_eq!(identify(&mut file_of(&bytes)).unwrap_err().code(), "UNSUPPORTED_MEDIA_TYPE");
        }
    }

    #[test]
    fn a_truncated_archive_is_refused() {
        let bytes = zip(&[("a.txt", b"hello")]);
        for length in [4, 10, 40, bytes.len() - 10] {
            assert!(identify(&mut file_of(&bytes[..length])).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_archive_makes_it_panic(change in 0_usize..200, byte: u8, junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = zip(&[("word/document.xml", b"x"), ("[Content_Types].xml", b"x")]);
            let index = change % bytes.len();
            bytes[index] = byte;
            let _ = identify(&mut file_of(&bytes));
            let _ = identify(&mut file_of(&[b"PK\x03\x04", junk.as_slice()].concat()));
            let _ = identify(&mut file_of(&[b"PK\x05\x06", junk.as_slice()].concat()));
            let _ = identify(&mut file_of(&[b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", junk.as_slice()].concat()));
        }
    }
}
