//! `SMTP_URL`: the mail server to hand mail to, how to encrypt the way there, and as whom.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::config::Secret;

const RULE: &str = "must be smtps://user:password@host, or smtp:// with ?tls=required, ?tls=opportunistic or \
                    ?tls=none, with nothing else in it; reserved characters are percent-encoded.";

/// How the way to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// TLS from the first byte (`smtps://`).
    Tls,
    /// STARTTLS, or nothing is sent (`?tls=required`).
    StartTls,
    /// STARTTLS if the server offers it (`?tls=opportunistic`).
    Opportunistic,
    /// None (`smtp://` alone): for a relay on the same machine.
    None,
}

/// A mail server.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl {
    /// Its name or address.
    pub host: String,
    /// Its port: 465 with TLS, 587 with STARTTLS, 25 without, unless it is said.
    pub port: u16,
    /// The way there.
    pub encryption: Encryption,
    /// User name and password.
    pub credentials: Option<(String, Secret)>,
    /// It is on this machine.
    pub is_local: bool,
}

impl SmtpUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|_| RULE)?;
        let mut parameters = url.query_pairs();
        let tls = match (parameters.next(), parameters.next()) {
            (None, None) => None,
            (Some((name, value)), None) if name == "tls" => Some(value.into_owned()),
            _ => return Err(RULE.to_owned()),
        };
        let (encryption, port) = match (url.scheme(), tls.as_deref()) {
            ("smtps", None) => (Encryption::Tls, 465),
            ("smtp", Some("required")) => (Encryption::StartTls, 587),
            ("smtp", Some("opportunistic")) => (Encryption::Opportunistic, 587),
            ("smtp", None | Some("none")) => (Encryption::None, 25),
            _ => return Err(RULE.to_owned()),
        };
        // Of a scheme that is not the web's, an IPv4 address is read as a name.
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(RULE)?;
        let is_local = match Host::parse(host).map_err(|_| RULE)? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| RULE);
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            ("", Some(_)) | (_, None) => return Err(RULE.to_owned()),
            (user, Some(password)) => Some((decode(user)?, Secret::new(decode(password)?))),
        };
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() || url.port() == Some(0) {
            return Err(RULE.to_owned());
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(port),
            encryption,
            credentials,
            is_local,
        })
    }

    /// Whether a password, or mail, goes over a network as plain text.
    pub fn is_plain(&self) -> bool {
        !self.is_local && matches!(self.encryption, Encryption::None | Encryption::Opportunistic)
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SmtpUrl")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_and_tls_say_how_the_way_is_encrypted() {
        for (text, encryption, port) in [
            ("smtps://mail.example.test", Encryption::Tls, 465),
            ("smtp://mail.example.test?tls=required", Encryption::StartTls, 587),
            ("smtp://mail.example.test:2525?tls=opportunistic", Encryption::Opportunistic, 2525),
            ("smtp://localhost", Encryption::None, 25),
            ("smtp://127.0.0.1:1025/", Encryption::None, 1025),
            ("smtp://[::1]:1025?tls=none", Encryption::None, 1025),
        ] {
            let server = SmtpUrl::parse(text).expect(text);
            assert_eq!((server.encryption, server.port), (encryption, port), "{text}");
        }
        assert_eq!(SmtpUrl::parse("smtp://[::1]").expect("a server").host, "::1");
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        let server =
            SmtpUrl::parse("smtps://rented%40example.test:hunter2%2F@mail.example.test").expect("it");
        assert!(!format!("{server:?}").contains("hunter2"));
        let (user, password) = server.credentials.expect("credentials");
        assert_eq!((user.as_str(), password.expose()), ("rented@example.test", "hunter2/"));
    }

    #[test]
    fn anything_else_is_refused_without_its_password() {
        for bad in [
            "mail.example.test",
            "http://mail.example.test",
            "smtp://",
            "smtp://user@mail.example.test",
            "smtps://mail.example.test?tls=required",
            "smtp://mail.example.test?tls=maybe",
            "smtp://mail.example.test?tls=required&x=1",
            "smtp://:hunter2@mail.example.test",
            "smtps://user:hunter2@mail.example.test/path",
            "smtps://mail.example.test:0",
        ] {
            let rule = SmtpUrl::parse(bad).expect_err(bad);
            assert!(!rule.contains("hunter2"));
        }
    }

    #[test]
    fn only_a_relay_on_this_machine_is_reached_without_encryption_in_good_conscience() {
        for (text, is_plain) in [
            ("smtp://localhost", false),
            ("smtp://127.0.0.1", false),
            ("smtp://mail.example.test", true),
            ("smtp://mail.example.test?tls=opportunistic", true),
            ("smtp://mail.example.test?tls=required", false),
            ("smtps://mail.example.test", false),
        ] {
            assert_eq!(SmtpUrl::parse(text).expect(text).is_plain(), is_plain, "{text}");
        }
    }
}
