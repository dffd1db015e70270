//! The group commit's statements for SQLite, and how our types are written to and read from it.

use serde::Serialize;
use sqlx::{
    Decode, Encode, Sqlite, SqliteConnection, Type,
    encode::IsNull,
    error::BoxDynError,
    sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef},
};

use super::{
    IdList,
    batch::{
        Bumps, FoundConversation, InsertRow, Quoted, ReceiptKind, Receivable, Replay, Statements,
        UnsentAttachment, UpTo,
    },
    log::{Entry, NewEntry, append_sqlite},
    rows::Participants,
    webhooks::NewWebhook,
};
use crate::clock::Timestamp;

impl Type<Sqlite> for Timestamp {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(type_info: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(type_info)
    }
}

impl Encode<'_, Sqlite> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Sqlite>>::encode_by_ref(&self.as_millis(), buffer)
    }
}

impl<'r> Decode<'r, Sqlite> for Timestamp {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self::from_millis(<i64 as Decode<'r, Sqlite>>::decode(value)?))
    }
}

impl Type<Sqlite> for IdList {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for IdList {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<'_, Sqlite>>::encode(self.json(), buffer)
    }
}

/// Rows as JSON text for `json_each`: one statement a batch, whatever its size.
pub(super) fn rows<T: Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).unwrap_or_default()
}

impl Statements for SqliteConnection {
    async fn find_replays(&mut self, keys: &[(i64, &str)]) -> Result<Vec<Replay>, sqlx::Error> {
        sqlx::query_as(
            "select m.sender_id, m.client_message_id, m.id, m.fingerprint
             from json_each($1) k
             join messages m on m.sender_id = k.value ->> '$[0]' and m.client_message_id = k.value ->> '$[1]'",
        )
        .bind(rows(keys))
        .fetch_all(self)
        .await
    }

    async fn find_blocks(&mut self, pairs: &[(i64, i64)]) -> Result<Vec<(i64, i64)>, sqlx::Error> {
        sqlx::query_as(
            "select b.blocker_id, b.blocked_id
             from json_each($1) p
             join blocks b on b.blocker_id = p.value ->> '$[0]' and b.blocked_id = p.value ->> '$[1]'",
        )
        .bind(rows(pairs))
        .fetch_all(self)
        .await
    }

    async fn find_or_create_conversations(
        &mut self,
        wanted: &[(i64, i64, Option<i64>)],
        now: Timestamp,
    ) -> Result<Vec<FoundConversation>, sqlx::Error> {
        let wanted = rows(wanted);
        sqlx::query(
            "insert into conversations (user1_id, user2_id, product_id, created_at, updated_at)
             select value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', $2, $2 from json_each($1) where true
             on conflict do nothing",
        )
        .bind(&wanted)
        .bind(now)
        .execute(&mut *self)
        .await?;
        let found: Vec<FoundConversation> = sqlx::query_as(
            "select c.user1_id, c.user2_id, c.product_id, c.id
             from json_each($1) w
             join conversations c on c.user1_id = w.value ->> '$[0]' and c.user2_id = w.value ->> '$[1]'
                 and coalesce(c.product_id, 0) = coalesce(w.value ->> '$[2]', 0)",
        )
        .bind(&wanted)
        .fetch_all(&mut *self)
        .await?;
        let participants: Vec<_> =
            found.iter().flat_map(|row| [(row.id, row.user1_id), (row.id, row.user2_id)]).collect();
        sqlx::query(
            "insert into conversation_participants (conversation_id, user_id, created_at)
             select value ->> '$[0]', value ->> '$[1]', $2 from json_each($1) where true
             on conflict do nothing",
        )
        .bind(rows(&participants))
        .bind(now)
        .execute(self)
        .await?;
        Ok(found)
    }

    async fn lock_conversations(&mut self, ids: &[i64]) -> Result<Vec<Participants>, sqlx::Error> {
        // No lock to take: the transaction is the only writer.
        sqlx::query_as(
            "select c.id, c.user1_id, c.user2_id, c.last_seq,
                 exists (select 1 from blocks b where b.blocker_id = c.user1_id and b.blocked_id = c.user2_id)
                     as user1_blocks,
                 exists (select 1 from blocks b where b.blocker_id = c.user2_id and b.blocked_id = c.user1_id)
                     as user2_blocks
             from conversations c where c.id in (select value from json_each($1))",
        )
        .bind(rows(ids))
        .fetch_all(self)
        .await
    }

    async fn find_quoted(&mut self, ids: &[i64]) -> Result<Vec<Quoted>, sqlx::Error> {
        sqlx::query_as(
            "select id, conversation_id, sender_id, type, content from messages
             where id in (select value from json_each($1))",
        )
        .bind(rows(ids))
        .fetch_all(self)
        .await
    }

    async fn find_unsent_attachments(&mut self, ids: &[i64]) -> Result<Vec<UnsentAttachment>, sqlx::Error> {
        sqlx::query_as(
            "select uploader_id, mime_type, id as attachment_id, name as attachment_name,
                 mime_type as attachment_mime_type, size as attachment_size, width as attachment_width,
                 height as attachment_height, thumbnail_key as attachment_thumbnail_key
             from attachments where id in (select value from json_each($1)) and message_id is null",
        )
        .bind(rows(ids))
        .fetch_all(self)
        .await
    }

    async fn attach(&mut self, pairs: &[(i64, i64)]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update attachments set message_id = p.value ->> '$[1]'
             from json_each($1) p where attachments.id = p.value ->> '$[0]'",
        )
        .bind(rows(pairs))
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
        let messages: Vec<_> = rows
            .iter()
            .map(|row| {
                let message = row.message;
                (
                    row.conversation_id,
                    row.seq,
                    message.sender_id,
                    &message.content,
                    message.kind,
                    &message.file_url,
                    message.attachment_id,
                    message.reply_to_id,
                    &message.metadata,
                    &message.offer,
                    &message.client_message_id,
                    message.fingerprint,
                )
            })
            .collect();
        let stored: Vec<(i64, i64, i64)> = sqlx::query_as(
            "insert into messages (conversation_id, seq, sender_id, content, type, file_url, attachment_id,
                 reply_to_id, metadata, offer, client_message_id, fingerprint, created_at, updated_at)
             select value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', value ->> '$[3]', value ->> '$[4]',
                 value ->> '$[5]', value ->> '$[6]', value ->> '$[7]', value ->> '$[8]', value ->> '$[9]',
                 value ->> '$[10]', value ->> '$[11]', $2, $2
             from json_each($1) where true
             on conflict (sender_id, client_message_id) do nothing
             returning conversation_id, seq, id",
        )
        .bind(self::rows(&messages))
        .bind(now)
        .fetch_all(&mut *self)
        .await?;
        let newest: Vec<_> = stored
            .iter()
            .filter(|(conversation, seq, _)| bumps.last_seqs.get(conversation) == Some(seq))
            .collect();
        sqlx::query(
            "update conversations set last_seq = b.value ->> '$[1]', last_message_id = b.value ->> '$[2]',
                 last_message_at = $2, updated_at = $2
             from json_each($1) b where conversations.id = b.value ->> '$[0]'",
        )
        .bind(self::rows(&newest))
        .bind(now)
        .execute(&mut *self)
        .await?;
        let unread: Vec<_> =
            bumps.unread.iter().map(|((conversation, user), count)| (conversation, user, count)).collect();
        sqlx::query(
            "update conversation_participants
             set unread_count = unread_count + (b.value ->> '$[2]'), is_archived = false, is_hidden = false
             from json_each($1) b
             where conversation_id = b.value ->> '$[0]' and user_id = b.value ->> '$[1]'
                 and (b.value ->> '$[2]' > 0 or is_archived or is_hidden)",
        )
        .bind(self::rows(&unread))
        .execute(self)
        .await?;
        Ok(stored)
    }

    async fn find_receivable(
        &mut self,
        kind: ReceiptKind,
        up_to: &[UpTo],
    ) -> Result<Vec<Receivable>, sqlx::Error> {
        let up_to: Vec<_> = up_to
            .iter()
            .map(|stretch| (stretch.index, stretch.conversation_id, stretch.user_id, stretch.seq, stretch.id))
            .collect();
        sqlx::query_as(
            "select i.value ->> '$[0]' as receipt, m.id, m.seq, m.deleted_at is null as counts
             from json_each($1) i
             join conversation_participants p
                 on p.conversation_id = i.value ->> '$[1]' and p.user_id = i.value ->> '$[2]'
             join messages m on m.conversation_id = p.conversation_id
                 and m.seq > max(p.cleared_seq, case when $2 then p.read_seq else p.delivered_seq end)
                 and m.seq <= i.value ->> '$[3]' and m.id <= i.value ->> '$[4]'
             where m.sender_id <> p.user_id and not m.is_read",
        )
        .bind(rows(&up_to))
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
            "select i.value ->> '$[0]' as receipt, m.id, m.seq, m.deleted_at is null as counts
             from json_each($1) i
             join conversation_participants p
                 on p.conversation_id = i.value ->> '$[1]' and p.user_id = i.value ->> '$[2]'
             join messages m on m.id = i.value ->> '$[3]' and m.conversation_id = p.conversation_id
                 and m.seq > max(p.cleared_seq, case when $2 then 0 else p.delivered_seq end)
             where m.sender_id <> p.user_id and not m.is_read",
        )
        .bind(rows(named))
        .bind(kind == ReceiptKind::Read)
        .fetch_all(self)
        .await
    }

    async fn move_delivered(&mut self, marks: &[(i64, i64, i64)], now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update conversation_participants set delivered_seq = i.value ->> '$[2]', delivered_at = $2
             from json_each($1) i
             where conversation_id = i.value ->> '$[0]' and user_id = i.value ->> '$[1]'
                 and delivered_seq < i.value ->> '$[2]'",
        )
        .bind(rows(marks))
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
            "update messages set is_read = true, read_at = $2 where id in (select value from json_each($1))",
        )
        .bind(rows(message_ids))
        .bind(now)
        .execute(&mut *self)
        .await?;
        sqlx::query(
            "update conversation_participants
             set unread_count = unread_count - (i.value ->> '$[2]'), last_read_at = $2,
                 delivered_seq = max(delivered_seq, i.value ->> '$[3]'),
                 read_seq = case when unread_count = i.value ->> '$[2]' then
                     (select last_seq from conversations c where c.id = conversation_id) else read_seq end
             from json_each($1) i
             where conversation_id = i.value ->> '$[0]' and user_id = i.value ->> '$[1]'",
        )
        .bind(rows(marks))
        .bind(now)
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
        let events: Vec<_> = events
            .iter()
            .map(|event| {
                (&event.event_id, event.event.name(), event.conversation_id, event.message_id, &event.payload)
            })
            .collect();
        sqlx::query(
            "insert into webhook_deliveries (event_id, event, target, conversation_id, message_id, payload,
                 created_at, queued_at, due_at)
             select e.value ->> '$[0]', e.value ->> '$[1]', t.value, e.value ->> '$[2]', e.value ->> '$[3]',
                 e.value ->> '$[4]', $3, $3, $3
             from json_each($1) e cross join json_each($2) t
             order by e.key",
        )
        .bind(rows(&events))
        .bind(rows(targets))
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
        append_sqlite(self, entries, now).await
    }
}
