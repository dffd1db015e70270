//! Apple's push service, directly: HTTP/2, a signed token that is renewed in time, and its reasons.

use std::time::Duration;

use jsonwebtoken::{Algorithm, Header};
use parking_lot::Mutex;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    message::{Badge, Notification, Push},
    provider::{Answer, by_status, read, unreachable},
};
use crate::{
    clock::{Clock, Timestamp},
    config::ApnsAccount,
    identity::main_api::install_crypto_provider,
};

/// A token is refused when it is older than an hour, and a new one when it comes within twenty minutes
/// of the last.
const RENEW_AFTER: Duration = Duration::from_secs(40 * 60);
/// A token that was refused is replaced, but not sooner than Apple takes another one.
const REPLACE_AFTER: Duration = Duration::from_secs(20 * 60);
/// What Apple takes of a payload.
const MAX_PAYLOAD: usize = 4096;
/// How long Apple keeps a push for a phone that is off.
const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Apple's push service for one app.
pub(super) struct Apns {
    account: ApnsAccount,
    client: Client,
    clock: Clock,
    token: Mutex<Option<(String, Timestamp)>>,
}

impl std::fmt::Debug for Apns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Apns").field("account", &self.account).finish_non_exhaustive()
    }
}

#[derive(Deserialize, Default)]
struct ErrorAnswer {
    #[serde(default)]
    reason: String,
    /// Of a 410: since when the token is dead, in milliseconds.
    timestamp: Option<i64>,
}

struct Request {
    payload: String,
    priority: &'static str,
    collapse_id: String,
}

impl Apns {
    pub(super) fn new(account: ApnsAccount, timeout: Duration, clock: Clock) -> reqwest::Result<Self> {
        install_crypto_provider();
        // Apple speaks nothing else; without TLS (a stand-in) there is nothing to negotiate it by.
        let builder = Client::builder()
            .http2_prior_knowledge()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(timeout)
            .http2_keep_alive_interval(Duration::from_secs(60))
            .http2_keep_alive_timeout(Duration::from_secs(10));
        let is_plain = account.base_url.starts_with("http:");
        let client = if is_plain { builder.tls_certs_only([]).build()? } else { builder.build()? };
        Ok(Self { account, client, clock, token: Mutex::new(None) })
    }

    pub(super) async fn send(&self, device: &str, push: &Push) -> Answer {
        let request = match push {
            Push::Message(notification) => of_message(notification),
            Push::Badge(badge) => of_badge(badge),
        };
        let Some(token) = self.token() else { return Answer::Rejected("APNS_KEY does not sign") };
        // A token is hexadecimal, or this service does not carry to it: nothing to escape.
        let url = format!("{}/3/device/{device}", self.account.base_url);
        let expiration = self.clock.now().plus(KEEP).as_seconds().to_string();
        let sent = self
            .client
            .post(url)
            .header("authorization", format!("bearer {token}"))
            .header("apns-topic", &self.account.topic)
            // A badge is shown, so that this is no background push, which must show nothing.
            .header("apns-push-type", "alert")
            .header("apns-priority", request.priority)
            .header("apns-expiration", expiration)
            .header("apns-collapse-id", request.collapse_id)
            .header("content-type", "application/json")
            .body(request.payload);
        let response = match sent.send().await {
            Ok(response) => response,
            Err(error) => return unreachable(&error),
        };
        let status = response.status();
        if let Some(answer) = by_status(status, response.headers()) {
            return answer;
        }
        let error: ErrorAnswer = serde_json::from_slice(&read(response).await).unwrap_or_default();
        if matches!(error.reason.as_str(), "ExpiredProviderToken" | "InvalidProviderToken") {
            return self.replace_token(&token);
        }
        judge(status, &error)
    }

    fn token(&self) -> Option<String> {
        let now = self.clock.now();
        let mut token = self.token.lock();
        if let Some((token, made_at)) = token.as_ref()
            && now.since(*made_at) < RENEW_AFTER
            && now >= *made_at
        {
            return Some(token.clone());
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.account.key_id.clone());
        let claims = json!({"iss": self.account.team_id, "iat": now.as_seconds()});
        let made = jsonwebtoken::encode(&header, &claims, &self.account.key).ok()?;
        *token = Some((made.clone(), now));
        Some(made)
    }

    /// A token was refused: the next try has another one, unless Apple would take that amiss.
    fn replace_token(&self, refused: &str) -> Answer {
        let now = self.clock.now();
        let mut token = self.token.lock();
        match token.as_ref() {
            Some((current, made_at)) if current == refused && now.since(*made_at) < REPLACE_AFTER => {
                Answer::Rejected("APNS_KEY, APNS_KEY_ID or APNS_TEAM_ID is refused")
            }
            _ => {
                token.take_if(|(current, _)| current == refused);
                Answer::Retry { after: None, reason: "the token is refused" }
            }
        }
    }
}

fn judge(status: StatusCode, error: &ErrorAnswer) -> Answer {
    match (status.as_u16(), error.reason.as_str()) {
        (410, _) => Answer::Dead { since: error.timestamp.map(Timestamp::from_millis) },
        (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => Answer::Dead { since: None },
        (400 | 403, "BadTopic" | "TopicDisallowed" | "MissingTopic") => {
            Answer::Rejected("APNS_TOPIC is refused")
        }
        (413, _) => Answer::Rejected("a payload that is too large"),
        (403, _) => Answer::Rejected("APNS_KEY is refused"),
        _ => Answer::Rejected("an unexpected answer"),
    }
}

fn of_message(notification: &Notification) -> Request {
    let mut fitting = notification.clone();
    let payload = loop {
        let payload = payload_of(&fitting).to_string();
        match fitting.shortened() {
            Some(shorter) if payload.len() > MAX_PAYLOAD => fitting = shorter,
            _ => break payload,
        }
    };
    Request { payload, priority: "10", collapse_id: notification.tag() }
}

fn payload_of(notification: &Notification) -> Value {
    let mut alert = json!({"title": notification.title, "body": notification.body});
    if let Some(subtitle) = &notification.subtitle {
        alert["subtitle"] = Value::from(subtitle.as_str());
    }
    let mut payload = json!({"aps": {
        "alert": alert, "badge": notification.badge, "sound": "default", "thread-id": notification.tag(),
    }});
    for (name, value) in notification.data() {
        payload[name] = Value::from(value);
    }
    payload
}

fn of_badge(badge: &Badge) -> Request {
    let payload = json!({
        "aps": {"badge": badge.count, "content-available": 1},
        "type": "badge",
        "unread_count": badge.count.to_string(),
        "conversation_ids": badge.withdrawn_text(),
    });
    Request { payload: payload.to_string(), priority: "5", collapse_id: "badge".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::facts;

    #[test]
    fn a_reason_says_whether_the_token_is_dead() {
        let judged = |status: u16, body: Value| {
            judge(StatusCode::from_u16(status).unwrap(), &serde_json::from_value(body).unwrap())
        };
        assert_eq!(
            judged(410, json!({"reason": "Unregistered", "timestamp": 1_767_225_600_000_i64})),
            Answer::Dead { since: Some(Timestamp::from_millis(1_767_225_600_000)) }
        );
        for reason in ["BadDeviceToken", "DeviceTokenNotForTopic"] {
            assert_eq!(judged(400, json!({"reason": reason})), Answer::Dead { since: None });
        }
        for (status, reason) in [
            (400, "BadTopic"),
            (403, "Forbidden"),
            (413, "PayloadTooLarge"),
            (400, "BadMessageId"),
            (404, "BadPath"),
        ] {
            assert!(matches!(judged(status, json!({"reason": reason})), Answer::Rejected(_)), "{reason}");
        }
    }

    #[test]
    fn a_payload_fits_whatever_its_text() {
        let mut notification = Notification::new(&facts("x", "text", 1), "Anna", None).unwrap();
        notification.body = "👍".repeat(5000);
        let request = of_message(&notification);
        assert!(request.payload.len() <= MAX_PAYLOAD);
        let payload: Value = serde_json::from_str(&request.payload).unwrap();
        assert!(payload["aps"]["alert"]["body"].as_str().unwrap().starts_with('👍'));
    }
}
