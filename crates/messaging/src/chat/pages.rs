//! Pages of messages as JSON text, kept for those who look again: an app that comes to the front, a second
//! device, a page of history.
//!
//! Whatever changes what a user sees of their messages appends to that user's log, in the same transaction
//! (contract 4.5). So a page is as it was while the log's head is: one look at the head, shared by all who look
//! at the same moment, and it is never stale for anybody. What is outside of the log is the names and pictures of
//! the two people, which are compared, and addresses that expire, for which a page is kept only shortly.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use moka::sync::Cache;
use serde_json::value::RawValue;

use super::{Chat, Page, events::to_json};
use crate::{
    errors::Result,
    identity::{Caller, UserProfile},
    ids::{ConversationId, UserId},
    storage::messages::Window,
};

/// Bytes of JSON text kept at most: some fifteen hundred pages.
const MAX_BYTES: u64 = 32 << 20;
/// Short beside the lifetime of a file's address, and a bound on what nobody thought of.
const MAX_AGE: Duration = Duration::from_secs(30);

/// Whose page of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    user: UserId,
    conversation: ConversationId,
    window: Window,
    limit: i64,
}

/// A page of messages, ready to be sent.
#[derive(Debug)]
pub struct RenderedPage {
    /// JSON text of the list.
    pub items: Box<RawValue>,
    /// Where it stands; without items.
    pub place: Page<()>,
    /// The places of its first and last message.
    pub ends: Option<(i64, i64)>,
    /// Another value means another page.
    pub tag: u64,
    event_seq: i64,
    profiles: Vec<Arc<UserProfile>>,
}

/// The pages that were asked for lately.
#[derive(Debug)]
pub(super) struct Pages(Cache<Key, Arc<RenderedPage>>);

impl Default for Pages {
    fn default() -> Self {
        let weigh = |_: &Key, page: &Arc<RenderedPage>| {
            u32::try_from(page.items.get().len() + size_of::<RenderedPage>()).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).time_to_live(MAX_AGE).build())
    }
}

impl Chat {
    /// Messages of a conversation, oldest first, as JSON text. Looking at them delivers them.
    pub async fn message_page(
        &self,
        caller: &Caller,
        id: ConversationId,
        window: Window,
        limit: i64,
    ) -> Result<Arc<RenderedPage>> {
        let key = Key { user: caller.user_id, conversation: id, window, limit };
        let pages = &self.inner.pages.0;
        if let Some(page) = pages.get(&key)
            && self.inner.heads.of(caller.user_id).await? == page.event_seq
            && self.are_current(&page.profiles).await
        {
            return Ok(page);
        }
        let conversation = self.visible_conversation(caller.user_id, id).await?;
        // Read before the messages: what comes between them makes the page newer than it says.
        let event_seq = conversation.event_seq;
        let Page { items, page, per_page, total, has_more } =
            self.messages_seen(&conversation, window, limit).await?;
        let mut profiles: Vec<Arc<UserProfile>> = Vec::with_capacity(2);
        for message in &items {
            if !profiles.iter().any(|profile| profile.id == message.sender.id) {
                profiles.push(Arc::clone(&message.sender));
            }
        }
        let ends = items.first().zip(items.last()).map(|(first, last)| (first.seq, last.seq));
        let text = to_json(&items);
        let mut tag = DefaultHasher::new();
        (&text, page, per_page, total, has_more).hash(&mut tag);
        let page = Arc::new(RenderedPage {
            items: super::events::raw(text),
            place: Page { items: vec![], page, per_page, total, has_more },
            ends,
            tag: tag.finish(),
            event_seq,
            profiles,
        });
        pages.insert(key, Arc::clone(&page));
        Ok(page)
    }

    async fn are_current(&self, profiles: &[Arc<UserProfile>]) -> bool {
        let ids: Vec<UserId> = profiles.iter().map(|profile| profile.id).collect();
        let current = self.inner.directory.users(&ids, None).await;
        profiles.iter().all(|profile| current.get(&profile.id) == Some(profile))
    }
}
