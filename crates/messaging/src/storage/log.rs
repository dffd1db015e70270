//! Each user's log: appended to in the transaction that causes an event, read to resume (contract 4.5).

use std::collections::HashMap;

use sqlx::{PgConnection, SqliteConnection};

use super::{Database, IdList, Result, Store, on};
use crate::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum EventKind {
    /// A message came.
    MessageReceived = 1,
    /// A message was edited, or its offer changed.
    MessageUpdated = 2,
    /// A message became a tombstone.
    MessageDeleted = 3,
    /// A reaction was added or removed.
    MessageReaction = 4,
    /// Messages reached a device of the other one.
    MessageDelivered = 5,
    /// Messages were read.
    MessageRead = 6,
    /// A conversation changed without a message or a read.
    ConversationUpdated = 7,
}

impl EventKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::MessageReceived,
        Self::MessageUpdated,
        Self::MessageDeleted,
        Self::MessageReaction,
        Self::MessageDelivered,
        Self::MessageRead,
        Self::ConversationUpdated,
    ];

    /// The event's name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessageReceived => "message_received",
            Self::MessageUpdated => "message_updated",
            Self::MessageDeleted => "message_deleted",
            Self::MessageReaction => "message_reaction",
            Self::MessageDelivered => "message_delivered",
            Self::MessageRead => "message_read",
            Self::ConversationUpdated => "conversation_updated",
        }
    }

    /// The kind that is stored as this number.
    pub(crate) fn from_stored(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i32 == number)
    }
}

/// An entry to be appended to a user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Whose log.
    pub user_id: UserId,
    /// What happened.
    pub kind: EventKind,
    /// Where.
    pub conversation_id: ConversationId,
    /// To which message.
    pub message_id: Option<MessageId>,
    /// What no row tells later, JSON text: who read what and when.
    pub payload: Option<String>,
}

/// An entry of a user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the user's own counter: 1, 2, 3 … without gaps.
    pub event_seq: i64,
    /// What it says.
    pub entry: NewEntry,
}

/// A stretch of a user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPage {
    /// The entries after `since`, in order.
    Entries {
        /// Oldest first.
        entries: Vec<Entry>,
        /// The newest entry's number.
        last_event_seq: i64,
    },
    /// Entries after `since` are no longer kept.
    Expired {
        /// The newest entry's number.
        last_event_seq: i64,
    },
    /// `since` is a number that this log has not reached.
    Ahead {
        /// The newest entry's number.
        last_event_seq: i64,
    },
}

/// Where each entry will stand: how many entries of the same user follow it in this append.
fn distances_from_end(entries: &[NewEntry]) -> (Vec<i64>, Vec<(i64, i64)>) {
    let mut following: HashMap<i64, i64> = HashMap::new();
    let mut distances = vec![0; entries.len()];
    for (distance, entry) in distances.iter_mut().zip(entries).rev() {
        let count = following.entry(entry.user_id.0).or_default();
        *distance = *count;
        *count += 1;
    }
    let mut totals: Vec<_> = following.into_iter().collect();
    // Locks on the counters are taken in this order by everybody.
    totals.sort_unstable();
    (distances, totals)
}

fn numbered(entries: Vec<NewEntry>, distances: &[i64], heads: &HashMap<i64, i64>) -> Vec<Entry> {
    entries
        .into_iter()
        .zip(distances)
        .map(|(entry, distance)| Entry {
            event_seq: heads.get(&entry.user_id.0).copied().unwrap_or_default() - distance,
            entry,
        })
        .collect()
}

/// Appends inside a PostgreSQL transaction. The counters are the last rows that a transaction locks.
pub(super) async fn append_postgres(
    connection: &mut PgConnection,
    entries: Vec<NewEntry>,
    now: Timestamp,
) -> Result<Vec<Entry>, sqlx::Error> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let (distances, totals) = distances_from_end(&entries);
    let (users, counts): (Vec<_>, Vec<_>) = totals.into_iter().unzip();
    let heads: Vec<(i64, i64)> = sqlx::query_as(
        "with heads as (
             insert into user_log_heads as h (user_id, last_seq)
             select user_id, added from unnest($1::bigint[], $2::bigint[]) as added (user_id, added)
             order by user_id
             on conflict (user_id) do update set last_seq = h.last_seq + excluded.last_seq
             returning user_id, last_seq
         ), appended as (
             insert into user_events (user_id, event_seq, kind, conversation_id, message_id, payload, created_at)
             select e.user_id, heads.last_seq - e.distance, e.kind, e.conversation_id, e.message_id, e.payload, $9
             from unnest($3::bigint[], $4::bigint[], $5::integer[], $6::bigint[], $7::bigint[], $8::text[])
                 as e (user_id, distance, kind, conversation_id, message_id, payload)
             join heads using (user_id)
         )
         select user_id, last_seq from heads",
    )
    .bind(users)
    .bind(counts)
    .bind(entries.iter().map(|entry| entry.user_id.0).collect::<Vec<_>>())
    .bind(&distances)
    .bind(entries.iter().map(|entry| entry.kind as i32).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.conversation_id.0).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.message_id.map(|id| id.0)).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.payload.clone()).collect::<Vec<_>>())
    .bind(now)
    .fetch_all(connection)
    .await?;
    Ok(numbered(entries, &distances, &heads.into_iter().collect()))
}

/// Appends inside a SQLite transaction: the same in two statements, since SQLite changes one table a statement.
pub(super) async fn append_sqlite(
    connection: &mut SqliteConnection,
    entries: Vec<NewEntry>,
    now: Timestamp,
) -> Result<Vec<Entry>, sqlx::Error> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let (distances, totals) = distances_from_end(&entries);
    let heads: Vec<(i64, i64)> = sqlx::query_as(
        "insert into user_log_heads (user_id, last_seq)
         select value ->> '$[0]', value ->> '$[1]' from json_each($1) where true
         on conflict (user_id) do update set last_seq = user_log_heads.last_seq + excluded.last_seq
         returning user_id, last_seq",
    )
    .bind(serde_json::json!(totals).to_string())
    .fetch_all(&mut *connection)
    .await?;
    let appended = numbered(entries, &distances, &heads.into_iter().collect());
    let rows: Vec<_> = appended
        .iter()
        .map(|Entry { event_seq, entry }| {
            (
                entry.user_id.0,
                event_seq,
                entry.kind as i32,
                entry.conversation_id.0,
                entry.message_id.map(|id| id.0),
                &entry.payload,
            )
        })
        .collect();
    sqlx::query(
        "insert into user_events (user_id, event_seq, kind, conversation_id, message_id, payload, created_at)
         select value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', value ->> '$[3]', value ->> '$[4]',
             value ->> '$[5]', $2
         from json_each($1)",
    )
    .bind(serde_json::json!(rows).to_string())
    .bind(now)
    .execute(connection)
    .await?;
    Ok(appended)
}

type StoredEntry = (i64, i32, i64, Option<i64>, Option<String>);

impl Store {
    /// The newest entry's number of each user; 0 where the log is empty.
    pub async fn log_heads(&self, users: &[UserId]) -> Result<HashMap<UserId, i64>> {
        let ids = IdList(users.iter().map(|user| user.0).collect());
        let heads: Vec<(i64, i64)> = match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as("select user_id, last_seq from user_log_heads where user_id = any($1)")
                    .bind(ids)
                    .fetch_all(read)
                    .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select user_id, last_seq from user_log_heads where user_id in (select value from json_each($1))",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        };
        let mut by_user: HashMap<_, _> = users.iter().map(|user| (*user, 0)).collect();
        by_user.extend(heads.into_iter().map(|(user, last_seq)| (UserId(user), last_seq)));
        Ok(by_user)
    }

    /// The entries of a user's log after `since`, at most `limit` of them.
    pub async fn read_log(&self, user: UserId, since: i64, limit: i64) -> Result<LogPage> {
        on!(self, read, pool => {
            // The head first: an entry that comes in between is then only more than was promised.
            let head: Option<i64> = sqlx::query_scalar("select last_seq from user_log_heads where user_id = $1")
                .bind(user)
                .fetch_optional(pool)
                .await?;
            let last_event_seq = head.unwrap_or(0);
            if since > last_event_seq {
                return Ok(LogPage::Ahead { last_event_seq });
            }
            if since == last_event_seq {
                return Ok(LogPage::Entries { entries: Vec::new(), last_event_seq });
            }
            let stored: Vec<StoredEntry> = sqlx::query_as(
                "select event_seq, kind, conversation_id, message_id, payload from user_events
                 where user_id = $1 and event_seq > $2 order by event_seq limit $3",
            )
            .bind(user)
            .bind(since)
            .bind(limit)
            .fetch_all(pool)
            .await?;
            if stored.first().is_none_or(|first| first.0 != since + 1) {
                return Ok(LogPage::Expired { last_event_seq });
            }
            let last_read = stored.last().map_or(since, |last| last.0);
            let entries = stored
                .into_iter()
                .filter_map(|(event_seq, kind, conversation_id, message_id, payload)| {
                    Some(Entry {
                        event_seq,
                        entry: NewEntry {
                            user_id: user,
                            kind: EventKind::from_stored(kind)?,
                            conversation_id: ConversationId(conversation_id),
                            message_id: message_id.map(MessageId),
                            payload,
                        },
                    })
                })
                .collect();
            Ok(LogPage::Entries { entries, last_event_seq: last_event_seq.max(last_read) })
        })
    }

    /// Forgets entries older than `before`, at most `limit` of them; returns how many went.
    pub async fn prune_log(&self, before: Timestamp, limit: i64) -> Result<u64> {
        on!(self, write, pool => Ok(sqlx::query(
            "delete from user_events where (user_id, event_seq) in
                 (select user_id, event_seq from user_events where created_at < $1 limit $2)",
        )
        .bind(before)
        .bind(limit)
        .execute(pool)
        .await?
        .rows_affected()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(user: i64) -> NewEntry {
        NewEntry {
            user_id: UserId(user),
            kind: EventKind::MessageReceived,
            conversation_id: ConversationId(1),
            message_id: None,
            payload: None,
        }
    }

    #[test]
    fn entries_are_numbered_in_the_order_given_for_each_user() {
        let entries = vec![entry(2), entry(1), entry(2), entry(2)];
        let (distances, totals) = distances_from_end(&entries);
        assert_eq!(totals, [(1, 1), (2, 3)]);
        let numbered = numbered(entries, &distances, &HashMap::from([(1, 7), (2, 10)]));
        let seqs: Vec<_> = numbered.iter().map(|entry| (entry.entry.user_id.0, entry.event_seq)).collect();
        assert_eq!(seqs, [(2, 8), (1, 7), (2, 9), (2, 10)]);
    }

    #[test]
    fn every_kind_survives_the_database() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_stored(kind as i32), Some(kind));
        }
    }
}
