//! The last look at a text before it leaves: what has the form of a token, an address or a password goes.
//!
//! Nothing of the kind is meant to be logged in the first place. Errors of libraries are texts that we
//! did not write, though, and one day one of them quotes what it choked on.

use std::borrow::Cow;

const MASK: &str = "***";
/// Sanctum's tokens have forty characters, random ids fewer.
const TOKEN_CHARACTERS: usize = 16;
/// Parameters whose values open something.
const NAMES: [&str; 6] = ["token", "signature", "password", "secret", "api_key", "apikey"];

/// The text without tokens, e-mail addresses and passwords.
pub(crate) fn scrub(text: &str) -> Cow<'_, str> {
    let suspicious = text.bytes().any(|byte| matches!(byte, b'@' | b'|' | b'='))
        || text.contains("eyJ")
        || text.contains("earer ");
    if !suspicious {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut is_bearer = false;
    for (gap, word) in Words(text) {
        clean.push_str(gap);
        if is_bearer {
            clean.push_str(MASK);
        } else {
            scrub_word(&mut clean, word);
        }
        is_bearer = word.eq_ignore_ascii_case("bearer");
    }
    Cow::Owned(clean)
}

/// The text without all between its first and its last quotation mark: errors quote what they were given,
/// and what is quoted may hold marks itself.
pub(crate) fn scrub_quoted(text: &str) -> String {
    let text = scrub(text);
    let is_quote = |&(at, c): &(usize, char)| match c {
        '"' | '`' => true,
        // An apostrophe inside a word quotes nothing.
        '\'' => !text[..at].ends_with(char::is_alphanumeric),
        _ => false,
    };
    let Some((first, _)) = text.char_indices().find(is_quote) else { return text.into_owned() };
    let last = text.rfind(['"', '`', '\'']).filter(|last| *last > first);
    let after = last.map_or("", |last| &text[last + 1..]);
    format!("{}{MASK}{after}", &text[..first])
}

/// A text as gaps and the words after them.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let ends_word =
            |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')' | '<' | '>');
        let start = self.0.find(|c| !ends_word(c)).unwrap_or(self.0.len());
        let (gap, rest) = self.0.split_at(start);
        let end = rest.find(ends_word).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        Some((gap, word))
    }
}

fn scrub_word(clean: &mut String, word: &str) {
    if let Some((scheme, rest)) = word.split_once("://") {
        clean.push_str(scheme);
        clean.push_str("://");
        // The last `@`: a password that was not encoded may hold one.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| {
            clean.push_str(MASK);
            clean.push('@');
            rest
        });
        return scrub_parameters(clean, rest);
    }
    if is_address(word) || has_jwt(word) || has_sanctum_token(word) {
        return clean.push_str(MASK);
    }
    scrub_parameters(clean, word);
}

/// `name=value` and `name=value&…`, behind a `?` or not.
fn scrub_parameters(clean: &mut String, text: &str) {
    for (index, part) in text.split_inclusive(['?', '&']).enumerate() {
        let (pair, end) = match part.strip_suffix(['?', '&']) {
            Some(pair) => (pair, &part[pair.len()..]),
            None => (part, ""),
        };
        match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() && opens(name) => {
                clean.push_str(name);
                clean.push('=');
                clean.push_str(MASK);
            }
            _ if index > 0 && (has_jwt(pair) || has_sanctum_token(pair)) => clean.push_str(MASK),
            _ => clean.push_str(pair),
        }
        clean.push_str(end);
    }
}

fn opens(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|known| name.ends_with(known))
}

fn is_address(word: &str) -> bool {
    word.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && domain.contains('.') && !domain.starts_with('.') && !domain.contains('/')
    })
}

fn has_jwt(word: &str) -> bool {
    word.find("eyJ").is_some_and(|at| {
        word[at..].split('.').take(2).filter(|part| part.len() >= TOKEN_CHARACTERS / 2).count() == 2
    })
}

/// `7|AbC…`, also percent-encoded.
fn has_sanctum_token(word: &str) -> bool {
    ["|", "%7C", "%7c"].iter().any(|bar| {
        word.split_once(bar).is_some_and(|(id, secret)| {
            let secret = secret.bytes().take_while(u8::is_ascii_alphanumeric).count();
            id.ends_with(|c: char| c.is_ascii_digit()) && secret >= TOKEN_CHARACTERS
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_addresses_and_passwords_are_masked_and_the_rest_stays() {
        for (text, clean) in [
            ("the database did not answer", "the database did not answer"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("for 7|AbCdEfGhIjKlMnOpQrStUvWxYz0123456789abcd, sorry", "for ***, sorry"),
            ("GET /ws?token=7%7Cabc&since=4 failed", "GET /ws?token=***&since=4 failed"),
            ("to nadia@example.test (bounced)", "to *** (bounced)"),
            ("postgres://user:p@ss@localhost:5432/db is away", "postgres://***@localhost:5432/db is away"),
            (r#"got "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln""#, r#"got "***""#),
            ("SERVICE_API_KEY=abc", "SERVICE_API_KEY=***"),
            ("a | b and 1|2 stay, as does duration_ms=4", "a | b and 1|2 stay, as does duration_ms=4"),
            ("https://main-api/files/1?signature=abc", "https://main-api/files/1?signature=***"),
        ] {
            assert_eq!(scrub(text), clean, "{text}");
        }
    }

    #[test]
    fn what_an_error_quotes_is_masked_for_reports() {
        for (text, clean) in [
            (r#"invalid type: string "my words", expected i64"#, "invalid type: string ***, expected i64"),
            ("byte index 1 is inside 'é' of `é \"it's\" mine`", "byte index 1 is inside ***"),
            ("it isn't there", "it isn't there"),
            ("an \"open end", "an ***"),
        ] {
            assert_eq!(scrub_quoted(text), clean, "{text}");
        }
    }
}
