//! The text of a message, cleaned and measured.
//!
//! Order matters: what is invisible goes first, so that `<scr\0ipt>` cannot hide from the markup
//! scanner; white space goes last, so that a message of tags alone counts as empty.

use std::fmt;

use super::markup;
use crate::errors::{Error, Result};

/// The most characters (code points) a message may have after cleaning.
pub const MAX_CHARACTERS: usize = 5_000;

/// The text of a message: cleaned, trimmed and at most [`MAX_CHARACTERS`] long.
///
/// Parsing is idempotent: what was stored comes back as it is when it is sent again.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageText(String);

impl MessageText {
    /// Reads the text of a message that has nothing else to show; it must not be empty.
    pub fn parse(raw: &str) -> Result<Self> {
        let text = Self::parse_beside_attachment(raw)?;
        if text.0.is_empty() {
            return Err(Error::field("content", "The content field is required."));
        }
        Ok(text)
    }

    /// Reads the text beside an attachment or a `file_url`, where it may be empty.
    pub fn parse_beside_attachment(raw: &str) -> Result<Self> {
        let text = clean(raw);
        // Bytes first: counting code points is only needed where bytes exceed the limit.
        if text.len() > MAX_CHARACTERS && text.chars().count() > MAX_CHARACTERS {
            return Err(Error::field(
                "content",
                format!("The content field must not be greater than {MAX_CHARACTERS} characters."),
            ));
        }
        Ok(Self(text))
    }

    /// No text at all: an attachment without a caption, or a tombstone.
    pub const fn empty() -> Self {
        Self(String::new())
    }

    /// Whether there is no text.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl AsRef<str> for MessageText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Shows the length only: what people write must not reach a log by way of `{:?}`.
impl fmt::Debug for MessageText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MessageText({} bytes)", self.0.len())
    }
}

fn clean(raw: &str) -> String {
    let visible: String = raw.chars().filter(|&character| !is_removed(character)).collect();
    let mut text = markup::reduce(visible);
    text.truncate(text.trim_end_matches(is_trimmed).len());
    let leading = text.len() - text.trim_start_matches(is_trimmed).len();
    text.drain(..leading);
    text
}

/// Controls but tab and newline (contract section 3), and bidi overrides and isolates, with which a
/// message could be shown in another order than it is stored (section 7).
///
/// Removing every `\r` is also what makes `\r\n` a `\n`.
fn is_removed(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\t'))
        || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// White space, and the invisible characters that the main API (Laravel's `Str::trim`) trims as well:
/// a message of nothing else would be an empty bubble.
fn is_trimmed(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{FEFF}' | '\u{200B}' | '\u{200E}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(raw: &str) -> String {
        MessageText::parse(raw).unwrap().into_string()
    }

    fn sentence(raw: &str) -> String {
        let error = MessageText::parse(raw).unwrap_err();
        assert_eq!(error.code(), "VALIDATION_FAILED");
        let Error::Validation(fields) = error else { unreachable!("checked above") };
        fields["content"][0].clone()
    }

    #[test]
    fn ordinary_text_comes_back_as_typed() {
        for text in [
            "Hello!",
            "a < b && c > d",
            "I <3 it",
            "x<y",
            "two\nlines\tand a tab",
            "Grüße, 你好, مرحبا, 👩🏽‍❤️‍💋‍👨🏿",
            "&lt;b&gt; &amp; &#60;",
            "Tom & Jerry",
            "\u{200F}مرحبا",
        ] {
            assert_eq!(parsed(text), text);
        }
    }

    #[test]
    fn white_space_around_is_trimmed_and_inside_is_kept() {
        assert_eq!(parsed(" \n\u{a0}\u{feff} a  b \u{3000}\u{200b}\t"), "a  b");
    }

    #[test]
    fn line_ends_become_newlines() {
        assert_eq!(parsed("a\r\nb\r\n\r\nc"), "a\nb\n\nc");
    }

    #[test]
    fn controls_and_bidi_overrides_are_removed() {
        assert_eq!(parsed("a\0b\u{7}c\u{7f}d\u{85}e\u{9b}f\u{1b}[31m"), "abcdef[31m");
        assert_eq!(parsed("a\u{202e}b\u{202a}c\u{2066}d\u{2069}e"), "abcde");
    }

    #[test]
    fn a_control_cannot_hide_an_element() {
        assert_eq!(parsed("a<scr\0ipt>alert(1)</scr\u{202e}ipt>b"), "ab");
    }

    #[test]
    fn an_empty_message_is_refused_alone_and_fine_beside_an_attachment() {
        for raw in ["", "   ", "\r\n\t", "\0", "<b></b>", "<script>x</script>", "\u{200b}\u{feff}"] {
            assert_eq!(sentence(raw), "The content field is required.");
            assert_eq!(MessageText::parse_beside_attachment(raw).unwrap(), MessageText::empty());
        }
    }

    #[test]
    fn length_is_counted_in_code_points_after_cleaning() {
        for character in ["a", "é", "漢", "👍"] {
            assert!(MessageText::parse(&format!(" <b>{}</b> ", character.repeat(5_000))).is_ok());
            assert_eq!(
                sentence(&character.repeat(5_001)),
                "The content field must not be greater than 5000 characters."
            );
        }
        assert!(MessageText::parse_beside_attachment(&"a".repeat(5_001)).is_err());
    }

    #[test]
    fn the_debug_form_does_not_show_the_text() {
        assert!(!format!("{:?}", MessageText::parse("secret").unwrap()).contains("secret"));
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_never_longer(raw in "(\\PC|[\\x00-\\x1f<>/ \u{202e}\u{200b}]|</?b>|<script>|<a x=y){0,40}") {
            if let Ok(once) = MessageText::parse(&raw) {
                prop_assert!(once.as_str().chars().count() <= raw.chars().count());
                prop_assert_eq!(MessageText::parse(once.as_str()).unwrap(), once);
            }
        }

        #[test]
        fn text_without_angle_brackets_comes_back_trimmed(raw in "[^<\\p{Cc}\\p{Cf}]{1,60}") {
            prop_assert_eq!(clean(&raw), raw.trim());
        }
    }
}
