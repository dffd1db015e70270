//! Web Push (RFC 8030): to the push service that a browser named, signed by us (RFC 8292), encrypted
//! for that browser alone (`encrypt`).
//!
//! The addresses come from users: `outbound` says where they may lead.

mod encrypt;

use std::{sync::Arc, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use moka::sync::Cache;
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::{
    message::{Notification, Push},
    provider::{Answer, by_status, unreachable},
};
use crate::{
    clock::Clock,
    config::{VapidAccount, signing_key},
    outbound::{self, Reach, check_url},
    storage::Store,
};

/// How long a signature holds; a day is the longest allowed.
const SIGNED_FOR: Duration = Duration::from_secs(12 * 3600);
/// Signatures are kept for less than that, one for each push service.
const KEEP_SIGNATURE: Duration = Duration::from_secs(6 * 3600);
/// Push services that signatures and places are kept for.
const MAX_SERVICES: u64 = 1000;
/// Requests to one push service at once: one that hangs keeps this much of the queue and no more.
const AT_ONCE_PER_SERVICE: usize = 8;
/// How long a push service keeps a push for a browser that is closed: a day.
const TTL: &str = "86400";

/// Web Push in the name of one operator.
pub(super) struct WebPush {
    client: Client,
    reach: Reach,
    subject: String,
    key: SigningKey,
    public_key: String,
    clock: Clock,
    signatures: Cache<String, Arc<str>>,
    places: Cache<String, Arc<Semaphore>>,
}

impl std::fmt::Debug for WebPush {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WebPush").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// What a browser gave the page, which registered it as the token of a `web` device.
#[derive(Deserialize)]
struct SubscriptionJson {
    endpoint: String,
    keys: KeysJson,
}

#[derive(Deserialize)]
struct KeysJson {
    p256dh: String,
    auth: String,
}

/// A subscription that was looked at.
pub(crate) struct Subscription {
    endpoint: Url,
    public_key: Vec<u8>,
    auth: Vec<u8>,
}

impl Subscription {
    /// Reads `{"endpoint","keys":{"p256dh","auth"}}`; `None` if it is none.
    pub(crate) fn parse(json: &str, reach: Reach) -> Option<Self> {
        let subscription: SubscriptionJson = serde_json::from_str(json).ok()?;
        let endpoint = check_url(&subscription.endpoint, reach).ok()?;
        let (public_key, auth) = (decode(&subscription.keys.p256dh)?, decode(&subscription.keys.auth)?);
        let fits = public_key.len() == encrypt::PUBLIC_KEY && auth.len() == encrypt::AUTH;
        fits.then_some(Self { endpoint, public_key, auth })
    }
}

/// Browsers write base64url, some libraries with padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

impl WebPush {
    pub(super) async fn new(
        account: VapidAccount,
        store: &Store,
        timeout: Duration,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let key = match account.key {
            Some(key) => key,
            None => own_key(store).await?,
        };
        let public_key = URL_SAFE_NO_PAD.encode(key.verifying_key().to_encoded_point(false).as_bytes());
        let reach = if account.allow_private { Reach::Any } else { Reach::Public };
        Ok(Self {
            client: outbound::client(reach, timeout).map_err(std::io::Error::other)?,
            reach,
            subject: account.subject,
            key,
            public_key,
            clock,
            signatures: Cache::builder().max_capacity(MAX_SERVICES).time_to_live(KEEP_SIGNATURE).build(),
            places: Cache::new(MAX_SERVICES),
        })
    }

    /// What a browser's page subscribes with.
    pub(super) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Waits for a place at the push service of a subscription.
    pub(super) async fn gate(&self, token: &str) -> Option<OwnedSemaphorePermit> {
        let service = origin(&Subscription::parse(token, self.reach)?.endpoint);
        let places = self.places.get_with(service, || Arc::new(Semaphore::new(AT_ONCE_PER_SERVICE)));
        places.acquire_owned().await.ok()
    }

    pub(super) async fn send(&self, token: &str, push: &Push) -> Answer {
        let Push::Message(notification) = push else { return Answer::Rejected("nothing to show") };
        // It was looked at when it was registered; by now other addresses may be allowed.
        let Some(subscription) = Subscription::parse(token, self.reach) else {
            return Answer::Rejected("an address that is not allowed");
        };
        let plain = payload(notification);
        let Ok(body) = encrypt::encrypt(&plain, &subscription.public_key, &subscription.auth) else {
            // No browser makes such a key: nobody can read what is sent there.
            return Answer::Dead { since: None };
        };
        let authorization =
            format!("vapid t={}, k={}", self.signature(&origin(&subscription.endpoint)), self.public_key);
        let request = self
            .client
            .post(subscription.endpoint)
            .header("authorization", authorization)
            .header("content-encoding", "aes128gcm")
            .header("content-type", "application/octet-stream")
            .header("ttl", TTL)
            .header("urgency", "high")
            // Up to 32 characters of base64url: a later push takes the place of one not yet fetched.
            .header("topic", format!("c{}", notification.conversation))
            .body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return unreachable(&error),
        };
        let status = response.status();
        by_status(status, response.headers()).unwrap_or(match status.as_u16() {
            404 | 410 => Answer::Dead { since: None },
            401 | 403 => Answer::Rejected("the signature is refused"),
            413 => Answer::Rejected("a push that is too large"),
            _ => Answer::Rejected("an unexpected answer"),
        })
    }

    fn signature(&self, audience: &str) -> Arc<str> {
        self.signatures.get_with(audience.to_owned(), || {
            let expires = self.clock.now().plus(SIGNED_FOR).as_seconds();
            let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let header = encode(&json!({"typ": "JWT", "alg": "ES256"}));
            let claims = encode(&json!({"aud": audience, "exp": expires, "sub": self.subject}));
            let signed = format!("{header}.{claims}");
            let signature: Signature = self.key.sign(signed.as_bytes());
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())).into()
        })
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The key that all nodes share and nobody configured.
async fn own_key(store: &Store) -> std::io::Result<SigningKey> {
    let make = || loop {
        // Nearly every 32 bytes are a key.
        let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        if signing_key(&text).is_some() {
            break text;
        }
    };
    let kept = store.setting("vapid_private_key", make).await.map_err(std::io::Error::other)?;
    signing_key(&kept).ok_or_else(|| std::io::Error::other("the kept key of Web Push is none"))
}

/// What the page's service worker gets, with a text that fits.
fn payload(notification: &Notification) -> Vec<u8> {
    let mut fitting = notification.clone();
    loop {
        let mut payload: Map<String, Value> =
            fitting.data().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        payload.insert("title".into(), fitting.title.as_str().into());
        payload.insert("subtitle".into(), fitting.subtitle.as_deref().into());
        payload.insert("body".into(), fitting.body.as_str().into());
        payload.insert("tag".into(), fitting.tag().into());
        let text = Value::Object(payload).to_string();
        match fitting.shortened() {
            Some(shorter) if text.len() > encrypt::MAX_PLAIN => fitting = shorter,
            _ => return text.into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_read_and_nothing_else() {
        let key = URL_SAFE_NO_PAD.encode([4; 65]);
        let auth = URL_SAFE.encode([1; 16]);
        let of = |endpoint: &str, key: &str, auth: &str| {
            let json =
                json!({"endpoint": endpoint, "expirationTime": null, "keys": {"p256dh": key, "auth": auth}});
            Subscription::parse(&json.to_string(), Reach::Public).is_some()
        };
        assert!(of("https://push.example.test/abc", &key, &auth));
        assert!(!of("http://push.example.test/abc", &key, &auth));
        assert!(!of("https://10.0.0.1/abc", &key, &auth));
        assert!(!of("https://push.example.test/abc", &key[1..], &auth));
        assert!(!of("https://push.example.test/abc", &key, "AAAA"));
        assert!(!of("https://push.example.test/abc", "not base64!", &auth));
        assert!(Subscription::parse("{}", Reach::Any).is_none());
    }
}
