//! `main-api`: a stand-in for the marketplace's API, in its own shapes, with as many users as anybody names.
//!
//! `user-123` is the token of user 123; any product exists. It counts its calls: `GET /calls`, `DELETE /calls`.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cli::MainApi;

/// What was asked for.
#[derive(Debug, Default)]
struct Calls {
    of_token: HashMap<u64, u64>,
    refused: u64,
    products: u64,
}

/// Serves until it is killed.
pub async fn serve(options: &MainApi) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the stand-in main API cannot listen: {error}");
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await.map_err(failed)?;
    let calls = Arc::new(Mutex::new(Calls::default()));
    let delay = Duration::from_millis(options.delay_ms);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: they come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let calls = Arc::clone(&calls);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&calls, &request);
                async move {
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            // A caller that breaks off is no concern of others.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(calls: &Mutex<Calls>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (parent, last) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let (status, body) = match (request.method(), last) {
        (&Method::GET, "calls") => (StatusCode::OK, counted(&calls.lock())),
        (&Method::DELETE, "calls") => {
            *calls.lock() = Calls::default();
            (StatusCode::OK, json!({}))
        }
        (&Method::GET, "user") => match token.and_then(|token| token.strip_prefix("user-")?.parse().ok()) {
            Some(id) => {
                *calls.lock().of_token.entry(id).or_default() += 1;
                (StatusCode::OK, json!({ "data": user(id) }))
            }
            None => {
                calls.lock().refused += 1;
                (StatusCode::UNAUTHORIZED, json!({"message": "Unauthenticated."}))
            }
        },
        (&Method::GET, id) if parent.ends_with("/products") => match id.parse() {
            Ok(id) => {
                calls.lock().products += 1;
                (StatusCode::OK, json!({ "data": product(id) }))
            }
            Err(_) => (StatusCode::NOT_FOUND, json!({"message": "Product not found"})),
        },
        _ => (StatusCode::NOT_FOUND, json!({"message": "Not found"})),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn counted(calls: &Calls) -> Value {
    json!({
        "user_calls": calls.of_token.values().sum::<u64>(),
        "tokens": calls.of_token.len(),
        "most_per_token": calls.of_token.values().max().copied().unwrap_or(0),
        "refused": calls.refused,
        "product_calls": calls.products,
    })
}

fn user(id: u64) -> Value {
    json!({
        "id": id,
        "name": format!("User {id}"),
        "email": format!("user-{id}@example.test"),
        "avatar_url": format!("http://main-api/avatars/{id}.png"),
        "email_verified_at": "2025-01-01T00:00:00.000000Z",
        "verification_status": "verified",
        "verified_at": "2025-01-01T00:00:00.000000Z",
        "created_at": "2025-01-01T00:00:00.000000Z",
        "updated_at": "2025-01-01T00:00:00.000000Z",
    })
}

fn product(id: u64) -> Value {
    let picture = format!("http://main-api/pictures/{id}.jpg");
    json!({
        "id": id,
        "title": format!("Camera {id}"),
        "description": "A camera with two lenses.",
        "price_per_day": 12.5,
        "is_for_sale": false,
        "sale_price": null,
        "is_available": true,
        "thumbnail_url": picture,
        "image_urls": [picture],
        "category": {"id": 1, "name": "Photo"},
        "owner": user(id),
        "created_at": "2025-01-01T00:00:00.000000Z",
        "updated_at": "2025-01-01T00:00:00.000000Z",
    })
}
