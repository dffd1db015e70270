//! The client's own id of a message, which makes sending idempotent (contract section 2).

use std::fmt;

use crate::errors::{Error, Result};

/// The most characters an id may have; the column is as wide.
const MAX_CHARACTERS: usize = 64;

/// What an id of the main API is stored with: a client's own can hold no control character, so neither
/// can take the other's.
const MAIN_API: char = '\u{1}';

/// The client's own id of a message: 1–64 printable characters, compared as typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientMessageId(String);

impl ClientMessageId {
    /// Reads an id as the client gave it.
    pub fn parse(raw: &str) -> Result<Self> {
        let refused = |sentence: &str| Err(Error::field("client_message_id", sentence));
        if raw.is_empty() {
            return refused("The client_message_id field must not be empty.");
        }
        if raw.chars().count() > MAX_CHARACTERS {
            return refused("The client_message_id field must not be greater than 64 characters.");
        }
        if !raw.chars().all(is_printable) || raw.chars().all(char::is_whitespace) {
            return refused("The client_message_id field must only contain printable characters.");
        }
        Ok(Self(raw.to_owned()))
    }

    /// Reads an id that the main API gave: as a client's, but for one character less.
    pub fn parse_of_main_api(raw: &str) -> Result<Self> {
        let Self(id) = Self::parse(raw)?;
        if id.chars().count() == MAX_CHARACTERS {
            let sentence = "The client_message_id field must not be greater than 63 characters.";
            return Err(Error::field("client_message_id", sentence));
        }
        Ok(Self(format!("{MAIN_API}{id}")))
    }

    /// A stored id as it was given.
    pub fn shown(stored: String) -> String {
        match stored.strip_prefix(MAIN_API) {
            Some(id) => id.to_owned(),
            None => stored,
        }
    }

    /// The id as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for ClientMessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// No controls, no line separators, and none of the marks that make two ids look alike or turn a line
/// of a log around.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_all_kinds_come_back_as_typed() {
        let longest = "é".repeat(64);
        for id in ["1", "8f14e45f-ceea-467f-ab2b-1c9a6f4a3e52", "temp_1764930600", "a b", "ключ", &longest]
        {
            assert_eq!(ClientMessageId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn an_id_of_the_main_api_is_no_clients() {
        let id = ClientMessageId::parse_of_main_api("offer-17").unwrap().into_string();
        assert!(ClientMessageId::parse(&id).is_err() && id != "offer-17");
        assert_eq!(ClientMessageId::shown(id), "offer-17");
        assert_eq!(ClientMessageId::shown("offer-17".into()), "offer-17");
        assert!(ClientMessageId::parse_of_main_api(&"a".repeat(63)).is_ok());
        assert!(ClientMessageId::parse_of_main_api(&"a".repeat(64)).is_err());
    }

    #[test]
    fn ids_that_are_empty_long_or_not_printable_are_refused() {
        let too_long = "a".repeat(65);
        for id in ["", " ", &too_long, "a\0", "a\n", "a\u{202e}b", "\u{200b}", "a\u{2028}"] {
            let error = ClientMessageId::parse(id).unwrap_err();
            assert_eq!(error.code(), "VALIDATION_FAILED");
            assert!(error.message().starts_with("The client_message_id field must"), "{id:?}");
        }
    }
}
