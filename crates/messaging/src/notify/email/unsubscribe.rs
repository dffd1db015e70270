//! The link that switches mails off without signing in (RFC 8058), and the page behind it.
//!
//! It names the person and when it ends, and is signed; it can do nothing else. A scanner that follows
//! links gets a page with a button, only a POST changes anything.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::templates::Templates;
use crate::{
    clock::{Clock, Timestamp},
    errors::{Error, Result},
    ids::UserId,
    storage::{Store, preferences::PreferencesChange},
};

/// A mail is found again weeks later.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// Signs links and checks them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Links {
    mac: Hmac<Sha256>,
}

impl Links {
    /// `key` is the one that all nodes sign files with; what is signed here can never be taken for that.
    pub(super) fn new(key: &[u8]) -> Self {
        Self { mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    /// The path of a person's link.
    pub(super) fn path(&self, user: UserId, now: Timestamp) -> String {
        let expires = now.plus(LIFETIME).as_seconds();
        let signature = URL_SAFE_NO_PAD.encode(self.mac_of(user, expires).finalize().into_bytes());
        format!("/unsubscribe/{user}?exp={expires}&sig={signature}")
    }

    /// Whether a link was made here for this person and holds at `now`.
    pub(super) fn verify(&self, user: UserId, exp: &str, sig: &str, now: Timestamp) -> Result<()> {
        let invalid = || Error::Forbidden("This link is not valid.".into());
        let expires: i64 = exp.parse().map_err(|_| invalid())?;
        let signature = URL_SAFE_NO_PAD.decode(sig).map_err(|_| invalid())?;
        // Constant time: `verify_slice` compares by `subtle`.
        self.mac_of(user, expires).verify_slice(&signature).map_err(|_| invalid())?;
        if expires <= now.as_seconds() {
            return Err(Error::Forbidden("This link has expired.".into()));
        }
        Ok(())
    }

    fn mac_of(&self, user: UserId, expires: i64) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(format!("rented-messaging unsubscribe\n{user}\n{expires}").as_bytes());
        mac
    }
}

/// The key is not shown.
impl std::fmt::Debug for Links {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Links").finish_non_exhaustive()
    }
}

/// Answers those links, whether mail is configured just now or not: they outlive a configuration. Cheap
/// to clone.
#[derive(Clone)]
pub struct Unsubscriptions {
    links: Links,
    templates: Arc<Templates>,
    store: Store,
    clock: Clock,
}

impl Unsubscriptions {
    /// `key` is the one that all nodes sign with.
    pub fn new(key: &[u8], templates: Arc<Templates>, store: Store, clock: Clock) -> Self {
        Self { links: Links::new(key), templates, store, clock }
    }

    /// The page that asks, in the person's language.
    pub async fn ask(&self, user: UserId, exp: &str, sig: &str) -> Result<String> {
        self.links.verify(user, exp, sig, self.clock.now())?;
        self.page(user, false).await
    }

    /// Switches the person's mails off, and says so.
    pub async fn unsubscribe(&self, user: UserId, exp: &str, sig: &str) -> Result<String> {
        self.links.verify(user, exp, sig, self.clock.now())?;
        let change = PreferencesChange { email: Some(false), ..PreferencesChange::default() };
        self.store.change_preferences(user, &change).await?;
        self.page(user, true).await
    }

    async fn page(&self, user: UserId, is_done: bool) -> Result<String> {
        let contact = self.store.contacts(&[user]).await?.pop();
        let language = self.templates.language(contact.and_then(|contact| contact.language).as_deref());
        self.templates.page(language, is_done).map_err(Error::internal)
    }
}

impl std::fmt::Debug for Unsubscriptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Unsubscriptions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_764_930_600_000);

    fn parts(path: &str) -> (String, String) {
        let url = url::Url::parse("https://chat.example.test").unwrap().join(path).unwrap();
        let find = |name| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
        (find("exp"), find("sig"))
    }

    #[test]
    fn a_link_holds_for_three_months_and_for_its_person_alone() {
        let links = Links::new(b"a key");
        let (exp, sig) = parts(&links.path(UserId(7), NOW));
        assert!(links.verify(UserId(7), &exp, &sig, NOW.plus(LIFETIME / 2)).is_ok());
        let expired = links.verify(UserId(7), &exp, &sig, NOW.plus(LIFETIME)).unwrap_err();
        assert_eq!(expired.message(), "This link has expired.");
        let later = (exp.parse::<i64>().unwrap() + 1).to_string();
        for (user, exp, sig, key) in [
            (8, exp.as_str(), sig.as_str(), b"a key" as &[u8]),
            (7, later.as_str(), &sig, b"a key"),
            (7, &exp, "", b"a key"),
            (7, "soon", &sig, b"a key"),
            (7, &exp, &sig, b"another key"),
        ] {
            let refused = Links::new(key).verify(UserId(user), exp, sig, NOW).unwrap_err();
            assert_eq!(refused.message(), "This link is not valid.", "{user} {exp} {sig}");
        }
    }
}
