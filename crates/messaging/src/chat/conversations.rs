//! What a user does with a conversation for themselves: archive, mute, delete. The other one never
//! hears of it.

use super::{Chat, input::Fields, views::ConversationView};
use crate::{
    clock::Timestamp,
    errors::{Error, Result},
    identity::Caller,
    ids::{ConversationId, UserId},
    storage::flags::Flags,
};

/// For how long to mute (contract section 2, `POST /api/conversations/:id/mute`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MuteConversation {
    /// Until then; `None` is for good.
    pub until: Option<Timestamp>,
}

impl MuteConversation {
    /// Reads a request body `{until?}`: an RFC 3339 time; `muted_until`, as conversations call it, too.
    pub fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let name = if fields.value("until").is_some() { "until" } else { "muted_until" };
        let until = fields.text(name).and_then(|text| {
            let until = Timestamp::parse(&text);
            if until.is_none() {
                fields.refuse(name, format!("The {name} field must be an RFC 3339 time."));
            }
            until
        });
        fields.finish(Some(Self { until }))
    }
}

impl Chat {
    /// Puts a conversation away until its next message.
    pub async fn archive_conversation(
        &self,
        caller: &Caller,
        id: ConversationId,
    ) -> Result<ConversationView> {
        self.change_flags(caller.user_id, id, |flags| Flags { is_archived: true, ..flags }).await?;
        self.get_conversation(caller, id).await
    }

    /// Puts a conversation back into the list.
    pub async fn unarchive_conversation(
        &self,
        caller: &Caller,
        id: ConversationId,
    ) -> Result<ConversationView> {
        self.change_flags(caller.user_id, id, |flags| Flags { is_archived: false, ..flags }).await?;
        self.get_conversation(caller, id).await
    }

    /// Stops notifications of a conversation, until a time or for good.
    pub async fn mute_conversation(
        &self,
        caller: &Caller,
        id: ConversationId,
        request: MuteConversation,
    ) -> Result<ConversationView> {
        let muted_until = request.until;
        if muted_until.is_some_and(|until| until <= self.inner.clock.now()) {
            return Err(Error::field("until", "The until field must be a time in the future."));
        }
        self.change_flags(caller.user_id, id, move |flags| Flags { is_muted: true, muted_until, ..flags })
            .await?;
        self.get_conversation(caller, id).await
    }

    /// Lets notifications of a conversation through again.
    pub async fn unmute_conversation(&self, caller: &Caller, id: ConversationId) -> Result<ConversationView> {
        self.change_flags(caller.user_id, id, |flags| Flags { is_muted: false, muted_until: None, ..flags })
            .await?;
        self.get_conversation(caller, id).await
    }

    /// Takes a conversation and its history so far away from the caller alone; a later message brings
    /// it back with only what is new. It stays muted if it was.
    pub async fn delete_conversation(&self, caller: &Caller, id: ConversationId) -> Result<()> {
        self.change_flags(caller.user_id, id, |flags| Flags { is_hidden: true, is_archived: false, ..flags })
            .await?;
        if let Some(notifier) = self.notifier() {
            notifier.read(caller.user_id, id);
        }
        Ok(())
    }

    async fn change_flags(
        &self,
        user: UserId,
        id: ConversationId,
        change: impl Fn(Flags) -> Flags + Send + Sync + 'static,
    ) -> Result<()> {
        let store = self.inner.store.clone();
        let decide = move |flags: Flags| {
            if flags.is_hidden { Err(Error::ConversationNotFound) } else { Ok(change(flags)) }
        };
        self.carry_out(async move { store.change_flags(user, id, decide).await }).await
    }
}
