//! The group commit's statements for PostgreSQL, and how our types are written to and read from it.

use sqlx::{
    Decode, Encode, PgConnection, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef},
};
use time::OffsetDateTime;

use super::{
    IdList,
    batch::{
        Bumps, FoundConversation, InsertRow, Quoted, ReceiptKind, Receivable, Replay, Statements,
        UnsentAttachment, UpTo,
    },
    log::{Entry, NewEntry, append_postgres},
    rows::Participants,
    webhooks::NewWebhook,
};
use crate::clock::Timestamp;

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Timestamp {
    fn array_type_info() -> PgTypeInfo {
        <OffsetDateTime as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <OffsetDateTime as Encode<'_, Postgres>>::encode_by_ref(&self.to_datetime(), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(<OffsetDateTime as Decode<'r, Postgres>>::decode(value)?.into())
    }
}

impl Type<Postgres> for IdList {
    fn type_info() -> PgTypeInfo {
        <Vec<i64> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for IdList {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <Vec<i64> as Encode<'_, Postgres>>::encode_by_ref(&self.0, buffer)
    }
}

/// Columns of a batch, one array each, as `unnest` wants them.
fn column<T, V>(rows: &[T], value: impl Fn(&T) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

impl Statements for PgConnection {
    async fn find_replays(&mut self, keys: &[(i64, &str)]) -> Result<Vec<Replay>, sqlx::Error> {
        sqlx::query_as(
            "select m.sender_id, m.client_message_id, m.id, m.fingerprint
             from unnest($1::bigint[], $2::text[]) as k (sender_id, client_message_id)
             join messages m on m.sender_id = k.sender_id and m.client_message_id = k.client_message_id",
        )
        .bind(column(keys, |key| key.0))
        .bind(column(keys, |key| key.1))
        .fetch_all(self)
        .await
    }

    async fn find_blocks(&mut self, pairs: &[(i64, i64)]) -> Result<Vec<(i64, i64)>, sqlx::Error> {
        sqlx::query_as(
            "select b.blocker_id, b.blocked_id
             from unnest($1::bigint[], $2::bigint[]) as p (blocker_id, blocked_id)
             join blocks b on b.blocker_id = p.blocker_id and b.blocked_id = p.blocked_id",
        )
        .bind(column(pairs, |pair| pair.0))
        .bind(column(pairs, |pair| pair.1))
        .fetch_all(self)
        .await
    }

    async fn find_or_create_conversations(
        &mut self,
        wanted: &[(i64, i64, Option<i64>)],
        now: Timestamp,
    ) -> Result<Vec<FoundConversation>, sqlx::Error> {
        let (user1, user2) = (column(wanted, |key| key.0), column(wanted, |key| key.1));
        let product = column(wanted, |key| key.2);
        sqlx::query(
            "with made as (
                 insert into conversations (user1_id, user2_id, product_id, created_at, updated_at)
                 select user1_id, user2_id, product_id, $4, $4
                 from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as w (user1_id, user2_id, product_id)
                 order by user1_id, user2_id, product_id
                 on conflict do nothing
                 returning id, user1_id, user2_id
             )
             insert into conversation_participants (conversation_id, user_id, created_at)
             select id, user1_id, $4 from made union all select id, user2_id, $4 from made",
        )
        .bind(&user1)
        .bind(&user2)
        .bind(&product)
        .bind(now)
        .execute(&mut *self)
        .await?;
        sqlx::query_as(
            "select c.user1_id, c.user2_id, c.product_id, c.id
             from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as w (user1_id, user2_id, product_id)
             join conversations c on c.user1_id = w.user1_id and c.user2_id = w.user2_id
                 and c.product_id is not distinct from w.product_id",
        )
        .bind(&user1)
        .bind(&user2)
        .bind(&product)
        .fetch_all(self)
        .await
    }

    async fn lock_conversations(&mut self, ids: &[i64]) -> Result<Vec<Participants>, sqlx::Error> {
        sqlx::query_as(
            "select c.id, c.user1_id, c.user2_id, c.last_seq,
                 exists (select 1 from blocks b where b.blocker_id = c.user1_id and b.blocked_id = c.user2_id)
                     as user1_blocks,
                 exists (select 1 from blocks b where b.blocker_id = c.user2_id and b.blocked_id = c.user1_id)
                     as user2_blocks
             from conversations c where c.id = any($1) order by c.id for no key update of c",
        )
        .bind(ids)
        .fetch_all(self)
        .await
    }

    async fn find_quoted(&mut self, ids: &[i64]) -> Result<Vec<Quoted>, sqlx::Error> {
        sqlx::query_as(
            "select id, conversation_id, sender_id, type, content from messages where id = any($1)",
        )
        .bind(ids)
        .fetch_all(self)
        .await
    }

    async fn find_unsent_attachments(&mut self, ids: &[i64]) -> Result<Vec<UnsentAttachment>, sqlx::Error> {
        sqlx::query_as(
            "select uploader_id, mime_type, id as attachment_id, name as attachment_name,
                 mime_type as attachment_mime_type, size as attachment_size, width as attachment_width,
                 height as attachment_height, thumbnail_key as attachment_thumbnail_key
             from attachments where id = any($1) and message_id is null for update",
        )
        .bind(ids)
        .fetch_all(self)
        .await
    }

    async fn attach(&mut self, pairs: &[(i64, i64)]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update attachments a set message_id = p.message_id
             from unnest($1::bigint[], $2::bigint[]) as p (id, message_id) where a.id = p.id",
        )
        .bind(column(pairs, |pair| pair.0))
        .bind(column(pairs, |pair| pair.1))
        .execute(self)
        .await
        .map(drop)
    }

    async fn insert_messages(
        &mut self,
        rows: &[InsertRow<'_>],
        bumps: &Bumps,
        now: Timestamp,
    ) -> Result<Vec<(i64, i64, i64)>, sqlx::Error> {
        let unread: Vec<_> = bumps.unread.iter().collect();
        sqlx::query_as(
            "with stored as (
                 insert into messages (conversation_id, seq, sender_id, content, type, file_url, attachment_id,
                     reply_to_id, metadata, offer, client_message_id, fingerprint, created_at,
                     updated_at)
                 select r.*, $13, $13 from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
                     $6::text[], $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::bigint[])
                     as r
                 on conflict (sender_id, client_message_id) do nothing
                 returning conversation_id, seq, id
             ), conversations_moved as (
                 update conversations c
                 set last_seq = b.last_seq, last_message_id = s.id, last_message_at = $13, updated_at = $13
                 from unnest($14::bigint[], $15::bigint[]) as b (id, last_seq)
                 join stored s on s.conversation_id = b.id and s.seq = b.last_seq
                 where c.id = b.id
             ), participants_moved as (
                 update conversation_participants p
                 set unread_count = p.unread_count + b.unread, is_archived = false, is_hidden = false
                 from unnest($16::bigint[], $17::bigint[], $18::integer[]) as b (conversation_id, user_id, unread)
                 where p.conversation_id = b.conversation_id and p.user_id = b.user_id
                     and (b.unread > 0 or p.is_archived or p.is_hidden)
             )
             select conversation_id, seq, id from stored",
        )
        .bind(column(rows, |row| row.conversation_id))
        .bind(column(rows, |row| row.seq))
        .bind(column(rows, |row| row.message.sender_id.0))
        .bind(column(rows, |row| row.message.content.as_str()))
        .bind(column(rows, |row| row.message.kind.as_str()))
        .bind(column(rows, |row| row.message.file_url.as_deref()))
        .bind(column(rows, |row| row.message.attachment_id.map(|id| id.0)))
        .bind(column(rows, |row| row.message.reply_to_id.map(|id| id.0)))
        .bind(column(rows, |row| row.message.metadata.as_deref()))
        .bind(column(rows, |row| row.message.offer.as_deref()))
        .bind(column(rows, |row| row.message.client_message_id.as_deref()))
        .bind(column(rows, |row| row.message.fingerprint))
        .bind(now)
        .bind(bumps.last_seqs.keys().copied().collect::<Vec<_>>())
        .bind(bumps.last_seqs.values().copied().collect::<Vec<_>>())
        .bind(column(&unread, |((conversation, _), _)| *conversation))
        .bind(column(&unread, |((_, user), _)| *user))
        .bind(column(&unread, |(_, count)| i32::try_from(**count).unwrap_or(i32::MAX)))
        .fetch_all(self)
        .await
    }

    async fn find_receivable(
        &mut self,
        kind: ReceiptKind,
        up_to: &[UpTo],
    ) -> Result<Vec<Receivable>, sqlx::Error> {
        sqlx::query_as(
            "select i.receipt, m.id, m.seq, m.deleted_at is null as counts
             from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                 as i (receipt, conversation_id, user_id, seq, id)
             join conversation_participants p
                 on p.conversation_id = i.conversation_id and p.user_id = i.user_id
             join messages m on m.conversation_id = i.conversation_id
                 and m.seq > greatest(p.cleared_seq, case when $6 then p.read_seq else p.delivered_seq end)
                 and m.seq <= i.seq and m.id <= i.id
             where m.sender_id <> i.user_id and not m.is_read",
        )
        .bind(column(up_to, |stretch| stretch.index))
        .bind(column(up_to, |stretch| stretch.conversation_id))
        .bind(column(up_to, |stretch| stretch.user_id))
        .bind(column(up_to, |stretch| stretch.seq))
        .bind(column(up_to, |stretch| stretch.id))
        .bind(kind == ReceiptKind::Read)
        .fetch_all(self)
        .await
    }

    async fn find_receivable_by_id(
        &mut self,
        kind: ReceiptKind,
        named: &[(i64, i64, i64, i64)],
    ) -> Result<Vec<Receivable>, sqlx::Error> {
        sqlx::query_as(
            "select i.receipt, m.id, m.seq, m.deleted_at is null as counts
             from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                 as i (receipt, conversation_id, user_id, id)
             join conversation_participants p
                 on p.conversation_id = i.conversation_id and p.user_id = i.user_id
             join messages m on m.id = i.id and m.conversation_id = i.conversation_id
                 and m.seq > greatest(p.cleared_seq, case when $5 then 0 else p.delivered_seq end)
             where m.sender_id <> i.user_id and not m.is_read",
        )
        .bind(column(named, |row| row.0))
        .bind(column(named, |row| row.1))
        .bind(column(named, |row| row.2))
        .bind(column(named, |row| row.3))
        .bind(kind == ReceiptKind::Read)
        .fetch_all(self)
        .await
    }

    async fn move_delivered(&mut self, marks: &[(i64, i64, i64)], now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update conversation_participants p set delivered_seq = i.seq, delivered_at = $4
             from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as i (conversation_id, user_id, seq)
             where p.conversation_id = i.conversation_id and p.user_id = i.user_id and p.delivered_seq < i.seq",
        )
        .bind(column(marks, |mark| mark.0))
        .bind(column(marks, |mark| mark.1))
        .bind(column(marks, |mark| mark.2))
        .bind(now)
        .execute(self)
        .await
        .map(drop)
    }

    async fn move_read(
        &mut self,
        message_ids: &[i64],
        marks: &[(i64, i64, i64, i64)],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "with messages_read as (
                 update messages set is_read = true, read_at = $1 where id = any($2)
             )
             update conversation_participants p
             set unread_count = p.unread_count - i.count, last_read_at = $1,
                 delivered_seq = greatest(p.delivered_seq, i.seq),
                 read_seq = case when p.unread_count = i.count then c.last_seq else p.read_seq end
             from unnest($3::bigint[], $4::bigint[], $5::integer[], $6::bigint[])
                 as i (conversation_id, user_id, count, seq)
             join conversations c on c.id = i.conversation_id
             where p.conversation_id = i.conversation_id and p.user_id = i.user_id",
        )
        .bind(now)
        .bind(message_ids)
        .bind(column(marks, |mark| mark.0))
        .bind(column(marks, |mark| mark.1))
        .bind(column(marks, |mark| i32::try_from(mark.2).unwrap_or(i32::MAX)))
        .bind(column(marks, |mark| mark.3))
        .execute(self)
        .await
        .map(drop)
    }

    async fn insert_webhooks(
        &mut self,
        events: &[NewWebhook],
        targets: &[&str],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into webhook_deliveries (event_id, event, target, conversation_id, message_id, payload,
                 created_at, queued_at, due_at)
             select e.event_id, e.event, t.target, e.conversation_id, e.message_id, e.payload, $7, $7, $7
             from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
                 with ordinality as e (event_id, event, conversation_id, message_id, payload, place)
             cross join unnest($6::text[]) as t (target)
             order by e.place",
        )
        .bind(events.iter().map(|event| event.event_id.as_str()).collect::<Vec<_>>())
        .bind(column(events, |event| event.event.name()))
        .bind(column(events, |event| event.conversation_id.map(|id| id.0)))
        .bind(column(events, |event| event.message_id.map(|id| id.0)))
        .bind(events.iter().map(|event| event.payload.as_deref()).collect::<Vec<_>>())
        .bind(targets)
        .bind(now)
        .execute(self)
        .await
        .map(drop)
    }

    async fn append_log(
        &mut self,
        entries: Vec<NewEntry>,
        now: Timestamp,
    ) -> Result<Vec<Entry>, sqlx::Error> {
        append_postgres(self, entries, now).await
    }
}
