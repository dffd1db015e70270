//! OpenAPI 3.1: the routes with their operations.

use serde_json::{Map, Value, json};

use super::{
    errors, events,
    operation::{headers, meta_schema},
    operations::{self, TAGS},
    schemas::Schemas,
};
use crate::http::ROUTES;

const DESCRIPTION: &str = "\
Every conversation of a rental marketplace: REST here, live events in `/asyncapi.json`.

A successful answer is `{\"success\": true, \"data\": …, \"meta\": {\"timestamp\": …}}`; a refused one is an `Error` with a \
code that never changes. Ids are positive 64-bit integers, times RFC 3339 in UTC with milliseconds. Bodies may carry \
unknown fields, which are ignored. An unknown address is `NOT_FOUND`, a known one with another method \
`METHOD_NOT_ALLOWED`. Limits are per user over all transports and nodes.";

/// The document; `server` is the service's public address.
pub(super) fn document(server: &str) -> Value {
    let mut schemas = Schemas::new();
    let mut described: Map<String, Value> = operations::all(&mut schemas)
        .into_iter()
        .map(|operation| (operation.id.to_owned(), operation.into_json()))
        .collect();
    let mut paths = Map::new();
    for route in ROUTES {
        // A route without a description is left out, and found by the test.
        if let Some(operation) = described.remove(route.operation) {
            let path = paths.entry(route.path).or_insert_with(|| json!({}));
            path[route.method] = operation;
        }
    }
    let tags: Vec<_> = TAGS.iter().map(|(name, text)| json!({"name": name, "description": text})).collect();
    let by_hand = [
        ("Error", errors::body_schema()),
        ("ErrorDetails", errors::details_schema()),
        ("FieldErrors", errors::fields_schema()),
        ("Meta", meta_schema(false)),
        ("PageMeta", meta_schema(true)),
        ("NotReady", operations::not_ready_schema()),
        // The type holds its data as text; what that is, the events say.
        ("SyncEvent", events::sync_event_schema(&mut schemas)),
    ];
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rented Messaging",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "security": [{"bearer": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.into_components(by_hand),
            "headers": headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the main API: Sanctum's or a JWT."},
                "serviceKey": {"type": "http", "scheme": "bearer", "description": "`SERVICE_API_KEY`: the main API's own."},
                "serviceKeyHeader": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The same key in a header of its own."},
                "metricsToken": {"type": "http", "scheme": "bearer", "description": "`METRICS_TOKEN`."},
            },
        },
        "x-errors": errors::catalogue(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_everything_described_is_a_route() {
        let routes: BTreeSet<_> = ROUTES.iter().map(|route| route.operation).collect();
        assert_eq!(routes.len(), ROUTES.len(), "two routes have one name");
        let described: Vec<_> =
            operations::all(&mut Schemas::new()).into_iter().map(|operation| operation.id).collect();
        assert_eq!(described.len(), described.iter().collect::<BTreeSet<_>>().len(), "described twice");
        assert_eq!(routes, described.into_iter().collect());
    }
}
