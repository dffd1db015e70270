//! Who is calling: the bearer of a request, and `POST /auth/validate-token`.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, header, request::Parts},
    response::Response,
};

use super::{AppState, answers::TokenAnswer, body::JsonText, envelope::Success};
use crate::{chat::Fields, errors::Error, identity::Caller};

/// The caller, known by the request's bearer.
#[derive(Debug, Clone)]
pub(super) struct Authenticated(pub(super) Arc<Caller>);

impl FromRequestParts<AppState> for Authenticated {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let bearer = bearer(&parts.headers).ok_or(Error::Unauthenticated)?;
        state.identity.authenticate(bearer).await.map(Self)
    }
}

/// The token of `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// `POST /auth/validate-token`: 200 either way; an invalid token is `valid: false`, not an error.
pub(super) async fn validate_token(State(state): State<AppState>, body: JsonText) -> Result<Response, Error> {
    let mut fields = Fields::parse(&body.0)?;
    let token = fields.text("token").filter(|token| !token.trim().is_empty());
    if token.is_none() && !fields.is_refused() {
        fields.refuse("token", "The token field is required.");
    }
    let token = fields.finish(token)?;
    let caller = match state.identity.authenticate(&token).await {
        Ok(caller) => Some(caller),
        Err(Error::Unauthenticated) => None,
        Err(error) => return Err(error),
    };
    let user = caller.as_ref().map(|caller| &*caller.profile);
    let data = TokenAnswer { valid: caller.is_some(), user_id: user.map(|user| user.id), user };
    let (valid, user_id) = (data.valid, data.user_id);
    Ok(Success::ok(data)
        .with_flat("valid", valid)
        .with_flat("user_id", user_id)
        .with_flat("user", user)
        .at(state.clock.now()))
}
