//! What others wrote, made fit for a mail: one line, of a bounded length, without anything invisible
//! that could break out of a header or turn the direction of what follows.

use unicode_segmentation::UnicodeSegmentation;

/// The text on one line, cut to so many characters as a reader counts them.
pub(super) fn line(text: &str, max: usize) -> String {
    let mut one = String::with_capacity(text.len().min(4 * max));
    // Enough to tell whether something is left out; the rest is not even looked at.
    for character in text.chars().filter(|character| !is_hidden(*character)) {
        if character.is_whitespace() || character.is_control() {
            if !one.is_empty() && !one.ends_with(' ') {
                one.push(' ');
            }
        } else {
            one.push(character);
        }
        if one.len() > 64 * max {
            break;
        }
    }
    let one = one.trim_end();
    match one.grapheme_indices(true).nth(max) {
        None if one.len() <= 32 * max => one.to_owned(),
        // A pile of marks on one letter is one character to a reader and no bound to us.
        None => cut(one, one.floor_char_boundary(32 * max)),
        Some((end, _)) => cut(one, end.min(one.floor_char_boundary(32 * max))),
    }
}

fn cut(text: &str, end: usize) -> String {
    format!("{}…", text.get(..end).unwrap_or(text).trim_end())
}

/// Marks, overrides and isolates of direction, line and paragraph separators aside (those are blanks).
const fn is_hidden(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_breaks_lines_or_turns_directions_is_gone() {
        for (text, shown) in [
            ("Jane\r\nBcc: eve@example.test", "Jane Bcc: eve@example.test"),
            ("  a \t\u{2028} b\u{85}c\0d ", "a b c d"),
            ("abc\u{202e}txt.exe\u{2069}", "abctxt.exe"),
            ("ليلى", "ليلى"),
            ("\r\n", ""),
        ] {
            assert_eq!(line(text, 100), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_long_is_cut_between_characters_as_read() {
        assert_eq!(line("abcdef", 6), "abcdef");
        assert_eq!(line("abcdefg", 6), "abcdef…");
        assert_eq!(line("ab cd", 3), "ab…");
        let family = "👨‍👩‍👧‍👦".repeat(5);
        assert_eq!(line(&family, 2), format!("{}…", "👨‍👩‍👧‍👦".repeat(2)));
        let pile = format!("a{}", "\u{301}".repeat(100_000));
        assert!(line(&pile, 10).len() < 400);
    }

    proptest! {
        #[test]
        fn it_is_one_short_line(text in "\\PC{0,300}|.{0,300}", max in 1_usize..80) {
            let shown = line(&text, max);
            prop_assert!(!shown.chars().any(|character| character.is_control() || is_hidden(character)));
            prop_assert!(shown.graphemes(true).count() <= max + 1);
            prop_assert!(shown.len() <= 32 * max + 3);
            prop_assert_eq!(line(&shown, max + 1), shown);
        }
    }
}
