//! REST: every route, in one list. Handlers decode, call `chat`, encode; rules live there.

mod auth;
mod body;
mod conversations;
mod envelope;
mod files;
mod health;
mod messages;
mod metrics;
mod params;
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
    routing::{any, delete, get, post, put},
};
use edge::{Edge, Origins};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    chat::Chat,
    clock::Clock,
    errors::Error,
    identity::{Identity, MainApi},
    shared::Redis,
    socket::Socket,
};

pub use metrics::{MetricsAccess, metrics_router};

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
    /// Who may read metrics.
    pub metrics_access: MetricsAccess,
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
    let rest = Router::new()
        .route("/auth/validate-token", post(auth::validate_token))
        .route("/api/conversations", get(conversations::list_conversations))
        .route("/api/conversations/unread/count", get(conversations::count_unread))
        .route(
            "/api/conversations/{id}",
            get(conversations::get_conversation).delete(conversations::delete_conversation),
        )
        .route("/api/conversations/{id}/read", post(conversations::read_conversation))
        .route("/api/conversations/{id}/archive", post(conversations::archive_conversation))
        .route("/api/conversations/{id}/unarchive", post(conversations::unarchive_conversation))
        .route("/api/conversations/{id}/mute", post(conversations::mute_conversation))
        .route("/api/conversations/{id}/unmute", post(conversations::unmute_conversation))
        .route("/api/conversations/{id}/messages", get(messages::list_messages))
        .route("/api/messages", post(messages::send_message))
        .route("/api/messages/search", get(messages::search_messages))
        .route("/api/messages/{id}", put(messages::edit_message).delete(messages::delete_message))
        .route("/api/messages/{id}/reactions", post(messages::add_reaction))
        .route("/api/messages/{id}/reactions/{emoji}", delete(messages::remove_reaction))
        .route("/api/users/{id}/block", post(users::block_user).delete(users::unblock_user))
        .route("/api/blocks", get(users::list_blocks))
        .route(
            "/api/devices",
            get(users::list_devices).post(users::register_device).delete(users::forget_device),
        )
        .route(
            "/api/fcm/token",
            get(users::list_devices).post(users::register_device).delete(users::forget_device),
        )
        .route("/api/notifications/preferences", get(users::get_preferences).put(users::put_preferences))
        .route("/api/uploads", post(files::upload_file))
        .route("/files/{id}/{name}", get(files::get_file))
        .route("/api/sync", get(messages::sync_events))
        .route("/api/presence", get(users::get_presence))
        .route("/health", get(health::get_health))
        .route("/ready", get(health::get_ready))
        .route("/metrics", get(metrics::get_metrics))
        .with_state(state.clone())
        .merge(page)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
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
        .allow_origin(AllowOrigin::predicate(move |origin: &HeaderValue, _| {
            origin.to_str().is_ok_and(|origin| origins.allows(origin))
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
