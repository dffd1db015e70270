//! The name of a file, made safe for headers, addresses and the disks of those who download it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Bytes of UTF-8 at most. Percent-encoded they are three times as many, and a message's `file_url`,
/// which carries the name, has 500 characters.
const MAX_BYTES: usize = 100;

/// What a path segment may show as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What `filename*` may show as it is (RFC 8187, `attr-char`).
const ATTRIBUTE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'!');

/// Names that Windows keeps for devices, whatever follows the dot.
#[rustfmt::skip]
const DEVICES: &[&str] = &[
    "aux", "com0", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "con", "lpt0",
    "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9", "nul", "prn",
];

/// The name without its folders and without anything that a disk, a header or a reader could mistake,
/// ending in one of `extensions`: what a file is decides its bytes, and the name follows.
///
/// The first of `extensions` is added where the name has another; there is at least one.
pub(super) fn safe_name(raw: &str, extensions: &[&str]) -> String {
    let base = raw.rsplit(['/', '\\']).next().unwrap_or_default();
    let visible: String = base.chars().filter(|&character| !is_unwanted(character)).collect();
    let words = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = words.trim_matches(['.', ' ', '-']);

    let known = name.rsplit_once('.').filter(|(stem, extension)| {
        !stem.is_empty() && extensions.iter().any(|known| known.eq_ignore_ascii_case(extension))
    });
    let (stem, extension) = match known {
        Some((stem, extension)) => (stem, extension.to_ascii_lowercase()),
        None => (name, extensions.first().copied().unwrap_or("bin").to_owned()),
    };
    let mut stem = truncated(stem, MAX_BYTES - 1 - extension.len()).trim_end_matches(['.', ' ']).to_owned();
    if stem.is_empty() {
        stem.push_str("file");
    }
    let device = stem.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    if DEVICES.contains(&device.as_str()) {
        stem.insert(0, '_');
    }
    format!("{stem}.{extension}")
}

/// The name as a path segment of an address.
pub(super) fn path_segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// `Content-Disposition` with the name in both forms of RFC 6266: plain ASCII for old clients, and
/// UTF-8. `kind` is `inline` or `attachment`.
pub(super) fn content_disposition(kind: &str, name: &str) -> String {
    let ascii: String = name
        .chars()
        .map(|character| match character {
            '"' | '\\' | '%' => '_',
            ' '..='~' => character,
            _ => '_',
        })
        .collect();
    format!("{kind}; filename=\"{ascii}\"; filename*=UTF-8''{}", utf8_percent_encode(name, ATTRIBUTE))
}

/// Controls, characters that no Windows disk takes, and marks that show a name in another order than
/// it has (`gpj.exe` for `exe.jpg`) or not at all.
fn is_unwanted(character: char) -> bool {
    (character.is_control() && !character.is_whitespace())
        || matches!(character, '<' | '>' | ':' | '"' | '|' | '?' | '*')
        || matches!(
            character,
            '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        )
}

fn truncated(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JPEG: &[&str] = &["jpg", "jpeg"];

    #[test]
    fn folders_and_tricks_are_removed() {
        for (raw, expected) in [
            ("photo.jpg", "photo.jpg"),
            ("Photo 1.JPEG", "Photo 1.jpeg"),
            ("../../etc/passwd", "passwd.jpg"),
            ("..\\..\\boot.ini", "boot.ini.jpg"),
            ("C:\\Users\\me\\cat.jpg", "cat.jpg"),
            ("/", "file.jpg"),
            ("", "file.jpg"),
            ("...", "file.jpg"),
            (".htaccess", "htaccess.jpg"),
            (".jpg", "jpg.jpg"),
            ("shell.php", "shell.php.jpg"),
            ("cat.jpg.exe", "cat.jpg.exe.jpg"),
            ("a\0b\r\nSet-Cookie: x.jpg", "ab Set-Cookie x.jpg"),
            ("\u{202e}gpj.exe", "gpj.exe.jpg"),
            ("con.jpg", "_con.jpg"),
            ("NUL", "_NUL.jpg"),
            ("com1.tar.jpg", "_com1.tar.jpg"),
            ("a<b>:\"|?*c.jpg", "abc.jpg"),
            ("  spaces \t all   over .jpg", "spaces all over.jpg"),
            ("größe 你好.jpg", "größe 你好.jpg"),
            ("-rf.jpg", "rf.jpg"),
        ] {
            assert_eq!(safe_name(raw, JPEG), expected, "{raw:?}");
        }
    }

    #[test]
    fn headers_carry_both_forms_of_the_name() {
        assert_eq!(
            content_disposition("attachment", "größe \"1\" 100%.pdf"),
            "attachment; filename=\"gr__e _1_ 100_.pdf\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22%20100%25.pdf"
        );
    }

    proptest! {
        #[test]
        fn every_name_is_one_short_safe_segment(raw in "\\PC{0,200}|[./\\\\ a-z]{0,40}|(.|\\n){0,60}") {
            let name = safe_name(&raw, JPEG);
            prop_assert!(name.len() <= MAX_BYTES);
            prop_assert!(!name.contains(['/', '\\', '\0', '\r', '\n', '"']));
            prop_assert!(!name.starts_with('.') && (name.ends_with(".jpg") || name.ends_with(".jpeg")));
            prop_assert_eq!(safe_name(&name, JPEG), name.clone());
            prop_assert!(path_segment(&name).len() <= 3 * MAX_BYTES);
            prop_assert!(http::HeaderValue::from_str(&content_disposition("inline", &name)).is_ok());
        }
    }
}
