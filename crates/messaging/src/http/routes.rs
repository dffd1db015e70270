//! Every route, in one list: the router and the documents are both made of it.

use axum::{Router, routing::MethodRouter};

use super::{
    AppState, auth, conversations, documents, files, health, internal, internal_webhooks, messages, metrics,
    unsubscribe, users,
};

/// A method at a path, and the operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The path with `{parameters}`.
    pub path: &'static str,
    /// The method in lower case, as OpenAPI writes it.
    pub method: &'static str,
    /// The handler's name, which is also the operation's id; an alias has one of its own.
    pub operation: &'static str,
}

macro_rules! routes {
    ($($path:literal => $($method:ident $module:ident::$handler:ident $(as $alias:literal)?),+;)+) => {
        /// All routes but those of the live connections and of the demo.
        pub const ROUTES: &[Route] = &[$($(Route {
            path: $path,
            method: stringify!($method),
            operation: operation!($handler $($alias)?),
        }),+),+];

        /// The routes with their handlers.
        pub(super) fn router() -> Router<AppState> {
            Router::new()$(.route($path, MethodRouter::new()$(.$method($module::$handler))+))+
        }
    };
}

macro_rules! operation {
    ($handler:ident) => {
        stringify!($handler)
    };
    ($handler:ident $alias:literal) => {
        $alias
    };
}

routes! {
    "/auth/validate-token" => post auth::validate_token;

    "/api/conversations" => get conversations::list_conversations;
    "/api/conversations/unread/count" => get conversations::count_unread;
    "/api/conversations/{id}" =>
        get conversations::get_conversation,
        delete conversations::delete_conversation;
    "/api/conversations/{id}/read" => post conversations::read_conversation;
    "/api/conversations/{id}/archive" => post conversations::archive_conversation;
    "/api/conversations/{id}/unarchive" => post conversations::unarchive_conversation;
    "/api/conversations/{id}/mute" => post conversations::mute_conversation;
    "/api/conversations/{id}/unmute" => post conversations::unmute_conversation;
    "/api/conversations/{id}/messages" => get messages::list_messages;

    "/api/messages" => post messages::send_message;
    "/api/messages/search" => get messages::search_messages;
    "/api/messages/{id}" => put messages::edit_message, delete messages::delete_message;
    "/api/messages/{id}/reactions" => post messages::add_reaction;
    "/api/messages/{id}/reactions/{emoji}" => delete messages::remove_reaction;
    "/api/sync" => get messages::sync_events;

    "/api/uploads" => post files::upload_file;
    "/files/{id}/{name}" => get files::get_file;

    "/api/presence" => get users::get_presence;
    "/api/users/{id}/block" => post users::block_user, delete users::unblock_user;
    "/api/blocks" => get users::list_blocks;
    "/api/devices" =>
        get users::list_devices,
        post users::register_device,
        delete users::forget_device;
    "/api/fcm/token" =>
        get users::list_devices as "list_fcm_tokens",
        post users::register_device as "register_fcm_token",
        delete users::forget_device as "forget_fcm_token";
    "/api/notifications/preferences" => get users::get_preferences, put users::put_preferences;
    "/api/notifications/vapid-key" => get users::get_vapid_key;

    "/internal/webhooks/dead" => get internal_webhooks::list_dead_webhooks;
    "/internal/webhooks/dead/replay" => post internal_webhooks::replay_webhooks;
    "/internal/webhooks/dead/{id}/replay" => post internal_webhooks::replay_webhook;
    "/internal/messages" => post internal::post_message;
    "/internal/offers/{id}" => patch internal::update_offer;
    "/internal/tokens/forget" => post internal::forget_token;
    "/internal/users/{id}" => delete internal::erase_user;
    "/internal/users/{id}/logout" => post internal::logout_user;
    "/internal/users/{id}/refresh" => post internal::refresh_user;
    "/internal/users/{id}/export" => get internal::export_user;
    "/internal/products/{id}/refresh" => post internal::refresh_product;
    "/unsubscribe/{id}" => get unsubscribe::ask_to_unsubscribe, post unsubscribe::unsubscribe;

    "/health" => get health::get_health;
    "/ready" => get health::get_ready;
    "/metrics" => get metrics::get_metrics;

    "/openapi.json" => get documents::get_openapi;
    "/asyncapi.json" => get documents::get_asyncapi;
    "/docs" => get documents::get_docs;
    "/docs/{file}" => get documents::get_docs_file;
}
