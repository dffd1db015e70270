//! REST: `routes` is the one list of all routes. Handlers decode, call `chat`, encode; rules live there.

pub mod answers;
mod auth;
mod body;
mod conversations;
mod documents;
mod envelope;
mod files;
mod health;
mod internal;
mod internal_webhooks;
mod messages;
mod metrics;
mod params;
mod routes;
mod service_key;
mod unsubscribe;
mod users;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    response::Response,
    routing::any,
};
use edge::{Edge, Origins};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    chat::Chat,
    clock::Clock,
    errors::Error,
    identity::{Identity, MainApi},
    notify::email::Unsubscriptions,
    shared::Redis,
    socket::Socket,
};

pub use documents::Documents;
pub use metrics::{MetricsAccess, metrics_router};
pub use routes::{ROUTES, Route};
pub use service_key::ServiceKeys;

/// What handlers need. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The rules.
    pub chat: Chat,
    /// Who is calling.
    pub identity: Identity,
    /// The main API, for its health.
    pub main_api: MainApi,
    /// Redis, for its health, if there is one.
    pub redis: Option<Redis>,
    /// The live connections.
    pub edge: Edge<Socket>,
    /// The time.
    pub clock: Clock,
    /// Limits of requests.
    pub limits: RequestLimits,
    /// Whether the service is on its way out.
    pub is_leaving: Arc<AtomicBool>,
    /// The keys of the main API's own calls.
    pub service_keys: ServiceKeys,
    /// Who may read metrics.
    pub metrics_access: MetricsAccess,
    /// What the service says of itself.
    pub documents: Documents,
    /// The way out of mails about unread messages.
    pub unsubscriptions: Unsubscriptions,
}

/// How large and how slow a request's body may be.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Bytes of a JSON body.
    pub max_body: usize,
    /// How long it may take to arrive.
    pub body_timeout: Duration,
}

/// All routes of the service; `page` has further ones for a browser.
pub fn router(state: AppState, origins: Origins, page: Router) -> Router {
    let rest = routes::router()
        .with_state(state.clone())
        .merge(page)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), service_key::guard))
        .layer(middleware::from_fn_with_state(state.clone(), envelope::finish))
        .layer(cors(origins));

    // The edge checks origins itself, on both transports.
    let live = state.edge.clone();
    let socket_io = move |request: Request| async move { live.socket_io(request).await };
    let live = state.edge;
    rest.route("/socket.io", any(socket_io.clone())).route("/socket.io/", any(socket_io)).layer(
        middleware::from_fn(move |request: Request, next: middleware::Next| {
            let live = live.clone();
            async move {
                // The app connects to the bare address (contract 4.2), where a browser gets a page.
                if matches!(request.uri().path(), "/" | "/ws") && Edge::<Socket>::is_upgrade(&request) {
                    live.plain(request).await
                } else {
                    next.run(request).await
                }
            }
        }),
    )
}

async fn not_found() -> Result<Response, Error> {
    Err(Error::NotFound("There is nothing at this address.".into()))
}

async fn method_not_allowed() -> Result<Response, Error> {
    Err(Error::MethodNotAllowed)
}

fn cors(origins: Origins) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin: &HeaderValue, request| {
            // The main API's own calls are no page's.
            !service_key::is_internal(request.uri.path())
                && origin.to_str().is_ok_and(|origin| origins.allows(origin))
        }))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(AllowHeaders::list([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            header::RANGE,
            header::IF_NONE_MATCH,
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("x-requested-with"),
        ]))
        .expose_headers([
            header::RETRY_AFTER,
            header::ETAG,
            header::CONTENT_DISPOSITION,
            header::CONTENT_RANGE,
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("x-ratelimit-limit"),
            HeaderName::from_static("x-ratelimit-remaining"),
            HeaderName::from_static("x-ratelimit-reset"),
            HeaderName::from_static("idempotent-replayed"),
        ])
        .max_age(Duration::from_secs(600))
}
