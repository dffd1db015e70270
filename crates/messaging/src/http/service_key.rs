//! The key of the main API's own calls: everything under `/internal` asks for it before anything else.
//!
//! Without a key there is nothing at those addresses. A right key always passes; wrong ones are counted
//! by address, so that whoever sits behind the same address cannot lock the main API out. At 32 bytes
//! there is nothing to guess; the count keeps guessers cheap.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::Response,
};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{AppState, auth::bearer};
use crate::{config::Secret, errors::Error, limits::Addresses};

/// What all addresses of those calls begin with.
pub(super) const PREFIX: &str = "/internal";
/// Wrong keys a minute from one address, all of them at once if need be.
const MAX_FAILURES: u32 = 10;

/// The keys that are accepted. Cheap to clone.
#[derive(Clone)]
pub struct ServiceKeys {
    /// Compared instead of the keys: of one length, whatever the keys' are.
    digests: Arc<[[u8; 32]]>,
    failures: Arc<Addresses>,
}

impl std::fmt::Debug for ServiceKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ServiceKeys").field("count", &self.digests.len()).finish_non_exhaustive()
    }
}

impl ServiceKeys {
    /// The present key and perhaps the one before; none where there are no such calls.
    pub fn new(keys: &[Secret]) -> Self {
        let digests = keys.iter().map(|key| digest(key.expose())).collect();
        Self { digests, failures: Arc::new(Addresses::new(MAX_FAILURES, MAX_FAILURES)) }
    }

    /// Looks at all keys to the end, whichever is the right one.
    fn accepts(&self, given: &str) -> bool {
        let given = digest(given);
        let found = self.digests.iter().map(|known| known.ct_eq(&given));
        found.fold(Choice::from(0), |found, next| found | next).into()
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Proof that a request came with the key; handlers of such calls take it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromMainApi(());

impl FromRequestParts<AppState> for FromMainApi {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        parts.extensions.get::<Self>().copied().ok_or(Error::Unauthenticated)
    }
}

/// Whether a path is one of those calls'.
pub(super) fn is_internal(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Asks for the key before a handler, a method or an unknown address is looked at.
pub(super) async fn guard(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    if !is_internal(request.uri().path()) {
        return Ok(next.run(request).await);
    }
    let keys = &state.service_keys;
    if keys.digests.is_empty() {
        return super::not_found().await;
    }
    if !given_keys(request.headers()).any(|key| keys.accepts(key)) {
        keys.failures.count(state.edge.remote(&request), state.clock.now())?;
        return Err(Error::Unauthenticated);
    }
    request.extensions_mut().insert(FromMainApi(()));
    Ok(next.run(request).await)
}

/// `Authorization: Bearer …` and `X-Api-Key`.
fn given_keys(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let own = headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    bearer(headers).into_iter().chain(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_are_accepted_and_nothing_like_them() {
        let [new, old] = ["a".repeat(40), "b".repeat(32)];
        let keys = ServiceKeys::new(&[Secret::new(new.as_str()), Secret::new(old.as_str())]);
        assert!(keys.accepts(&new) && keys.accepts(&old));
        for wrong in ["", "a", &new[1..], &format!("{new}a"), &format!("{old} "), &new.to_uppercase()] {
            assert!(!keys.accepts(wrong), "{wrong}");
        }
        assert!(!ServiceKeys::new(&[]).accepts(""));
        assert!(!format!("{keys:?}").contains("aaaa"));
    }

    #[test]
    fn only_the_paths_below_are_meant() {
        assert!(is_internal("/internal") && is_internal("/internal/") && is_internal("/internal/x/y"));
        assert!(!is_internal("/internals") && !is_internal("/api/internal") && !is_internal("/"));
    }
}
