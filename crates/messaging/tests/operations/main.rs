//! What users do with messages and conversations, through `Chat`, on both databases: the good case,
//! each refusal with its code, and what stands in both users' logs.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod conversations;
mod messages;
mod model;
mod pages;
mod preferences;
mod reactions;
mod reconcile;
mod search;
#[path = "../support/mod.rs"]
mod support;
mod world;
