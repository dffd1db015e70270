//! Everything that is kept about a person, written a page at a time: memory holds a page, not a person.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Chat, DeviceView, events::to_json, views::MessageView};
use crate::{
    ids::{AttachmentId, ConversationId, UserId},
    storage::{StoreError, attachments::AttachmentRow, rows::ConversationRow},
};

/// Conversations read at once.
const CONVERSATIONS: i64 = 50;
/// Messages read at once.
const MESSAGES: i64 = 200;
/// Files read at once.
const FILES: i64 = 200;
/// Pages written ahead of the reader.
const AHEAD: usize = 2;

/// The parts of the answer, in order. An error in the middle ends it: what came is no whole answer.
pub type Export = mpsc::Receiver<io::Result<Bytes>>;

/// Where the parts go; the reader may leave at any time.
struct Writer(mpsc::Sender<io::Result<Bytes>>);

/// The reader has left.
struct Gone;

enum Ending {
    Gone,
    Failed(StoreError),
}

impl From<Gone> for Ending {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<StoreError> for Ending {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Writer {
    async fn write(&self, text: String) -> Result<(), Gone> {
        self.0.send(Ok(text.into())).await.map_err(|_| Gone)
    }
}

/// A message as the person sees it, and whether it is in a history that they deleted.
#[derive(Serialize)]
struct Exported {
    #[serde(flatten)]
    message: MessageView,
    is_cleared: bool,
}

impl Chat {
    /// Writes everything that is kept about a user: who they are here, their conversations with their own
    /// messages and those they received and see, their files with links.
    pub fn export_user(&self, user: UserId) -> Export {
        let (sender, parts) = mpsc::channel(AHEAD);
        let chat = self.clone();
        tokio::spawn(async move {
            let writer = Writer(sender);
            if let Err(Ending::Failed(error)) = chat.write_export(user, &writer).await {
                tracing::warn!(%error, "an export ended early");
                let _ = writer.0.send(Err(io::Error::other("the export ended early"))).await;
            }
        });
        parts
    }

    async fn write_export(&self, user: UserId, writer: &Writer) -> Result<(), Ending> {
        let store = &self.inner.store;
        let profile = store.load_profiles(&[user]).await?.pop();
        let profile = profile.map(
            |row| json!({"name": row.name, "avatar_url": row.avatar_url, "refreshed_at": row.refreshed_at}),
        );
        let preferences = store.preferences(user).await?;
        let quiet_hours: Option<serde_json::Value> =
            preferences.quiet_hours.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let devices: Vec<_> = store.devices(user).await?.into_iter().map(DeviceView::from).collect();
        let blocks = store.list_blocks(user).await?;
        let blocks: Vec<_> = blocks
            .iter()
            .map(|block| json!({"user_id": block.user_id, "created_at": block.created_at}))
            .collect();
        let head = to_json(&json!({
            "user_id": user,
            "profile": profile,
            "preferences": {
                "push": preferences.push, "email": preferences.email, "quiet_hours": quiet_hours,
                "presence": !preferences.is_private,
            },
            "last_seen": preferences.last_seen,
            "devices": devices,
            "blocks": blocks,
        }));
        let opened = head.strip_suffix('}').unwrap_or(&head);
        writer.write(format!(r#"{{"success":true,"data":{opened},"conversations":["#)).await?;
        let mut after = ConversationId(0);
        let mut is_first = true;
        loop {
            let rows = store.conversations_after(user, after, CONVERSATIONS).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            for row in rows {
                self.write_conversation(user, row, std::mem::take(&mut is_first), writer).await?;
            }
        }
        writer.write(r#"],"unsent_files":["#.into()).await?;
        let mut after = AttachmentId(0);
        let mut comma = "";
        loop {
            let files = store.unsent_attachments(user, after, FILES).await?;
            let Some(last) = files.last() else { break };
            after = last.id;
            let files: Vec<_> = files.into_iter().map(|file| self.exported_file(&file)).collect();
            writer.write(format!("{comma}{}", files.join(","))).await?;
            comma = ",";
        }
        let now = to_json(&self.inner.clock.now());
        Ok(writer.write(format!(r#"]}},"meta":{{"timestamp":{now}}}}}"#)).await?)
    }

    fn exported_file(&self, row: &AttachmentRow) -> String {
        let file = &row.file;
        let links = self.inner.files.links(row.id, &file.name, file.thumbnail_key.is_some());
        to_json(&json!({
            "id": row.id, "name": file.name, "mime_type": file.mime_type, "size": file.size, "url": links.url,
            "created_at": row.created_at,
        }))
    }

    async fn write_conversation(
        &self,
        user: UserId,
        row: ConversationRow,
        is_first: bool,
        writer: &Writer,
    ) -> Result<(), Ending> {
        let (id, cleared_seq) = (row.id, row.cleared_seq);
        let Some(view) = self.conversation_views(vec![row], None).await.pop() else { return Ok(()) };
        let view = to_json(&view);
        let opened = view.strip_suffix('}').unwrap_or(&view);
        let comma = if is_first { "" } else { "," };
        writer.write(format!(r#"{comma}{opened},"messages":["#)).await?;
        let mut after = 0;
        let mut comma = "";
        loop {
            let rows = self.inner.store.messages_to_export(id, user, cleared_seq, after, MESSAGES).await?;
            let Some(last) = rows.last() else { break };
            after = last.seq;
            let messages: Vec<_> = self
                .views(rows)
                .await
                .into_iter()
                .map(|message| {
                    let is_cleared = message.seq <= cleared_seq;
                    to_json(&Exported { message, is_cleared })
                })
                .collect();
            writer.write(format!("{comma}{}", messages.join(","))).await?;
            comma = ",";
        }
        Ok(writer.write("]}".into()).await?)
    }
}
