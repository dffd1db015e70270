//! The signature of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, once for each key.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::config::WebhookKey;

/// Signs with one key or, while keys are changed, with two.
#[derive(Debug)]
pub(super) struct Signer {
    keys: Vec<WebhookKey>,
}

impl Signer {
    pub(super) fn new(keys: &[WebhookKey]) -> Self {
        Self { keys: keys.to_vec() }
    }

    /// The value of `webhook-signature`: `v1,<base64>` for each key, the newest first, separated by spaces.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|key| {
                let mut mac =
                    <Hmac<Sha256> as Mac>::new_from_slice(key.expose()).expect("a key of any length will do");
                mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
                format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
            })
            .collect();
        signatures.join(" ")
    }
}
