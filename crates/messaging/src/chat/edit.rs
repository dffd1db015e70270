//! What a sender may still do with a message: other words for a while, a tombstone at any time.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{Chat, input::Fields, views::MessageView};
use crate::{
    content::MessageText,
    errors::{Error, Result},
    identity::Caller,
    ids::{MessageId, UserId},
    limits::Kind,
    storage::{
        batch::not_a_participant,
        changes::{MessageChange, Subject},
        rows::MessageType,
    },
};

/// Other words for a message (contract section 2, `PUT /api/messages/:id`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditMessage {
    /// The new ones; never empty.
    pub content: MessageText,
}

impl EditMessage {
    /// Reads a request body `{content}`.
    pub fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let content = content(&mut fields);
        fields.finish(content.map(|content| Self { content }))
    }

    /// Reads an event's argument `{message_id, content}`.
    pub fn parse_event(json: &str) -> Result<(MessageId, Self)> {
        let mut fields = Fields::parse(json)?;
        let id = fields.required_id("message_id").map(MessageId);
        let content = content(&mut fields);
        fields.finish(id.zip(content).map(|(id, content)| (id, Self { content })))
    }
}

fn content(fields: &mut Fields) -> Option<MessageText> {
    // A text of the wrong type is refused by the reading itself, one that is missing by the parsing.
    let text = match fields.value("content") {
        Some(_) => fields.text("content")?,
        None => String::new(),
    };
    fields.check(MessageText::parse(&text))
}

/// Reads `{message_id}`.
pub fn parse_message(json: &str) -> Result<MessageId> {
    let mut fields = Fields::parse(json)?;
    let id = fields.required_id("message_id").map(MessageId);
    fields.finish(id)
}

impl Chat {
    /// Gives a message other words: its sender, text only, within the edit window, not across a block.
    /// The same words again change nothing.
    pub async fn edit_message(
        &self,
        caller: &Caller,
        id: MessageId,
        request: EditMessage,
    ) -> Result<MessageView> {
        let (user, window) = (caller.user_id, self.inner.settings.edit_window);
        self.inner.limits.take(user, Kind::Messages).await?;
        let store = self.inner.store.clone();
        let content = request.content.into_string();
        self.carry_out(async move {
            store.change_message(id, |subject| edited(subject, user, &content, window)).await
        })
        .await?;
        self.message_view(id).await
    }

    /// Makes a message a tombstone: its sender, at any time. Once more changes nothing.
    pub async fn delete_message(&self, caller: &Caller, id: MessageId) -> Result<()> {
        let user = caller.user_id;
        self.inner.limits.take(user, Kind::Messages).await?;
        let (store, released) = (self.inner.store.clone(), Arc::new(OnceLock::new()));
        let file = Arc::clone(&released);
        let reader = Arc::new(OnceLock::new());
        let other = Arc::clone(&reader);
        self.carry_out(async move {
            store
                .change_message(id, |subject| {
                    if let Some(attachment) = subject.message.attachment_id {
                        // Tried again it is the same one.
                        let _ = file.set(attachment);
                    }
                    let _ = other.set((subject.participants.other(user), subject.message.conversation_id));
                    deleted(subject, user)
                })
                .await
        })
        .await?;
        // What was pushed of it is to go, and the badge counts it no more.
        if let (Some(notifier), Some((Some(reader), conversation))) = (self.notifier(), reader.get()) {
            notifier.read(*reader, *conversation);
        }
        if let Some(attachment) = released.get() {
            self.release_file(*attachment).await;
        }
        Ok(())
    }

    pub(super) async fn message_view(&self, id: MessageId) -> Result<MessageView> {
        let row = self.inner.store.message(id).await?.ok_or(Error::MessageNotFound)?;
        self.views(vec![row]).await.pop().ok_or(Error::MessageNotFound)
    }
}

/// Refuses strangers, and those for whom the message went with their deleted conversation.
/// Answers the other participant.
pub(super) fn found_by(subject: &Subject, user: UserId) -> Result<UserId> {
    let other = subject.participants.other(user).ok_or_else(not_a_participant)?;
    if subject.is_visible_to(user) { Ok(other) } else { Err(Error::MessageNotFound) }
}

fn written_by(subject: &Subject, user: UserId, refusal: &'static str) -> Result<()> {
    found_by(subject, user)?;
    if subject.message.sender_id == user { Ok(()) } else { Err(Error::Forbidden(refusal.into())) }
}

fn edited(subject: &Subject, user: UserId, content: &str, window: Duration) -> Result<Option<MessageChange>> {
    written_by(subject, user, "Only its sender can edit a message.")?;
    let message = &subject.message;
    // A tombstone holds a place in the history; as a message it no longer exists.
    if message.deleted_at.is_some() {
        return Err(Error::MessageNotFound);
    }
    if message.kind != MessageType::Text {
        return Err(Error::field("content", "Only text messages can be edited."));
    }
    // Before the window: a repeated request, whose answer was lost, is answered as the first was.
    if message.content == content {
        return Ok(None);
    }
    let closed_at = message.created_at.plus(window);
    if subject.now > closed_at {
        return Err(Error::EditWindowClosed { closed_at });
    }
    // New words are a message: nothing is said across a block.
    if subject.participants.is_blocked() {
        return Err(Error::Blocked { by_caller: subject.participants.blocks(user) });
    }
    Ok(Some(MessageChange::Edit { content: content.to_owned() }))
}

fn deleted(subject: &Subject, user: UserId) -> Result<Option<MessageChange>> {
    written_by(subject, user, "Only its sender can delete a message.")?;
    if subject.message.kind == MessageType::System {
        return Err(Error::Forbidden("A notice of the marketplace cannot be deleted.".into()));
    }
    Ok(subject.message.deleted_at.is_none().then_some(MessageChange::Delete))
}
