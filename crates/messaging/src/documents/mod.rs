//! What the service says of itself: OpenAPI 3.1, AsyncAPI 3 and a page that shows both.
//!
//! The top of the house: it looks at the routes of `http`, the events of `socket` and the types they
//! speak, and nothing looks at it but `server`. `operations` describes REST and `events` the live part;
//! schemas and examples come from the types that are really sent. Start with `openapi` or `asyncapi`.

mod asyncapi;
mod errors;
mod events;
mod examples;
mod internal;
mod openapi;
mod operation;
mod operations;
mod page;
mod requests;
mod schemas;

use serde_json::Value;

use crate::http::Documents;

/// The OpenAPI document; `server` is the service's public address, `/` where it is not known.
pub fn openapi(server: &str) -> Value {
    openapi::document(server)
}

/// The AsyncAPI document.
pub fn asyncapi(server: &str) -> Value {
    asyncapi::document(server)
}

/// All documents, to be handed out by `http`.
pub fn all(public_url: Option<&str>) -> Documents {
    let server = public_url.unwrap_or("/");
    let json = "application/json; charset=utf-8";
    let documents = [
        ("openapi.json", json, openapi(server).to_string()),
        ("asyncapi.json", json, asyncapi(server).to_string()),
    ];
    Documents::new(documents.into_iter().chain(page::files()))
}
