//! `/openapi.json`, `/asyncapi.json` and `/docs`: the service describes itself, without a token.
//!
//! What they say is made by [`crate::documents`] at the start; here it is only handed out.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::AppState;
use crate::errors::Error;

/// Nothing from elsewhere, nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The documents by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Documents(Arc<BTreeMap<&'static str, Document>>);

#[derive(Debug)]
struct Document {
    content_type: &'static str,
    bytes: Bytes,
    etag: String,
}

impl Documents {
    /// Takes documents in: name, content type and text of each.
    pub fn new(documents: impl IntoIterator<Item = (&'static str, &'static str, String)>) -> Self {
        let by_name = documents.into_iter().map(|(name, content_type, text)| {
            let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&text)));
            (name, Document { content_type, bytes: text.into(), etag })
        });
        Self(Arc::new(by_name.collect()))
    }

    fn answer(&self, name: &str, request: &HeaderMap) -> Result<Response, Error> {
        let not_found = || Error::NotFound("There is nothing at this address.".into());
        let document = self.0.get(name).ok_or_else(not_found)?;
        let headers = [
            (header::CONTENT_TYPE, document.content_type),
            (header::ETAG, document.etag.as_str()),
            // Always asked about, mostly answered with 304: a new binary shows its documents at once.
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let is_known = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == document.etag;
        if known.is_some_and(|known| known.split(',').map(str::trim).any(is_known)) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        Ok((headers, document.bytes.clone()).into_response())
    }
}

/// `GET /openapi.json`
pub(super) async fn get_openapi(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    state.documents.answer("openapi.json", &headers)
}

/// `GET /asyncapi.json`
pub(super) async fn get_asyncapi(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    state.documents.answer("asyncapi.json", &headers)
}

/// `GET /docs`: a page that shows both.
pub(super) async fn get_docs(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, Error> {
    state.documents.answer("docs", &headers)
}

/// `GET /docs/:file`: what the page is made of.
pub(super) async fn get_docs_file(
    State(state): State<AppState>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    state.documents.answer(&format!("docs/{file}"), &headers)
}
