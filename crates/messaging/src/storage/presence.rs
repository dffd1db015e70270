//! Who hears of whose presence, and when users were last seen.

use super::{Database, IdList, Result, Store};
use crate::{clock::Timestamp, ids::UserId};

/// What is stored of a user's presence, for one who shares a conversation with them.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PresenceRow {
    /// Who.
    pub user_id: UserId,
    /// When they were last seen.
    pub last_seen: Option<Timestamp>,
    /// They hide it, or one of the two blocks the other.
    pub is_silent: bool,
}

/// Those who share a conversation with each of some users, the most recent first; `$in` is the
/// dialect's way to say that `p.user_id` is one of them.
macro_rules! select_partners {
    ($in:literal) => {
        concat!(
            "select user_id, partner_id from (
                 select p.user_id, o.user_id as partner_id,
                     row_number() over (partition by p.user_id order by max(c.last_message_at) desc) as place
                 from conversation_participants p
                 join conversations c on c.id = p.conversation_id
                 join conversation_participants o
                     on o.conversation_id = p.conversation_id and o.user_id <> p.user_id
                 where p.user_id ", $in, " and c.last_seq > 0
                     and not exists (select 1 from blocks b where b.blocker_id = p.user_id and b.blocked_id = o.user_id)
                     and not exists (select 1 from blocks b where b.blocker_id = o.user_id and b.blocked_id = p.user_id)
                     and not exists (select 1 from user_presence s where s.user_id = p.user_id and s.is_private)
                 group by p.user_id, o.user_id
             ) ranked where place <= $2"
        )
    };
}

/// Which of some users share a conversation with `$1`, and what is stored of their presence.
macro_rules! select_presence {
    ($in:literal) => {
        concat!(
            "select distinct o.user_id, s.last_seen,
                 coalesce(s.is_private, false)
                     or exists (select 1 from blocks b where b.blocker_id = p.user_id and b.blocked_id = o.user_id)
                     or exists (select 1 from blocks b where b.blocker_id = o.user_id and b.blocked_id = p.user_id)
                     as is_silent
             from conversation_participants p
             join conversation_participants o on o.conversation_id = p.conversation_id and o.user_id <> p.user_id
             left join user_presence s on s.user_id = o.user_id
             where p.user_id = $1 and o.user_id ", $in, " order by o.user_id"
        )
    };
}

impl Store {
    /// Who is to hear of the presence of each of these users: `(user, who hears)`, at most `limit` each.
    pub async fn partners(&self, users: &[UserId], limit: i64) -> Result<Vec<(UserId, UserId)>> {
        let ids = IdList(users.iter().map(|user| user.0).collect());
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(select_partners!("= any($1)")).bind(ids).bind(limit).fetch_all(read).await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(select_partners!("in (select value from json_each($1))"))
                    .bind(ids)
                    .bind(limit)
                    .fetch_all(read)
                    .await?
            }
        })
    }

    /// What is stored of the presence of those of `others` who share a conversation with the user.
    pub async fn presence_of(&self, user: UserId, others: &[UserId]) -> Result<Vec<PresenceRow>> {
        let ids = IdList(others.iter().map(|other| other.0).collect());
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(select_presence!("= any($2)")).bind(user).bind(ids).fetch_all(read).await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(select_presence!("in (select value from json_each($2))"))
                    .bind(user)
                    .bind(ids)
                    .fetch_all(read)
                    .await?
            }
        })
    }

    /// Remembers when users were last seen, but of those who were erased.
    pub async fn set_last_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        match &self.database {
            Database::Postgres { write, .. } => {
                sqlx::query(
                    "insert into user_presence (user_id, last_seen)
                     select * from unnest($1::bigint[], $2::timestamptz[]) as seen (user_id, last_seen)
                     where not exists (select 1 from jobs j where j.kind = 'erase' and j.subject_id = seen.user_id)
                     order by 1
                     on conflict (user_id) do update set last_seen = excluded.last_seen",
                )
                .bind(seen.iter().map(|(user, _)| user.0).collect::<Vec<_>>())
                .bind(seen.iter().map(|(_, at)| *at).collect::<Vec<_>>())
                .execute(write)
                .await?;
            }
            Database::Sqlite { write, .. } => {
                let rows: Vec<_> = seen.iter().map(|(user, at)| (user.0, at.as_millis())).collect();
                sqlx::query(
                    "insert into user_presence (user_id, last_seen)
                     select value ->> '$[0]', value ->> '$[1]' from json_each($1)
                     where not exists
                         (select 1 from jobs j where j.kind = 'erase' and j.subject_id = value ->> '$[0]')
                     on conflict (user_id) do update set last_seen = excluded.last_seen",
                )
                .bind(serde_json::json!(rows).to_string())
                .execute(write)
                .await?;
            }
        }
        Ok(())
    }
}
