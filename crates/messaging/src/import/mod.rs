//! `rented-messaging import`: the main API's conversations and messages, as they are, into this database.
//!
//! Three passes: conversations, messages (read by id, then placed conversation by conversation), and a
//! comparison of both sides. How far each came is in the database, so a run that was killed is gone on
//! with by starting it again, and a run after a completed one brings what is new. Rules of the service
//! are not applied to history; what they would refuse or change is counted.

mod compare;
mod progress;

use std::{collections::HashMap, fmt, time::Duration};

pub use compare::Comparison;
use compare::Sides;
pub use progress::{Bar, Phase};

use crate::{
    clock::Clock,
    storage::{
        OpenError, Store, StoreError, StoreOptions,
        import::{ImportLock, Mapped, Mark, Source, SourceMessage, StagedMessage},
    },
};

/// Rows read at once.
const PAGE: i64 = 2000;
/// Conversations placed in one transaction.
const CONVERSATIONS: i64 = 100;
/// A large page may take a while; nobody waits for it but the operator.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Changes this much older than the last run are looked at again: its clock may have been another one's.
const OVERLAP_MS: i64 = 2 * 24 * 60 * 60 * 1000;

/// Why an import did not come to its end; each is a sentence for the operator.
#[derive(Debug)]
pub enum ImportError {
    /// The main API's database cannot be read.
    Source(OpenError),
    /// Our database cannot be opened.
    Target(OpenError),
    /// Another import is running.
    Running,
    /// There are conversations here that no import brought.
    InUse,
    /// A statement failed.
    Store(StoreError),
}

impl fmt::Display for ImportError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(OpenError::BadUrl(reason)) => write!(formatter, "--from cannot be read: {reason}"),
            Self::Source(error) => write!(formatter, "the main API's database cannot be read: {error}"),
            Self::Target(error) => error.fmt(formatter),
            Self::Running => formatter.write_str("another import into this database is running"),
            Self::InUse => formatter.write_str(
                "this database has conversations that no import brought, whose ids may be taken: \
                 import into an empty one",
            ),
            Self::Store(error) => write!(formatter, "the import stopped: {error}; start it again to go on"),
        }
    }
}

impl std::error::Error for ImportError {}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The run went on where another one was interrupted.
    pub is_resumed: bool,
    /// Messages that are new here.
    pub new: u64,
    /// Messages that were here and have changed there.
    pub changed: u64,
    /// What both sides have, and where they differ.
    pub comparison: Comparison,
}

/// Runs an import into the database of these options. `show` is told how far it came.
pub async fn run(
    from: &str,
    into: &StoreOptions,
    clock: Clock,
    mut show: impl FnMut(Phase, i64, i64),
) -> Result<Report, ImportError> {
    let options = StoreOptions { timeout: TIMEOUT, ..into.clone() };
    let store = Store::open(&options, clock.clone()).await.map_err(ImportError::Target)?;
    let lock = ImportLock::take(&options.url).await.map_err(ImportError::Target)?;
    let _lock = lock.ok_or(ImportError::Running)?;
    let source = Source::open(from).await.map_err(ImportError::Source)?;

    // What comes after this moment is the next run's.
    let (conversation_count, last_conversation) = source.size("conversations").await?;
    let (message_count, last_message) = source.size("messages").await?;
    if !store.begin_import(last_conversation, last_message).await? {
        return Err(ImportError::InUse);
    }
    let mut report = Report { is_resumed: true, ..Report::default() };
    if store.import_mark(Mark::Started).await?.is_none() {
        store.set_import_mark(Mark::Started, clock.now().as_millis()).await?;
        report.is_resumed = false;
    }

    let mut after = store.import_mark(Mark::Conversations).await?.unwrap_or(0);
    let mut done = 0;
    while after < last_conversation {
        let rows = source.conversations(after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        done += i64::try_from(rows.len()).unwrap_or(PAGE);
        let rows: Vec<_> = rows.into_iter().filter(|row| row.pair().is_some()).map(with_product).collect();
        store.import_conversations(&rows, after).await?;
        show(Phase::Conversations, done.min(conversation_count), conversation_count);
    }
    let mapped = store.imported_conversations().await?;

    let mut after = store.import_mark(Mark::Messages).await?.unwrap_or(0);
    let begin_of_new = after;
    let mut done = 0;
    while after < last_message {
        let rows = source.messages(after, PAGE, None).await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        done += i64::try_from(rows.len()).unwrap_or(PAGE);
        store.stage_messages(&staged(rows, &mapped), Some(after)).await?;
        show(Phase::Messages, done.min(message_count), message_count);
    }
    if let Some(completed) = store.import_mark(Mark::Completed).await? {
        let since = completed.saturating_sub(OVERLAP_MS);
        let mut after = 0;
        while after < begin_of_new {
            let rows = source.messages(after, PAGE, Some(since)).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            store.stage_messages(&staged(rows, &mapped), None).await?;
            show(Phase::Changes, after.min(begin_of_new), begin_of_new);
        }
    }

    let conversations = i64::try_from(mapped.len()).unwrap_or(i64::MAX);
    let (mut after, mut done) = (0, 0);
    let mut next_look = 0;
    loop {
        // Now and then, ever more rarely: what is planned for depends on how much there is.
        if done >= next_look {
            store.analyze_imported().await?;
            next_look = (done * 2).max(CONVERSATIONS);
        }
        let (placed, last) = store.place_messages(after, CONVERSATIONS).await?;
        if placed.is_last {
            break;
        }
        after = last;
        done += CONVERSATIONS;
        report.new += placed.new;
        report.changed += placed.changed;
        show(Phase::Placing, done.min(conversations), conversations);
    }

    let is_first = store.import_mark(Mark::Completed).await?.is_none();
    let sides = Sides { source: &source, store: &store, mapped: &mapped, last_message };
    report.comparison = sides.compare(&mut |done| show(Phase::Comparing, done, message_count)).await?;
    report.comparison.is_order_exact = is_first;
    if report.comparison.agrees()
        && let Some(started) = store.import_mark(Mark::Started).await?
    {
        store.set_import_mark(Mark::Completed, started).await?;
        store.clear_import_mark(Mark::Started).await?;
    }
    store.close().await;
    Ok(report)
}

/// A product that is nothing is none.
fn with_product(
    mut row: crate::storage::import::SourceConversation,
) -> crate::storage::import::SourceConversation {
    row.product_id = row.product_id.filter(|id| *id > 0);
    row
}

/// Those that have a place here.
fn staged(rows: Vec<SourceMessage>, mapped: &HashMap<i64, Mapped>) -> Vec<StagedMessage> {
    let mut staged = Vec::with_capacity(rows.len());
    for row in rows {
        if let Ok(message) = prepared(row, mapped) {
            staged.push(message);
        }
    }
    staged
}

/// Why a message has no place here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skipped {
    /// Its conversation is not there, or has not two users.
    NoConversation,
    /// Its sender takes no part in its conversation.
    Stranger,
}

/// A message as it will be stored: its words as they are, but for NUL, which PostgreSQL cannot store.
fn prepared(row: SourceMessage, mapped: &HashMap<i64, Mapped>) -> Result<StagedMessage, Skipped> {
    let conversation = row.conversation_id.and_then(|id| mapped.get(&id)).ok_or(Skipped::NoConversation)?;
    let sender_id =
        row.sender_id.filter(|sender| conversation.users.contains(sender)).ok_or(Skipped::Stranger)?;
    let created_at = row.created_at.or(row.updated_at).unwrap_or_default();
    let is_deleted = row.deleted_at.is_some();
    let offer = row.offer().filter(|_| !is_deleted);
    let is_read = row.is_read != 0 || row.read_at.is_some();
    Ok(StagedMessage {
        id: row.id,
        conversation_id: conversation.conversation_id,
        sender_id,
        kind: if row.offer_id.is_some_and(|id| id > 0) { "offer" } else { "text" },
        offer,
        content: match row.content {
            Some(content) if !is_deleted => content.replace('\0', ""),
            _ => String::new(),
        },
        is_read,
        read_at: if is_read { row.read_at.or(row.updated_at).or(Some(created_at)) } else { None },
        created_at,
        updated_at: row.updated_at.unwrap_or(created_at).max(created_at),
        deleted_at: row.deleted_at,
    })
}
