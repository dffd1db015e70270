//! Blocking: while one of two blocks the other, neither writes to the other, and only the blocker is
//! shown that it is so (contract section 7).

use std::collections::HashMap;

use serde::Serialize;

use super::Chat;
use crate::{
    clock::Timestamp,
    errors::{Error, Result},
    identity::Caller,
    ids::UserId,
};

/// What block and unblock answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct BlockAnswer {
    /// Whom it is about.
    pub user_id: UserId,
    /// The caller blocks them now.
    pub is_blocked: bool,
}

/// Somebody whom the caller blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Block")]
pub struct BlockView {
    /// Who it is.
    pub user_id: UserId,
    /// Their name.
    pub name: String,
    /// Their picture.
    pub avatar_url: Option<String>,
    /// Since when they are blocked.
    pub created_at: Timestamp,
}

impl Chat {
    /// Blocks a user, whether or not there is a conversation yet. Once more changes nothing.
    pub async fn block_user(&self, caller: &Caller, other: UserId) -> Result<BlockAnswer> {
        if other == caller.user_id {
            return Err(Error::field("user_id", "You cannot block yourself."));
        }
        self.set_block(caller.user_id, other, true).await
    }

    /// Ends a block. Nobody blocked is fine.
    pub async fn unblock_user(&self, caller: &Caller, other: UserId) -> Result<BlockAnswer> {
        self.set_block(caller.user_id, other, false).await
    }

    async fn set_block(&self, blocker: UserId, other: UserId, is_blocked: bool) -> Result<BlockAnswer> {
        // An id that is none exists nowhere; whether one that could be does, only the main API knows.
        if other.0 <= 0 {
            return Err(Error::NotFound("User not found.".into()));
        }
        let store = self.inner.store.clone();
        self.carry_out(async move { store.set_block(blocker, other, is_blocked).await }).await?;
        Ok(BlockAnswer { user_id: other, is_blocked })
    }

    /// Whom the caller blocks, the latest first.
    pub async fn list_blocks(&self, caller: &Caller) -> Result<Vec<BlockView>> {
        let rows = self.inner.store.list_blocks(caller.user_id).await?;
        let users: Vec<UserId> = rows.iter().map(|row| row.user_id).collect();
        let profiles: HashMap<_, _> = self.inner.directory.users(&users, Some(&caller.token)).await;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let profile = profiles.get(&row.user_id)?;
                Some(BlockView {
                    user_id: row.user_id,
                    name: profile.name.clone(),
                    avatar_url: profile.avatar_url.clone(),
                    created_at: row.created_at,
                })
            })
            .collect())
    }
}
