//! Signed addresses of files, which expire.
//!
//! A picture in a chat is fetched by an image view that sends no token, so the address itself has to
//! prove that it was given to a participant. It is signed with HMAC-SHA256 over the file, the variant
//! and the expiry; the name in the path is decoration and not signed.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::name::path_segment;
use crate::{
    clock::Timestamp,
    config::Secret,
    errors::{Error, Result},
    ids::AttachmentId,
    storage::Store,
};

/// The key that all nodes sign with: `own` (`URL_SIGNING_KEY`), or derived from `shared`
/// (`JWT_SECRET`), or made once and kept in the database.
pub async fn signing_key(own: Option<&Secret>, shared: Option<&Secret>, store: &Store) -> Result<Vec<u8>> {
    if let Some(key) = own {
        return Ok(key.expose().as_bytes().to_vec());
    }
    if let Some(secret) = shared {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(b"rented-messaging file links");
        return Ok(mac.finalize().into_bytes().to_vec());
    }
    let made =
        store.setting("url_signing_key", || URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())).await?;
    Ok(made.into_bytes())
}

/// Which bytes of an attachment are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The file itself.
    Original,
    /// Its small picture.
    Thumbnail,
}

impl Variant {
    /// From the query `variant` of an address; without one the file itself is meant.
    pub fn parse(query: Option<&str>) -> Result<Self> {
        match query {
            None | Some("original") => Ok(Self::Original),
            Some("thumbnail") => Ok(Self::Thumbnail),
            Some(_) => Err(Error::field("variant", "The selected variant is invalid.")),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Thumbnail => "thumbnail",
        }
    }
}

/// The two addresses of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Where the file is.
    pub url: String,
    /// Where its small picture is.
    pub thumbnail_url: Option<String>,
}

/// Signs addresses and checks them.
#[derive(Clone)]
pub struct Signer {
    mac: Hmac<Sha256>,
    /// What comes before `/files`; empty for path-absolute addresses.
    base: String,
    lifetime_seconds: i64,
}

/// The key is not shown.
impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Signer").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with `key`, which all nodes must share. Addresses are absolute if there is a
    /// `public_url`, and hold for `lifetime` at least and half as much again at most.
    pub fn new(key: &[u8], public_url: Option<&str>, lifetime: Duration) -> Self {
        Self {
            mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
            base: public_url.unwrap_or_default().trim_end_matches('/').to_owned(),
            lifetime_seconds: i64::try_from(lifetime.as_secs())
                .unwrap_or(i64::MAX / 4)
                .clamp(2, i64::MAX / 4),
        }
    }

    /// How long an address holds at least.
    pub const fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_seconds.unsigned_abs())
    }

    /// The addresses of an attachment as they are given out at `now`.
    pub fn links(&self, id: AttachmentId, name: &str, has_thumbnail: bool, now: Timestamp) -> Links {
        let expires = self.expiry(now);
        Links {
            url: self.url(id, name, Variant::Original, expires),
            thumbnail_url: has_thumbnail.then(|| self.url(id, name, Variant::Thumbnail, expires)),
        }
    }

    /// Whether `exp` and `sig` of an address prove that it was given out for this file and holds at
    /// `now`; [`Error::Forbidden`] if not.
    pub fn verify(
        &self,
        id: AttachmentId,
        variant: Variant,
        exp: &str,
        sig: &str,
        now: Timestamp,
    ) -> Result<()> {
        let invalid = || Error::Forbidden("This link is not valid.".into());
        let expires: i64 = exp.parse().map_err(|_| invalid())?;
        let signature = URL_SAFE_NO_PAD.decode(sig).map_err(|_| invalid())?;
        // Constant time: `verify_slice` compares by `subtle`.
        self.mac_of(id, variant, expires).verify_slice(&signature).map_err(|_| invalid())?;
        // Only now: an expiry that was tampered with is not a link that has expired.
        if expires <= now.as_seconds() {
            return Err(Error::Forbidden("This link has expired.".into()));
        }
        Ok(())
    }

    /// The same for everybody within half a lifetime: an address that changed with every answer would
    /// make clients fetch every picture again, since their caches go by address.
    fn expiry(&self, now: Timestamp) -> i64 {
        let step = self.lifetime_seconds / 2;
        (now.as_seconds().div_euclid(step) + 3).saturating_mul(step)
    }

    fn url(&self, id: AttachmentId, name: &str, variant: Variant, expires: i64) -> String {
        let signature = self.mac_of(id, variant, expires).finalize().into_bytes();
        let query = match variant {
            Variant::Original => "",
            Variant::Thumbnail => "variant=thumbnail&",
        };
        format!(
            "{}/files/{id}/{}?{query}exp={expires}&sig={}",
            self.base,
            path_segment(name),
            URL_SAFE_NO_PAD.encode(signature),
        )
    }

    fn mac_of(&self, id: AttachmentId, variant: Variant, expires: i64) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(format!("rented-messaging file\n{id}\n{}\n{expires}", variant.name()).as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    const ID: AttachmentId = AttachmentId(7);
    const NOW: Timestamp = Timestamp::from_millis(1_764_930_600_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn signer() -> Signer {
        Signer::new(b"a key", None, DAY)
    }

    fn query(url: &str, name: &str) -> Option<String> {
        let url = Url::parse("http://localhost").unwrap().join(url).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn verify(signer: &Signer, url: &str, id: AttachmentId, now: Timestamp) -> Result<()> {
        let variant = Variant::parse(query(url, "variant").as_deref())?;
        signer.verify(id, variant, &query(url, "exp").unwrap(), &query(url, "sig").unwrap(), now)
    }

    #[test]
    fn a_link_holds_for_its_lifetime_and_then_expires() {
        let links = signer().links(ID, "a b.jpg", true, NOW);
        assert!(links.url.starts_with("/files/7/a%20b.jpg?exp="), "{}", links.url);
        for url in [links.url, links.thumbnail_url.unwrap()] {
            for age in [Duration::ZERO, DAY - Duration::from_secs(1)] {
                assert!(verify(&signer(), &url, ID, NOW.plus(age)).is_ok());
            }
            let error = verify(&signer(), &url, ID, NOW.plus(DAY * 3 / 2)).unwrap_err();
            assert_eq!((error.code(), &*error.message()), ("FORBIDDEN", "This link has expired."));
        }
    }

    #[test]
    fn a_link_is_the_same_for_a_while_so_that_clients_can_cache() {
        let first = signer().links(ID, "a.jpg", false, NOW);
        assert_eq!(signer().links(ID, "a.jpg", false, NOW.plus(Duration::from_secs(60))), first);
        assert_ne!(signer().links(ID, "a.jpg", false, NOW.plus(DAY)), first);
    }

    #[test]
    fn a_link_is_good_for_its_file_variant_and_key_only() {
        let links = signer().links(ID, "a.jpg", true, NOW);
        let (exp, sig) = (query(&links.url, "exp").unwrap(), query(&links.url, "sig").unwrap());
        assert!(signer().verify(ID, Variant::Original, &exp, &sig, NOW).is_ok());
        assert!(signer().verify(ID, Variant::Thumbnail, &exp, &sig, NOW).is_err());
        assert!(signer().verify(AttachmentId(8), Variant::Original, &exp, &sig, NOW).is_err());
        assert!(
            Signer::new(b"another key", None, DAY).verify(ID, Variant::Original, &exp, &sig, NOW).is_err()
        );
        let later = (exp.parse::<i64>().unwrap() + 1).to_string();
        let error = signer().verify(ID, Variant::Original, &later, &sig, NOW).unwrap_err();
        assert_eq!(error.message(), "This link is not valid.");
    }

    #[test]
    fn a_public_url_makes_links_absolute() {
        let signer = Signer::new(b"a key", Some("https://chat.example.test/base/"), DAY);
        let url = signer.links(ID, "a.jpg", false, NOW).url;
        assert!(url.starts_with("https://chat.example.test/base/files/7/a.jpg?exp="), "{url}");
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", Signer::new(b"hunter2", None, DAY)).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_other_signature_is_taken(exp in "\\PC{0,20}|-?[0-9]{1,25}", sig in "\\PC{0,50}|[A-Za-z0-9_-]{43}") {
            prop_assert!(signer().verify(ID, Variant::Original, &exp, &sig, NOW).is_err());
        }

        #[test]
        fn no_time_or_lifetime_makes_it_overflow(millis: i64, seconds: u64, id: i64) {
            let signer = Signer::new(b"a key", None, Duration::from_secs(seconds));
            signer.links(AttachmentId(id), "a.jpg", true, Timestamp::from_millis(millis));
        }
    }
}
