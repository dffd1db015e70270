//! Emoji under messages: both participants may give them, each of them once.
//!
//! Between the two sides of a block reactions are silent, as typing is (contract section 7): the
//! request is accepted and nothing is stored, so that both keep seeing the same and nobody is told why.

use std::collections::HashSet;

use serde::Serialize;

use super::{Chat, edit::found_by, input::Fields, views::ReactionView};
use crate::{
    content::Emoji,
    errors::{Error, Result},
    identity::Caller,
    ids::{ConversationId, MessageId, UserId},
    limits::Kind,
    storage::changes::{MessageChange, Subject},
};

/// Kinds of emoji under one message (contract section 2).
const MAX_KINDS: usize = 20;

/// What adding and removing a reaction answer: the data of `message_reaction`.
#[derive(Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ReactionAnswer {
    /// Under which message.
    pub message_id: MessageId,
    /// Where.
    pub conversation_id: ConversationId,
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub emoji: String,
    /// What was asked for.
    pub action: ReactionAction,
    /// All reactions to the message now.
    pub reactions: Vec<ReactionView>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReactionAction {
    /// One more.
    Added,
    /// One less.
    Removed,
}

/// Reads a request body `{emoji}`.
pub fn parse_emoji(json: &str) -> Result<Emoji> {
    let mut fields = Fields::parse(json)?;
    let emoji = emoji(&mut fields);
    fields.finish(emoji)
}

/// Reads an event's argument `{message_id, emoji}`.
pub fn parse_reaction(json: &str) -> Result<(MessageId, Emoji)> {
    let mut fields = Fields::parse(json)?;
    let id = fields.required_id("message_id").map(MessageId);
    let emoji = emoji(&mut fields);
    fields.finish(id.zip(emoji))
}

fn emoji(fields: &mut Fields) -> Option<Emoji> {
    let text = match fields.value("emoji") {
        Some(_) => fields.text("emoji")?,
        None => String::new(),
    };
    fields.check(Emoji::parse(&text))
}

impl Chat {
    /// Gives a message an emoji. Once more changes nothing.
    pub async fn add_reaction(&self, caller: &Caller, id: MessageId, emoji: Emoji) -> Result<ReactionAnswer> {
        self.react(caller, id, emoji, ReactionAction::Added).await
    }

    /// Takes an emoji back. One that was not given is fine.
    pub async fn remove_reaction(
        &self,
        caller: &Caller,
        id: MessageId,
        emoji: Emoji,
    ) -> Result<ReactionAnswer> {
        self.react(caller, id, emoji, ReactionAction::Removed).await
    }

    async fn react(
        &self,
        caller: &Caller,
        id: MessageId,
        emoji: Emoji,
        action: ReactionAction,
    ) -> Result<ReactionAnswer> {
        let user_id = caller.user_id;
        self.inner.limits.take(user_id, Kind::Messages).await?;
        let (store, wanted) = (self.inner.store.clone(), emoji.as_str().to_owned());
        self.carry_out(async move {
            store.change_message(id, |subject| reacted(subject, user_id, &wanted, action)).await
        })
        .await?;
        let view = self.message_view(id).await?;
        Ok(ReactionAnswer {
            message_id: id,
            conversation_id: view.conversation_id,
            user_id,
            emoji: emoji.into_string(),
            action,
            reactions: view.reactions,
        })
    }
}

fn reacted(
    subject: &Subject,
    user_id: UserId,
    emoji: &str,
    action: ReactionAction,
) -> Result<Option<MessageChange>> {
    found_by(subject, user_id)?;
    if subject.message.deleted_at.is_some() {
        return Err(Error::MessageNotFound);
    }
    let is_given = subject.reactions.iter().any(|(user, given)| *user == user_id && given == emoji);
    let is_asked_for = action == ReactionAction::Added;
    if is_given == is_asked_for || subject.participants.is_blocked() {
        return Ok(None);
    }
    let emoji = emoji.to_owned();
    if action == ReactionAction::Removed {
        return Ok(Some(MessageChange::Unreact { user_id, emoji }));
    }
    let kinds: HashSet<&str> = subject.reactions.iter().map(|(_, given)| given.as_str()).collect();
    if kinds.len() >= MAX_KINDS && !kinds.contains(emoji.as_str()) {
        return Err(Error::field(
            "emoji",
            format!("A message cannot have more than {MAX_KINDS} kinds of reactions."),
        ));
    }
    Ok(Some(MessageChange::React { user_id, emoji }))
}
