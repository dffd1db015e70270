//! What a file is, by its bytes; its name and the type that the client claims count for nothing.
//!
//! Owns the list of what is accepted (contract section 7). Pictures are recoded afterwards, see
//! `picture`; everything else is kept byte for byte, and only served in a way that runs nothing.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use super::{archive, io_error};
use crate::errors::{Error, Result};

/// How a file is handled and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A picture that is recoded.
    Picture(PictureFormat),
    /// Audio or video; browsers may play it in place.
    Media,
    /// Everything else; browsers save it.
    Document,
}

/// The picture formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PictureFormat {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// GIF, still or moving.
    Gif,
    /// WebP, still or moving.
    WebP,
}

/// A kind of file that is accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The type it is stored and served with.
    pub(super) mime_type: &'static str,
    /// The endings its name may have; the first is added where it has another.
    pub(super) extensions: &'static [&'static str],
    /// How it is handled.
    pub(super) class: Class,
}

const fn kind(class: Class, mime_type: &'static str, extensions: &'static [&'static str]) -> Kind {
    Kind { mime_type, extensions, class }
}

use Class::{Document, Media, Picture};

/// Plain text, whatever its purpose. SVG, HTML and scripts are text too: they are kept as they are, but
/// known as text and saved rather than shown, so nothing in them runs. An ending that is not listed
/// (`.bat`, `.vbs`, `.hta`) gets a `.txt` behind it.
#[rustfmt::skip]
const TEXT: Kind = kind(Document, "text/plain", &[
    "txt", "csv", "css", "htm", "html", "ics", "ini", "json", "log", "md", "rtf", "sql", "srt", "svg",
    "tex", "toml", "tsv", "vcf", "vtt", "xml", "yaml", "yml",
]);

/// What is accepted. Office formats are told from other archives in `archive`.
#[rustfmt::skip]
const ACCEPTED: &[Kind] = &[
    kind(Picture(PictureFormat::Jpeg), "image/jpeg", &["jpg", "jpeg"]),
    kind(Picture(PictureFormat::Png), "image/png", &["png"]),
    kind(Picture(PictureFormat::Gif), "image/gif", &["gif"]),
    kind(Picture(PictureFormat::WebP), "image/webp", &["webp"]),
    kind(Media, "audio/mpeg", &["mp3"]),
    kind(Media, "audio/mp4", &["m4a", "m4b"]),
    kind(Media, "audio/aac", &["aac"]),
    kind(Media, "audio/ogg", &["ogg", "oga", "opus"]),
    kind(Media, "audio/flac", &["flac"]),
    kind(Media, "audio/wav", &["wav"]),
    kind(Media, "audio/amr", &["amr"]),
    kind(Media, "video/mp4", &["mp4", "m4v"]),
    kind(Media, "video/quicktime", &["mov", "qt"]),
    kind(Media, "video/3gpp", &["3gp", "3g2"]),
    kind(Media, "video/webm", &["webm"]),
    kind(Media, "video/x-matroska", &["mkv", "mka"]),
    kind(Media, "video/x-msvideo", &["avi"]),
    kind(Media, "video/mpeg", &["mpg", "mpeg"]),
    kind(Document, "application/pdf", &["pdf"]),
    kind(Document, "application/zip", &["zip"]),
    kind(Document, "application/msword", &["doc"]),
    kind(Document, "application/vnd.ms-excel", &["xls"]),
    kind(Document, "application/vnd.ms-powerpoint", &["ppt"]),
    kind(Document, "application/vnd.openxmlformats-officedocument.wordprocessingml.document", &["docx"]),
    kind(Document, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", &["xlsx"]),
    kind(Document, "application/vnd.openxmlformats-officedocument.presentationml.presentation", &["pptx"]),
    kind(Document, "application/vnd.oasis.opendocument.text", &["odt"]),
    kind(Document, "application/vnd.oasis.opendocument.spreadsheet", &["ods"]),
    kind(Document, "application/vnd.oasis.opendocument.presentation", &["odp"]),
    TEXT,
];

/// Bytes at the start of a file that tell what it is; Matroska's document type comes latest.
const HEAD_BYTES: usize = 4_096;

/// The kind that is stored under this type.
pub(super) fn by_mime_type(mime_type: &str) -> Option<&'static Kind> {
    ACCEPTED.iter().find(|kind| kind.mime_type == mime_type)
}

/// Reads what a file is; [`Error::UnsupportedMediaType`] if it is not accepted. It reads the whole
/// file only where it may be text.
pub(super) fn identify(file: &mut File) -> Result<&'static Kind> {
    let head = head(file).map_err(io_error)?;
    let mime_type = match magic(&head) {
        // Some signatures are words that a note may begin with (`GIF`, `ID3`). A PDF may be all text.
        Some(Magic::Known(mime_type)) if mime_type != "application/pdf" => {
            let is_text = is_text(file).map_err(io_error)?;
            Some(if is_text { TEXT.mime_type } else { mime_type })
        }
        Some(Magic::Known(mime_type)) => Some(mime_type),
        Some(Magic::Heic) => {
            return Err(refused(
                "HEIC and AVIF pictures cannot be read here. Please send the picture as JPEG or PNG.",
            ));
        }
        Some(Magic::Zip) => archive::zip_mime_type(file, &head)?,
        Some(Magic::Ole) => archive::ole_mime_type(file)?,
        None => is_text(file).map_err(io_error)?.then_some(TEXT.mime_type),
    };
    mime_type.and_then(by_mime_type).ok_or_else(|| refused("This kind of file is not accepted."))
}

pub(super) fn refused(sentence: &'static str) -> Error {
    Error::UnsupportedMediaType(sentence.into())
}

/// The start of the file, from the beginning.
fn head(file: &mut File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

enum Magic {
    Known(&'static str),
    Heic,
    Zip,
    Ole,
}

/// What the first bytes say. `None` is for text and for what is unknown or unwanted: a file that only
/// happens to begin like a program (`MZ …`) may still be text.
fn magic(head: &[u8]) -> Option<Magic> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Some(Magic::Zip);
    }
    if head.starts_with(b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1") {
        return Some(Magic::Ole);
    }
    if head.get(4..8) == Some(b"ftyp") {
        // ISO base media: the brand tells them apart (MP4, QuickTime, 3GPP, HEIF share the container).
        return match head.get(8..12)? {
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" | b"avif"
            | b"avis" => Some(Magic::Heic),
            b"qt  " => Some(Magic::Known("video/quicktime")),
            b"M4A " | b"M4B " | b"M4P " => Some(Magic::Known("audio/mp4")),
            brand if brand.starts_with(b"3g") => Some(Magic::Known("video/3gpp")),
            _ => Some(Magic::Known("video/mp4")),
        };
    }
    let mime_type = match infer::get(head)?.mime_type() {
        "audio/opus" => "audio/ogg",
        "audio/x-flac" => "audio/flac",
        "audio/x-wav" => "audio/wav",
        other => by_mime_type(other)?.mime_type,
    };
    Some(Magic::Known(mime_type))
}

/// Whether a file is text: no controls but those of text. Bytes above ASCII may be UTF-8 or an older
/// encoding; a program or a compressed file of any length has controls among its bytes.
fn is_text(file: &mut File) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            length => {
                let is_control =
                    |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0c');
                if buffer.iter().take(length).any(is_control) {
                    return Ok(false);
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    pub(in crate::files) fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn mime_type(bytes: &[u8]) -> &'static str {
        identify(&mut file_of(bytes)).unwrap().mime_type
    }

    fn refusal(bytes: &[u8]) -> String {
        let error = identify(&mut file_of(bytes)).unwrap_err();
        assert_eq!(error.code(), "UNSUPPORTED_MEDIA_TYPE");
        error.message().into_owned()
    }

    #[test]
    fn types_are_unique_and_endings_belong_to_one_kind() {
        let mut endings: Vec<_> = ACCEPTED.iter().flat_map(|kind| kind.extensions).collect();
        let count = endings.len();
        endings.sort();
        endings.dedup();
        assert_eq!(endings.len(), count);
        assert!(ACCEPTED.iter().all(|kind| by_mime_type(kind.mime_type) == Some(kind)));
        assert!(ACCEPTED.iter().all(|kind| kind.mime_type.len() <= 100), "the column is that wide");
    }

    #[test]
    fn the_first_bytes_decide() {
        let webm = [b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm".as_slice(), &[0; 300]].concat();
        for (bytes, expected) in [
            (webm.as_slice(), "video/webm"),
            (b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n", "application/pdf"),
            (b"\xFF\xD8\xFF\xE0\0\x10JFIF\0", "image/jpeg"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
            (b"GIF89a\x01\0\x01\0\0\0\0", "image/gif"),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
            (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
            (b"RIFF\x24\0\0\0AVI LIST", "video/x-msvideo"),
            (b"ID3\x04\0\0\0\0\0\0", "audio/mpeg"),
            (b"\xFF\xFB\x90\x44\0\0", "audio/mpeg"),
            (b"\xFF\xF1\x50\x80\0\0", "audio/aac"),
            (b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0OpusHead", "audio/ogg"),
            (b"fLaC\0\0\0\x22", "audio/flac"),
            (b"#!AMR\n\x3c\x91\x17\x16\xbe\x66", "audio/amr"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video/mp4"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "video/mp4"),
            (b"\0\0\0\x18ftypM4A \0\0\0\0", "audio/mp4"),
            (b"\0\0\0\x18ftyp3gp4\0\0\0\0", "video/3gpp"),
            (b"\0\0\0\x18ftypqt  \0\0\0\0", "video/quicktime"),
        ] {
            assert_eq!(mime_type(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn text_is_text_whatever_it_says() {
        for text in [
            "Hello",
            "Grüße, 你好 👍\r\n\tend\x0c",
            "<!DOCTYPE html><script>alert(1)</script>",
            "<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>",
            "#!/bin/sh\nrm -rf /\n",
            "MZ is how some programs begin",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "{\\rtf1\\ansi Hello}",
            "<?xml version=\"1.0\"?><a/>",
            "GIF is said with a soft g",
            "I prefer WEBP",
            "ID3 is a kind of tag",
        ] {
            assert_eq!(mime_type(text.as_bytes()), "text/plain", "{text}");
        }
        assert_eq!(mime_type(b"caf\xe9, older than UTF-8"), "text/plain");
    }

    #[test]
    fn text_is_read_to_its_end() {
        let mut bytes = vec![b'a'; 200_000];
        assert_eq!(mime_type(&bytes), "text/plain");
        bytes.push(0);
        refusal(&bytes);
    }

    #[test]
    fn programs_and_unknown_bytes_are_refused() {
        for bytes in [
            b"MZ\x90\0\x03\0\0\0\x04\0\0\0".as_slice(),
            b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0",
            b"\xca\xfe\xba\xbe\0\0\0\x34",
            b"\0asm\x01\0\0\0",
            b"\x1f\x8b\x08\0\0\0\0\0",
            b"Rar!\x1a\x07\0",
            b"7z\xbc\xaf\x27\x1c",
            b"BM\x36\0\0\0\0\0\0\0",
            b"II*\0\x08\0\0\0",
            b"\0\0\x01\0\x01\0\x10\x10",
            b"\0\x01\x02\x03",
            b"text with a \0 in it",
        ] {
            assert_eq!(refusal(bytes), "This kind of file is not accepted.", "{bytes:?}");
        }
    }

    #[test]
    fn heic_is_refused_with_advice() {
        for brand in ["heic", "mif1", "avif"] {
            let bytes = [b"\0\0\0\x18ftyp", brand.as_bytes(), b"\0\0\0\0"].concat();
            assert!(refusal(&bytes).contains("JPEG"));
        }
    }
}
