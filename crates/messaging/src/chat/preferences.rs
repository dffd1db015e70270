//! What a person sets for themselves: notifications, quiet hours, whether others see their presence.
//!
//! Who hides their presence is offline to everybody, with no last seen; they go on seeing others.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Chat, input::Fields, presence::PARTNERS, relay::News};
use crate::{
    clock::Timestamp,
    delivery::hub::Status,
    errors::Result,
    identity::Caller,
    ids::UserId,
    quiet_hours::QuietHours,
    storage::preferences::{PreferencesChange, PreferencesRow},
};

/// A person's preferences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Preferences")]
pub struct PreferencesView {
    /// Push to their devices.
    pub push: bool,
    /// E-mail.
    pub email: bool,
    /// When not to push.
    pub quiet_hours: Option<QuietHours>,
    /// Others see whether they are online, and when they were.
    pub presence: bool,
}

impl PreferencesView {
    fn new(row: &PreferencesRow) -> Self {
        Self {
            push: row.push,
            email: row.email,
            quiet_hours: row.quiet_hours.as_deref().and_then(QuietHours::from_stored),
            presence: !row.is_private,
        }
    }
}

/// What is to change (contract section 2, `PUT /api/notifications/preferences`); what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutPreferences {
    change: PreferencesChange,
}

impl PutPreferences {
    /// Reads a request body `{push?, email?, quiet_hours?, presence?}`; null quiet hours end them.
    pub fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let push = optional_flag(&mut fields, "push");
        let email = optional_flag(&mut fields, "email");
        let presence = optional_flag(&mut fields, "presence");
        let quiet_hours = match fields.given("quiet_hours").cloned() {
            None => None,
            Some(Value::Null) => Some(None),
            Some(value) => match QuietHours::from_json(&value) {
                Ok(hours) => Some(Some(super::events::to_json(&hours))),
                Err(refusals) => {
                    for (field, sentence) in refusals {
                        fields.refuse(field, sentence);
                    }
                    None
                }
            },
        };
        let change = PreferencesChange { push, email, quiet_hours, is_private: presence.map(|shown| !shown) };
        fields.finish(Some(Self { change }))
    }
}

fn optional_flag(fields: &mut Fields, name: &'static str) -> Option<bool> {
    fields.value(name)?;
    fields.flag(name)
}

impl Chat {
    /// The caller's preferences.
    pub async fn get_preferences(&self, caller: &Caller) -> Result<PreferencesView> {
        Ok(PreferencesView::new(&self.inner.store.preferences(caller.user_id).await?))
    }

    /// Changes the caller's preferences. Those who share a conversation with somebody who begins or
    /// ends hiding hear of their presence once more.
    pub async fn put_preferences(&self, caller: &Caller, request: PutPreferences) -> Result<PreferencesView> {
        let (user, store) = (caller.user_id, &self.inner.store);
        let before = store.preferences(user).await?;
        let becomes_private = request.change.is_private.filter(|private| *private != before.is_private);
        // Nobody is told of a private person, so whom to tell is asked while they are not.
        let audience = if becomes_private == Some(true) { self.audience(user).await? } else { Vec::new() };
        store.change_preferences(user, &request.change).await?;
        let after = store.preferences(user).await?;
        match becomes_private {
            Some(true) => self.tell_presence_of(user, &audience, Status::Offline, None),
            Some(false) => {
                let status = self.statuses(&[user]).await.remove(&user).unwrap_or(Status::Offline);
                let last_seen = after.last_seen.filter(|_| status != Status::Online);
                self.tell_presence_of(user, &self.audience(user).await?, status, last_seen);
            }
            None => {}
        }
        Ok(PreferencesView::new(&after))
    }

    async fn audience(&self, user: UserId) -> Result<Vec<UserId>> {
        let partners = self.inner.store.partners(&[user], PARTNERS).await?;
        Ok(partners.into_iter().map(|(_, partner)| partner).collect())
    }

    fn tell_presence_of(
        &self,
        user: UserId,
        audience: &[UserId],
        status: Status,
        last_seen: Option<Timestamp>,
    ) {
        let data = json!({"user_id": user, "status": status, "last_seen": last_seen});
        let news = News::new("user_presence", &data);
        for partner in audience {
            self.tell(*partner, &news);
        }
    }
}
