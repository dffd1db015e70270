//! The push services behind one enum: which of them carries what to whom, and what their answers mean.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use tokio::sync::OwnedSemaphorePermit;

use super::{apns::Apns, fcm::Fcm, message::Push, web_push::WebPush};
use crate::{clock::Timestamp, storage::notifications::PushDevice};

/// The longest wait that is believed: nobody wants yesterday's push.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Bytes of an answer that are read: reasons are short, and some services are of users' choosing.
const MAX_ANSWER: usize = 16 * 1024;

/// A push service.
#[derive(Debug)]
pub(super) enum Provider {
    Fcm(Fcm),
    Apns(Apns),
    WebPush(WebPush),
}

/// What a push service made of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It took it.
    Sent,
    /// There is no such device any more; where it says so, since when.
    Dead { since: Option<Timestamp> },
    /// It will not take this push, now or later; the device may be fine.
    Rejected(&'static str),
    /// It may take it later, not before this time where it says one.
    Retry { after: Option<Duration>, reason: &'static str },
}

impl Provider {
    /// As metrics and logs call it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Fcm(_) => "fcm",
            Self::Apns(_) => "apns",
            Self::WebPush(_) => "web_push",
        }
    }

    /// Whether this service carries to a device; the first one that does is asked.
    pub(super) fn carries_to(&self, device: &PushDevice) -> bool {
        let is_subscription = device.token.starts_with('{');
        match (self, device.device_type.as_str()) {
            (Self::WebPush(_), kind) => kind == "web" && is_subscription,
            // Apple's own tokens are hexadecimal; those that Firebase gives out on iOS are not.
            (Self::Apns(_), "ios") => is_hexadecimal(&device.token),
            (Self::Apns(_), _) => false,
            (Self::Fcm(_), "ios") => !is_hexadecimal(&device.token),
            (Self::Fcm(_), _) => !is_subscription,
        }
    }

    /// Whether this service carries pushes of this kind: a browser must show something for each.
    pub(super) const fn carries(&self, push: &Push) -> bool {
        !matches!((self, push), (Self::WebPush(_), Push::Badge(_)))
    }

    /// Whether a failure says something of the whole service, and not of one of many behind it.
    pub(super) const fn is_one_service(&self) -> bool {
        !matches!(self, Self::WebPush(_))
    }

    /// Waits for a place at the device's own host, where each device may have another one.
    pub(super) async fn gate(&self, device: &PushDevice) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::WebPush(web_push) => web_push.gate(&device.token).await,
            Self::Fcm(_) | Self::Apns(_) => None,
        }
    }

    /// Sends a push to a device, once.
    pub(super) async fn send(&self, device: &PushDevice, push: &Push) -> Answer {
        match self {
            Self::Fcm(fcm) => fcm.send(&device.token, push).await,
            Self::Apns(apns) => apns.send(&device.token, push).await,
            Self::WebPush(web_push) => web_push.send(&device.token, push).await,
        }
    }
}

fn is_hexadecimal(token: &str) -> bool {
    token.len() >= 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A service that did not answer.
pub(super) fn unreachable(error: &reqwest::Error) -> Answer {
    let reason = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "unreachable"
    } else {
        "broke off"
    };
    Answer::Retry { after: None, reason }
}

/// A status that means the same with every service; `None` where its body decides.
pub(super) fn by_status(status: StatusCode, headers: &HeaderMap) -> Option<Answer> {
    let retry = |reason| Some(Answer::Retry { after: retry_after(headers), reason });
    match status.as_u16() {
        200..=299 => Some(Answer::Sent),
        // Never followed: it would take the push elsewhere.
        300..=399 => Some(Answer::Rejected("redirected")),
        408 => retry("timed out"),
        429 => retry("throttled"),
        500..=599 => retry("server error"),
        _ => None,
    }
}

/// `Retry-After` in seconds; a date is not used by these services and counts as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The body of an answer, as far as it may matter.
pub(super) async fn read(mut response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if body.len() >= MAX_ANSWER {
            break;
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_believed_within_reason() {
        let after = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(text))]))
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(after("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
