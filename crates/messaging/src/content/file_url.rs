//! A link to a picture or file that lies elsewhere. It is kept and shown, never fetched.

use url::Url;

use crate::errors::{Error, Result};

/// The most characters a link may have; the specification's column is as wide.
const MAX_CHARACTERS: usize = 500;

/// An absolute `http` or `https` URL of at most 500 characters, kept as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUrl(String);

impl FileUrl {
    /// Reads a link; white space around it is ignored.
    pub fn parse(raw: &str) -> Result<Self> {
        let typed = raw.trim();
        if typed.chars().count() > MAX_CHARACTERS {
            return Err(Error::field(
                "file_url",
                "The file_url field must not be greater than 500 characters.",
            ));
        }
        // The URL standard strips tabs and newlines and reads `\` as `/`; a client that shows the text
        // as typed would see another address than the one that was checked.
        let is_unambiguous = !typed.chars().any(|character| {
            character.is_control()
                || character.is_whitespace()
                || matches!(character, '\\' | '<' | '>' | '"' | '\u{200B}'..='\u{200F}')
                || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        });
        // `http:/host` and `http:host` parse as well; nobody means them.
        let has_authority = typed.split_once("://").is_some_and(|(scheme, _)| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        });
        let parses =
            Url::parse(typed).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if is_unambiguous && has_authority && parses {
            Ok(Self(typed.to_owned()))
        } else {
            Err(Error::field("file_url", "The file_url field must be a valid http or https URL."))
        }
    }

    /// The link as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The link, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_https_links_come_back_as_typed() {
        let longest = format!("https://example.test/{}", "a".repeat(479));
        for link in [
            "http://example.test",
            "https://example.test/a.jpg?x=1&y=[2]#z",
            "HTTPS://Example.TEST/A.jpg",
            "http://localhost:8000/storage/1.png",
            "https://example.test/größe.png",
            &longest,
        ] {
            assert_eq!(FileUrl::parse(link).unwrap().as_str(), link);
        }
        assert_eq!(FileUrl::parse(" http://example.test/a \n").unwrap().as_str(), "http://example.test/a");
    }

    #[test]
    fn everything_else_is_refused() {
        let too_long = format!("https://example.test/{}", "a".repeat(480));
        for link in [
            "",
            "a.jpg",
            "/storage/a.jpg",
            "//example.test/a.jpg",
            "ftp://example.test/a",
            "javascript:alert(1)",
            "data:image/png;base64,AA==",
            "file:///etc/passwd",
            "http:example.test",
            "http:/example.test",
            "http://",
            "http://exa mple.test/",
            "http://example.test/a b",
            "ht\ntp://example.test/",
            "http:\\\\example.test\\",
            "http://example.test\\@other.test/",
            "http://example.test/\"><script>",
            "http://example.test/\u{202e}gpj.exe",
            "http://[::1",
            &too_long,
        ] {
            let error = FileUrl::parse(link).unwrap_err();
            assert!(error.message().starts_with("The file_url field must"), "{link}");
        }
    }
}
