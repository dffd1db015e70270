//! The live events of both directions: what each carries, when it comes and to whom.
//!
//! Client events are those of [`Command`]; server events are listed here, and `asyncapi` makes the
//! document of both. A test drives every one of them.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{
    examples::{self, CONVERSATION, JANE, JOHN, MESSAGE, NOW},
    requests,
    schemas::{Schemas, object},
};
use crate::{
    chat::{
        ReactionAction, ReactionAnswer, ReadAnswer,
        views::{ConversationView, MessageView, ReactionView},
    },
    clock::Timestamp,
    delivery::hub::Status,
    identity::UserProfile,
    ids::{ConversationId, MessageId, UserId},
    socket::Command,
    storage::log::EventKind,
};

/// An event of the service.
#[derive(Debug)]
pub(super) struct ServerEvent {
    pub(super) name: &'static str,
    /// Kept in the log and carrying `event_seq`.
    pub(super) is_stored: bool,
    pub(super) to: &'static str,
    pub(super) when: &'static str,
    pub(super) data: Value,
    pub(super) example: Value,
}

/// An event of a client.
#[derive(Debug)]
pub(super) struct ClientEvent {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) data: Value,
    pub(super) example: Value,
    /// The `data` of its ack.
    pub(super) ack: Value,
    pub(super) ack_example: Value,
    /// What may refuse it.
    pub(super) codes: Vec<&'static str>,
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(JsonSchema)]
        #[expect(dead_code, reason = "only its shape counts")]
        pub(super) struct $name { $($(#[$field_doc])* $field: $type),+ }
    )+};
}

shapes! {
    /// The connection is its user's now.
    Authenticated {
        /// Whose.
        user_id: UserId,
        /// The same, with name and picture.
        user: UserProfile,
    }
    /// A message came.
    MessageReceived {
        /// The message.
        message: MessageView,
        /// Where.
        conversation_id: ConversationId,
        /// The event's place in the receiver's log.
        event_seq: i64,
    }
    /// A message is stored.
    MessageSent {
        /// The message.
        message: MessageView,
        /// Its id.
        message_id: MessageId,
        /// The sender's own id for it.
        client_message_id: Option<String>,
    }
    /// A message was edited, or its offer changed.
    MessageUpdated {
        /// The message as it is now.
        message: MessageView,
        /// Where.
        conversation_id: ConversationId,
        /// The event's place in the receiver's log.
        event_seq: i64,
    }
    /// A message became a tombstone.
    MessageDeleted {
        /// Which.
        message_id: MessageId,
        /// Where.
        conversation_id: ConversationId,
        /// When.
        deleted_at: Timestamp,
        /// The event's place in the receiver's log.
        event_seq: i64,
    }
    /// An emoji was given or taken back.
    MessageReaction {
        /// Under which message.
        message_id: MessageId,
        /// Where.
        conversation_id: ConversationId,
        /// Whose.
        user_id: UserId,
        /// Which.
        emoji: String,
        /// Given or taken back.
        action: ReactionAction,
        /// All reactions to the message now.
        reactions: Vec<ReactionView>,
        /// The event's place in the receiver's log.
        event_seq: i64,
    }
    /// Messages reached a device.
    MessageDelivered {
        /// Which.
        message_ids: Vec<MessageId>,
        /// Who received them.
        user_id: UserId,
        /// Where.
        conversation_id: ConversationId,
        /// When.
        delivered_at: Timestamp,
        /// The event's place in the receiver's log.
        event_seq: i64,
    }
    /// Messages were read.
    MessageRead {
        /// Which.
        message_ids: Vec<MessageId>,
        /// Who read them.
        user_id: UserId,
        /// Where.
        conversation_id: ConversationId,
        /// When.
        read_at: Timestamp,
        /// The event's place in the receiver's log.
        event_seq: i64,
    }
    /// Somebody types, or stopped.
    UserTyping {
        /// Who.
        user_id: UserId,
        /// Where.
        conversation_id: ConversationId,
        /// Whether they do.
        is_typing: bool,
    }
    /// Somebody came, is away, or left.
    UserPresence {
        /// Who.
        user_id: UserId,
        /// How they are here.
        status: Status,
        /// Since when they are not; null while online.
        last_seen: Option<Timestamp>,
    }
    /// A conversation changed.
    ConversationUpdated {
        /// As its receiver sees it.
        conversation: ConversationView,
        /// The event's place in the receiver's log; absent where a message or a read is the cause.
        #[serde(skip_serializing_if = "Option::is_none")]
        event_seq: Option<i64>,
        /// After a deletion: the receiver's history up to this `seq` is gone.
        #[serde(skip_serializing_if = "Option::is_none")]
        cleared_seq: Option<i64>,
    }
    /// The badge.
    UnreadCountEvent {
        /// All of the user's unread messages.
        unread_count: i64,
    }
    /// Something may have been missed for good.
    SyncRequired {
        /// `expired`: the log no longer reaches back so far; `ahead`: it does not reach so far.
        #[schemars(extend("enum" = ["expired", "ahead"]))]
        reason: String,
    }
    /// An event of the client was refused, or its time to authenticate is over.
    ErrorEvent {
        /// One sentence for a person.
        message: String,
        /// A code of the catalogue.
        code: String,
        /// The refused event.
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<String>,
        /// As the refused event named it.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_message_id: Option<String>,
        /// As the refused event named it.
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation_id: Option<serde_json::Number>,
    }
    /// What `mark_delivered` is answered.
    DeliveredAnswer {
        /// The messages that were not yet delivered.
        message_ids: Vec<MessageId>,
    }
    /// What `sync` is answered, after the events.
    SyncEventAnswer {
        /// The newest entry's place.
        last_event_seq: i64,
        /// There is more.
        has_more: bool,
    }
}

const BOTH: &str = "every live connection of both users, joined or not, the causing one too";

/// The events that are kept in logs; one that has no description does not compile.
pub(super) fn stored(kind: EventKind, schemas: &mut Schemas) -> ServerEvent {
    let message = examples::json(&examples::message());
    let (when, data, example) = match kind {
        EventKind::MessageReceived => (
            "A message is stored. The sender's other devices, and the sending one too, show it from this event.",
            schemas.of::<MessageReceived>(),
            json!({"message": message, "conversation_id": CONVERSATION}),
        ),
        EventKind::MessageUpdated => (
            "A message was edited, or its offer changed.",
            schemas.of::<MessageUpdated>(),
            json!({"message": message, "conversation_id": CONVERSATION}),
        ),
        EventKind::MessageDeleted => (
            "A message became a tombstone: no words, no file, no reactions; its place stays.",
            schemas.of::<MessageDeleted>(),
            json!({"message_id": MESSAGE, "conversation_id": CONVERSATION, "deleted_at": NOW}),
        ),
        EventKind::MessageReaction => (
            "An emoji was given to a message, or taken back.",
            schemas.of::<MessageReaction>(),
            json!({
                "message_id": MESSAGE, "conversation_id": CONVERSATION, "user_id": JANE, "emoji": "👍",
                "action": "added", "reactions": examples::reactions(),
            }),
        ),
        EventKind::MessageDelivered => (
            "Messages reached a live connection of their recipient, or were fetched by one.",
            schemas.of::<MessageDelivered>(),
            json!({
                "message_ids": [MESSAGE], "user_id": JANE, "conversation_id": CONVERSATION, "delivered_at": NOW,
            }),
        ),
        EventKind::MessageRead => (
            "Messages were read, by `mark_read` or by REST.",
            schemas.of::<MessageRead>(),
            json!({"message_ids": [MESSAGE], "user_id": JANE, "conversation_id": CONVERSATION, "read_at": NOW}),
        ),
        EventKind::ConversationUpdated => (
            "A conversation changed. It is stored, and has `event_seq`, where no message or read is the cause: \
             archive, mute, block, delete. After a message, a read, an edit or a deletion it comes without, \
             folded within 200 ms.",
            schemas.of::<ConversationUpdated>(),
            json!({"conversation": examples::conversation()}),
        ),
    };
    let to = match kind {
        EventKind::ConversationUpdated => "every live connection of the user who sees it so",
        _ => BOTH,
    };
    let mut example = example;
    example["event_seq"] = json!(4711);
    ServerEvent { name: kind.name(), is_stored: true, to, when, data, example }
}

/// The events that are told once and not kept.
pub(super) fn transient(schemas: &mut Schemas) -> Vec<ServerEvent> {
    let message = examples::json(&examples::message());
    let event =
        |name, to, when, data, example| ServerEvent { name, is_stored: false, to, when, data, example };
    let connection = "the connection";
    vec![
        event(
            "authenticated",
            connection,
            "The token was valid; what was missed since `since` follows, then the live stream.",
            schemas.of::<Authenticated>(),
            json!({"user_id": JOHN, "user": examples::john()}),
        ),
        event(
            "message_sent",
            "the sending connection",
            "A message of this connection is stored; again when it is sent again under the same `client_message_id`.",
            schemas.of::<MessageSent>(),
            json!({"message": message, "message_id": MESSAGE, "client_message_id": "8d2f3c"}),
        ),
        event(
            "user_typing",
            "the other user of the conversation",
            "Somebody types, or stopped; it ends by itself after 6 s, and when the connection goes.",
            schemas.of::<UserTyping>(),
            json!({"user_id": JANE, "conversation_id": CONVERSATION, "is_typing": true}),
        ),
        event(
            "user_presence",
            "users who share a conversation, the 200 most recent",
            "Somebody came, is away, or left more than 5 s ago.",
            schemas.of::<UserPresence>(),
            json!({"user_id": JANE, "status": "offline", "last_seen": NOW}),
        ),
        event(
            "unread_count",
            "every live connection of the user",
            "The badge, after whatever changes it; folded within 200 ms.",
            schemas.of::<UnreadCountEvent>(),
            json!({"unread_count": 3}),
        ),
        event(
            "sync_required",
            "connections that may have missed something",
            "The log cannot fill what was missed: read the lists again.",
            schemas.of::<SyncRequired>(),
            json!({"reason": "expired"}),
        ),
        event(
            "error",
            "the connection that erred",
            "An event of the client was refused, a frame could not be read, or no valid token came in 10 s.",
            schemas.of::<ErrorEvent>(),
            json!({
                "message": "Conversation not found.", "code": "CONVERSATION_NOT_FOUND",
                "event": "send_message", "client_message_id": "8d2f3c", "conversation_id": 999,
            }),
        ),
    ]
}

/// All events of the service.
pub(super) fn of_server(schemas: &mut Schemas) -> Vec<ServerEvent> {
    let mut events: Vec<_> = EventKind::ALL.into_iter().map(|kind| stored(kind, schemas)).collect();
    events.extend(transient(schemas));
    events
}

/// An entry of `GET /api/sync`: one of the stored events.
pub(super) fn sync_event_schema(schemas: &mut Schemas) -> Value {
    let entries = EventKind::ALL.into_iter().map(|kind| {
        let event = stored(kind, schemas);
        object([
            ("event", json!({"const": event.name})),
            ("event_seq", json!({"type": "integer", "format": "int64", "minimum": 1})),
            ("data", event.data),
        ])
    });
    json!({
        "description": "A stored event, as a live connection hears it.",
        "oneOf": entries.collect::<Value>(),
    })
}

/// What refuses any event: the connection's state, its data, a dependency.
const ALWAYS: [&str; 5] =
    ["BAD_REQUEST", "UNAUTHENTICATED", "VALIDATION_FAILED", "SERVICE_UNAVAILABLE", "INTERNAL"];

/// An event of a client; one that has no description does not compile.
pub(super) fn of_client(command: Command, schemas: &mut Schemas) -> ClientEvent {
    let nothing = || (json!({"type": "object"}), json!({}));
    let message = |schemas: &mut Schemas| (schemas.of::<MessageView>(), examples::json(&examples::message()));
    let (summary, data, example, (ack, ack_example), codes): (_, _, _, _, &[&str]) = match command {
        Command::Authenticate => (
            "Says whose connection this is, within 10 s. The same user again is answered; another user is refused.",
            requests::authenticate(),
            json!({"token": "7|AbCdEf", "since": 4710}),
            (schemas.of::<Authenticated>(), json!({"user_id": JOHN, "user": examples::john()})),
            &["FORBIDDEN", "RATE_LIMITED", "AUTH_UNAVAILABLE"],
        ),
        Command::JoinConversation => (
            "The conversation is on screen: no push for it meanwhile. Events come without joining.",
            requests::conversation(),
            json!({"conversation_id": CONVERSATION}),
            nothing(),
            &["FORBIDDEN", "CONVERSATION_NOT_FOUND", "CONFLICT"],
        ),
        Command::LeaveConversation => (
            "The conversation is no longer on screen.",
            requests::conversation(),
            json!({"conversation_id": CONVERSATION}),
            nothing(),
            &[],
        ),
        Command::SendMessage => (
            "Sends a message. The ack, and `message_sent`, come when it is stored.",
            requests::send_message(),
            json!({"conversation_id": CONVERSATION, "content": "Hello!", "client_message_id": "8d2f3c"}),
            message(schemas),
            &["FORBIDDEN", "BLOCKED", "CONVERSATION_NOT_FOUND", "CONFLICT", "RATE_LIMITED"],
        ),
        Command::EditMessage => (
            "Gives a message other words: its sender, text only, within the edit window.",
            requests::edit_message_event(),
            json!({"message_id": MESSAGE, "content": "Hello again!"}),
            message(schemas),
            &["FORBIDDEN", "BLOCKED", "EDIT_WINDOW_CLOSED", "MESSAGE_NOT_FOUND", "RATE_LIMITED"],
        ),
        Command::DeleteMessage => (
            "Makes a message a tombstone: its sender. Once more changes nothing.",
            requests::message(),
            json!({"message_id": MESSAGE}),
            nothing(),
            &["FORBIDDEN", "MESSAGE_NOT_FOUND", "RATE_LIMITED"],
        ),
        Command::AddReaction => (
            "Gives a message an emoji. Once more changes nothing.",
            requests::reaction_event(),
            json!({"message_id": MESSAGE, "emoji": "👍"}),
            (schemas.of::<ReactionAnswer>(), reaction_answer()),
            &["FORBIDDEN", "MESSAGE_NOT_FOUND", "RATE_LIMITED"],
        ),
        Command::RemoveReaction => (
            "Takes an emoji back. One that was not given is fine.",
            requests::reaction_event(),
            json!({"message_id": MESSAGE, "emoji": "👍"}),
            nothing(),
            &["FORBIDDEN", "MESSAGE_NOT_FOUND", "RATE_LIMITED"],
        ),
        Command::Typing => (
            "The user types, or stopped. Repeat it every few seconds: it ends by itself after 6 s.",
            requests::typing(),
            json!({"conversation_id": CONVERSATION, "is_typing": true}),
            nothing(),
            &["FORBIDDEN", "CONVERSATION_NOT_FOUND", "RATE_LIMITED"],
        ),
        Command::MarkRead => (
            "Marks messages of the other user as read.",
            requests::mark(),
            json!({"conversation_id": CONVERSATION, "up_to_id": MESSAGE}),
            (schemas.of::<ReadAnswer>(), read_answer()),
            &["FORBIDDEN", "CONVERSATION_NOT_FOUND", "RATE_LIMITED"],
        ),
        Command::MarkDelivered => (
            "Marks messages of the other user as delivered; live connections do so by themselves.",
            requests::mark(),
            json!({"conversation_id": CONVERSATION, "message_ids": [MESSAGE]}),
            (schemas.of::<DeliveredAnswer>(), json!({"message_ids": [MESSAGE]})),
            &["FORBIDDEN", "CONVERSATION_NOT_FOUND", "RATE_LIMITED"],
        ),
        Command::PresenceUpdate => (
            "Sets what others see of the user on this device; of several, online beats away beats offline.",
            requests::status(),
            json!({"status": "away"}),
            nothing(),
            &[],
        ),
        Command::Sync => (
            "Asks for what came after `since`: the missed events come as events, then the ack.",
            requests::sync(),
            json!({"since": 4700}),
            (schemas.of::<SyncEventAnswer>(), json!({"last_event_seq": 4711, "has_more": false})),
            &["SYNC_EXPIRED"],
        ),
    };
    let codes = ALWAYS.iter().chain(codes).copied().collect();
    ClientEvent { name: command.name(), summary, data, example, ack, ack_example, codes }
}

pub(super) fn read_answer() -> Value {
    let conversation_id = CONVERSATION;
    examples::json(&ReadAnswer { conversation_id, count: 1, message_ids: vec![MESSAGE], unread_count: 3 })
}

pub(super) fn reaction_answer() -> Value {
    examples::json(&ReactionAnswer {
        message_id: MESSAGE,
        conversation_id: CONVERSATION,
        user_id: JANE,
        emoji: "👍".into(),
        action: ReactionAction::Added,
        reactions: examples::reactions(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::events::TRANSIENT_EVENTS;

    #[test]
    fn every_event_that_is_not_stored_is_described_and_nothing_else_is() {
        let mut described: Vec<_> =
            transient(&mut Schemas::new()).into_iter().map(|event| event.name).collect();
        let mut sent = TRANSIENT_EVENTS.to_vec();
        described.sort_unstable();
        sent.sort_unstable();
        assert_eq!(described, sent);
    }
}
