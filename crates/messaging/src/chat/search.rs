//! Search over what the caller may see (contract section 2, `GET /api/messages/search`).

use serde::Serialize;

use super::{Chat, Page, PageRequest, views::MessageView};
use crate::{
    content::{Highlight, Needle},
    errors::Result,
    identity::Caller,
    ids::{ConversationId, MessageId},
};

/// So many hits can be paged through, and are counted: who has more of them asks more precisely.
const MAX_HITS: usize = 1000;

/// What to look for and where.
#[derive(Debug, Clone)]
pub struct SearchMessages {
    /// The words.
    pub needle: Needle,
    /// `None` is all of the caller's conversations.
    pub conversation_id: Option<ConversationId>,
}

/// A message that contains what was looked for.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SearchHit {
    /// The message.
    #[serde(flatten)]
    pub message: MessageView,
    /// Where in its content, in code points.
    pub highlight: Vec<Highlight>,
}

impl Chat {
    /// Messages that contain what is looked for, the newest first.
    pub async fn search_messages(
        &self,
        caller: &Caller,
        request: &SearchMessages,
        page: PageRequest,
    ) -> Result<Page<SearchHit>> {
        let (user, store) = (caller.user_id, &self.inner.store);
        if let Some(id) = request.conversation_id {
            self.visible_conversation(user, id).await?;
        }
        let found = store.search(user, request.conversation_id, &request.needle, MAX_HITS).await?;
        self.inner.indexing.ask(found.behind);
        let hits = found.ids;
        let total = i64::try_from(hits.len()).unwrap_or(i64::MAX);
        let first = usize::try_from(page.offset()).unwrap_or(usize::MAX).min(hits.len());
        let count = usize::try_from(page.limit).unwrap_or(0);
        let ids: Vec<MessageId> = hits.iter().skip(first).take(count).copied().collect();
        let has_more = first + ids.len() < hits.len();
        let mut rows = if ids.is_empty() { Default::default() } else { store.messages_by_id(&ids).await? };
        let rows = ids.iter().filter_map(|id| rows.remove(id)).collect();
        let items = self.views(rows).await;
        let items = items
            .into_iter()
            .map(|message| SearchHit { highlight: request.needle.find(&message.content), message })
            // Edited or deleted a moment ago.
            .filter(|hit| !hit.highlight.is_empty())
            .collect();
        Ok(Page { items, page: page.page, per_page: page.limit, total, has_more })
    }
}
