//! Webhooks: where events go, what signs them, and who may ask for those that were given up.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use url::Url;
use zeroize::Zeroizing;

use super::{
    groups::Environment,
    reader::{ConfigError, Reader, quoted},
};
use crate::storage::webhooks::WebhookEvent;

/// Each event is stored once for each target.
const MAX_TARGETS: usize = 10;
/// What Standard Webhooks asks of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Webhooks.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// `WEBHOOK_URL`; none switches webhooks off.
    pub urls: Vec<Url>,
    /// `WEBHOOK_SECRET` and, while it is replaced, `WEBHOOK_SECRET_PREVIOUS`.
    pub keys: Vec<WebhookKey>,
    /// `WEBHOOK_EVENTS`.
    pub events: Vec<WebhookEvent>,
    /// `WEBHOOK_INCLUDE_TEXT`.
    pub include_text: bool,
    /// `WEBHOOK_ALLOW_PRIVATE`.
    pub allow_private: bool,
    /// `WEBHOOK_TIMEOUT`.
    pub timeout: Duration,
    /// `WEBHOOK_RETRY_BASE`.
    pub retry_base: Duration,
    /// `WEBHOOK_MAX_ATTEMPTS`.
    pub max_attempts: u32,
}

/// A key that events are signed with.
#[derive(Clone)]
pub struct WebhookKey(Zeroizing<Vec<u8>>);

impl WebhookKey {
    /// Reads `whsec_` and base64.
    fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim().strip_prefix("whsec_")?).ok()?);
        SECRET_BYTES.contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes: for signing, never for show.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for WebhookKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(super::secret::MASK)
    }
}

impl Webhooks {
    pub(super) fn read(reader: &mut Reader, environment: Environment) -> Result<Self, ConfigError> {
        let urls = reader.parse("WEBHOOK_URL", urls)?.unwrap_or_default();
        let mut keys = Vec::new();
        for name in ["WEBHOOK_SECRET", "WEBHOOK_SECRET_PREVIOUS"] {
            if let Some(secret) = reader.secret(name)? {
                let rule = "must be whsec_ followed by the base64 of 24 to 64 random bytes.";
                let key = WebhookKey::parse(secret.expose()).ok_or_else(|| ConfigError::new(name, rule))?;
                keys.push(key);
            } else if name == "WEBHOOK_SECRET" && !urls.is_empty() {
                return Err(ConfigError::new(name, "is not set: WEBHOOK_URL needs it to sign what is sent."));
            } else if name == "WEBHOOK_SECRET" {
                // Without it the previous one signs nothing.
                reader.secret("WEBHOOK_SECRET_PREVIOUS")?;
                break;
            }
        }
        let default = if environment.is_production() { "false" } else { "true" };
        let allow_private = flag(&reader.text_or("WEBHOOK_ALLOW_PRIVATE", default))
            .map_err(|rule| ConfigError::new("WEBHOOK_ALLOW_PRIVATE", rule))?;
        Ok(Self {
            urls,
            keys,
            events: reader.parse("WEBHOOK_EVENTS", events)?.expect("the table has its default"),
            include_text: reader.parse("WEBHOOK_INCLUDE_TEXT", flag)?.expect("the table has its default"),
            allow_private,
            timeout: reader.millis("WEBHOOK_TIMEOUT")?,
            retry_base: reader.millis("WEBHOOK_RETRY_BASE")?,
            max_attempts: reader.number("WEBHOOK_MAX_ATTEMPTS", 1..=10)?,
        })
    }
}

fn urls(value: &str) -> Result<Vec<Url>, String> {
    let mut urls: Vec<Url> = Vec::new();
    for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        // The URL is not quoted: it may hold what only the main API should know.
        let rule =
            "must be URLs that start with http:// or https://, comma-separated, without a user name or `#`.";
        let url = Url::parse(text).map_err(|_| rule)?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_plain {
            return Err(rule.to_owned());
        }
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    if urls.len() > MAX_TARGETS {
        return Err(format!("must not name more than {MAX_TARGETS} addresses."));
    }
    Ok(urls)
}

fn events(value: &str) -> Result<Vec<WebhookEvent>, String> {
    if value == "*" {
        return Ok(WebhookEvent::ALL.to_vec());
    }
    let known = || WebhookEvent::ALL.map(WebhookEvent::name).join(", ");
    value
        .split(',')
        .map(str::trim)
        .map(|name| {
            WebhookEvent::parse(name)
                .ok_or_else(|| format!("must be * or some of {}, not {}.", known(), quoted(name)))
        })
        .collect()
}

fn flag(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("must be true or false, not {}.", quoted(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_base64_of_enough_bytes_and_never_shown() {
        let good = format!("whsec_{}", STANDARD.encode([7; 24]));
        let key = WebhookKey::parse(&good).expect("a key");
        assert_eq!((key.expose(), format!("{key:?}").as_str()), (&[7; 24][..], "***"));
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        for bad in [&good[6..], "whsec_", "whsec_???", short.as_str(), long.as_str()] {
            assert!(WebhookKey::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_listed_once_and_hold_no_password() {
        let two =
            urls("https://a.example.test/hooks?x=1, http://b.example.test, https://a.example.test/hooks?x=1");
        assert_eq!(two.expect("URLs").len(), 2);
        for bad in [
            "a.example.test",
            "ftp://a.example.test",
            "https://u:hunter2@a.example.test",
            "https://a.test/#x",
        ] {
            assert!(!urls(bad).expect_err(bad).contains("hunter2"));
        }
        let many: Vec<_> = (0..11).map(|port| format!("http://a.example.test:{port}/")).collect();
        assert!(urls(&many.join(",")).is_err());
    }

    #[test]
    fn events_are_some_or_all() {
        assert_eq!(events("*").map(|events| events.len()), Ok(5));
        assert_eq!(events("user.blocked, message.read").map(|events| events.len()), Ok(2));
        assert!(events("message.created,message.imagined").is_err());
    }
}
