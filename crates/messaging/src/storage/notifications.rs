//! What people were last pushed, pushes under way, and how far the sweeper looked.
//!
//! A push is claimed here before it is sent and settled afterwards: of two nodes one gets the claim,
//! and a claim that nobody settles lapses. Who is to be pushed what is decided in `notify::rule`.

use std::{collections::HashSet, time::Duration};

use sqlx::FromRow;

use super::{Database, IdList, Result, Store, on, retried};
use crate::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, ProductId, UserId},
};

/// What decides on a push, and what it says.
#[derive(Debug, Clone, FromRow)]
pub struct FactsRow {
    /// Who would be pushed.
    pub user_id: UserId,
    /// Of what.
    pub conversation_id: ConversationId,
    /// What the conversation is about.
    pub product_id: Option<ProductId>,
    /// No notifications.
    pub is_muted: bool,
    /// Until when; `None` while muted means for good.
    pub muted_until: Option<Timestamp>,
    /// One of the two blocks the other one.
    pub is_blocked: bool,
    /// The person wants pushes.
    pub push: bool,
    /// JSON text.
    pub quiet_hours: Option<String>,
    /// Unread messages of this conversation.
    pub unread_count: i64,
    /// All unread messages of the person.
    pub badge: i64,
    /// Everything up to here was pushed, or is not to be.
    pub pushed_seq: i64,
    /// When a push was last settled.
    pub pushed_at: Option<Timestamp>,
    /// Since when a push is under way.
    pub claimed_at: Option<Timestamp>,
    /// The newest unread message; this and all below `None` if everything is read.
    pub message_id: Option<MessageId>,
    /// Its place.
    pub seq: Option<i64>,
    /// Whose it is.
    pub sender_id: Option<UserId>,
    /// Its words.
    pub content: Option<String>,
    /// What it is.
    pub kind: Option<String>,
}

/// A push to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose push.
    pub user: UserId,
    /// Of what.
    pub conversation: ConversationId,
    /// Up to which message.
    pub seq: i64,
    /// A random number by which it is settled.
    pub id: i64,
}

/// A device with its token.
#[derive(Clone, FromRow)]
pub struct PushDevice {
    /// Whose.
    pub user_id: UserId,
    /// What the push service knows it by.
    pub token: String,
    /// `android`, `ios` or `web`.
    pub device_type: String,
}

/// The rows of the newest unread message and of everything else that counts, for the keys that follow.
macro_rules! select_facts {
    ($keys:literal) => {
        concat!(
            "select p.user_id, p.conversation_id, c.product_id, p.is_muted, p.muted_until,
                 exists (select 1 from blocks b
                     where (b.blocker_id = c.user1_id and b.blocked_id = c.user2_id)
                         or (b.blocker_id = c.user2_id and b.blocked_id = c.user1_id)) as is_blocked,
                 coalesce(n.push, true) as push, n.quiet_hours,
                 cast(p.unread_count as bigint) as unread_count,
                 cast((select coalesce(sum(t.unread_count), 0) from conversation_participants t
                     where t.user_id = p.user_id) as bigint) as badge,
                 coalesce(k.pushed_seq, 0) as pushed_seq, k.pushed_at, k.claimed_at,
                 m.id as message_id, m.seq, m.sender_id, m.content, m.type as kind
             from conversation_participants p
             join conversations c on c.id = p.conversation_id
             left join notification_preferences n on n.user_id = p.user_id
             left join notification_marks k
                 on k.user_id = p.user_id and k.conversation_id = p.conversation_id
             left join messages m on m.conversation_id = p.conversation_id and m.seq =
                 (select x.seq from messages x
                  where x.conversation_id = p.conversation_id and x.seq > p.read_seq and x.seq > p.cleared_seq
                      and x.sender_id <> p.user_id and not x.is_read and x.deleted_at is null
                  order by x.seq desc limit 1)
             where (p.user_id, p.conversation_id) in ",
            $keys
        )
    };
}

type Key = (UserId, ConversationId);

fn columns(keys: &[Key]) -> (Vec<i64>, Vec<i64>) {
    keys.iter().map(|(user, conversation)| (user.0, conversation.0)).unzip()
}

fn json<T: serde::Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).unwrap_or_default()
}

impl Store {
    /// What decides on a push, for each of these people and conversations.
    pub async fn notification_facts(&self, keys: &[Key]) -> Result<Vec<FactsRow>> {
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                let (users, conversations) = columns(keys);
                sqlx::query_as(select_facts!("(select * from unnest($1::bigint[], $2::bigint[]))"))
                    .bind(users)
                    .bind(conversations)
                    .fetch_all(read)
                    .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(select_facts!(
                    "(select value ->> '$[0]', value ->> '$[1]' from json_each($1))"
                ))
                .bind(json(keys))
                .fetch_all(read)
                .await?
            }
        })
    }

    /// Which of these people have a device.
    pub async fn users_with_devices(&self, users: &[UserId]) -> Result<HashSet<UserId>> {
        let ids = IdList(users.iter().map(|user| user.0).collect());
        let found: Vec<UserId> =
            match &self.database {
                Database::Postgres { read, .. } => {
                    sqlx::query_scalar("select distinct user_id from devices where user_id = any($1)")
                        .bind(ids)
                        .fetch_all(read)
                        .await?
                }
                Database::Sqlite { read, .. } => sqlx::query_scalar(
                    "select distinct user_id from devices where user_id in (select value from json_each($1))",
                )
                .bind(ids)
                .fetch_all(read)
                .await?,
            };
        Ok(found.into_iter().collect())
    }

    /// The devices of these people.
    pub async fn push_devices(&self, users: &[UserId]) -> Result<Vec<PushDevice>> {
        let ids = IdList(users.iter().map(|user| user.0).collect());
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(
                    "select user_id, token, device_type from devices where user_id = any($1) order by id",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select user_id, token, device_type from devices
                     where user_id in (select value from json_each($1)) order by id",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        })
    }

    /// Forgets a device whose token the push service does not know any more. One that was registered
    /// again after `dead_since` stays. Answers whether there was one.
    pub async fn forget_dead_device(&self, token: &str, dead_since: Option<Timestamp>) -> Result<bool> {
        let latest = dead_since.unwrap_or_else(|| self.clock.now());
        on!(self, write, pool => {
            let gone = sqlx::query("delete from devices where token = $1 and last_used_at <= $2")
                .bind(token)
                .bind(latest)
                .execute(pool)
                .await?
                .rows_affected();
            Ok(gone > 0)
        })
    }

    /// Claims pushes: each once, whichever nodes ask. From now on they count as shown, so that whoever
    /// reads while one is under way takes it away. A claim older than `lapse` counts no more, and
    /// one that comes within `fold` of the last push is refused. Answers the ids of those that were
    /// claimed, with how often in a row that was tried.
    pub async fn claim_pushes(
        &self,
        claims: &[Claim],
        lapse: Duration,
        fold: Duration,
    ) -> Result<Vec<(i64, i64)>> {
        let mut claims = claims.to_vec();
        // In one order everywhere, so that two nodes wait for each other but do not deadlock.
        claims.sort_unstable_by_key(|claim| (claim.user, claim.conversation));
        retried(|| self.try_claim_pushes(&claims, lapse, fold)).await
    }

    async fn try_claim_pushes(
        &self,
        claims: &[Claim],
        lapse: Duration,
        fold: Duration,
    ) -> Result<Vec<(i64, i64)>> {
        let now = self.clock.now();
        macro_rules! claim {
            ($rows:literal) => {
                concat!(
                    "insert into notification_marks as k
                         (user_id, conversation_id, claimed_seq, claim, claimed_at, attempts, is_shown) ",
                    $rows,
                    " on conflict (user_id, conversation_id) do update set
                          claimed_seq = excluded.claimed_seq, claim = excluded.claim,
                          claimed_at = excluded.claimed_at, is_shown = true,
                          attempts = case when k.claimed_at is null then 1 else k.attempts + 1 end
                      where k.pushed_seq < excluded.claimed_seq
                          and (k.claimed_at is null or k.claimed_at <= $2)
                          and (k.pushed_at is null or k.pushed_at <= $3)
                      returning claim, cast(attempts as bigint)"
                )
            };
        }
        let (lapsed, folded) = (now.minus(lapse), now.minus(fold));
        Ok(match &self.database {
            Database::Postgres { write, .. } => {
                sqlx::query_as(claim!(
                    "select u, c, s, i, $1, 1, true
                 from unnest($4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) as w (u, c, s, i)"
                ))
                .bind(now)
                .bind(lapsed)
                .bind(folded)
                .bind(claims.iter().map(|claim| claim.user.0).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.conversation.0).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.seq).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.id).collect::<Vec<_>>())
                .fetch_all(write)
                .await?
            }
            Database::Sqlite { write, .. } => {
                let rows: Vec<_> = claims
                    .iter()
                    .map(|claim| (claim.user, claim.conversation, claim.seq, claim.id))
                    .collect();
                sqlx::query_as(claim!(
                    "select value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', value ->> '$[3]', $1, 1, true
                     from json_each($4) where true"
                ))
                .bind(now)
                .bind(lapsed)
                .bind(folded)
                .bind(json(&rows))
                .fetch_all(write)
                .await?
            }
        })
    }

    /// Settles claims: what they are about was pushed, or nobody is there to be pushed where not
    /// `is_shown`. A claim that lapsed and is somebody else's by now is left alone.
    pub async fn settle_pushes(&self, claims: &[(Claim, bool)]) -> Result<()> {
        let mut claims = claims.to_vec();
        claims.sort_unstable_by_key(|(claim, _)| (claim.user, claim.conversation));
        retried(|| self.try_settle_pushes(&claims)).await
    }

    async fn try_settle_pushes(&self, claims: &[(Claim, bool)]) -> Result<()> {
        let now = self.clock.now();
        match &self.database {
            Database::Postgres { write, .. } => sqlx::query(
                "update notification_marks k set
                     pushed_seq = greatest(k.pushed_seq, w.seq), pushed_at = $1, is_shown = k.is_shown and w.is_shown,
                     claim = null, claimed_at = null, attempts = 0
                 from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[])
                     as w (user_id, conversation_id, seq, claim, is_shown)
                 where k.user_id = w.user_id and k.conversation_id = w.conversation_id and k.claim = w.claim",
            )
            .bind(now)
            .bind(claims.iter().map(|(claim, _)| claim.user.0).collect::<Vec<_>>())
            .bind(claims.iter().map(|(claim, _)| claim.conversation.0).collect::<Vec<_>>())
            .bind(claims.iter().map(|(claim, _)| claim.seq).collect::<Vec<_>>())
            .bind(claims.iter().map(|(claim, _)| claim.id).collect::<Vec<_>>())
            .bind(claims.iter().map(|(_, is_shown)| *is_shown).collect::<Vec<_>>())
            .execute(write)
            .await
            .map(drop)?,
            Database::Sqlite { write, .. } => {
                let rows: Vec<_> = claims
                    .iter()
                    .map(|(claim, is_shown)| (claim.user, claim.conversation, claim.seq, claim.id, is_shown))
                    .collect();
                sqlx::query(
                    "update notification_marks as k set
                         pushed_seq = max(k.pushed_seq, w.value ->> '$[2]'), pushed_at = $1,
                         is_shown = k.is_shown and (w.value ->> '$[4]'), claim = null, claimed_at = null, attempts = 0
                     from json_each($2) w
                     where k.user_id = w.value ->> '$[0]' and k.conversation_id = w.value ->> '$[1]'
                         and k.claim = w.value ->> '$[3]'",
                )
                .bind(now)
                .bind(json(&rows))
                .execute(write)
                .await
                .map(drop)?;
            }
        }
        Ok(())
    }

    /// Notes that nothing up to these places `(user, conversation, seq)` is to be pushed any more.
    pub async fn skip_pushes(&self, places: &[(UserId, ConversationId, i64)]) -> Result<()> {
        let mut places = places.to_vec();
        places.sort_unstable();
        retried(|| self.try_skip_pushes(&places)).await
    }

    async fn try_skip_pushes(&self, places: &[(UserId, ConversationId, i64)]) -> Result<()> {
        macro_rules! skip {
            ($rows:literal) => {
                concat!(
                    "insert into notification_marks as k (user_id, conversation_id, pushed_seq) ",
                    $rows,
                    " on conflict (user_id, conversation_id) do update set pushed_seq = excluded.pushed_seq
                      where k.pushed_seq < excluded.pushed_seq"
                )
            };
        }
        match &self.database {
            Database::Postgres { write, .. } => {
                sqlx::query(skip!("select * from unnest($1::bigint[], $2::bigint[], $3::bigint[])"))
                    .bind(places.iter().map(|place| place.0.0).collect::<Vec<_>>())
                    .bind(places.iter().map(|place| place.1.0).collect::<Vec<_>>())
                    .bind(places.iter().map(|place| place.2).collect::<Vec<_>>())
                    .execute(write)
                    .await
                    .map(drop)?;
            }
            Database::Sqlite { write, .. } => {
                sqlx::query(skip!(
                    "select value ->> '$[0]', value ->> '$[1]', value ->> '$[2]' from json_each($1) where true"
                ))
                .bind(json(places))
                .execute(write)
                .await
                .map(drop)?;
            }
        }
        Ok(())
    }

    /// These people read in these conversations. Answers where a push is on their screens, and whether
    /// it is to stay there because something is unread still.
    pub async fn withdraw_pushes(&self, keys: &[Key]) -> Result<Vec<(UserId, ConversationId, bool)>> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        retried(|| self.try_withdraw_pushes(&keys)).await
    }

    async fn try_withdraw_pushes(&self, keys: &[Key]) -> Result<Vec<(UserId, ConversationId, bool)>> {
        macro_rules! withdraw {
            ($keys:literal) => {
                concat!(
                    "update notification_marks as k set is_shown = coalesce(
                         (select p.unread_count > 0 from conversation_participants p
                          where p.conversation_id = k.conversation_id and p.user_id = k.user_id), false)
                     where k.is_shown and (k.user_id, k.conversation_id) in ",
                    $keys,
                    " returning user_id, conversation_id, is_shown"
                )
            };
        }
        Ok(match &self.database {
            Database::Postgres { write, .. } => {
                let (users, conversations) = columns(keys);
                sqlx::query_as(withdraw!("(select * from unnest($1::bigint[], $2::bigint[]))"))
                    .bind(users)
                    .bind(conversations)
                    .fetch_all(write)
                    .await?
            }
            Database::Sqlite { write, .. } => {
                sqlx::query_as(withdraw!("(select value ->> '$[0]', value ->> '$[1]' from json_each($1))"))
                    .bind(json(keys))
                    .fetch_all(write)
                    .await?
            }
        })
    }
}
