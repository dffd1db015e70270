//! Values that are never shown, and the masks for those that are shown in part.

use std::fmt;

use zeroize::Zeroizing;

/// What stands for a value that is not shown.
pub(crate) const MASK: &str = "***";

/// A text that is wiped on drop and masked in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: for use, never for show.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

/// Whether a secret is one that documentation and examples show.
pub(crate) fn is_example(secret: &str) -> bool {
    const EXAMPLES: &[&str] = &[
        "changeit",
        "changeme",
        "changethis",
        "example",
        "examplesecret",
        "jwtsecret",
        "mysecret",
        "password",
        "placeholder",
        "replaceme",
        "replacethis",
        "secret",
        "secretkey",
        "supersecret",
        "todo",
        "yourjwtsecret",
        "yourjwtsecretkey",
        "yourkey",
        "yourserviceapikey",
        "yoursecret",
        "yoursecrethere",
        "yoursecretkey",
        "yoursigningkey",
        "yourtoken",
    ];
    let plain: String =
        secret.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    EXAMPLES.contains(&plain.as_str())
}

/// A URL with its password, and any password among its parameters, masked.
pub(crate) fn mask_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let mut masked = String::with_capacity(url.len());
    if !scheme.is_empty() {
        masked.push_str(scheme);
        masked.push_str("://");
    }
    // The last `@` of all: a password that was not percent-encoded may hold `@`, `/` or `?`.
    let rest = match rest.rsplit_once('@') {
        Some((credentials, rest)) => {
            let (user, password) =
                credentials.split_once(':').map_or((credentials, false), |(user, _)| (user, true));
            masked.push_str(user);
            if password {
                masked.push(':');
                masked.push_str(MASK);
            }
            masked.push('@');
            rest
        }
        None => rest,
    };
    let (address, parameters) =
        rest.split_once('?').map_or((rest, None), |(address, parameters)| (address, Some(parameters)));
    masked.push_str(address);
    for (index, parameter) in parameters.into_iter().flat_map(|text| text.split('&')).enumerate() {
        masked.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("pass") => {
                masked.push_str(name);
                masked.push('=');
                masked.push_str(MASK);
            }
            _ => masked.push_str(parameter),
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn example_secrets_are_recognised_in_any_spelling() {
        for example in ["your_jwt_secret", "YOUR-JWT-SECRET", "changeme", "Change_Me!", "<your secret>"] {
            assert!(is_example(example), "{example}");
        }
        for own in ["k8s9Zq", "correct horse battery staple", "secret-of-the-old-barn"] {
            assert!(!is_example(own), "{own}");
        }
    }

    #[test]
    fn only_passwords_are_masked_in_urls() {
        for (url, masked) in [
            ("postgresql://user:pa@ss@localhost:5432/db", "postgresql://user:***@localhost:5432/db"),
            (
                "postgres://user@localhost/db?password=x&sslmode=require",
                "postgres://user@localhost/db?password=***&sslmode=require",
            ),
            ("postgres://user:a?b/c@localhost/db", "postgres://user:***@localhost/db"),
            ("redis://:pass@localhost:6379", "redis://:***@localhost:6379"),
            ("redis-cluster://a:6379,b:6379", "redis-cluster://a:6379,b:6379"),
            ("sqlite:./data/messaging.db", "sqlite:./data/messaging.db"),
        ] {
            assert_eq!(mask_url(url), masked);
        }
    }
}
