//! Sending a message: checks that need no transaction, the queue, and the answer.

use std::{sync::Arc, time::Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{Chat, events::to_json, input::SendMessage, writer::Stored};
use crate::{
    content::{ClientMessageId, FileUrl, Metadata},
    errors::{Error, RateLimit, Result},
    identity::{Caller, ProductLookUp},
    ids::MessageId,
    limits::Kind,
    metrics,
    storage::batch::{NewMessage, Sent, Target},
};

/// A message in a writer's queue.
#[must_use = "only `stored` tells whether the message is kept"]
#[derive(Debug)]
pub struct PendingSend {
    pub(super) chat: Chat,
    pub(super) outcome: oneshot::Receiver<Result<Stored, Error>>,
    pub(super) queued_at: Instant,
    /// The sender's message bucket after this message; `None` without a limit.
    pub rate_limit: Option<RateLimit>,
}

/// A message that is stored, now or before.
#[derive(Debug, Clone)]
pub struct SentMessage {
    /// The message.
    pub id: MessageId,
    /// Its JSON text as everybody sees it.
    pub json: Arc<str>,
    /// The sender's own id for it.
    pub client_message_id: Option<String>,
    /// It was stored before, under the same client message id.
    pub is_replay: bool,
}

/// Data of the `message_sent` event.
#[derive(Debug, Serialize)]
pub struct MessageSent<'a> {
    message: Box<serde_json::value::RawValue>,
    message_id: MessageId,
    client_message_id: Option<&'a str>,
}

impl SentMessage {
    /// What the sending connection hears.
    pub fn to_message_sent(&self) -> MessageSent<'_> {
        MessageSent {
            message: super::events::raw(&*self.json),
            message_id: self.id,
            client_message_id: self.client_message_id.as_deref(),
        }
    }
}

impl Chat {
    /// Checks a message and queues it; messages queued one after the other for one conversation are
    /// stored in that order.
    pub async fn send_message(&self, caller: &Caller, request: SendMessage) -> Result<PendingSend> {
        let sender_id = caller.user_id;
        let rate_limit = self.inner.limits.take(sender_id, Kind::Messages).await?;
        let target = match request.target {
            Target::Conversation(id) => Target::Conversation(id),
            Target::User { receiver_id, .. } if receiver_id == sender_id => {
                return Err(Error::field("receiver_id", "You cannot send a message to yourself."));
            }
            Target::User { receiver_id, product_id } => {
                match self.inner.store.find_conversation(sender_id, receiver_id, product_id).await? {
                    Some(id) => Target::Conversation(id),
                    None => self.check_new_conversation(caller, &request).await?,
                }
            }
        };
        let message = NewMessage {
            sender_id,
            target,
            kind: request.kind,
            fingerprint: request.fingerprint(),
            content: request.content.into_string(),
            file_url: request.file_url.map(FileUrl::into_string),
            attachment_id: request.attachment_id,
            reply_to_id: request.reply_to_id,
            metadata: request.metadata.as_ref().map(Metadata::to_json),
            offer: None,
            client_message_id: request.client_message_id.map(ClientMessageId::into_string),
        };
        let outcome = self.writers().send(message)?;
        Ok(PendingSend { chat: self.clone(), outcome, queued_at: Instant::now(), rate_limit })
    }

    async fn check_new_conversation(&self, caller: &Caller, request: &SendMessage) -> Result<Target> {
        if request.reply_to_id.is_some() {
            return Err(Error::field(
                "reply_to_id",
                "The selected reply_to_id is not a message of this conversation.",
            ));
        }
        self.inner.limits.take(caller.user_id, Kind::Conversations).await?;
        if let Target::User { product_id: Some(product_id), .. } = request.target
            && let ProductLookUp::NotFound = self.inner.directory.product(product_id, &caller.token).await
        {
            return Err(Error::field("product_id", "The selected product_id is invalid."));
        }
        Ok(request.target)
    }

    async fn replayed(&self, id: MessageId) -> Result<SentMessage> {
        let row = self.inner.store.message(id).await?.ok_or(Error::MessageNotFound)?;
        let client_message_id = row.client_message_id.clone();
        let view = self.views(vec![row]).await.pop().ok_or(Error::MessageNotFound)?;
        Ok(SentMessage { id, json: to_json(&view).into(), client_message_id, is_replay: true })
    }
}

impl PendingSend {
    /// Waits for the commit.
    pub async fn stored(self) -> Result<SentMessage> {
        // The writer is gone only when the service ends.
        let stored = self.outcome.await.map_err(|_| Error::unavailable())??;
        metrics::get().message_confirmed(self.queued_at.elapsed());
        match stored.sent {
            Sent::Before(id) => self.chat.replayed(id).await,
            Sent::New { message, .. } => Ok(SentMessage {
                id: message.id,
                client_message_id: message.client_message_id.clone(),
                json: match stored.json {
                    Some(json) => json,
                    None => return self.chat.replayed(message.id).await,
                },
                is_replay: false,
            }),
        }
    }
}
