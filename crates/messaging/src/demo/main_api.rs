//! A stand-in for the marketplace's main API: two people, their Sanctum-like tokens, five products.
//!
//! It answers in the shapes of contract section 5 and with Laravel's habits (a browser without a
//! token is sent to `/login`, a program gets JSON). It knows nothing of messages; `page.rs` shows
//! its people and products to the demo page.

use std::{io, net::Ipv4Addr, sync::Arc};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, task::AbortHandle};

use super::page::{PageConfig, PageUser};

/// The length of a Sanctum token after its `id|`.
const TOKEN_CHARACTERS: usize = 40;

/// Everything here has been in the shop since this moment.
const CREATED_AT: &str = "2025-11-03T09:00:00.000000Z";

/// The running stand-in. It stops when this is dropped.
#[derive(Debug)]
#[must_use = "the stand-in stops when this is dropped"]
pub struct MainApi {
    base_url: String,
    marketplace: Arc<Marketplace>,
    server: AbortHandle,
}

/// Somebody who uses the marketplace.
#[derive(Debug, Clone)]
pub struct Person {
    /// Their id in the main API.
    pub id: i64,
    /// What they are called.
    pub name: &'static str,
    /// `renter` or `owner`.
    pub role: &'static str,
    /// Their e-mail address; for the main API's own answers only.
    pub email: &'static str,
    /// Their picture, as a path that the demo page serves.
    pub avatar_url: &'static str,
    /// Their bearer token, `1|…`, another one at each start.
    pub token: String,
}

struct Product {
    id: i64,
    title: &'static str,
    description: &'static str,
    price_per_day: f64,
    picture: &'static str,
    category: (i64, &'static str),
}

#[derive(Debug)]
struct Marketplace {
    renter: Person,
    owner: Person,
}

/// All five belong to the owner, so that every conversation has two sides.
const PRODUCTS: [Product; 5] = [
    Product {
        id: 1,
        title: "Mirrorless camera, 35 mm lens",
        description: "Full frame, two batteries and a strap. Fits a coat pocket, almost.",
        price_per_day: 28.0,
        picture: "/demo/pictures/camera.svg",
        category: (1, "Photo and film"),
    },
    Product {
        id: 2,
        title: "City bicycle",
        description: "Seven gears, a bell you will like, and room for the groceries.",
        price_per_day: 12.5,
        picture: "/demo/pictures/bicycle.svg",
        category: (2, "Bicycles"),
    },
    Product {
        id: 3,
        title: "Tent for four",
        description: "Up in ten minutes, dry in the rain. Pegs, poles and a lantern are in the bag.",
        price_per_day: 19.0,
        picture: "/demo/pictures/tent.svg",
        category: (3, "Outdoors"),
    },
    Product {
        id: 4,
        title: "Hammer drill",
        description: "18 volts, two batteries, a case of bits for wood, stone and metal.",
        price_per_day: 9.0,
        picture: "/demo/pictures/drill.svg",
        category: (4, "Tools"),
    },
    Product {
        id: 5,
        title: "Studio by the park",
        description: "One room, one very good sofa, coffee on the house. From one night on.",
        price_per_day: 74.0,
        picture: "/demo/pictures/flat.svg",
        category: (5, "Places"),
    },
];

/// Starts the stand-in on a free port of this machine, under `/api/v1`, with new tokens.
pub async fn start() -> io::Result<MainApi> {
    let marketplace = Arc::new(Marketplace::open());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let base_url = format!("http://{}/api/v1", listener.local_addr()?);
    let router = Router::new()
        .route("/api/v1/user", get(show_user).fallback(refuse_method))
        .route("/api/v1/products", get(list_products).fallback(refuse_method))
        .route("/api/v1/products/{id}", get(show_product).fallback(refuse_method))
        .fallback(refuse_route)
        .with_state(Arc::clone(&marketplace));
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "The demo's stand-in for the main API stopped.");
        }
    });
    Ok(MainApi { base_url, marketplace, server: server.abort_handle() })
}

impl MainApi {
    /// What `MAIN_API_URL` has to be, such as `http://127.0.0.1:40123/api/v1`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The one who wants to rent.
    pub fn renter(&self) -> &Person {
        &self.marketplace.renter
    }

    /// The one who owns the products.
    pub fn owner(&self) -> &Person {
        &self.marketplace.owner
    }

    /// What the demo page needs to know: both people with their tokens, and the products.
    pub fn page_config(&self) -> PageConfig {
        let products = PRODUCTS
            .iter()
            .map(|product| {
                let mut shown = product_json(product, self.owner());
                // An e-mail address is nobody's business but the main API's.
                if let Some(owner) = shown.get_mut("owner").and_then(Value::as_object_mut) {
                    owner.remove("email");
                }
                shown
            })
            .collect();
        PageConfig { users: [self.renter(), self.owner()].map(PageUser::from).into(), products }
    }
}

impl Drop for MainApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Marketplace {
    fn open() -> Self {
        Self {
            renter: Person {
                id: 1,
                name: "Nadia Benali",
                role: "renter",
                email: "nadia@example.test",
                avatar_url: "/demo/pictures/renter.svg",
                token: new_token(1),
            },
            owner: Person {
                id: 2,
                name: "Jonas Weber",
                role: "owner",
                email: "jonas@example.test",
                avatar_url: "/demo/pictures/owner.svg",
                token: new_token(2),
            },
        }
    }

    /// Who a request comes from, by its bearer token.
    fn caller(&self, headers: &HeaderMap) -> Option<&Person> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.trim();
        [&self.renter, &self.owner]
            .into_iter()
            .find(|person| bool::from(person.token.as_bytes().ct_eq(token.as_bytes())))
    }
}

async fn show_user(State(marketplace): State<Arc<Marketplace>>, headers: HeaderMap) -> Response {
    match marketplace.caller(&headers) {
        Some(person) => laravel(StatusCode::OK, &json!({ "data": person_json(person) })),
        None if expects_json(&headers) => {
            laravel(StatusCode::UNAUTHORIZED, &json!({ "message": "Unauthenticated." }))
        }
        None => (StatusCode::FOUND, [(header::LOCATION, "/login")]).into_response(),
    }
}

async fn list_products(State(marketplace): State<Arc<Marketplace>>) -> Response {
    let products: Vec<Value> =
        PRODUCTS.iter().map(|product| product_json(product, &marketplace.owner)).collect();
    let total = products.len();
    let meta =
        json!({ "current_page": 1, "last_page": 1, "per_page": 15, "from": 1, "to": total, "total": total });
    laravel(StatusCode::OK, &json!({ "data": products, "meta": meta }))
}

/// Products are public, as approved ones are in the main API.
async fn show_product(State(marketplace): State<Arc<Marketplace>>, Path(id): Path<String>) -> Response {
    match PRODUCTS.iter().find(|product| id == product.id.to_string()) {
        Some(product) => {
            laravel(StatusCode::OK, &json!({ "data": product_json(product, &marketplace.owner) }))
        }
        None => laravel(StatusCode::NOT_FOUND, &json!({ "message": "Product not found" })),
    }
}

async fn refuse_method(method: Method, request: Request) -> Response {
    let route = request.uri().path().trim_start_matches('/');
    let message =
        format!("The {method} method is not supported for route {route}. Supported methods: GET, HEAD.");
    let mut response = laravel(StatusCode::METHOD_NOT_ALLOWED, &json!({ "message": message }));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

async fn refuse_route(headers: HeaderMap, request: Request) -> Response {
    if expects_json(&headers) {
        let route = request.uri().path().trim_start_matches('/');
        let message = format!("The route {route} could not be found.");
        return laravel(StatusCode::NOT_FOUND, &json!({ "message": message }));
    }
    let html = [(header::CONTENT_TYPE, "text/html; charset=UTF-8")];
    (StatusCode::NOT_FOUND, html, "<!DOCTYPE html><title>Not Found</title><h1>404 Not Found</h1>")
        .into_response()
}

/// Laravel's `expectsJson`: it decides between a refusal in JSON and a way to the login page.
fn expects_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    // Only the first kind counts.
    let first = accept.split(',').next().unwrap_or("");
    let is_ajax = headers.get("x-requested-with").is_some_and(|value| value == "XMLHttpRequest");
    first.contains("/json") || first.contains("+json") || (is_ajax && accept == "*/*")
}

fn laravel(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache, private")];
    (status, headers, body.to_string()).into_response()
}

fn person_json(person: &Person) -> Value {
    json!({
        "id": person.id,
        "name": person.name,
        "email": person.email,
        "avatar_url": person.avatar_url,
        "email_verified_at": CREATED_AT,
        "verification_status": "verified",
        "verified_at": CREATED_AT,
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT,
    })
}

fn product_json(product: &Product, owner: &Person) -> Value {
    let (category_id, category_name) = product.category;
    json!({
        "id": product.id,
        "title": product.title,
        "description": product.description,
        "price_per_day": product.price_per_day,
        "is_for_sale": false,
        "sale_price": null,
        "is_available": true,
        "thumbnail_url": product.picture,
        "image_urls": [product.picture],
        "category": { "id": category_id, "name": category_name },
        "owner": person_json(owner),
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT,
    })
}

/// A token as Sanctum gives them out: the row's id, a bar, forty random characters.
fn new_token(id: i64) -> String {
    format!("{id}|{}", Alphanumeric.sample_string(&mut rand::rng(), TOKEN_CHARACTERS))
}

#[cfg(test)]
mod tests {
    use reqwest::{Client, redirect::Policy};

    use super::*;

    fn client() -> Client {
        // Without a provider for TLS there is no client, although these calls need none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder().redirect(Policy::none()).build().unwrap()
    }

    async fn get_json(url: String, token: Option<&str>) -> (u16, Value) {
        let mut request = client().get(url).header("accept", "application/json");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        (response.status().as_u16(), response.json().await.unwrap())
    }

    #[tokio::test]
    async fn each_token_belongs_to_one_person() {
        let api = start().await.unwrap();
        for person in [api.renter(), api.owner()] {
            let (status, body) = get_json(format!("{}/user", api.base_url()), Some(&person.token)).await;
            assert_eq!(status, 200);
            assert_eq!(body["data"]["id"], person.id);
            assert_eq!(body["data"]["name"], person.name);
            assert_eq!(body["data"]["email"], person.email);
        }
    }

    #[tokio::test]
    async fn a_wrong_or_missing_token_is_unauthenticated() {
        let api = start().await.unwrap();
        let url = format!("{}/user", api.base_url());
        let other_start = start().await.unwrap().renter().token.clone();
        for token in [None, Some("1|wrong"), Some(""), Some(other_start.as_str())] {
            let (status, body) = get_json(url.clone(), token).await;
            assert_eq!((status, body), (401, json!({ "message": "Unauthenticated." })));
        }
    }

    #[tokio::test]
    async fn without_accept_json_the_unauthenticated_are_sent_to_login() {
        let api = start().await.unwrap();
        let url = format!("{}/user", api.base_url());
        for accept in ["*/*", "text/html,application/json"] {
            let response = client().get(&url).header("accept", accept).send().await.unwrap();
            assert_eq!(response.status(), 302);
            assert_eq!(response.headers()["location"], "/login");
        }
    }

    #[tokio::test]
    async fn a_product_has_its_owner_and_its_picture() {
        let api = start().await.unwrap();
        let (status, body) = get_json(format!("{}/products/5", api.base_url()), None).await;
        assert_eq!(status, 200);
        assert_eq!(body["data"]["id"], 5);
        assert_eq!(body["data"]["price_per_day"], 74.0);
        assert_eq!(body["data"]["owner"]["id"], api.owner().id);
        assert_eq!(body["data"]["thumbnail_url"], "/demo/pictures/flat.svg");
        assert_eq!(body["data"]["image_urls"], json!(["/demo/pictures/flat.svg"]));
    }

    #[tokio::test]
    async fn a_product_that_does_not_exist_is_not_found() {
        let api = start().await.unwrap();
        for id in ["6", "0", "-1", "05", "abc"] {
            let (status, body) = get_json(format!("{}/products/{id}", api.base_url()), None).await;
            assert_eq!((status, body), (404, json!({ "message": "Product not found" })));
        }
    }

    #[tokio::test]
    async fn the_list_has_all_five_products() {
        let api = start().await.unwrap();
        let (status, body) = get_json(format!("{}/products", api.base_url()), None).await;
        assert_eq!(status, 200);
        assert_eq!(body["data"].as_array().unwrap().len(), 5);
        assert_eq!(body["meta"]["total"], 5);
    }

    #[tokio::test]
    async fn other_routes_and_methods_are_refused_in_json() {
        let api = start().await.unwrap();
        let (status, body) = get_json(format!("{}/users/1", api.base_url()), None).await;
        assert_eq!(status, 404);
        assert_eq!(body["message"], "The route api/v1/users/1 could not be found.");
        let response = client().post(format!("{}/user", api.base_url())).send().await.unwrap();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "GET, HEAD");
    }

    #[tokio::test]
    async fn the_stand_in_stops_when_dropped() {
        let api = start().await.unwrap();
        let url = format!("{}/products", api.base_url());
        assert!(client().get(&url).send().await.is_ok());
        drop(api);
        tokio::task::yield_now().await;
        assert!(client().get(&url).send().await.is_err());
    }

    #[tokio::test]
    async fn the_page_learns_everything_but_e_mail_addresses() {
        let api = start().await.unwrap();
        let config = serde_json::to_string(&api.page_config()).unwrap();
        assert!(config.contains(&api.renter().token) && config.contains(&api.owner().token));
        assert!(!config.contains("example.test"));
    }
}
