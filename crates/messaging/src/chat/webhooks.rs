//! What webhooks say of what happened, and the dead letters.
//!
//! A body is put together at each attempt, from what the tables say then (as events are, contract
//! 4.5): a message that was edited or deleted meanwhile is told as it is. Delivery is in `webhooks`.

use std::{collections::HashMap, sync::atomic::Ordering};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Chat, Page, PageRequest, views::MessageView};
use crate::{
    clock::Timestamp,
    errors::{Error, Result},
    ids::{ConversationId, MessageId},
    storage::{
        rows::MessageRow,
        webhooks::{ConversationFacts, DeadRow, DeliveryRow, Replayed, WebhookEvent},
    },
};

/// What is to be sent for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookBody {
    /// JSON text.
    Ready(String),
    /// Nothing: what it is about is no longer there.
    Missing,
    /// Nothing: a newer version wrote an event that this one does not know.
    Unknown,
}

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct DeadWebhook {
    /// The delivery, for a replay.
    #[schemars(range(min = 1))]
    pub id: i64,
    /// The event: the receiver's `webhook-id`.
    pub event_id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it was to go; without its query.
    pub target: String,
    /// Where it happened.
    pub conversation_id: Option<ConversationId>,
    /// The message it is about.
    pub message_id: Option<MessageId>,
    /// How often it was tried.
    pub attempts: i32,
    /// What became of the last attempt.
    pub last_error: Option<String>,
    /// When it happened.
    pub created_at: Timestamp,
    /// When it was given up.
    pub dead_at: Timestamp,
}

/// How many dead letters are on their way again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ReplayAnswer {
    /// So many.
    pub replayed: u64,
}

impl From<DeadRow> for DeadWebhook {
    fn from(row: DeadRow) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id,
            kind: row.event,
            // A query may hold what only the target should know.
            target: row.target.split('?').next().unwrap_or_default().to_owned(),
            conversation_id: row.conversation_id,
            message_id: row.message_id,
            attempts: row.attempts,
            last_error: row.last_error,
            created_at: row.created_at,
            dead_at: row.dead_at,
        }
    }
}

impl Chat {
    /// The bodies of deliveries, by delivery.
    pub async fn webhook_bodies(
        &self,
        deliveries: &[DeliveryRow],
        include_text: bool,
    ) -> Result<HashMap<i64, WebhookBody>> {
        let message_ids: Vec<MessageId> = deliveries.iter().filter_map(|row| row.message_id).collect();
        let (mut messages, mut conversations) = (HashMap::new(), HashMap::new());
        if !message_ids.is_empty() {
            let rows: Vec<MessageRow> =
                self.inner.store.messages_by_id(&message_ids).await?.into_values().collect();
            let ids: Vec<ConversationId> = rows.iter().map(|row| row.conversation_id).collect();
            conversations = self.inner.store.conversations_of_webhooks(&ids).await?;
            messages.extend(self.views(rows).await.into_iter().map(|view| (view.id, view)));
        }
        Ok(deliveries
            .iter()
            .map(|row| {
                let message = row.message_id.and_then(|id| messages.get(&id));
                let conversation = message.and_then(|view| conversations.get(&view.conversation_id));
                (row.id, body(row, message.zip(conversation), include_text))
            })
            .collect())
    }

    /// The dead letters, the latest first.
    pub async fn list_dead_webhooks(&self, request: PageRequest) -> Result<Page<DeadWebhook>> {
        let PageRequest { page, limit } = request;
        let offset = page.saturating_sub(1).saturating_mul(limit);
        let (rows, total) = self.inner.store.dead_webhooks(offset, limit).await?;
        Ok(Page {
            items: rows.into_iter().map(DeadWebhook::from).collect(),
            page,
            per_page: limit,
            total,
            has_more: offset.saturating_add(limit) < total,
        })
    }

    /// Queues one dead letter again.
    pub async fn replay_webhook(&self, id: i64) -> Result<ReplayAnswer> {
        match self.inner.store.replay_webhook(id, &self.webhook_targets()).await? {
            Replayed::Queued => {
                self.wake_webhooks();
                Ok(ReplayAnswer { replayed: 1 })
            }
            Replayed::Unknown => Err(Error::NotFound("Dead letter not found.".into())),
            Replayed::NoTarget => {
                Err(Error::Conflict("The target of this dead letter is not configured any more.".into()))
            }
        }
    }

    /// Queues all dead letters again whose targets are configured.
    pub async fn replay_webhooks(&self) -> Result<ReplayAnswer> {
        let replayed = self.inner.store.replay_webhooks(&self.webhook_targets()).await?;
        self.wake_webhooks();
        Ok(ReplayAnswer { replayed })
    }

    fn webhook_targets(&self) -> Vec<&str> {
        let targets = self.inner.store.outbox().into_iter().flat_map(|outbox| outbox.targets());
        targets.map(|target| target.url.as_str()).collect()
    }

    fn wake_webhooks(&self) {
        for target in self.inner.store.outbox().into_iter().flat_map(|outbox| outbox.targets()) {
            // If it is still gone, its worker finds out.
            target.is_disabled.store(false, Ordering::Relaxed);
            target.written.notify_one();
        }
    }
}

fn body(
    row: &DeliveryRow,
    subject: Option<(&MessageView, &ConversationFacts)>,
    include_text: bool,
) -> WebhookBody {
    let Some(event) = WebhookEvent::parse(&row.event) else { return WebhookBody::Unknown };
    let data = match event {
        WebhookEvent::MessageCreated => subject.map(|(message, conversation)| {
            let ConversationFacts { user1_id, user2_id, product_id, .. } = conversation;
            let recipient_id = if message.sender_id == *user1_id { user2_id } else { user1_id };
            json!({
                "message": message_json(message, include_text),
                "conversation_id": message.conversation_id,
                "sender_id": message.sender_id,
                "recipient_id": recipient_id,
                "product_id": product_id,
            })
        }),
        WebhookEvent::ConversationCreated => subject.map(|(message, conversation)| {
            json!({
                "conversation": {
                    "id": conversation.id,
                    "user_ids": [conversation.user1_id, conversation.user2_id],
                    "product_id": conversation.product_id,
                    "created_at": conversation.created_at,
                },
                "created_by": message.sender_id,
                "message_id": message.id,
            })
        }),
        WebhookEvent::MessageRead | WebhookEvent::UserBlocked | WebhookEvent::UserUnblocked => {
            row.payload.as_deref().and_then(|payload| serde_json::from_str(payload).ok())
        }
    };
    match data {
        Some(data) => {
            let body = json!({"type": event.name(), "timestamp": row.created_at, "data": data});
            WebhookBody::Ready(body.to_string())
        }
        None => WebhookBody::Missing,
    }
}

/// A message as everybody sees it but for links that open files, and what people wrote if that is left out.
fn message_json(message: &MessageView, include_text: bool) -> Value {
    let mut json = json!(message);
    let Some(fields) = json.as_object_mut() else { return json };
    let without = |value: Option<&mut Value>, names: &[&str]| {
        if let Some(object) = value.and_then(Value::as_object_mut) {
            names.iter().for_each(|name| drop(Map::remove(object, *name)));
        }
    };
    without(fields.get_mut("attachment"), &["url", "thumbnail_url"]);
    if message.attachment.is_some() {
        fields.remove("file_url");
    }
    if !include_text {
        without(fields.get_mut("attachment"), &["name"]);
        without(fields.get_mut("reply_to"), &["content"]);
        for name in ["content", "metadata", "file_url"] {
            fields.remove(name);
        }
    }
    json
}
