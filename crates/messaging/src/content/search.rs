//! Finding words in messages: case-insensitive, Unicode-aware, the same on every database.
//!
//! Texts are compared folded: compatibility-composed (NFKC) and without case, so that `ß` is `SS`, `É` is
//! `é` however it was typed, and `ｆｕｌｌ` is `full`. Folding is done here alone: databases look for folded
//! bytes in folded bytes (`storage::search`), which none of them does in its own way.

use serde::Serialize;
use unicode_normalization::{
    IsNormalized, UnicodeNormalization, char::canonical_combining_class, is_nfkc_quick,
};

use crate::errors::{Error, Result};

/// The most characters to look for: more than anybody types into a search field.
const MAX_CHARACTERS: usize = 200;
/// Places shown of one message; a single letter may have thousands.
const MAX_HIGHLIGHTS: usize = 100;

/// Where a text was found, in code points of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Highlight {
    /// The first code point, from 0.
    pub start: usize,
    /// How many.
    pub length: usize,
}

/// What is looked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Needle {
    folded: String,
}

impl Needle {
    /// Reads a search text; white space around it is not looked for.
    pub fn parse(raw: &str) -> Result<Self> {
        let text = raw.trim();
        if text.is_empty() {
            return Err(Error::field("query", "The query field is required."));
        }
        if text.chars().take(MAX_CHARACTERS + 1).count() > MAX_CHARACTERS {
            return Err(Error::field(
                "query",
                format!("The query field must not be greater than {MAX_CHARACTERS} characters."),
            ));
        }
        Ok(Self { folded: Folded::of(text).text })
    }

    /// What is looked for, folded.
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// Whether no message can have it: texts are stored without control characters.
    pub fn is_impossible(&self) -> bool {
        self.folded.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t'))
    }

    /// Whether it is in a text that is folded already.
    pub fn is_in_folded(&self, folded: &str) -> bool {
        memchr::memmem::find(folded.as_bytes(), self.folded.as_bytes()).is_some()
    }

    /// Whether it is in a text.
    pub fn is_in(&self, text: &str) -> bool {
        if text.is_ascii() && !self.folded.is_ascii() {
            return false;
        }
        self.is_in_folded(&folded(text))
    }

    /// Where it is in a text, from the start; places do not overlap.
    pub fn find(&self, text: &str) -> Vec<Highlight> {
        let folded = Folded::of(text);
        let mut found: Vec<Highlight> = Vec::new();
        for at in memchr::memmem::find_iter(folded.text.as_bytes(), self.folded.as_bytes()) {
            let (start, end) = folded.original(at, at + self.folded.len());
            if let Some(last) = found.last_mut()
                && start < last.start + last.length
            {
                // Twice in what was one character: `s` in `ß`.
                last.length = last.length.max(end - last.start);
            } else if found.len() < MAX_HIGHLIGHTS {
                found.push(Highlight { start, length: end - start });
            } else {
                break;
            }
        }
        found
    }
}

/// Shows the length only: what people look for belongs in no log.
impl std::fmt::Debug for Needle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Needle({} bytes)", self.folded.len())
    }
}

/// A text without case. Stored in the databases: how it is made must not change.
pub fn folded(text: &str) -> String {
    Folded::of(text).text
}

/// A text without case, and the way back to the original.
struct Folded {
    text: String,
    /// Where each stretch of the original begins: `(byte of the folded text, code point of the original)`,
    /// with the end at the end. Empty where both are the same, as in ASCII.
    stretches: Vec<(usize, usize)>,
}

impl Folded {
    fn of(original: &str) -> Self {
        if original.is_ascii() {
            return Self { text: original.to_ascii_lowercase(), stretches: Vec::new() };
        }
        let mut text = String::with_capacity(original.len());
        let mut stretches = Vec::with_capacity(original.len());
        let mut stretch = String::new();
        let mut count = 0;
        for (place, character) in original.chars().enumerate() {
            count = place + 1;
            if !stretch.is_empty() && is_boundary(character) {
                fold_into(&mut text, &mut stretch);
            }
            if stretch.is_empty() {
                stretches.push((text.len(), place));
            }
            stretch.push(character);
        }
        fold_into(&mut text, &mut stretch);
        stretches.push((text.len(), count));
        Self { text, stretches }
    }

    /// The code points `start..end` of the original that became the bytes `from..to`.
    fn original(&self, from: usize, to: usize) -> (usize, usize) {
        if self.stretches.is_empty() {
            return (from, to);
        }
        let first = self.stretches.partition_point(|stretch| stretch.0 <= from).saturating_sub(1);
        let after = self.stretches.partition_point(|stretch| stretch.0 < to);
        let place = |index: usize| self.stretches.get(index).map_or(0, |stretch| stretch.1);
        (place(first), place(after))
    }
}

/// Whether a character never becomes one with those before it.
fn is_boundary(character: char) -> bool {
    if character.is_ascii() {
        return true;
    }
    let first = std::iter::once(character).nfkd().next().unwrap_or(character);
    canonical_combining_class(first) == 0 && is_nfkc_quick(std::iter::once(first)) != IsNormalized::Maybe
}

/// Appends a stretch, folded, and empties it.
fn fold_into(text: &mut String, stretch: &mut String) {
    if stretch.is_ascii() {
        text.extend(stretch.chars().map(|character| character.to_ascii_lowercase()));
    } else {
        // Folding may take apart what was composed, and the other way round.
        text.extend(stretch.nfkc().flat_map(without_case).nfkc());
    }
    stretch.clear();
}

/// Full case folding out of the standard library's mappings: by way of upper case, where `ß` is `SS` and
/// both sigmas are one; before it lower case, since only `ß` knows that, `ẞ` does not.
fn without_case(character: char) -> impl Iterator<Item = char> {
    // The dotted and the dotless i are one with the i of everybody else: `istanbul` finds `İstanbul`.
    let character = if character == 'İ' { 'i' } else { character };
    character.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(needle: &str, text: &str) -> Vec<(usize, usize)> {
        let needle = Needle::parse(needle).unwrap();
        assert_eq!(needle.is_in(text), !needle.find(text).is_empty());
        needle.find(text).into_iter().map(|one| (one.start, one.length)).collect()
    }

    #[test]
    fn case_is_no_difference_in_any_script() {
        for (needle, text) in [
            ("HELLO", "say hello"),
            ("strasse", "die Straße"),
            ("STRASSE", "die Straße"),
            ("straße", "DIE STRASSE"),
            ("ß", "ẞ"),
            ("ẞ", "ss"),
            ("ÉCOLE", "une école"),
            ("école", "une E\u{301}cole"),
            ("e\u{301}cole", "une ÉCOLE"),
            ("ΟΔΟΣ", "οδος"),
            ("οδος", "ΟΔΌΣ οδοσ"),
            ("привет", "ПРИВЕТ"),
            ("istanbul", "İSTANBUL"),
            ("İstanbul", "istanbul"),
            ("ıssız", "ISSIZ"),
            ("full", "ＦＵＬＬ"),
            ("ﬁle", "FILE"),
            ("ガ", "ｶﾞｽ"),
            ("각", "\u{1100}\u{1161}\u{11A8}"),
            ("k", "\u{212A}"),
            ("ᾳ", "ΑΙ"),
        ] {
            assert!(!places(needle, text).is_empty(), "{needle} in {text}");
        }
    }

    #[test]
    fn accents_and_marks_are_a_difference() {
        for (needle, text) in [
            ("ecole", "école"),
            ("e", "é"),
            ("é", "e"),
            ("a%b", "aXb"),
            ("a_b", "aXb"),
            (r"a\b", "a/b"),
            ("👍", "👎"),
            ("مرحبا", "سلام"),
            ("相机", "相 机"),
        ] {
            assert!(places(needle, text).is_empty(), "{needle} in {text}");
        }
    }

    #[test]
    fn places_are_code_points_of_the_original() {
        assert_eq!(places("lo", "Hello, LO"), [(3, 2), (7, 2)]);
        assert_eq!(places("ss", "Straße, Gasse"), [(4, 1), (10, 2)]);
        assert_eq!(places("s", "ß"), [(0, 1)]);
        assert_eq!(places("tras", "Straße"), [(1, 4)]);
        assert_eq!(places("école", "👍 une E\u{301}cole"), [(6, 6)]);
        assert_eq!(places("机", "买相机和机票"), [(2, 1), (4, 1)]);
        assert_eq!(places("مرحبا", "قل مرحبا"), [(3, 5)]);
        assert_eq!(places("👩🏽‍🚀", "a👩🏽‍🚀b"), [(1, 4)]);
        assert_eq!(places("100%", "now 100% off"), [(4, 4)]);
        assert_eq!(places("a_b", "xa_b"), [(1, 3)]);
        assert_eq!(places(r"\d", r"a\d"), [(1, 2)]);
        assert_eq!(places("aa", "aaaaa"), [(0, 2), (2, 2)]);
    }

    #[test]
    fn a_single_letter_is_shown_in_so_many_places() {
        assert_eq!(places("a", &"a".repeat(5000)).len(), MAX_HIGHLIGHTS);
    }

    #[test]
    fn a_search_text_is_neither_empty_nor_endless() {
        assert!(Needle::parse(" \n").is_err());
        assert!(Needle::parse(&"ß".repeat(200)).is_ok());
        assert!(Needle::parse(&"a".repeat(201)).is_err());
        assert_eq!(Needle::parse(" a ").unwrap(), Needle::parse("A").unwrap());
    }

    #[test]
    fn folding_does_not_change_with_the_version() {
        // Stored: other text here makes stored messages impossible to find.
        assert_eq!(
            folded("Hello, Straße İ 相机 E\u{301} Σς ｆｕｌｌ 👍"),
            "hello, strasse i 相机 é σσ full 👍"
        );
    }

    #[test]
    fn control_characters_are_in_no_message() {
        for (words, is_impossible) in [("a\0b", true), ("a\u{1F}b", true), ("a\nb\tc", false), ("a", false)] {
            assert_eq!(Needle::parse(words).unwrap().is_impossible(), is_impossible, "{words:?}");
        }
    }

    proptest! {
        #[test]
        fn every_part_of_a_text_is_found_in_it(text in "\\PC{1,40}", from in 0_usize..40, length in 1_usize..10) {
            // At stretches: half of a composed character is another character.
            let characters: Vec<char> = text.chars().collect();
            let start = (from % characters.len()..).find(|place| {
                characters.get(*place).is_none_or(|character| is_boundary(*character))
            }).unwrap_or(0);
            let end = (start + length..).find(|place| {
                characters.get(*place).is_none_or(|character| is_boundary(*character))
            }).unwrap_or(0).min(characters.len());
            let part: String = characters.get(start..end).unwrap_or_default().iter().collect();
            if let Ok(needle) = Needle::parse(&part) {
                prop_assert!(needle.is_in(&text));
                prop_assert!(needle.is_in_folded(&folded(&text)));
                if let Ok(louder) = Needle::parse(&part.to_uppercase()) {
                    prop_assert!(louder.is_in(&text));
                }
            }
        }

        #[test]
        fn places_lie_in_the_text_in_order(text in "\\PC{0,40}", needle in "\\PC{1,3}") {
            if let Ok(needle) = Needle::parse(&needle) {
                let mut end = 0;
                for place in needle.find(&text) {
                    prop_assert!(place.start >= end && place.length > 0);
                    end = place.start + place.length;
                }
                prop_assert!(end <= text.chars().count());
            }
        }
    }
}
