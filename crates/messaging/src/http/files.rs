//! `/api/uploads` and `/files/:id/:name`.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{StatusCode, header, request::Parts},
    response::Response,
};

use super::{
    AppState,
    auth::Authenticated,
    envelope::Success,
    params::{PathId, Query},
};
use crate::{errors::Error, files::Variant, ids::AttachmentId};

/// `POST /api/uploads`: multipart with the file in `file` or `image`; 201 with its id and links.
pub(super) async fn upload_file(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Error> {
    let files = state.chat.files();
    let multipart = files.open_upload(request).await?;
    let permit = match state.chat.start_upload(caller.user_id).await {
        Ok(permit) => permit,
        Err(error) => {
            files.discard(multipart, state.limits.body_timeout).await;
            return Err(error);
        }
    };
    let stored = files.receive(multipart, permit.used, state.limits.body_timeout).await?;
    let attachment = state.chat.finish_upload(caller.user_id, stored).await?;
    Ok(Success::created(attachment).with_rate_limit(permit.rate_limit).at(state.clock.now()))
}

/// `GET /files/:id/:name`: the bytes, for whoever holds a signed link or may see the file. The name is
/// for people; the id says which file.
pub(super) async fn get_file(
    State(state): State<AppState>,
    PathId(id): PathId,
    query: Query,
    mut parts: Parts,
) -> Result<Response, Error> {
    let id = AttachmentId(id);
    let variant = Variant::parse(query.text("variant"))?;
    let files = state.chat.files();
    let link = query.text("exp").zip(query.text("sig")).map(|(exp, sig)| files.verify(id, variant, exp, sig));
    let has_bearer = parts.headers.contains_key(header::AUTHORIZATION);
    let file = match link {
        Some(Ok(())) => state.chat.linked_file(id).await?,
        // A client that sends both is let in by either.
        Some(Err(error)) if !has_bearer => return Err(error),
        _ => {
            let Authenticated(caller) = Authenticated::from_request_parts(&mut parts, &state).await?;
            state.chat.visible_file(caller.user_id, id).await?
        }
    };
    let mut response = files.serve(&file, variant, &parts.headers).await?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        let error = Error::BadRequest("The file does not have the range that was asked for.".into());
        response.extensions_mut().insert(Arc::new(error));
    }
    Ok(response)
}
