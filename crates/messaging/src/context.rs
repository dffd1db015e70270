//! On whose behalf work goes on: the request or the live connection, and the trace it belongs to.
//!
//! Carried by the task instead of by spans: it costs nothing until a line is written or a question
//! leaves the service. `logging` puts it on lines, `reports` on reports, `traces` continues it.

use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;

use crate::traces::Parent;

tokio::task_local! {
    static CURRENT: Context;
}

/// What a line, a report or a question to the main API is to be found by.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// `X-Request-Id` of the request, given or made here.
    pub request_id: Option<Arc<str>>,
    /// The number of the live connection in this process.
    pub connection_id: Option<u64>,
    /// Where the trace goes on from.
    pub trace: Option<Parent>,
}

impl Context {
    /// The context of the task that asks; empty where there is none.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Looks at the context of the task that asks, where there is one.
    pub(crate) fn with<R>(look: impl FnOnce(&Self) -> R) -> Option<R> {
        CURRENT.try_with(look).ok()
    }

    /// Work in this context.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, work)
    }
}
