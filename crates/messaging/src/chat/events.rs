//! From a log entry to the event that clients hear: right after a commit, and again when read from the log.
//!
//! An entry refers to rows; its payload is built from what those rows say now (contract 4.5).

use std::collections::HashMap;

use edge::Event;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Chat,
    views::{ConversationView, MessageView},
    writer::{Committed, Rendered},
};
use crate::{
    delivery::hub::Delivery,
    errors::Result,
    ids::{ConversationId, MessageId, UserId},
    metrics,
    notify::Stored,
    storage::{
        batch::Sent,
        log::{Entry, EventKind, LogPage},
        rows::MessageRow,
    },
};

/// The events that are told once and not kept; the others are [`EventKind`]s.
pub const TRANSIENT_EVENTS: [&str; 7] = [
    "authenticated",
    "message_sent",
    "user_typing",
    "user_presence",
    "unread_count",
    "sync_required",
    "error",
];

/// The app takes an event's name from the frame and all else from its one argument.
pub fn event(name: &'static str, data: &impl Serialize) -> Event {
    debug_assert!(is_known(name), "{name} is in no list of events, so that the documents lack it");
    Event::new(name, to_json(data))
}

fn is_known(name: &str) -> bool {
    TRANSIENT_EVENTS.contains(&name) || EventKind::ALL.iter().any(|kind| kind.name() == name)
}

/// JSON text of something that cannot fail to be written.
pub fn to_json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("our own types are written without failing")
}

/// A stored event, ready for a user's connections and for `GET /api/sync`.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its place in the user's log.
    pub event_seq: i64,
    /// What happened.
    pub kind: EventKind,
    /// Of a new message, its place in the conversation and its sender.
    pub message: Option<(i64, UserId)>,
    /// JSON text of its one argument.
    pub data: String,
}

impl StoredEvent {
    fn to_event(&self) -> Event {
        Event::new(self.kind.name(), self.data.clone())
    }
}

impl Chat {
    /// Makes the events of a committed batch, hands them on, then answers those who wait.
    pub(super) async fn publish(&self, committed: Committed) {
        let rows: Vec<MessageRow> = committed
            .applied
            .sends
            .iter()
            .filter_map(|sent| match sent {
                Ok(Sent::New { message, .. }) => Some((**message).clone()),
                _ => None,
            })
            .collect();
        self.inner.indexing.note_sent(&rows);
        self.notify_of(&committed);
        let sequences: HashMap<MessageId, (i64, UserId)> =
            rows.iter().map(|row| (row.id, (row.seq, row.sender_id))).collect();
        let rendered: Rendered =
            self.views(rows).await.into_iter().map(|view| (view.id, to_json(&view).into())).collect();

        for entry in &committed.applied.entries {
            let Entry { event_seq, entry: change } = entry;
            let user = change.user_id;
            if !self.inner.hub.is_connected(user) && !self.inner.bus.reaches(user, Some(*event_seq)) {
                continue;
            }
            let data = match (change.kind, change.message_id.and_then(|id| rendered.get(&id))) {
                (EventKind::MessageReceived, Some(message)) => {
                    message_data(message, change.conversation_id, *event_seq)
                }
                (_, _) => receipt_data(change.payload.as_deref(), change.conversation_id, *event_seq),
            };
            let message = change.message_id.and_then(|id| sequences.get(&id)).copied();
            let stored = StoredEvent { event_seq: *event_seq, kind: change.kind, message, data };
            self.deliver(user, &stored, change.conversation_id);
        }
        committed.answer(&rendered);
    }

    /// Says what was stored to whoever notifies people. Never waits.
    fn notify_of(&self, committed: &Committed) {
        let Some(notifier) = self.notifier() else { return };
        let committed_at = std::time::Instant::now();
        let sends = committed.applied.sends.iter();
        notifier.stored(
            sends
                .filter_map(|sent| match sent {
                    Ok(Sent::New { message, recipient_id, .. }) => Some(Stored {
                        conversation: message.conversation_id,
                        recipient: *recipient_id,
                        seq: message.seq,
                        committed_at,
                    }),
                    _ => None,
                })
                .collect(),
        );
    }

    /// Hands a stored event to a user's connections here, with what follows from it.
    pub(super) fn hand_on(&self, user: UserId, stored: &StoredEvent, conversation: ConversationId) {
        match self.inner.hub.deliver(user, stored.event_seq, &stored.to_event()) {
            Delivery::Nobody | Delivery::Repeated => return,
            Delivery::Waiting { .. } => self.mend(user),
            Delivery::Live(0) => {}
            Delivery::Live(connections) => {
                metrics::get().event_delivered(connections);
                if let Some((seq, sender)) = stored.message
                    && sender != user
                {
                    self.note_reached(conversation, user, seq);
                }
            }
        }
        self.fold_after(user, stored.kind, conversation);
    }

    /// Hands on events of entries that an operation appended by itself.
    pub(super) async fn publish_entries(&self, entries: Vec<Entry>) {
        let mut by_user: HashMap<UserId, Vec<Entry>> = HashMap::new();
        for entry in entries {
            let user = entry.entry.user_id;
            if self.inner.hub.is_connected(user) {
                by_user.entry(user).or_default().push(entry);
            } else {
                // Nodes that have a connection of theirs read it themselves.
                self.relay_place(user, entry.event_seq);
            }
        }
        for (user, entries) in by_user {
            match self.events_of(user, entries).await {
                Ok(events) => {
                    for (event, conversation) in events {
                        self.deliver(user, &event, conversation);
                    }
                }
                // They are in the log: the next event finds the gap and fills it.
                Err(error) => {
                    tracing::warn!(%error, "events could not be made after their commit");
                    self.inner.uncertain.notify_one();
                }
            }
        }
    }

    /// Fills the gap in a user's stream from the log, in the background.
    pub(super) fn mend(&self, user: UserId) {
        if !self.inner.mending.lock().insert(user) {
            return;
        }
        metrics::get().stream_gap();
        let weak = self.downgrade();
        tokio::spawn(async move {
            // Two writers may publish in the other order than they committed; that rights itself at once.
            tokio::time::sleep(MEND_DELAY).await;
            while let Some(chat) = Self::upgrade(&weak) {
                let Some(delivered) = chat.inner.hub.gap(user) else { break };
                if let Err(error) = chat.read_on(user, delivered).await {
                    tracing::warn!(%error, "a gap in a stream could not be filled yet");
                    drop(chat);
                    tokio::time::sleep(MEND_RETRY).await;
                }
            }
            if let Some(chat) = Self::upgrade(&weak) {
                chat.inner.mending.lock().remove(&user);
                // Something may have come between the last look and the removal.
                if chat.inner.hub.gap(user).is_some() {
                    chat.mend(user);
                }
            }
        });
    }

    /// Hands on what the log has after `delivered`. Answers whether there was anything.
    pub(super) async fn read_on(&self, user: UserId, delivered: i64) -> Result<bool> {
        match self.inner.store.read_log(user, delivered, MEND_PAGE).await? {
            LogPage::Entries { entries, .. } => {
                let found = !entries.is_empty();
                for (event, conversation) in self.events_of(user, entries).await? {
                    self.hand_on(user, &event, conversation);
                }
                Ok(found)
            }
            LogPage::Expired { last_event_seq } => {
                let notice = event("sync_required", &json!({"reason": "expired"}));
                self.inner.hub.skip_to(user, last_event_seq, &notice);
                Ok(true)
            }
            LogPage::Ahead { .. } => Ok(false),
        }
    }

    /// The events of a user's log entries, as their rows are now.
    pub(super) async fn events_of(
        &self,
        user: UserId,
        entries: Vec<Entry>,
    ) -> Result<Vec<(StoredEvent, ConversationId)>> {
        let message_ids: Vec<MessageId> = entries.iter().filter_map(|entry| entry.entry.message_id).collect();
        let mut messages: HashMap<MessageId, MessageView> = HashMap::new();
        if !message_ids.is_empty() {
            let rows = self.inner.store.messages_by_id(&message_ids).await?;
            let rows: Vec<MessageRow> = rows.into_values().collect();
            let mut conversations: Vec<_> = rows.iter().map(|row| row.conversation_id).collect();
            conversations.sort_unstable();
            conversations.dedup();
            let cleared_seqs = self.inner.store.cleared_seqs(user, &conversations).await?;
            messages.extend(self.views(rows).await.into_iter().map(|mut view| {
                // The log outlives the history: what the user deleted does not come back through it.
                if cleared_seqs.get(&view.conversation_id).is_some_and(|cleared| view.seq <= *cleared) {
                    view.withhold();
                }
                (view.id, view)
            }));
        }
        let conversation_ids: Vec<ConversationId> = entries
            .iter()
            .filter(|entry| entry.entry.kind == EventKind::ConversationUpdated)
            .map(|entry| entry.entry.conversation_id)
            .collect();
        let conversations = self.conversation_views_of(user, &conversation_ids).await?;
        Ok(entries
            .into_iter()
            .map(|Entry { event_seq, entry }| {
                let conversation = entry.conversation_id;
                let message = entry.message_id.and_then(|id| messages.get(&id));
                let data = match entry.kind {
                    EventKind::MessageReceived | EventKind::MessageUpdated => match message {
                        Some(view) => message_data(&to_json(view), conversation, event_seq),
                        None => {
                            json!({"message": null, "conversation_id": conversation, "event_seq": event_seq})
                                .to_string()
                        }
                    },
                    EventKind::MessageDeleted => json!({
                        "message_id": entry.message_id,
                        "conversation_id": conversation,
                        "deleted_at": message.and_then(|view| view.deleted_at),
                        "event_seq": event_seq,
                    })
                    .to_string(),
                    EventKind::MessageReaction => {
                        reaction_data(&entry.payload, entry.message_id, message, conversation, event_seq)
                    }
                    EventKind::MessageDelivered | EventKind::MessageRead => {
                        receipt_data(entry.payload.as_deref(), conversation, event_seq)
                    }
                    EventKind::ConversationUpdated => {
                        conversation_data(&entry.payload, conversations.get(&conversation), event_seq)
                    }
                };
                let message = message
                    .filter(|_| entry.kind == EventKind::MessageReceived)
                    .map(|view| (view.seq, view.sender_id));
                (StoredEvent { event_seq, kind: entry.kind, message, data }, conversation)
            })
            .collect())
    }
}

/// Longer than two writers take to publish what they committed one after the other.
const MEND_DELAY: std::time::Duration = std::time::Duration::from_millis(15);
/// Between attempts while the database is away.
const MEND_RETRY: std::time::Duration = std::time::Duration::from_millis(500);
/// Entries read at once.
const MEND_PAGE: i64 = 200;

fn message_data(message: &str, conversation: ConversationId, event_seq: i64) -> String {
    format!(r#"{{"message":{message},"conversation_id":{conversation},"event_seq":{event_seq}}}"#)
}

/// `{"message_ids","user_id","delivered_at"}` as it was stored, with the conversation and the place.
fn receipt_data(payload: Option<&str>, conversation: ConversationId, event_seq: i64) -> String {
    let fields = payload.and_then(|payload| payload.strip_suffix('}')).unwrap_or("{\"message_ids\":[]");
    format!(r#"{fields},"conversation_id":{conversation},"event_seq":{event_seq}}}"#)
}

/// After a deletion also `cleared_seq`: the history up to there is gone, even if the conversation is back by now.
fn conversation_data(payload: &Option<String>, view: Option<&ConversationView>, event_seq: i64) -> String {
    let mut data = json!({"conversation": view, "event_seq": event_seq});
    let stored: Option<Value> = payload.as_deref().and_then(|text| serde_json::from_str(text).ok());
    if let Some(cleared_seq) = stored.as_ref().and_then(|stored| stored.get("cleared_seq")) {
        data["cleared_seq"] = cleared_seq.clone();
    }
    data.to_string()
}

fn reaction_data(
    payload: &Option<String>,
    message_id: Option<MessageId>,
    message: Option<&MessageView>,
    conversation: ConversationId,
    event_seq: i64,
) -> String {
    let given: Value =
        payload.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    json!({
        "message_id": message_id,
        "conversation_id": conversation,
        "user_id": given["user_id"],
        "emoji": given["emoji"],
        "action": given["action"],
        "reactions": message.map(|view| json!(view.reactions)).unwrap_or_else(|| json!([])),
        "event_seq": event_seq,
    })
    .to_string()
}

/// JSON text as a value that is written as it is.
pub fn raw(json: impl Into<String>) -> Box<RawValue> {
    RawValue::from_string(json.into()).expect("our own JSON text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_keeps_what_was_stored_and_gets_its_place() {
        let data = receipt_data(Some(r#"{"message_ids":[1],"user_id":2}"#), ConversationId(3), 4);
        assert_eq!(data, r#"{"message_ids":[1],"user_id":2,"conversation_id":3,"event_seq":4}"#);
        assert!(serde_json::from_str::<Value>(&receipt_data(None, ConversationId(3), 4)).is_ok());
    }
}
