//! Both sides once more, from beginning to end: counts and checksums of each conversation, the order, the
//! counters. What differs is counted, and the first of each kind named.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{PAGE, Skipped, prepared};
use crate::{
    content::MessageText,
    storage::{
        Store, StoreError,
        import::{Mapped, Source},
    },
};

/// Ids named of each kind.
const NAMED: usize = 5;

/// How many there are of a kind, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The ids of the first.
    pub first: Vec<i64>,
}

impl Found {
    fn note(&mut self, id: i64) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(id);
        }
    }
}

/// What both sides have, and where they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Conversations of the source.
    pub conversations: u64,
    /// Conversations that they became: fewer where a pair had several about one product.
    pub merged_into: u64,
    /// Messages of the source that are here.
    pub messages: u64,
    /// Conversations that are not of two users, and are left out.
    pub not_two_users: Found,
    /// Messages without a conversation, left out.
    pub no_conversation: Found,
    /// Messages whose sender takes no part in their conversation, left out.
    pub strangers: Found,
    /// Messages that the service would refuse today: empty or too long. They are here as they are.
    pub would_be_refused: Found,
    /// Messages whose words the service would change today. They are here as they are.
    pub would_be_changed: Found,
    /// Messages of which one side says that they are read and the other does not.
    pub read_differs: u64,
    /// Conversations whose count or checksum differs. Of ours.
    pub differing: Found,
    /// Conversations whose places, newest message or marks do not fit their messages.
    pub misplaced: i64,
    /// Unread counters that a recount does not agree with.
    pub drifted: u64,
    /// Messages that stand behind a later one.
    pub swapped: i64,
    /// Nothing was stored between: all must be in order. Later runs add what came late to the end.
    pub is_order_exact: bool,
}

impl Comparison {
    /// Whether all that the source has is here, where and as it belongs.
    pub fn agrees(&self) -> bool {
        self.differing.count == 0
            && self.misplaced == 0
            && self.drifted == 0
            && (self.swapped == 0 || !self.is_order_exact)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conversations, merged_into, messages, .. } = self;
        writeln!(formatter, "conversations there            {conversations}")?;
        writeln!(formatter, "conversations here             {merged_into}")?;
        writeln!(formatter, "messages here and there        {messages}")?;
        for (what, found) in [
            ("left out, not two users       ", &self.not_two_users),
            ("left out, no conversation     ", &self.no_conversation),
            ("left out, sender a stranger   ", &self.strangers),
            ("kept, would be refused today  ", &self.would_be_refused),
            ("kept, would be changed today  ", &self.would_be_changed),
            ("DIFFERING conversations       ", &self.differing),
        ] {
            write!(formatter, "{what} {}", found.count)?;
            if !found.first.is_empty() {
                let ids: Vec<_> = found.first.iter().map(ToString::to_string).collect();
                let more = if found.first.len() < usize::try_from(found.count).unwrap_or(usize::MAX) {
                    ", …"
                } else {
                    ""
                };
                write!(formatter, " (ids {}{more})", ids.join(", "))?;
            }
            writeln!(formatter)?;
        }
        writeln!(formatter, "read on one side only          {}", self.read_differs)?;
        writeln!(formatter, "MISPLACED conversations        {}", self.misplaced)?;
        writeln!(formatter, "WRONG unread counters          {}", self.drifted)?;
        write!(formatter, "out of order                   {}", self.swapped)
    }
}

/// Count and checksum of a conversation: of all its messages, in whatever order they are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    sum: u64,
}

impl Sum {
    fn add(&mut self, message: impl Hash) {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        self.count += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

/// What is compared.
pub(super) struct Sides<'a> {
    pub(super) source: &'a Source,
    pub(super) store: &'a Store,
    pub(super) mapped: &'a HashMap<i64, Mapped>,
    /// Up to here the run has read.
    pub(super) last_message: i64,
}

impl Sides<'_> {
    pub(super) async fn compare(&self, show: &mut impl FnMut(i64)) -> Result<Comparison, StoreError> {
        let mut comparison = Comparison::default();
        self.count_conversations(&mut comparison).await?;
        let (there, read_there) = self.sum_source(&mut comparison, show).await?;
        let (here, read_here) = self.sum_store().await?;
        comparison.messages = here.values().map(|sum| sum.count).sum();
        let mut differing: Vec<i64> = there
            .keys()
            .chain(here.keys())
            .filter(|id| there.get(id) != here.get(id))
            .copied()
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        differing.sort_unstable();
        differing.into_iter().for_each(|id| comparison.differing.note(id));
        comparison.read_differs = read_there.abs_diff(read_here);
        comparison.misplaced = self.store.misplaced_conversations().await?;
        comparison.swapped = self.store.swapped_messages(self.last_message).await?;
        let mut after = Some(0);
        while let Some(place) = after {
            let counted = self.store.recount_unread(place, PAGE).await?;
            comparison.drifted += u64::try_from(counted.drifted.len()).unwrap_or(u64::MAX);
            after = counted.next;
        }
        Ok(comparison)
    }

    async fn count_conversations(&self, comparison: &mut Comparison) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let rows = self.source.conversations(after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            for row in rows {
                comparison.conversations += 1;
                if row.pair().is_none() {
                    comparison.not_two_users.note(row.id);
                }
            }
        }
        let ours: HashSet<i64> = self.mapped.values().map(|mapped| mapped.conversation_id).collect();
        comparison.merged_into = u64::try_from(ours.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    async fn sum_source(
        &self,
        comparison: &mut Comparison,
        show: &mut impl FnMut(i64),
    ) -> Result<(HashMap<i64, Sum>, u64), StoreError> {
        let mut sums: HashMap<i64, Sum> = HashMap::new();
        let (mut after, mut done, mut read) = (0, 0, 0);
        while after < self.last_message {
            let rows = self.source.messages(after, PAGE, None).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            done += i64::try_from(rows.len()).unwrap_or(PAGE);
            for row in rows.into_iter().filter(|row| row.id <= self.last_message) {
                let id = row.id;
                match prepared(row, self.mapped) {
                    Ok(message) => {
                        if message.kind == "text" && message.deleted_at.is_none() {
                            match MessageText::parse(&message.content) {
                                Err(_) => comparison.would_be_refused.note(id),
                                Ok(text) if text.as_str() != message.content => {
                                    comparison.would_be_changed.note(id);
                                }
                                Ok(_) => {}
                            }
                        }
                        read += u64::from(message.is_read);
                        let sum = sums.entry(message.conversation_id).or_default();
                        let is_deleted = message.deleted_at.is_some();
                        sum.add((id, message.sender_id, &message.content, message.created_at, is_deleted));
                    }
                    Err(Skipped::NoConversation) => comparison.no_conversation.note(id),
                    Err(Skipped::Stranger) => comparison.strangers.note(id),
                }
            }
            show(done);
        }
        Ok((sums, read))
    }

    async fn sum_store(&self) -> Result<(HashMap<i64, Sum>, u64), StoreError> {
        let mut sums: HashMap<i64, Sum> = HashMap::new();
        let (mut after, mut read) = (0, 0);
        loop {
            let rows = self.store.placed_messages(after, self.last_message, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            for row in &rows {
                read += u64::from(row.is_read);
                let sum = sums.entry(row.conversation_id).or_default();
                let is_deleted = row.deleted_at.is_some();
                sum.add((row.id, row.sender_id, &row.content, row.created_at.as_millis(), is_deleted));
            }
        }
        Ok((sums, read))
    }
}
