//! Where people want mail, and in which language: from the answer about their own token and nothing else.
//!
//! Kept only while e-mail is configured, in a table that nothing but `notify::email` reads. What a product
//! says of its owner is never looked at. An address is never in a log, an error, a metric or an answer.

use std::{fmt, time::Duration};

use lettre::Address;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::{
    ids::UserId,
    storage::{Store, StoreError, contacts::ContactRow},
};

/// Contacts compared and written at once.
const BATCH: usize = 200;
/// Contacts that may wait; beyond it new ones are dropped, to be learned again.
const MAX_WAITING: usize = 20_000;
/// How often a batch is tried while the database is away, and how long it is left alone in between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// Longer than any address may be (RFC 5321 section 4.5.3.1.3).
const ADDRESS_BYTES: usize = 254;
/// Longer than any language tag in use.
const LANGUAGE_BYTES: usize = 35;
/// Under which of these a user's language is found, the first one that is there.
const LANGUAGES: [&str; 3] = ["locale", "preferred_language", "language"];

/// What the main API says of mail to a user.
#[derive(Clone, PartialEq, Eq)]
pub enum Contact {
    /// Nothing: what is known stays.
    Untold,
    /// There is no address, or one that is not verified, or not an address.
    Unusable,
    /// This address, and the language if it is told.
    Address(String, Option<String>),
}

impl Contact {
    /// Reads a user as the main API writes it. Where `email_verified_at` is there, it must have a time.
    pub fn from_main_api(user: &Map<String, Value>) -> Self {
        let Some(email) = user.get("email") else { return Self::Untold };
        if user.get("email_verified_at").is_some_and(Value::is_null) {
            return Self::Unusable;
        }
        let address = email.as_str().map(str::trim).filter(|text| text.len() <= ADDRESS_BYTES);
        match address.and_then(|text| text.parse::<Address>().ok()) {
            Some(address) => Self::Address(address.to_string(), language(user)),
            None => Self::Unusable,
        }
    }
}

/// An address is not shown.
impl fmt::Debug for Contact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Untold => "Untold",
            Self::Unusable => "Unusable",
            Self::Address(..) => "Address(***)",
        })
    }
}

/// A language tag such as `fr` or `pt_BR`, written `pt-br`.
fn language(user: &Map<String, Value>) -> Option<String> {
    let tag = LANGUAGES.iter().find_map(|name| user.get(*name)?.as_str())?.trim();
    let is_tag = (2..=LANGUAGE_BYTES).contains(&tag.len())
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    is_tag.then(|| tag.replace('_', "-").to_ascii_lowercase())
}

/// Keeps contacts, behind the answers that brought them. Cheap to clone.
#[derive(Clone)]
pub struct Contacts {
    waiting: mpsc::Sender<(UserId, Contact)>,
}

impl Contacts {
    /// Keeps them in this database until the last clone is gone.
    pub fn start(store: Store) -> Self {
        let (waiting, learned) = mpsc::channel(MAX_WAITING);
        tokio::spawn(keep(store, learned));
        Self { waiting }
    }

    /// Takes in what the main API said; it is saved soon.
    pub fn learn(&self, user: UserId, contact: Contact) {
        if contact != Contact::Untold {
            // Full: learned again when their token is next validated.
            let _ = self.waiting.try_send((user, contact));
        }
    }
}

async fn keep(store: Store, mut learned: mpsc::Receiver<(UserId, Contact)>) {
    let mut batch = Vec::new();
    while learned.recv_many(&mut batch, BATCH).await > 0 {
        for attempt in 1..=ATTEMPTS {
            match save(&store, &batch).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(contacts = batch.len(), attempt, %error, "contacts could not be saved");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        batch.clear();
    }
}

/// Writes what the database does not have as it is: of ten thousand people who reconnect, hardly any.
async fn save(store: &Store, batch: &[(UserId, Contact)]) -> Result<(), StoreError> {
    let users: Vec<UserId> = batch.iter().map(|(user, _)| *user).collect();
    let stored = store.contacts(&users).await?;
    let mut changed = Vec::new();
    for (place, (user, contact)) in batch.iter().enumerate() {
        // The same person twice: the later word counts.
        if batch.iter().skip(place + 1).any(|(later, _)| later == user) {
            continue;
        }
        let known = stored.iter().find(|row| row.user_id == *user);
        match contact {
            Contact::Untold => {}
            Contact::Unusable if known.is_some() => store.forget_contact(*user).await?,
            Contact::Unusable => {}
            Contact::Address(email, language) => {
                let row = ContactRow { user_id: *user, email: email.clone(), language: language.clone() };
                if known != Some(&row) {
                    changed.push(row);
                }
            }
        }
    }
    store.upsert_contacts(&changed).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contact(user: &Value) -> Contact {
        Contact::from_main_api(user.as_object().expect("an object"))
    }

    fn address(email: &str, language: Option<&str>) -> Contact {
        Contact::Address(email.to_owned(), language.map(ToOwned::to_owned))
    }

    #[test]
    fn an_address_counts_unless_it_is_said_to_be_unverified() {
        let verified = json!({"email": " anna@example.test ", "email_verified_at": "2025-01-01T00:00:00Z"});
        assert_eq!(contact(&verified), address("anna@example.test", None));
        assert_eq!(contact(&json!({"email": "anna@example.test"})), address("anna@example.test", None));
        let unverified = json!({"email": "anna@example.test", "email_verified_at": null});
        assert_eq!(contact(&unverified), Contact::Unusable);
        assert_eq!(contact(&json!({"name": "Anna"})), Contact::Untold);
    }

    #[test]
    fn what_is_no_address_is_not_kept() {
        for email in [
            json!(null),
            json!(7),
            json!(""),
            json!("anna"),
            json!("anna@"),
            json!("anna@example.test\r\nBcc: ben@example.test"),
            json!("anna@example.test>\r\nDATA"),
            json!("Anna <anna@example.test>"),
            json!(format!("{}@example.test", "a".repeat(300))),
        ] {
            assert_eq!(contact(&json!({"email": email})), Contact::Unusable, "{email}");
        }
    }

    #[test]
    fn the_language_is_found_under_any_of_its_names() {
        for (field, value, expected) in [
            ("locale", json!("pt_BR"), Some("pt-br")),
            ("language", json!("ar"), Some("ar")),
            ("preferred_language", json!("FR"), Some("fr")),
            ("locale", json!("../../etc"), None),
            ("locale", json!(5), None),
            ("tongue", json!("fr"), None),
        ] {
            let user = json!({"email": "anna@example.test", field: value});
            assert_eq!(contact(&user), address("anna@example.test", expected), "{field}={value}");
        }
    }

    #[test]
    fn an_address_is_not_shown() {
        assert!(!format!("{:?}", address("anna@example.test", None)).contains("anna"));
    }
}
