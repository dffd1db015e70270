//! A reaction: exactly one emoji as a person sees it.
//!
//! The shape is that of the Unicode standard (UTS #51, "possible emoji"): flags, keycaps, skin tones,
//! tag sequences, and all of these joined by ZWJ. No list of named sequences is kept, so a phone that
//! is newer than this service can react with a sequence of its own.

use std::fmt;

use unicode_properties::{UnicodeEmoji, emoji::EmojiStatus};
use unicode_segmentation::UnicodeSegmentation;

use crate::errors::{Error, Result};

/// The most code points: the specification's column is `VARCHAR(10)`, and so is the longest emoji
/// there is (two people of different skin tones kissing).
const MAX_CODE_POINTS: usize = 10;

const ZERO_WIDTH_JOINER: char = '\u{200D}';
const EMOJI_PRESENTATION: char = '\u{FE0F}';
const KEYCAP: char = '\u{20E3}';
const CANCEL_TAG: char = '\u{E007F}';

/// One emoji, kept as typed: one grapheme cluster of at most ten code points.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Emoji(String);

impl Emoji {
    /// Reads a reaction.
    pub fn parse(raw: &str) -> Result<Self> {
        if raw.is_empty() {
            return Err(Error::field("emoji", "The emoji field is required."));
        }
        let is_short = raw.chars().take(MAX_CODE_POINTS + 1).count() <= MAX_CODE_POINTS;
        if is_short && raw.graphemes(true).count() == 1 && is_emoji_sequence(raw) {
            Ok(Self(raw.to_owned()))
        } else {
            Err(Error::field("emoji", "The emoji field must be a single emoji."))
        }
    }

    /// The emoji as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The emoji, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for Emoji {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_emoji_sequence(text: &str) -> bool {
    text.split(ZERO_WIDTH_JOINER).all(|element| {
        let mut rest = element.chars();
        rest.next().is_some_and(|base| is_emoji_element(base, rest.as_str()))
    })
}

/// One element of a ZWJ sequence: a flag, a keycap, or an emoji with what may follow it.
fn is_emoji_element(base: char, rest: &str) -> bool {
    let mut followers = rest.chars();
    match base {
        '\u{1F1E6}'..='\u{1F1FF}' => {
            matches!(followers.next(), Some('\u{1F1E6}'..='\u{1F1FF}')) && followers.next().is_none()
        }
        '0'..='9' | '#' | '*' => {
            let keycap = rest.strip_prefix(EMOJI_PRESENTATION).unwrap_or(rest);
            keycap.strip_prefix(KEYCAP).is_some_and(str::is_empty)
        }
        _ if base.is_emoji_char() && !is_modifier(base) => match followers.next() {
            None => true,
            Some(EMOJI_PRESENTATION) => followers.next().is_none(),
            Some(modifier) if is_modifier(modifier) => takes_modifier(base) && followers.next().is_none(),
            Some('\u{E0020}'..='\u{E007E}') => {
                followers.next_back() == Some(CANCEL_TAG)
                    && followers.all(|tag| matches!(tag, '\u{E0020}'..='\u{E007E}'))
            }
            Some(_) => false,
        },
        _ => false,
    }
}

fn is_modifier(character: char) -> bool {
    character.emoji_status() == EmojiStatus::EmojiPresentationAndModifierAndEmojiComponent
}

fn takes_modifier(character: char) -> bool {
    matches!(
        character.emoji_status(),
        EmojiStatus::EmojiModifierBase | EmojiStatus::EmojiPresentationAndModifierBase
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_emoji_is_taken_as_typed() {
        for emoji in [
            "👍",
            "👍🏽",
            "❤",
            "❤️",
            "😀",
            "🇫🇷",
            "1️⃣",
            "#⃣",
            "*️⃣",
            "☝🏿",
            "👨‍👩‍👧‍👦",
            "🏳️‍🌈",
            "🏴‍☠️",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "👩🏽‍❤️‍💋‍👨🏿",
            "🧑‍💻",
            "❤️‍🔥",
            "🫶🏾",
            "©️",
        ] {
            assert_eq!(Emoji::parse(emoji).unwrap().as_str(), emoji);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "a",
            "1",
            "#",
            "*",
            "é",
            "漢",
            ":)",
            ":thumbsup:",
            " ",
            " 👍",
            "👍 ",
            "👍👍",
            "👍a",
            "<b>",
            "🇫",
            "🇫🇷🇩",
            "🏽",
            "🍕🏽",
            "\u{200d}",
            "👍\u{200d}",
            "\u{200d}👍",
            "\u{fe0f}",
            "❤\u{fe0e}",
            "1\u{fe0f}",
            "a\u{20e3}",
            "👍\u{301}",
            "👍\0",
            "🏴\u{E0067}",
            "👍\u{fe0f}\u{fe0f}",
            "a\u{200d}👍",
            "e\u{301}",
        ] {
            let error = Emoji::parse(text).unwrap_err();
            assert_eq!(error.message(), "The emoji field must be a single emoji.", "{text:?}");
        }
        assert_eq!(Emoji::parse("").unwrap_err().message(), "The emoji field is required.");
    }

    #[test]
    fn what_the_column_cannot_hold_is_refused() {
        assert!(Emoji::parse(&["👩"; 5].join("\u{200d}")).is_ok());
        assert!(Emoji::parse(&["👩"; 6].join("\u{200d}")).is_err());
        assert!(Emoji::parse(&"👩\u{200d}".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn text_is_never_an_emoji(text in "[\\p{L}\\p{N}\\p{P}\\p{Z}]{1,4}") {
            // Letterlike symbols that the emoji list names itself, such as U+2139 and U+24C2.
            prop_assume!(!text.chars().any(|c| !c.is_ascii() && c.is_emoji_char()));
            prop_assert!(Emoji::parse(&text).is_err());
        }

        #[test]
        fn what_is_taken_is_one_grapheme_within_the_column(text in "\\PC{1,12}") {
            if let Ok(emoji) = Emoji::parse(&text) {
                prop_assert_eq!(emoji.as_str().graphemes(true).count(), 1);
                prop_assert!(emoji.as_str().chars().count() <= MAX_CODE_POINTS);
                prop_assert_eq!(emoji.as_str(), &text);
            }
        }
    }
}
