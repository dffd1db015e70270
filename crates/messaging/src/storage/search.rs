//! Finding messages: the database looks through chunks of folded texts, here is decided which message it was.
//!
//! A chunk is the texts of up to [`CHUNK`] messages of one conversation, one after the other. Chunks are made
//! in the background ([`Store::index_for_search`]) and cover a conversation from its first message on; what
//! comes after the last chunk is read message by message. Whoever changes a text drops the chunks from there
//! on in the same transaction (`DROP_CHUNKS`), so that a chunk never says what a message no longer says.

use std::cmp::Reverse;

use futures_util::TryStreamExt;
use sqlx::FromRow;

use super::{Database, Result, Store, batch::Statements, in_transaction};
use crate::{
    content::{Needle, folded},
    ids::{ConversationId, MessageId, UserId},
};

/// Messages a chunk has: two kilobytes of ordinary chat, which PostgreSQL keeps within the row.
pub const CHUNK: i64 = 32;
/// Chunks whose texts are fetched at once; nearly all searches that are shown page by page need one round.
const CHUNKS_READ: usize = 64;
/// Messages that one transaction puts into chunks: the conversations are locked for so long.
const MESSAGES_INDEXED: i64 = 256;
/// Between the texts of a chunk. Folded texts have no control characters but new lines and tabs.
const SEPARATOR: char = '\u{1F}';

/// Drops the chunks of conversation `$1` that have the message at `$2` or come after it.
pub(super) const DROP_CHUNKS: &str =
    "delete from search_chunks where conversation_id = $1 and last_seq >= $2";

/// What a search found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Messages, the newest first.
    pub ids: Vec<MessageId>,
    /// Conversations of which many messages are in no chunk yet.
    pub behind: Vec<ConversationId>,
}

/// So many messages of a conversation are read one by one before it is worth a chunk.
const BEHIND: usize = 8;

/// A chunk that has what is looked for, in one text or across two.
#[derive(Debug)]
struct Match {
    conversation_id: i64,
    first_seq: i64,
    last_id: i64,
    cleared_seq: i64,
}

/// Either a message that is in no chunk, with its text, or a chunk, with its newest message's id.
#[derive(Debug, FromRow)]
struct Candidate {
    conversation_id: i64,
    id: i64,
    content: Option<String>,
    first_seq: i64,
    cleared_seq: i64,
}

#[derive(Debug, FromRow)]
struct ChunkRow {
    conversation_id: i64,
    first_seq: i64,
    message_ids: String,
    words: String,
}

/// Messages of user `$1` that are in no chunk, and chunks that contain `$2`, of conversations for which the last
/// argument holds. One statement, so that a message is in one or the other whatever is indexed meanwhile.
macro_rules! candidates {
    (postgres, $which:literal) => {
        // Fenced, so that the planner goes through the user's conversations one by one.
        candidates!(
            "cross join lateral (
                 select greatest(p.cleared_seq, coalesce((
                     select s.last_seq from search_chunks s where s.conversation_id = p.conversation_id
                     order by s.first_seq desc limit 1), 0)) as seq offset 0
             ) covered
             cross join lateral (
                 select id, content from messages
                 where conversation_id = p.conversation_id and seq > covered.seq offset 0
             ) m",
            "strpos",
            $which
        )
    };
    (sqlite, $which:literal) => {
        candidates!(
            "cross join messages m on m.conversation_id = p.conversation_id
                 and m.seq > max(p.cleared_seq, coalesce((
                     select s.last_seq from search_chunks s where s.conversation_id = p.conversation_id
                     order by s.first_seq desc limit 1), 0))",
            "instr",
            $which
        )
    };
    ($recent:literal, $find:literal, $which:literal) => {
        concat!(
            "select p.conversation_id, m.id, m.content, cast(0 as bigint) as first_seq, p.cleared_seq
             from conversation_participants p ",
            $recent,
            " where p.user_id = $1 and not p.is_hidden",
            $which,
            " union all
             select s.conversation_id, s.last_id, null, s.first_seq, p.cleared_seq
             from conversation_participants p
             join search_chunks s on s.conversation_id = p.conversation_id and s.last_seq > p.cleared_seq
             where p.user_id = $1 and not p.is_hidden",
            $which,
            " and ",
            $find,
            "(s.words, $2) > 0"
        )
    };
}

/// [`candidates`] of all conversations, or only of `$3`. Two statements: one for both is planned for all, and goes
/// through a thousand conversations to look into one.
macro_rules! candidates_of {
    ($dialect:ident, $conversation:expr) => {
        if $conversation.is_some() {
            candidates!($dialect, " and p.conversation_id = $3")
        } else {
            candidates!($dialect, "")
        }
    };
}

/// A chunk is dropped while a search looks at it only if one of its texts changes.
const ATTEMPTS: usize = 5;

impl Store {
    /// Messages that a user may see and that contain what is looked for, the newest first, at most
    /// `wanted` of them; in one conversation or in all.
    pub async fn search(
        &self,
        user: UserId,
        conversation: Option<ConversationId>,
        needle: &Needle,
        wanted: usize,
    ) -> Result<Found> {
        let mut found = Found::default();
        if needle.is_impossible() {
            return Ok(found);
        }
        for _ in 0..ATTEMPTS {
            let matches;
            (found, matches) = self.search_candidates(user, conversation, needle).await?;
            if self.search_chunks(&matches, needle, wanted, &mut found.ids).await? {
                break;
            }
        }
        found.ids.sort_unstable_by_key(|id| Reverse(*id));
        // A chunk may have got messages that were looked at before.
        found.ids.dedup();
        found.ids.truncate(wanted);
        Ok(found)
    }

    /// Looks at messages that are in no chunk yet; answers the chunks to look at, the newest first.
    async fn search_candidates(
        &self,
        user: UserId,
        conversation: Option<ConversationId>,
        needle: &Needle,
    ) -> Result<(Found, Vec<Match>)> {
        let (mut found, mut matches) = (Found::default(), Vec::new());
        let (mut current, mut count) = (0, 0_usize);
        macro_rules! read {
            ($pool:expr, $statement:expr) => {{
                let mut statement =
                    sqlx::query_as::<_, Candidate>($statement).bind(user).bind(needle.folded());
                if let Some(conversation) = conversation {
                    statement = statement.bind(conversation);
                }
                let mut candidates = statement.fetch($pool);
                while let Some(candidate) = candidates.try_next().await? {
                    let Candidate { conversation_id, id, content, first_seq, cleared_seq } = candidate;
                    let Some(text) = content else {
                        matches.push(Match { conversation_id, first_seq, last_id: id, cleared_seq });
                        continue;
                    };
                    if current != conversation_id {
                        (current, count) = (conversation_id, 0);
                    }
                    count += 1;
                    if count == BEHIND {
                        found.behind.push(ConversationId(conversation_id));
                    }
                    if needle.is_in(&text) {
                        found.ids.push(MessageId(id));
                    }
                }
            }};
        }
        match &self.database {
            Database::Postgres { read, .. } => read!(read, candidates_of!(postgres, conversation)),
            Database::Sqlite { read, .. } => read!(read, candidates_of!(sqlite, conversation)),
        }
        matches.sort_unstable_by_key(|one| Reverse(one.last_id));
        Ok((found, matches))
    }

    /// Looks into chunks, the newest first, until `wanted` messages are found that are newer than what any
    /// further chunk has. Answers `false` if one of them is no more.
    async fn search_chunks(
        &self,
        matches: &[Match],
        needle: &Needle,
        wanted: usize,
        found: &mut Vec<MessageId>,
    ) -> Result<bool> {
        for stretch in matches.chunks(CHUNKS_READ) {
            let newest = stretch.first().map_or(0, |one| one.last_id);
            if found.len() >= wanted {
                found.sort_unstable_by_key(|id| Reverse(*id));
                found.truncate(wanted);
                if found.last().is_some_and(|oldest| oldest.0 > newest) {
                    break;
                }
            }
            let chunks = self.read_chunks(stretch).await?;
            if chunks.len() < stretch.len() {
                return Ok(false);
            }
            for chunk in chunks {
                let of = |one: &&Match| {
                    (one.conversation_id, one.first_seq) == (chunk.conversation_id, chunk.first_seq)
                };
                let cleared_seq = stretch.iter().find(of).map_or(0, |one| one.cleared_seq);
                found.extend(chunk.hits(needle, cleared_seq));
            }
        }
        Ok(true)
    }

    async fn read_chunks(&self, matches: &[Match]) -> Result<Vec<ChunkRow>> {
        let keys = matches.iter().map(|one| (one.conversation_id, one.first_seq));
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                let (conversations, first_seqs): (Vec<i64>, Vec<i64>) = keys.unzip();
                sqlx::query_as(
                    "select s.conversation_id, s.first_seq, s.message_ids, s.words
                     from unnest($1::bigint[], $2::bigint[]) as k (conversation_id, first_seq)
                     cross join lateral (
                         select * from search_chunks
                         where conversation_id = k.conversation_id and first_seq = k.first_seq offset 0
                     ) s",
                )
                .bind(conversations)
                .bind(first_seqs)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                let keys: Vec<_> = keys.collect();
                sqlx::query_as(
                    "select s.conversation_id, s.first_seq, s.message_ids, s.words from json_each($1) k
                     cross join search_chunks s on s.conversation_id = k.value ->> '$[0]'
                         and s.first_seq = k.value ->> '$[1]'",
                )
                .bind(super::sqlite::rows(&keys))
                .fetch_all(read)
                .await?
            }
        })
    }

    /// Puts messages of these conversations into chunks, so many as one short transaction takes. Answers
    /// the conversations of which there may be more.
    pub async fn index_for_search(&self, conversations: &[ConversationId]) -> Result<Vec<ConversationId>> {
        let ids: Vec<i64> = conversations.iter().map(|id| id.0).collect();
        Ok(in_transaction!(self, connection => {
            let (mut left, mut more) = (MESSAGES_INDEXED, Vec::new());
            // Under their locks nobody sends into them or changes a text.
            for locked in connection.lock_conversations(&ids).await? {
                if left <= 0 {
                    more.push(locked.id);
                    continue;
                }
                let last: Option<(i64, i64)> = sqlx::query_as(
                    "select first_seq, last_seq from search_chunks where conversation_id = $1
                     order by first_seq desc limit 1",
                )
                .bind(locked.id)
                .fetch_optional(&mut *connection)
                .await?;
                // A chunk that is not full is made again.
                let first_seq = last.map_or(1, |(first, last)| if last - first + 1 < CHUNK { first } else { last + 1 });
                let messages: Vec<(i64, i64, String)> = sqlx::query_as(
                    "select seq, id, content from messages where conversation_id = $1 and seq >= $2
                     order by seq limit $3",
                )
                .bind(locked.id)
                .bind(first_seq)
                .bind(left.max(CHUNK))
                .fetch_all(&mut *connection)
                .await?;
                for chunk in messages.chunks(usize::try_from(CHUNK).expect("CHUNK is small")) {
                    let Some(chunk) = NewChunk::of(chunk) else { continue };
                    sqlx::query(
                        "insert into search_chunks (conversation_id, first_seq, last_seq, last_id, message_ids, words)
                         values ($1, $2, $3, $4, $5, $6)
                         on conflict (conversation_id, first_seq) do update set last_seq = excluded.last_seq,
                             last_id = excluded.last_id, message_ids = excluded.message_ids, words = excluded.words",
                    )
                    .bind(locked.id)
                    .bind(chunk.first_seq)
                    .bind(chunk.last_seq)
                    .bind(chunk.last_id)
                    .bind(chunk.message_ids)
                    .bind(chunk.words)
                    .execute(&mut *connection)
                    .await?;
                }
                let count = i64::try_from(messages.len()).unwrap_or(i64::MAX);
                if count >= left.max(CHUNK) {
                    more.push(locked.id);
                }
                left -= count;
            }
            more
        }))
    }
}

/// A chunk to be stored.
#[derive(Debug, PartialEq, Eq)]
struct NewChunk {
    first_seq: i64,
    last_seq: i64,
    last_id: i64,
    message_ids: String,
    words: String,
}

impl NewChunk {
    /// Of messages `(seq, id, text)` that follow each other; `None` without any.
    fn of(messages: &[(i64, i64, String)]) -> Option<Self> {
        let ((first_seq, _, _), (last_seq, _, _)) = (messages.first()?, messages.last()?);
        let ids: Vec<String> = messages.iter().map(|message| message.1.to_string()).collect();
        // What was brought in from elsewhere may have any character.
        let words: Vec<String> =
            messages.iter().map(|message| folded(&message.2).replace(SEPARATOR, " ")).collect();
        Some(Self {
            first_seq: *first_seq,
            last_seq: *last_seq,
            last_id: messages.iter().map(|message| message.1).max()?,
            message_ids: ids.join(","),
            words: words.join(&SEPARATOR.to_string()),
        })
    }
}

impl ChunkRow {
    /// Messages after `cleared_seq` that contain what is looked for.
    fn hits(&self, needle: &Needle, cleared_seq: i64) -> Vec<MessageId> {
        self.message_ids
            .split(',')
            .zip(self.words.split(SEPARATOR))
            .zip(self.first_seq..)
            .filter(|((_, words), seq)| *seq > cleared_seq && needle.is_in_folded(words))
            .filter_map(|((id, _), _)| id.parse().ok().map(MessageId))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(chunk: NewChunk) -> ChunkRow {
        let NewChunk { first_seq, message_ids, words, .. } = chunk;
        ChunkRow { conversation_id: 1, first_seq, message_ids, words }
    }

    #[test]
    fn a_chunk_knows_which_message_it_was() {
        let texts = ["Hello", "", "die Straße", "hello\u{1F}again", "1,2"];
        let messages: Vec<_> =
            (33..).zip(texts).map(|(seq, text)| (seq, seq * 10, text.to_owned())).collect();
        let chunk = NewChunk::of(&messages).unwrap();
        assert_eq!((chunk.first_seq, chunk.last_seq, chunk.last_id), (33, 37, 370));
        let chunk = row(chunk);
        let hits = |words: &str, cleared| chunk.hits(&Needle::parse(words).unwrap(), cleared);
        assert_eq!(hits("HELLO", 0), [MessageId(330), MessageId(360)]);
        assert_eq!(hits("hello", 33), [MessageId(360)], "what was cleared is not seen");
        assert_eq!(hits("STRASSE", 0), [MessageId(350)]);
        assert_eq!(hits("330", 0), [], "ids are not words");
        assert_eq!(hits(",", 0), [MessageId(370)]);
        assert_eq!(NewChunk::of(&[]), None);
    }
}
