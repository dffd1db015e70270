//! The outbox of webhooks: events written in the transaction that causes them, a row for each target.
//!
//! A row refers to what happened, as log entries do; what is sent is built from the other tables at
//! each attempt (`chat::webhooks`), so that no text outlives its message here. Where no webhooks are
//! configured nothing of this is called. Claims, outcomes and dead letters are in `queue`.

mod queue;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

use super::batch::{Receipt, ReceiptKind, Receipted, Sent, Statements};
use crate::{
    clock::Timestamp,
    errors::{Error, Result},
    ids::{ConversationId, MessageId, UserId},
};

pub use queue::{ConversationFacts, DeadRow, DeliveryRow, Depth, Replayed};

/// What the main API can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookEvent {
    /// A message was stored.
    MessageCreated,
    /// A conversation began with its first message.
    ConversationCreated,
    /// Messages were read.
    MessageRead,
    /// A user blocked another one.
    UserBlocked,
    /// A user ended that.
    UserUnblocked,
}

impl WebhookEvent {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::MessageCreated,
        Self::ConversationCreated,
        Self::MessageRead,
        Self::UserBlocked,
        Self::UserUnblocked,
    ];

    /// As payloads and `WEBHOOK_EVENTS` write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessageCreated => "message.created",
            Self::ConversationCreated => "conversation.created",
            Self::MessageRead => "message.read",
            Self::UserBlocked => "user.blocked",
            Self::UserUnblocked => "user.unblocked",
        }
    }

    /// The event of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }
}

/// An event about to be written.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// What receivers know repetitions by.
    pub(super) event_id: String,
    /// What happened.
    pub(super) event: WebhookEvent,
    /// Where.
    pub(super) conversation_id: Option<ConversationId>,
    /// The message it is about.
    pub(super) message_id: Option<MessageId>,
    /// What no other table has, JSON text of ids and times.
    pub(super) payload: Option<String>,
}

impl NewWebhook {
    fn new(event: WebhookEvent) -> Self {
        let event_id = format!("evt_{}", uuid::Uuid::new_v4().simple());
        Self { event_id, event, conversation_id: None, message_id: None, payload: None }
    }

    fn of_message(event: WebhookEvent, conversation: ConversationId, message: MessageId) -> Self {
        Self { conversation_id: Some(conversation), message_id: Some(message), ..Self::new(event) }
    }

    /// A user blocked another one, or ended that.
    pub(super) fn of_block(blocker: UserId, other: UserId, blocks: bool) -> Self {
        let event = if blocks { WebhookEvent::UserBlocked } else { WebhookEvent::UserUnblocked };
        let payload = serde_json::json!({"user_id": blocker, "blocked_user_id": other}).to_string();
        Self { payload: Some(payload), ..Self::new(event) }
    }
}

/// The events of a batch, in its order.
pub(super) fn of_batch(
    sends: &[Option<Result<Sent, Error>>],
    receipts: &[Receipt],
    outcomes: &[Result<Receipted, Error>],
) -> Vec<NewWebhook> {
    let mut events = Vec::new();
    for send in sends {
        let Some(Ok(Sent::New { message, .. })) = send else { continue };
        let event = |event| NewWebhook::of_message(event, message.conversation_id, message.id);
        if message.seq == 1 {
            events.push(event(WebhookEvent::ConversationCreated));
        }
        events.push(event(WebhookEvent::MessageCreated));
    }
    for (receipt, outcome) in receipts.iter().zip(outcomes) {
        let (ReceiptKind::Read, Ok(receipted)) = (receipt.kind, outcome) else { continue };
        if receipted.message_ids.is_empty() {
            continue;
        }
        let payload = serde_json::json!({
            "conversation_id": receipt.conversation_id,
            "user_id": receipt.user_id,
            "message_ids": receipted.message_ids,
            "read_at": receipted.at,
        });
        events.push(NewWebhook {
            conversation_id: Some(receipt.conversation_id),
            payload: Some(payload.to_string()),
            ..NewWebhook::new(WebhookEvent::MessageRead)
        });
    }
    events
}

/// One address that events are written for, as this node knows it.
#[derive(Debug)]
pub struct OutboxTarget {
    /// Its URL.
    pub url: String,
    /// It said that it is gone: nothing is written for it any more.
    pub is_disabled: AtomicBool,
    /// Told after a commit that wrote something.
    pub written: Notify,
}

/// What is written, and for whom.
#[derive(Debug)]
pub struct Outbox {
    events: Vec<WebhookEvent>,
    targets: Vec<OutboxTarget>,
    pending: AtomicI64,
    dead: AtomicI64,
}

impl Outbox {
    /// Writes these events for these addresses.
    pub fn new(events: Vec<WebhookEvent>, urls: Vec<String>) -> Self {
        let target = |url| OutboxTarget { url, is_disabled: AtomicBool::new(false), written: Notify::new() };
        Self {
            events,
            targets: urls.into_iter().map(target).collect(),
            pending: AtomicI64::new(0),
            dead: AtomicI64::new(0),
        }
    }

    /// The addresses.
    pub fn targets(&self) -> &[OutboxTarget] {
        &self.targets
    }

    /// How much waited and was given up when it was last counted.
    pub fn depth(&self) -> Depth {
        let (pending, dead) = (self.pending.load(Ordering::Relaxed), self.dead.load(Ordering::Relaxed));
        Depth { pending, dead }
    }

    /// Notes what a count found.
    pub fn note_depth(&self, depth: Depth) {
        self.pending.store(depth.pending, Ordering::Relaxed);
        self.dead.store(depth.dead, Ordering::Relaxed);
    }

    /// Writes events in the caller's transaction: one statement, or none.
    pub(super) async fn write<C: Statements + Send>(
        &self,
        connection: &mut C,
        mut events: Vec<NewWebhook>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        events.retain(|event| self.events.contains(&event.event));
        let targets = self.targets.iter().filter(|target| !target.is_disabled.load(Ordering::Relaxed));
        let targets: Vec<&str> = targets.map(|target| target.url.as_str()).collect();
        if events.is_empty() || targets.is_empty() {
            return Ok(());
        }
        connection.insert_webhooks(&events, &targets, now).await
    }

    /// Wakes those who deliver; to be called after the commit.
    pub(super) fn written(&self) {
        for target in &self.targets {
            target.written.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_by_its_name() {
        for event in WebhookEvent::ALL {
            assert_eq!(WebhookEvent::parse(event.name()), Some(event));
        }
        assert_eq!(WebhookEvent::parse("message.imagined"), None);
    }

    #[test]
    fn a_block_names_both_and_nothing_else() {
        let event = NewWebhook::of_block(UserId(1), UserId(2), true);
        assert_eq!(event.event, WebhookEvent::UserBlocked);
        assert_eq!(event.payload.as_deref(), Some(r#"{"blocked_user_id":2,"user_id":1}"#));
        assert_ne!(event.event_id, NewWebhook::of_block(UserId(1), UserId(2), true).event_id);
    }
}
