//! The push services: what is configured of each, with keys that were read and found to be keys.

use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use p256::ecdsa::SigningKey;
use serde::Deserialize;

use super::{
    reader::{ConfigError, Reader, quoted},
    secret::Secret,
};

/// Push notifications; without any service there are none.
#[derive(Debug, Clone)]
pub struct Push {
    /// `PUSH_FOLD`.
    pub fold: Duration,
    /// `PUSH_SWEEP_AFTER`.
    pub sweep_after: Duration,
    /// `FCM_SERVICE_ACCOUNT` and `FCM_BASE_URL`.
    pub fcm: Option<FcmAccount>,
    /// `APNS_KEY` and what goes with it.
    pub apns: Option<ApnsAccount>,
    /// `VAPID_SUBJECT` and what goes with it.
    pub web_push: Option<VapidAccount>,
}

/// A service account of Firebase.
#[derive(Clone)]
pub struct FcmAccount {
    /// Where to send to, without a slash at its end.
    pub base_url: String,
    /// The project.
    pub project_id: String,
    /// Who we are.
    pub client_email: String,
    /// Where access tokens come from.
    pub token_url: String,
    /// Signs the requests for access tokens.
    pub key: EncodingKey,
}

/// A key of Apple's push service.
#[derive(Clone)]
pub struct ApnsAccount {
    /// Where to send to, without a slash at its end.
    pub base_url: String,
    /// `APNS_KEY_ID`.
    pub key_id: String,
    /// `APNS_TEAM_ID`.
    pub team_id: String,
    /// `APNS_TOPIC`: the app's bundle id.
    pub topic: String,
    /// `APNS_KEY`.
    pub key: EncodingKey,
}

/// Who we are to the push services of browsers (RFC 8292).
#[derive(Clone)]
pub struct VapidAccount {
    /// `VAPID_SUBJECT`.
    pub subject: String,
    /// `VAPID_PRIVATE_KEY`; without it one is made and kept in the database.
    pub key: Option<SigningKey>,
    /// `WEB_PUSH_ALLOW_PRIVATE`: browsers' push services may have private addresses, and no TLS.
    pub allow_private: bool,
}

impl fmt::Debug for FcmAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FcmAccount").field("project_id", &self.project_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ApnsAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApnsAccount").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl fmt::Debug for VapidAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VapidAccount").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Push {
    /// Whether anything can be pushed at all.
    pub const fn is_on(&self) -> bool {
        self.fcm.is_some() || self.apns.is_some() || self.web_push.is_some()
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            fold: reader.seconds("PUSH_FOLD", 0..=300)?,
            sweep_after: reader.seconds("PUSH_SWEEP_AFTER", 1..=3600)?,
            fcm: FcmAccount::read(reader)?,
            apns: ApnsAccount::read(reader)?,
            web_push: VapidAccount::read(reader)?,
        })
    }
}

#[derive(Deserialize)]
struct ServiceAccount {
    project_id: String,
    client_email: String,
    private_key: String,
    token_uri: String,
}

impl FcmAccount {
    fn read(reader: &mut Reader) -> Result<Option<Self>, ConfigError> {
        const NAME: &str = "FCM_SERVICE_ACCOUNT";
        let base_url = base_url(reader, "FCM_BASE_URL")?;
        let Some(value) = reader.secret(NAME)? else { return Ok(None) };
        let json = text_or_file(NAME, &value, '{')?;
        // What is wrong inside is not quoted: it is a secret.
        let account: ServiceAccount = serde_json::from_str(&json).map_err(|_| {
            ConfigError::new(NAME, "is not the JSON of a service account with project_id, client_email, private_key and token_uri.")
        })?;
        let is_name = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte))
        };
        if !is_name(&account.project_id) {
            return Err(ConfigError::new(NAME, "has a project_id that is not one."));
        }
        if !is_url(&account.token_uri) {
            return Err(ConfigError::new(NAME, "has a token_uri that is not an http(s) URL."));
        }
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())
            .map_err(|_| ConfigError::new(NAME, "has a private_key that is not an RSA key in PEM."))?;
        Ok(Some(Self {
            base_url,
            project_id: account.project_id,
            client_email: account.client_email,
            token_url: account.token_uri,
            key,
        }))
    }
}

impl ApnsAccount {
    fn read(reader: &mut Reader) -> Result<Option<Self>, ConfigError> {
        let base_url = base_url(reader, "APNS_BASE_URL")?;
        let (key_id, team_id) = (reader.text("APNS_KEY_ID"), reader.text("APNS_TEAM_ID"));
        let topic = reader.text("APNS_TOPIC");
        let Some(value) = reader.secret("APNS_KEY")? else { return Ok(None) };
        let pem = text_or_file("APNS_KEY", &value, '-')?.replace("\\n", "\n");
        let key = EncodingKey::from_ec_pem(pem.as_bytes())
            .map_err(|_| ConfigError::new("APNS_KEY", "is not an EC private key in PEM (a .p8 file)."))?;
        let needed = |name, value: Option<String>| {
            value.ok_or_else(|| ConfigError::new(name, "is not set, but APNS_KEY needs it."))
        };
        Ok(Some(Self {
            base_url,
            key_id: needed("APNS_KEY_ID", key_id)?,
            team_id: needed("APNS_TEAM_ID", team_id)?,
            topic: needed("APNS_TOPIC", topic)?,
            key,
        }))
    }
}

impl VapidAccount {
    fn read(reader: &mut Reader) -> Result<Option<Self>, ConfigError> {
        let allow_private = reader.flag("WEB_PUSH_ALLOW_PRIVATE")?;
        let subject = reader.parse("VAPID_SUBJECT", |value| {
            let is_contact = value.starts_with("mailto:") || value.starts_with("https://");
            if is_contact { Ok(value.to_owned()) } else { Err("must begin with mailto: or https://.".into()) }
        })?;
        let key = reader.secret("VAPID_PRIVATE_KEY")?;
        let key = key
            .map(|key| {
                signing_key(key.expose()).ok_or_else(|| {
                    ConfigError::new(
                        "VAPID_PRIVATE_KEY",
                        "is not a P-256 private key: 32 bytes in base64url.",
                    )
                })
            })
            .transpose()?;
        Ok(subject.map(|subject| Self { subject, key, allow_private }))
    }
}

/// The private key that 32 bytes in base64url are.
pub fn signing_key(text: &str) -> Option<SigningKey> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).ok()?;
    SigningKey::from_slice(&bytes).ok()
}

fn is_url(value: &str) -> bool {
    url::Url::parse(value).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn base_url(reader: &mut Reader, name: &'static str) -> Result<String, ConfigError> {
    let url = reader.parse(name, |value| {
        if is_url(value) {
            Ok(value.trim_end_matches('/').to_owned())
        } else {
            Err(format!("must be an http(s) URL, not {}.", quoted(value)))
        }
    })?;
    Ok(url.expect("the table has its default"))
}

/// A secret as it stands, or the text of the file that it names.
fn text_or_file(name: &'static str, value: &Secret, begins: char) -> Result<String, ConfigError> {
    let value = value.expose().trim();
    if value.starts_with(begins) {
        return Ok(value.to_owned());
    }
    std::fs::read_to_string(value).map_err(|error| {
        ConfigError::new(name, format!("names a file that cannot be read: {}.", error.kind()))
    })
}
