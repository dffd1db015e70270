//! The demo page's files, embedded in the binary, and what the page has to know about the people.
//!
//! `/` is the page, everything else is under `/demo/`. The files are those of `web/`, as they are:
//! there is no build step. Who the people are comes from `main_api.rs`.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::main_api::Person;
use crate::errors::Error;

/// Nothing from elsewhere, nothing inline. `blob:` is for the preview of a picture being sent.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self' ws: wss:; style-src 'self'; script-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What the page is told at `/demo/config.json`.
#[derive(Debug, Clone, Serialize)]
pub struct PageConfig {
    /// The people whose phones are shown, renter first.
    pub users: Vec<PageUser>,
    /// The marketplace's products in the main API's shape, without e-mail addresses.
    pub products: Vec<Value>,
}

/// One of the two people, with what their phone needs to sign in.
#[derive(Debug, Clone, Serialize)]
pub struct PageUser {
    role: &'static str,
    id: i64,
    name: &'static str,
    avatar_url: &'static str,
    token: String,
}

impl From<&Person> for PageUser {
    fn from(person: &Person) -> Self {
        Self {
            role: person.role,
            id: person.id,
            name: person.name,
            avatar_url: person.avatar_url,
            token: person.token.clone(),
        }
    }
}

struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($file:literal at $path:literal as $content_type:expr) => {
        Asset {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../../../../web/", $file)),
        }
    };
    ($file:literal as $content_type:expr) => {
        Asset {
            path: concat!("/demo/", $file),
            content_type: $content_type,
            bytes: include_bytes!(concat!("../../../../web/", $file)),
        }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const ASSETS: &[Asset] = &[
    asset!("index.html" at "/" as HTML),
    asset!("styles/stage.css" as CSS),
    asset!("styles/phone.css" as CSS),
    asset!("styles/chat.css" as CSS),
    asset!("app/actions.js" as SCRIPT),
    asset!("app/api.js" as SCRIPT),
    asset!("app/bubble.js" as SCRIPT),
    asset!("app/composer.js" as SCRIPT),
    asset!("app/dom.js" as SCRIPT),
    asset!("app/format.js" as SCRIPT),
    asset!("app/inbox.js" as SCRIPT),
    asset!("app/journal.js" as SCRIPT),
    asset!("app/live.js" as SCRIPT),
    asset!("app/lock.js" as SCRIPT),
    asset!("app/main.js" as SCRIPT),
    asset!("app/outbox.js" as SCRIPT),
    asset!("app/parts.js" as SCRIPT),
    asset!("app/phone.js" as SCRIPT),
    asset!("app/session.js" as SCRIPT),
    asset!("app/thread.js" as SCRIPT),
    asset!("app/wire.js" as SCRIPT),
    asset!("app/screens/chat.js" as SCRIPT),
    asset!("app/screens/explore.js" as SCRIPT),
    asset!("app/screens/list.js" as SCRIPT),
    asset!("app/screens/search.js" as SCRIPT),
    asset!("pictures/bicycle.svg" as SVG),
    asset!("pictures/camera.svg" as SVG),
    asset!("pictures/drill.svg" as SVG),
    asset!("pictures/flat.svg" as SVG),
    asset!("pictures/logo.svg" as SVG),
    asset!("pictures/owner.svg" as SVG),
    asset!("pictures/renter.svg" as SVG),
    asset!("pictures/tent.svg" as SVG),
];

/// The page at `/`, its files under `/demo/` and its configuration at `/demo/config.json`.
pub fn router(config: PageConfig) -> Router {
    let config: Arc<str> =
        serde_json::to_string(&config).expect("strings, numbers and JSON values always serialize").into();
    let show_config = get(move |headers: HeaderMap| async move { config_response(&config, &headers) });
    ASSETS.iter().fold(Router::new().route("/demo/config.json", show_config), |router, asset| {
        let etag: Arc<str> = etag(asset.bytes).into();
        router.route(
            asset.path,
            get(move |headers: HeaderMap| async move { asset_response(asset, &etag, &headers) }),
        )
    })
}

/// The tokens are for this page alone: a page of another origin cannot read them.
fn config_response(config: &str, headers: &HeaderMap) -> Response {
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Error::Forbidden("This is for the demo page alone.".into()).into_response();
    }
    let own = [
        (header::CONTENT_TYPE, "application/json; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (own, config.to_owned()).into_response()
}

fn asset_response(asset: &Asset, etag: &str, headers: &HeaderMap) -> Response {
    let own = [
        (header::ETAG, etag),
        // Always asked about, mostly answered with 304: a new binary shows its new page at once.
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    if is_known(etag, headers) {
        return (StatusCode::NOT_MODIFIED, own).into_response();
    }
    (own, [(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}

/// Whether `If-None-Match` names this version; a weak one is as good for a whole file.
fn is_known(etag: &str, headers: &HeaderMap) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
    })
}

fn etag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn page() -> Router {
        let nadia = PageUser {
            role: "renter",
            id: 1,
            name: "Nadia",
            avatar_url: "/demo/pictures/renter.svg",
            token: "1|secret".into(),
        };
        router(PageConfig { users: vec![nadia], products: vec![serde_json::json!({ "id": 5 })] })
    }

    async fn get_with(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = page().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    fn files_below(folder: &Path, found: &mut BTreeSet<String>, root: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // What tests the page is not part of it.
            if path.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                files_below(&path, found, root);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[tokio::test]
    async fn every_file_of_web_is_served_as_it_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web");
        let mut files = BTreeSet::new();
        files_below(&root, &mut files, &root);
        assert_eq!(files.len(), ASSETS.len());
        for file in files {
            let path = if file == "index.html" { "/".to_owned() } else { format!("/demo/{file}") };
            let (status, headers, body) = get_with(&path, &[]).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
            assert_eq!(body, fs::read(root.join(&file)).unwrap(), "{path}");
        }
    }

    #[tokio::test]
    async fn each_kind_of_file_has_its_content_type() {
        for (path, expected) in [
            ("/", "text/html; charset=utf-8"),
            ("/demo/app/main.js", "text/javascript; charset=utf-8"),
            ("/demo/styles/stage.css", "text/css; charset=utf-8"),
            ("/demo/pictures/tent.svg", "image/svg+xml"),
        ] {
            assert_eq!(get_with(path, &[]).await.1["content-type"], expected, "{path}");
        }
    }

    #[tokio::test]
    async fn the_page_may_load_nothing_from_elsewhere() {
        let (_, headers, _) = get_with("/", &[]).await;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self';"));
        assert!(!policy.contains("unsafe") && !policy.contains("http"));
        for asset in ASSETS.iter().filter(|asset| asset.content_type != SVG) {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            assert!(!text.contains("//cdn") && !text.contains("@import"), "{}", asset.path);
        }
    }

    #[tokio::test]
    async fn a_file_that_the_browser_has_is_not_sent_again() {
        let (_, headers, _) = get_with("/demo/app/main.js", &[]).await;
        let etag = headers["etag"].to_str().unwrap().to_owned();
        for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let (status, headers, body) = get_with("/demo/app/main.js", &[("if-none-match", &known)]).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
            assert_eq!(headers["etag"], etag.as_str());
        }
        let (status, ..) = get_with("/demo/app/main.js", &[("if-none-match", "\"older\"")]).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_configuration_names_people_and_products_and_is_never_kept() {
        let (status, headers, body) =
            get_with("/demo/config.json", &[("sec-fetch-site", "same-origin")]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["cache-control"], "no-store");
        let config: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(config["users"][0]["token"], "1|secret");
        assert_eq!(config["products"][0]["id"], 5);
    }

    #[tokio::test]
    async fn another_sites_page_does_not_get_the_tokens() {
        for site in ["cross-site", "same-site"] {
            let (status, _, body) = get_with("/demo/config.json", &[("sec-fetch-site", site)]).await;
            assert_eq!((status, body.len()), (StatusCode::FORBIDDEN, 0));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_not_found() {
        for path in ["/demo/", "/demo/app/../index.html", "/demo/app/none.js"] {
            assert_eq!(get_with(path, &[]).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
