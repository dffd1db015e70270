//! Who is typing where; it ends by itself (contract 4.4 `user_typing`).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::json;

use super::{Chat, input::Fields, relay::News};
use crate::{
    errors::Result,
    ids::{ConversationId, UserId},
    limits::Kind,
};

/// Clients repeat themselves every few seconds; one that does not has stopped.
const LASTS: Duration = Duration::from_secs(6);
/// How often that is looked at.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// Who is typing now.
#[derive(Debug, Default)]
pub(super) struct Typing {
    now: Mutex<HashMap<(UserId, ConversationId), Typist>>,
}

#[derive(Debug, Clone, Copy)]
struct Typist {
    until: Instant,
    connection: u64,
    /// Who sees it.
    other: UserId,
}

/// Reads `{conversation_id, is_typing}`.
pub fn parse_typing(json: &str) -> Result<(ConversationId, bool)> {
    let mut fields = Fields::parse(json)?;
    let id = fields.required_id("conversation_id").map(ConversationId);
    let is_typing = fields.flag("is_typing");
    fields.finish(id.zip(is_typing))
}

impl Chat {
    /// Tells the other user of a conversation that this one types, or stopped.
    pub async fn set_typing(
        &self,
        user: UserId,
        connection: u64,
        conversation: ConversationId,
        is_typing: bool,
    ) -> Result<()> {
        self.inner.limits.take(user, Kind::Typing).await?;
        let row = self.visible_conversation(user, conversation).await?;
        // Between the two sides of a block typing is silent; the blocked one is not told why.
        if row.is_blocked || row.is_blocked_by_other {
            return Ok(());
        }
        let key = (user, conversation);
        if is_typing {
            let typist = Typist { until: Instant::now() + LASTS, connection, other: row.other_user_id };
            self.inner.typing.now.lock().insert(key, typist);
        } else {
            self.inner.typing.now.lock().remove(&key);
        }
        self.tell_typing(key, row.other_user_id, is_typing);
        Ok(())
    }

    /// Ends what a connection was typing.
    pub(super) fn stop_typing(&self, user: UserId, connection: u64) {
        self.end_typing(|(typist, _), typing| *typist == user && typing.connection == connection);
    }

    /// Ends what nobody repeated.
    pub(super) fn expire_typing(&self) {
        let now = Instant::now();
        self.end_typing(|_, typing| typing.until <= now);
    }

    fn end_typing(&self, is_over: impl Fn(&(UserId, ConversationId), &Typist) -> bool) {
        let over: Vec<_> = {
            let mut now = self.inner.typing.now.lock();
            if now.is_empty() {
                return;
            }
            now.extract_if(|key, typist| is_over(key, typist)).collect()
        };
        for (key, typist) in over {
            self.tell_typing(key, typist.other, false);
        }
    }

    fn tell_typing(&self, (user, conversation): (UserId, ConversationId), other: UserId, is_typing: bool) {
        let data = json!({"user_id": user, "conversation_id": conversation, "is_typing": is_typing});
        self.tell(other, &News::new("user_typing", &data));
    }
}
