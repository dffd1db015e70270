//! Everything that may be refused, once: the catalogue of contract section 1.
//!
//! REST, acks and `error` events all speak these codes. Expected failures are variants with data;
//! the rest is [`Error::Internal`], whose source is logged at the edge and never shown.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::clock::Timestamp;

/// The answer of everything that can be refused.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was wrong with which field of a request: `{"field": ["sentence", …]}` (Laravel's shape).
pub type FieldErrors = BTreeMap<Cow<'static, str>, Vec<String>>;

/// A refused or failed request.
#[derive(Debug)]
pub enum Error {
    /// The request cannot be read: broken JSON, an unknown event.
    BadRequest(Cow<'static, str>),
    /// No valid token came with the request.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden(Cow<'static, str>),
    /// The message is too old to be edited.
    EditWindowClosed {
        /// When it closed.
        closed_at: Timestamp,
    },
    /// One of the two blocked the other; who is told only to the blocker.
    Blocked {
        /// The caller is the one who blocks.
        by_caller: bool,
    },
    /// There is no such route, file or other thing.
    NotFound(Cow<'static, str>),
    /// There is no such conversation.
    ConversationNotFound,
    /// There is no such message.
    MessageNotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The request contradicts what is stored.
    Conflict(Cow<'static, str>),
    /// The log no longer reaches back to `since`.
    SyncExpired {
        /// The newest entry there is.
        last_event_seq: i64,
    },
    /// The body or frame is larger than allowed.
    PayloadTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The body or file is of a kind that is not accepted.
    UnsupportedMediaType(Cow<'static, str>),
    /// Fields that break their rules.
    Validation(FieldErrors),
    /// Too many requests of one kind.
    RateLimited(RateLimit),
    /// The main API cannot say now whether the token is valid.
    AuthUnavailable {
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// A dependency is away or a queue is full; nothing was stored.
    ServiceUnavailable {
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// A defect or an unforeseen fault.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// The state of a token bucket at a refusal or an acceptance, for `X-RateLimit-*` and `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a minute.
    pub limit: u32,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// How long until the next request is allowed; zero if it already is.
    pub retry_after: Duration,
    /// When the bucket will be full again.
    pub resets_at: Timestamp,
}

impl Error {
    /// One field that breaks one rule.
    pub fn field(name: impl Into<Cow<'static, str>>, sentence: impl Into<String>) -> Self {
        Self::Validation(FieldErrors::from([(name.into(), vec![sentence.into()])]))
    }

    /// An unforeseen fault with its source.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// A dependency is away; a second is a fair guess at its return.
    pub const fn unavailable() -> Self {
        Self::ServiceUnavailable { retry_after: Duration::from_secs(1) }
    }

    /// The same refusal once more, for a request that repeats a refused one.
    pub fn repeat(&self) -> Self {
        match self {
            Self::Forbidden(sentence) => Self::Forbidden(sentence.clone()),
            Self::Blocked { by_caller } => Self::Blocked { by_caller: *by_caller },
            Self::Conflict(sentence) => Self::Conflict(sentence.clone()),
            Self::Validation(fields) => Self::Validation(fields.clone()),
            Self::ConversationNotFound => Self::ConversationNotFound,
            _ => Self::unavailable(),
        }
    }

    /// The permanent code that clients switch on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BAD_REQUEST",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::EditWindowClosed { .. } => "EDIT_WINDOW_CLOSED",
            Self::Blocked { .. } => "BLOCKED",
            Self::NotFound(_) => "NOT_FOUND",
            Self::ConversationNotFound => "CONVERSATION_NOT_FOUND",
            Self::MessageNotFound => "MESSAGE_NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::Conflict(_) => "CONFLICT",
            Self::SyncExpired { .. } => "SYNC_EXPIRED",
            Self::PayloadTooLarge { .. } => "PAYLOAD_TOO_LARGE",
            Self::UnsupportedMediaType(_) => "UNSUPPORTED_MEDIA_TYPE",
            Self::Validation(_) => "VALIDATION_FAILED",
            Self::RateLimited(_) => "RATE_LIMITED",
            Self::AuthUnavailable { .. } => "AUTH_UNAVAILABLE",
            Self::ServiceUnavailable { .. } => "SERVICE_UNAVAILABLE",
            Self::Internal(_) => "INTERNAL",
        }
    }

    /// The HTTP status of the code.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::EditWindowClosed { .. } | Self::Blocked { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound(_) | Self::ConversationNotFound | Self::MessageNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::SyncExpired { .. } => StatusCode::GONE,
            Self::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Validation(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::AuthUnavailable { .. } | Self::ServiceUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same request may succeed later.
    pub const fn retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited(_)
                | Self::AuthUnavailable { .. }
                | Self::ServiceUnavailable { .. }
                | Self::Internal(_)
        )
    }

    /// How long to wait before trying again, where that is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(limit) => Some(limit.retry_after),
            Self::AuthUnavailable { retry_after } | Self::ServiceUnavailable { retry_after } => {
                Some(*retry_after)
            }
            _ => None,
        }
    }

    /// One sentence for a person. It never quotes the request.
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::BadRequest(sentence)
            | Self::Forbidden(sentence)
            | Self::NotFound(sentence)
            | Self::Conflict(sentence)
            | Self::UnsupportedMediaType(sentence) => Cow::Borrowed(sentence),
            Self::Unauthenticated => "Unauthenticated.".into(),
            Self::EditWindowClosed { .. } => "This message can no longer be edited.".into(),
            Self::Blocked { by_caller: true } => {
                "You have blocked this user. Unblock them to send messages.".into()
            }
            Self::Blocked { by_caller: false } => "You cannot send messages to this user.".into(),
            Self::ConversationNotFound => "Conversation not found.".into(),
            Self::MessageNotFound => "Message not found.".into(),
            Self::MethodNotAllowed => "This method is not allowed here.".into(),
            Self::SyncExpired { .. } => {
                "The events since then are no longer kept. Fetch the conversations again.".into()
            }
            Self::PayloadTooLarge { limit } => {
                format!("The request is larger than the {limit} bytes allowed.").into()
            }
            Self::Validation(fields) => fields
                .values()
                .flatten()
                .next()
                .map_or("The given data was invalid.".into(), |sentence| Cow::Borrowed(sentence.as_str())),
            Self::RateLimited(_) => "Too many requests. Please slow down.".into(),
            Self::AuthUnavailable { .. } => {
                "Sign-in cannot be checked at the moment. Please try again.".into()
            }
            Self::ServiceUnavailable { .. } => "The service is busy at the moment. Please try again.".into(),
            Self::Internal(_) => "Something went wrong on our side.".into(),
        }
    }

    /// `details` of the error body: always `retryable`, and what the variant knows.
    pub fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        details.insert("retryable".into(), self.retryable().into());
        match self {
            Self::EditWindowClosed { closed_at } => {
                details.insert("closed_at".into(), json!(closed_at));
            }
            Self::SyncExpired { last_event_seq } => {
                details.insert("last_event_seq".into(), (*last_event_seq).into());
            }
            Self::PayloadTooLarge { limit } => {
                details.insert("limit".into(), (*limit).into());
            }
            Self::Validation(fields) => {
                details.insert("fields".into(), json!(fields));
            }
            _ => {}
        }
        if let Some(retry_after) = self.retry_after() {
            details.insert("retry_after".into(), whole_seconds(retry_after).into());
        }
        details
    }

    /// The body of a refused request (contract section 1).
    pub fn body(&self, request_id: &str, now: Timestamp) -> Value {
        let message = self.message();
        let mut body = json!({
            "success": false,
            "error": {"code": self.code(), "message": message, "details": self.details()},
            "message": message,
            "meta": {"timestamp": now, "request_id": request_id},
        });
        if let Self::Validation(fields) = self {
            body["errors"] = json!(fields);
        }
        body
    }
}

/// Seconds for `Retry-After`: rounded up, at least one, so that a client never comes too early.
pub fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.code(), self.message())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Internal(source) => Some(&**source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validation_error_reads_as_its_first_sentence() {
        let error = Error::field("content", "The content field is required.");
        assert_eq!(error.message(), "The content field is required.");
        assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(error.details()["retryable"], false);
    }

    #[test]
    fn retry_after_is_never_too_early() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
    }

    #[test]
    fn an_internal_error_shows_nothing_of_its_source() {
        let error = Error::internal("password=hunter2");
        assert!(!error.to_string().contains("hunter2"));
        assert!(!format!("{:?}", error.details()).contains("hunter2"));
    }
}
