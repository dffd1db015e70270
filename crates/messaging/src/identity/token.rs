//! The bearer token: bounded, masked, wiped. Opaque to us: never split, never stored.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A longer token is no token: headers of this size are refused by most servers anyway.
const MAX_BYTES: usize = 8 * 1024;

/// A bearer token as the main API knows it. Cheap to clone; wiped when the last clone goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<Zeroizing<String>>);

impl Token {
    /// Takes one leading `Bearer ` off; `None` if the rest cannot be a token.
    ///
    /// Sanctum's `7|AbC…` is a token like any other: nothing but visible ASCII is asked for, so that
    /// it fits into a header.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
            None if text.eq_ignore_ascii_case("bearer") => return None,
            _ => text,
        };
        let fits =
            (1..=MAX_BYTES).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(Arc::new(Zeroizing::new(token.to_owned()))))
    }

    /// The token itself: for the main API, never for show.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(***)")
    }
}

/// What caches know a token by: a keyed hash, from which it cannot be found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenKey([u8; 32]);

impl TokenKey {
    /// HMAC-SHA256 of the token.
    pub(super) fn new(key: &[u8; 32], token: &Token) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        mac.update(token.expose().as_bytes());
        Self(mac.finalize().into_bytes().into())
    }

    /// Reads what `Display` writes.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let digits: Vec<u8> =
            hex.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        if digits.len() == 64 { Some(Self(bytes.try_into().ok()?)) } else { None }
    }
}

impl fmt::Display for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        Token::parse(text).map(|token| token.expose().to_owned())
    }

    #[test]
    fn one_leading_bearer_is_taken_off_in_any_case() {
        for text in ["7|AbC", "Bearer 7|AbC", "bearer 7|AbC", "BEARER   7|AbC", " Bearer 7|AbC "] {
            assert_eq!(parsed(text).as_deref(), Some("7|AbC"), "{text}");
        }
        assert_eq!(parsed("bearerish").as_deref(), Some("bearerish"));
    }

    #[test]
    fn what_cannot_be_a_token_is_none() {
        let too_long = "x".repeat(MAX_BYTES + 1);
        for text in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Bearer Bearer x",
            "a b",
            "a\nb",
            "a\0b",
            "é",
            "Basic abc",
            &too_long,
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
        assert!(parsed(&"x".repeat(MAX_BYTES)).is_some());
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let token = Token::parse("7|AbC").expect("a token");
        assert!(!format!("{token:?}").contains("AbC"));
    }

    #[test]
    fn the_key_depends_on_the_token_and_on_the_secret() {
        let token = Token::parse("7|AbC").expect("a token");
        let other = Token::parse("7|AbD").expect("a token");
        assert_eq!(TokenKey::new(&[1; 32], &token), TokenKey::new(&[1; 32], &token));
        assert_ne!(TokenKey::new(&[1; 32], &token), TokenKey::new(&[2; 32], &token));
        assert_ne!(TokenKey::new(&[1; 32], &token), TokenKey::new(&[1; 32], &other));
    }
}
