//! What a push says, whichever service carries it: cut to what fits, on the border of a character.

use crate::{
    ids::{ConversationId, MessageId, ProductId, UserId},
    storage::notifications::FactsRow,
};

/// Characters of a message's text that are shown.
const MAX_BODY: usize = 120;
/// Characters of a name or a product's title that are shown.
const MAX_TITLE: usize = 60;
/// Conversations whose notifications one update of the badge takes away.
const MAX_WITHDRAWN: usize = 20;

/// What is pushed to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Push {
    /// There is something new to read.
    Message(Notification),
    /// Something was read elsewhere: nothing is shown, the badge changes.
    Badge(Badge),
}

/// A notification of a conversation; one that comes later takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notification {
    /// Who wrote, with how many unread messages there are of them where it is more than one.
    pub(super) title: String,
    /// What the conversation is about.
    pub(super) subtitle: Option<String>,
    /// The newest text, or what was sent instead.
    pub(super) body: String,
    /// All unread messages of the person.
    pub(super) badge: i64,
    /// Unread messages of this conversation.
    pub(super) count: i64,
    pub(super) conversation: ConversationId,
    pub(super) message: MessageId,
    pub(super) sender: UserId,
    pub(super) product: Option<ProductId>,
}

/// The badge after something was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Badge {
    /// All unread messages of the person.
    pub(super) count: i64,
    /// Conversations whose notifications are to go.
    pub(super) withdrawn: Vec<ConversationId>,
}

impl Badge {
    pub(super) fn new(count: i64, withdrawn: &[ConversationId]) -> Self {
        Self { count, withdrawn: withdrawn.iter().copied().take(MAX_WITHDRAWN).collect() }
    }

    /// `1,2,3`
    pub(super) fn withdrawn_text(&self) -> String {
        self.withdrawn.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Notification {
    /// Puts a notification together; `None` where there is nothing to tell.
    pub(super) fn new(facts: &FactsRow, sender: &str, product: Option<&str>) -> Option<Self> {
        let title = cut(sender, MAX_TITLE);
        let count = facts.unread_count.max(1);
        Some(Self {
            // A number needs no language, and nobody's language is known here.
            title: if count > 1 { format!("{title} ({count})") } else { title },
            subtitle: product.map(|title| cut(title, MAX_TITLE)),
            body: body(
                facts.content.as_deref().unwrap_or_default(),
                facts.kind.as_deref().unwrap_or_default(),
            ),
            badge: facts.badge.max(count),
            count,
            conversation: facts.conversation_id,
            message: facts.message_id?,
            sender: facts.sender_id?,
            product: facts.product_id,
        })
    }

    /// What replaces an earlier notification of the same conversation.
    pub(super) fn tag(&self) -> String {
        tag(self.conversation)
    }

    /// The names and values that the app reads, all of them texts.
    pub(super) fn data(&self) -> [(&'static str, String); 6] {
        [
            ("type", "new_message".into()),
            ("conversation_id", self.conversation.to_string()),
            ("message_id", self.message.to_string()),
            ("sender_id", self.sender.to_string()),
            ("product_id", self.product.map(|id| id.to_string()).unwrap_or_default()),
            ("unread_count", self.badge.to_string()),
        ]
    }

    /// The same with less text: `None` when there is none left to take away.
    pub(super) fn shortened(&self) -> Option<Self> {
        let keep = self.body.chars().count().checked_sub(1)? / 2;
        Some(Self { body: cut(&self.body, keep), ..self.clone() })
    }
}

pub(super) fn tag(conversation: ConversationId) -> String {
    format!("conversation-{conversation}")
}

fn body(content: &str, kind: &str) -> String {
    // One line: notifications have no room for paragraphs.
    let words = content.split_whitespace().collect::<Vec<_>>().join(" ");
    match (words.is_empty(), kind) {
        (false, _) => cut(&words, MAX_BODY),
        (true, "image") => "📷 Photo".into(),
        (true, _) => "📎 File".into(),
    }
}

/// At most so many characters; what is cut ends in `…`.
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) if max == 0 => String::new(),
        Some(_) => {
            let end = text.char_indices().nth(max - 1).map_or(text.len(), |(place, _)| place);
            format!("{}…", text[..end].trim_end())
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::notify) fn facts(content: &str, kind: &str, unread: i64) -> FactsRow {
        FactsRow {
            user_id: UserId(2),
            conversation_id: ConversationId(3),
            product_id: Some(ProductId(5)),
            is_muted: false,
            muted_until: None,
            is_blocked: false,
            push: true,
            quiet_hours: None,
            unread_count: unread,
            badge: unread + 1,
            pushed_seq: 0,
            pushed_at: None,
            claimed_at: None,
            message_id: Some(MessageId(9)),
            seq: Some(4),
            sender_id: Some(UserId(1)),
            content: Some(content.into()),
            kind: Some(kind.into()),
        }
    }

    #[test]
    fn a_notification_says_who_what_and_how_many() {
        let one = Notification::new(&facts("Is it\nfree?", "text", 1), "Anna", Some("Camera")).unwrap();
        assert_eq!((one.title.as_str(), one.body.as_str()), ("Anna", "Is it free?"));
        assert_eq!(
            (one.subtitle.as_deref(), one.badge, one.tag().as_str()),
            (Some("Camera"), 2, "conversation-3")
        );
        let more = Notification::new(&facts("Hello?", "text", 3), "Anna", None).unwrap();
        assert_eq!((more.title.as_str(), more.count, more.badge), ("Anna (3)", 3, 4));
    }

    #[test]
    fn what_has_no_words_is_named() {
        for (content, kind, expected) in
            [("", "image", "📷 Photo"), ("", "file", "📎 File"), ("look", "image", "look")]
        {
            assert_eq!(body(content, kind), expected);
        }
    }

    #[test]
    fn shortening_ends_with_nothing() {
        let mut notification = Notification::new(&facts(&"x".repeat(500), "text", 1), "Anna", None).unwrap();
        assert_eq!(notification.body.chars().count(), 120);
        let mut steps = 0;
        while let Some(shorter) = notification.shortened() {
            assert!(shorter.body.len() < notification.body.len());
            notification = shorter;
            steps += 1;
        }
        assert!(notification.body.is_empty() && steps < 10);
    }

    proptest! {
        #[test]
        fn a_cut_is_a_beginning_of_so_many_characters(text in "\\PC{0,200}", max in 0..150_usize) {
            let short = cut(&text, max);
            prop_assert!(short.chars().count() <= max);
            if text.chars().count() <= max {
                prop_assert_eq!(short, text);
            } else if let Some(rest) = short.strip_suffix('…') {
                prop_assert!(text.starts_with(rest));
            }
        }
    }
}
