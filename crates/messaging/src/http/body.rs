//! Request bodies: bounded in size and time, JSON or nothing.

use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};

use super::AppState;
use crate::errors::Error;

/// The text of a JSON body; empty if there is none. What it says is parsed in `chat`.
#[derive(Debug)]
pub(super) struct JsonText(pub(super) String);

impl FromRequest<AppState> for JsonText {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let limit = state.limits.max_body;
        let is_json = is_json(request.headers());
        let too_large = || Error::PayloadTooLarge { limit: u64::try_from(limit).unwrap_or(u64::MAX) };
        // Refused by its announcement, before any of it is read.
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if announced.and_then(|value| value.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let body = tokio::time::timeout(state.limits.body_timeout, to_bytes(request.into_body(), limit))
            .await
            .map_err(|_| Error::BadRequest("The body took too long to arrive.".into()))?
            .map_err(|error| {
                if is_length_limit(&error) {
                    too_large()
                } else {
                    Error::BadRequest("The body could not be read.".into())
                }
            })?;
        if !body.is_empty() && !is_json {
            return Err(Error::UnsupportedMediaType("The body must be application/json.".into()));
        }
        String::from_utf8(body.into())
            .map(Self)
            .map_err(|_| Error::BadRequest("The body is not valid UTF-8.".into()))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}
