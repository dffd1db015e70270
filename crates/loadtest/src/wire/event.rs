//! The parts of the service's events that are checked or measured; everything else in them is skipped.

use std::borrow::Cow;

use serde::Deserialize;

/// `message_received`.
#[derive(Debug, Deserialize)]
pub struct Received<'a> {
    /// Where.
    pub conversation_id: u64,
    /// Its place in this user's log.
    pub event_seq: Option<u64>,
    /// What.
    #[serde(borrow)]
    pub message: Message<'a>,
}

/// `message_sent`.
#[derive(Debug, Deserialize)]
pub struct Sent<'a> {
    /// The message's id once more.
    pub message_id: u64,
    /// What.
    #[serde(borrow)]
    pub message: Message<'a>,
}

/// A message.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// Its id.
    pub id: u64,
    /// Where it is.
    pub conversation_id: u64,
    /// Its place there.
    pub seq: u64,
    /// Whose it is.
    pub sender_id: u64,
    /// The words.
    #[serde(borrow)]
    pub content: Cow<'a, str>,
}

/// `error`, or the error in an ack.
#[derive(Debug, Deserialize)]
pub struct Refusal<'a> {
    /// Of the catalogue.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// A sentence.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Which message it is about.
    #[serde(borrow, default)]
    pub client_message_id: Option<Cow<'a, str>>,
}

/// `authenticated`.
#[derive(Debug, Deserialize)]
pub struct Authenticated {
    /// Who the connection belongs to.
    pub user_id: u64,
}

/// Any other event; those of the user's log are numbered.
#[derive(Debug, Deserialize)]
pub struct Numbered {
    /// Its place in this user's log, if it is in there.
    pub event_seq: Option<u64>,
}

/// `sync_required`.
#[derive(Debug, Deserialize)]
pub struct SyncRequired<'a> {
    /// Why.
    #[serde(borrow, default)]
    pub reason: Cow<'a, str>,
}

/// An ack.
#[derive(Debug, Deserialize)]
pub struct Ack<'a> {
    /// Whether it was done.
    pub success: bool,
    /// What came of it.
    #[serde(borrow, default)]
    pub data: Option<AckData<'a>>,
    /// Why not.
    #[serde(borrow, default)]
    pub error: Option<Refusal<'a>>,
}

/// What came of a call; of sent messages, the words.
#[derive(Debug, Deserialize)]
pub struct AckData<'a> {
    /// The words.
    #[serde(borrow, default)]
    pub content: Option<Cow<'a, str>>,
}

/// One event, read as far as it matters.
#[derive(Debug)]
pub enum Event<'a> {
    /// The connection is somebody's.
    Authenticated(Authenticated),
    /// A message for this user, or their own.
    Received(Received<'a>),
    /// A confirmation.
    Sent(Sent<'a>),
    /// Something was refused.
    Error(Refusal<'a>),
    /// The service says that events may be missing.
    SyncRequired(SyncRequired<'a>),
    /// The answer to an event of ours, with its number.
    Ack(u64, Ack<'a>),
    /// Anything else.
    Other(Numbered),
}
