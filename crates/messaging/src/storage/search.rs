//! Finding messages: the database narrows by signature and goes no further, the text decides.
//!
//! What is the same and what is not is one piece of code for both databases, in
//! [`crate::content::Needle`]; here is how few texts are read for it.

use futures_util::TryStreamExt;

use super::{Result, Store, on};
use crate::{
    content::Needle,
    ids::{ConversationId, MessageId, UserId},
};

/// Texts read at first: enough for nearly all searches, which have a few hundred candidates.
const FIRST_ROUND: i64 = 2000;
/// Texts read at once after that.
const LATER_ROUNDS: i64 = 5000;

impl Store {
    /// Messages that a user may see and that contain what is looked for, the newest first, at most
    /// `wanted` of them; in one conversation or in all.
    pub async fn search(
        &self,
        user: UserId,
        conversation: Option<ConversationId>,
        needle: &Needle,
        wanted: usize,
    ) -> Result<Vec<MessageId>> {
        let signature = needle.signature();
        let mut found = Vec::new();
        let (mut before, mut limit) = (MessageId(i64::MAX), FIRST_ROUND);
        loop {
            let mut candidates = 0;
            on!(self, read, pool => {
                // Candidates come out of the index alone; `+ 0` keeps the planner from going through
                // everybody's messages backwards until it has met enough of this user's.
                let mut texts = sqlx::query_as::<_, (MessageId, String)>(
                    "select m.id, m.content from (
                         select c.id from conversation_participants p
                         join messages c on c.conversation_id = p.conversation_id and c.seq > p.cleared_seq
                         where p.user_id = $1 and not p.is_hidden
                             and ($2 = 0 or p.conversation_id = $2)
                             and c.search_low & $3 = $3 and c.search_high & $4 = $4 and c.id < $5
                         order by c.id + 0 desc limit $6
                     ) candidates
                     join messages m on m.id = candidates.id order by m.id desc",
                )
                .bind(user)
                .bind(conversation.map_or(0, |id| id.0))
                .bind(signature.low)
                .bind(signature.high)
                .bind(before)
                .bind(limit)
                .fetch(pool);
                while let Some((id, text)) = texts.try_next().await? {
                    candidates += 1;
                    before = id;
                    if needle.is_in(&text) {
                        found.push(id);
                        if found.len() == wanted {
                            return Ok(found);
                        }
                    }
                }
            });
            if candidates < limit {
                return Ok(found);
            }
            limit = LATER_ROUNDS;
        }
    }
}
