//! The events that clients may send, once: what `socket` takes, the documents describe and metrics count.

/// An event of a client (contract 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Whose connection this is.
    Authenticate,
    /// A conversation is on screen.
    JoinConversation,
    /// It no longer is.
    LeaveConversation,
    /// A new message.
    SendMessage,
    /// Other words for one.
    EditMessage,
    /// A tombstone for one.
    DeleteMessage,
    /// An emoji under one.
    AddReaction,
    /// The same, taken back.
    RemoveReaction,
    /// Somebody types, or stopped.
    Typing,
    /// Messages were read.
    MarkRead,
    /// Messages were received.
    MarkDelivered,
    /// What others are to see of the user.
    PresenceUpdate,
    /// What was missed.
    Sync,
}

impl Command {
    /// All of them, in the order of the documents.
    pub const ALL: [Self; 13] = [
        Self::Authenticate,
        Self::JoinConversation,
        Self::LeaveConversation,
        Self::SendMessage,
        Self::EditMessage,
        Self::DeleteMessage,
        Self::AddReaction,
        Self::RemoveReaction,
        Self::Typing,
        Self::MarkRead,
        Self::MarkDelivered,
        Self::PresenceUpdate,
        Self::Sync,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::JoinConversation => "join_conversation",
            Self::LeaveConversation => "leave_conversation",
            Self::SendMessage => "send_message",
            Self::EditMessage => "edit_message",
            Self::DeleteMessage => "delete_message",
            Self::AddReaction => "add_reaction",
            Self::RemoveReaction => "remove_reaction",
            Self::Typing => "typing",
            Self::MarkRead => "mark_read",
            Self::MarkDelivered => "mark_delivered",
            Self::PresenceUpdate => "presence_update",
            Self::Sync => "sync",
        }
    }

    /// The event of this name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }
}
