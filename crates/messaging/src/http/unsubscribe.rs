//! `/unsubscribe/:id`: the link in a mail, for people and for their mail programs (RFC 8058).
//!
//! The link itself is the proof, nobody signs in. A GET only asks: scanners follow links.

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
};

use super::{
    AppState,
    params::{PathId, Query},
};
use crate::{
    errors::{Error, Result},
    ids::UserId,
};

/// Nothing from elsewhere; the one form goes where it came from.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// `GET /unsubscribe/:id`: a page with a button.
pub(super) async fn ask_to_unsubscribe(
    State(state): State<AppState>,
    PathId(id): PathId,
    query: Query,
) -> Result<Response> {
    let (exp, sig) = proof(&query)?;
    state.unsubscriptions.ask(UserId(id), exp, sig).await.map(page)
}

/// `POST /unsubscribe/:id`: no more mails. Whatever the body says: mail programs send
/// `List-Unsubscribe=One-Click`, and so does the page.
pub(super) async fn unsubscribe(
    State(state): State<AppState>,
    PathId(id): PathId,
    query: Query,
) -> Result<Response> {
    let (exp, sig) = proof(&query)?;
    state.unsubscriptions.unsubscribe(UserId(id), exp, sig).await.map(page)
}

fn proof(query: &Query) -> Result<(&str, &str)> {
    let proof = query.text("exp").zip(query.text("sig"));
    proof.ok_or_else(|| Error::Forbidden("This link is not valid.".into()))
}

fn page(html: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(html)).into_response()
}
