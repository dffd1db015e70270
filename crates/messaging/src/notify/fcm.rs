//! Firebase Cloud Messaging, HTTP v1: access tokens by a signed request, pushes, and its errors.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, Header};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::{
    message::{Notification, Push},
    provider::{Answer, by_status, read, unreachable},
};
use crate::{clock::Clock, config::FcmAccount, outbound};

/// What the access token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// How long the signed request for an access token holds; an hour is the longest allowed.
const ASSERTION: Duration = Duration::from_secs(3600);
/// An access token is renewed so long before its end, or at half its life where that is short.
const EARLY: Duration = Duration::from_secs(300);
/// After a failure, those who waited for the same token do not ask once more each.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// The channel that the app makes for these notifications (docs/notifications.md).
pub(super) const CHANNEL: &str = "rented_notifications";
/// What FCM takes of a message, its token apart.
const MAX_PAYLOAD: usize = 4096;

/// FCM for one project.
pub(super) struct Fcm {
    account: FcmAccount,
    client: Client,
    send_url: String,
    clock: Clock,
    /// Held while a token is fetched: one request for all who wait, and one failure too.
    access: Mutex<Option<Access>>,
}

struct Access {
    /// Or why there is none.
    token: Result<String, Answer>,
    renew_at: Instant,
}

impl std::fmt::Debug for Fcm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Fcm").field("account", &self.account).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

/// What an error of FCM tells, of which there is more.
#[derive(Deserialize, Default)]
struct ErrorAnswer {
    #[serde(default)]
    error: ErrorBody,
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    status: String,
    #[serde(default)]
    details: Vec<ErrorDetail>,
}

#[derive(Deserialize, Default)]
struct ErrorDetail {
    #[serde(rename = "errorCode", default)]
    error_code: String,
    #[serde(rename = "fieldViolations", default)]
    field_violations: Vec<FieldViolation>,
}

#[derive(Deserialize)]
struct FieldViolation {
    #[serde(default)]
    field: String,
}

impl Fcm {
    pub(super) fn new(account: FcmAccount, timeout: Duration, clock: Clock) -> reqwest::Result<Self> {
        let client = outbound::client_of(&[&account.base_url, &account.token_url], timeout)?;
        let send_url = format!("{}/v1/projects/{}/messages:send", account.base_url, account.project_id);
        Ok(Self { account, client, send_url, clock, access: Mutex::new(None) })
    }

    pub(super) async fn send(&self, device: &str, push: &Push) -> Answer {
        let body = to_body(device, push);
        let mut answer = self.try_send(&body).await;
        if answer == STALE {
            // The token was taken back before its time: once with a new one.
            *self.access.lock().await = None;
            answer = self.try_send(&body).await;
        }
        answer
    }

    async fn try_send(&self, body: &str) -> Answer {
        let token = match self.access_token().await {
            Ok(token) => token,
            Err(answer) => return answer,
        };
        let request = self
            .client
            .post(&self.send_url)
            .bearer_auth(token)
            .header("content-type", "application/json; charset=utf-8")
            .body(body.to_owned());
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return unreachable(&error),
        };
        let status = response.status();
        if let Some(answer) = by_status(status, response.headers()) {
            return answer;
        }
        let error: ErrorAnswer = serde_json::from_slice(&read(response).await).unwrap_or_default();
        judge(status, &error.error)
    }

    async fn access_token(&self) -> Result<String, Answer> {
        let mut access = self.access.lock().await;
        if let Some(access) = access.as_ref().filter(|access| Instant::now() < access.renew_at) {
            return access.token.clone();
        }
        let fetched = self.fetch_token().await;
        let fetched = fetched
            .unwrap_or_else(|answer| Access { token: Err(answer), renew_at: Instant::now() + ASK_AGAIN });
        access.insert(fetched).token.clone()
    }

    async fn fetch_token(&self) -> Result<Access, Answer> {
        let now = self.clock.now().as_seconds();
        let account = &self.account;
        let claims = json!({
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_url,
            "iat": now,
            "exp": now.saturating_add_unsigned(ASSERTION.as_secs()),
        });
        let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &account.key)
            .map_err(|_| Answer::Rejected("the service account's key does not sign"))?;
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let asked = Instant::now();
        let request = self
            .client
            .post(&account.token_url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        match by_status(response.status(), response.headers()) {
            Some(Answer::Sent) => {}
            Some(answer) => return Err(answer),
            // Until somebody sets it right; pushes of the last minutes go out then.
            None => {
                return Err(Answer::Retry { after: None, reason: "the service account is refused" });
            }
        }
        let answer: TokenAnswer = serde_json::from_slice(&read(response).await)
            .map_err(|_| Answer::Retry { after: None, reason: "no access token in the answer" })?;
        let life = Duration::from_secs(answer.expires_in);
        let renew_after = life.saturating_sub(EARLY).max(life / 2);
        Ok(Access { token: Ok(answer.access_token), renew_at: asked + renew_after })
    }
}

const STALE: Answer = Answer::Rejected("the access token is refused");

/// What an error means for the device. Only what is said of the token itself takes the token away.
fn judge(status: StatusCode, error: &ErrorBody) -> Answer {
    let dead = Answer::Dead { since: None };
    let has_code = |code: &str| error.details.iter().any(|detail| detail.error_code == code);
    if has_code("UNREGISTERED") || has_code("SENDER_ID_MISMATCH") {
        return dead;
    }
    let violations = || error.details.iter().flat_map(|detail| &detail.field_violations);
    match (status.as_u16(), error.status.as_str()) {
        // A 404 of something else than FCM says nothing of the device.
        (404, "NOT_FOUND") => dead,
        (400, _) if violations().any(|violation| violation.field == "message.token") => dead,
        (400, _) => Answer::Rejected("an invalid message"),
        (401, _) if has_code("THIRD_PARTY_AUTH_ERROR") => {
            Answer::Rejected("Apple's key in Firebase is refused")
        }
        (401, _) => STALE,
        (403, _) => Answer::Rejected("the project is refused"),
        _ => Answer::Rejected("an unexpected answer"),
    }
}

/// The request's JSON, with a text that fits.
fn to_body(device: &str, push: &Push) -> String {
    let mut message = match push {
        Push::Message(notification) => {
            let mut fitting = notification.clone();
            loop {
                let message = message_of(&fitting);
                match fitting.shortened() {
                    Some(shorter) if message.to_string().len() > MAX_PAYLOAD => fitting = shorter,
                    _ => break message,
                }
            }
        }
        Push::Badge(badge) => json!({
            "data": {
                "type": "badge",
                "unread_count": badge.count.to_string(),
                "conversation_ids": badge.withdrawn_text(),
            },
            "android": {"priority": "NORMAL", "collapse_key": "badge"},
            "apns": {
                "headers": {"apns-priority": "5", "apns-collapse-id": "badge"},
                "payload": {"aps": {"badge": badge.count, "content-available": 1}},
            },
        }),
    };
    message["token"] = Value::from(device);
    json!({"message": message}).to_string()
}

fn message_of(notification: &Notification) -> Value {
    let tag = notification.tag();
    let data: Map<String, Value> =
        notification.data().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut alert = json!({"title": notification.title, "body": notification.body});
    if let Some(subtitle) = &notification.subtitle {
        alert["subtitle"] = Value::from(subtitle.as_str());
    }
    json!({
        "notification": {"title": notification.title, "body": notification.body},
        "data": data,
        "android": {
            "priority": "HIGH",
            "collapse_key": tag,
            "notification": {
                "channel_id": CHANNEL, "tag": tag, "notification_count": notification.badge,
            },
        },
        "apns": {
            "headers": {"apns-priority": "10", "apns-collapse-id": tag},
            "payload": {"aps": {
                "alert": alert, "badge": notification.badge, "sound": "default", "thread-id": tag,
            }},
        },
        "webpush": {
            "headers": {"Urgency": "high", "Topic": tag},
            "notification": {"tag": tag, "renotify": true},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::facts;

    fn judged(status: u16, body: Value) -> Answer {
        let error: ErrorAnswer = serde_json::from_value(body).unwrap();
        judge(StatusCode::from_u16(status).unwrap(), &error.error)
    }

    #[test]
    fn only_what_is_said_of_the_token_takes_it_away() {
        let dead = Answer::Dead { since: None };
        let coded = |status: &str, code: &str| {
            json!({"error": {"status": status, "message": "…", "details": [
                {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]}})
        };
        let violated = |field: &str| {
            json!({"error": {"status": "INVALID_ARGUMENT", "details": [
                {"@type": "type.googleapis.com/google.rpc.BadRequest",
                 "fieldViolations": [{"field": field, "description": "…"}]}]}})
        };
        assert_eq!(judged(404, coded("NOT_FOUND", "UNREGISTERED")), dead);
        assert_eq!(judged(404, json!({"error": {"status": "NOT_FOUND"}})), dead);
        assert_eq!(judged(403, coded("PERMISSION_DENIED", "SENDER_ID_MISMATCH")), dead);
        assert_eq!(judged(400, violated("message.token")), dead);
        for (status, body) in [
            (404, json!({})),
            (400, violated("message.data[0].value")),
            (400, coded("INVALID_ARGUMENT", "INVALID_ARGUMENT")),
            (401, coded("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")),
            (403, json!({"error": {"status": "PERMISSION_DENIED"}})),
            (418, json!({})),
        ] {
            assert!(matches!(judged(status, body.clone()), Answer::Rejected(_)), "{status} {body}");
        }
        assert_eq!(judged(401, json!({"error": {"status": "UNAUTHENTICATED"}})), STALE);
    }

    #[test]
    fn a_message_fits_whatever_its_text() {
        for text in ["x".repeat(5000), "👨‍👩‍👧‍👦".repeat(700), "\u{1}\"\\".repeat(3000), String::new()]
        {
            let mut notification = Notification::new(&facts(&text, "text", 2), &text, Some(&text)).unwrap();
            notification.body.clone_from(&text);
            let body: Value =
                serde_json::from_str(&to_body("a-token", &Push::Message(notification))).unwrap();
            let mut message = body["message"].clone();
            assert_eq!(message["token"], "a-token");
            message.as_object_mut().unwrap().remove("token");
            assert!(message.to_string().len() <= MAX_PAYLOAD, "{}", message.to_string().len());
            assert!(message["data"].as_object().unwrap().values().all(Value::is_string));
        }
    }
}
