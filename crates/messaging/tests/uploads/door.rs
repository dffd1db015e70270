//! Uploads and files through the public door, on both databases.

use std::{collections::HashMap, io::Cursor};

use axum::{Json, Router, http::HeaderMap, routing::get};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use messaging::{clock::Clock, config::Config, server};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{on_both_databases, support::TestDatabase};

const ANNA: &str = "1|anna";
const BEN: &str = "2|ben";
const CLEO: &str = "3|cleo";

on_both_databases!(
    a_picture_goes_from_the_upload_to_both_participants_and_nobody_else,
    an_unsent_upload_is_its_uploaders_alone,
    links_open_one_file_for_a_while,
    ranges_are_served_and_refused_as_json,
    what_cannot_be_uploaded_is_refused_as_json,
    uploads_have_a_limit_of_their_own,
    an_upload_is_sent_once_and_by_its_uploader,
    a_file_goes_with_its_message_and_with_a_deleted_conversation,
);

/// A service of its own, with a stand-in for the main API that knows three users.
struct TestService {
    base: String,
    client: Client,
    _database: TestDatabase,
    _folder: tempfile::TempDir,
}

impl TestService {
    async fn start(database: TestDatabase, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let main_api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut all = HashMap::from([
            ("MAIN_API_URL".to_owned(), format!("http://{}", main_api.local_addr().unwrap())),
            ("DATABASE_URL".to_owned(), database.url.clone()),
            ("UPLOAD_DIR".to_owned(), folder.path().join("uploads").to_str().unwrap().to_owned()),
            ("MAX_FILE_SIZE".to_owned(), "100000".to_owned()),
        ]);
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let router = Router::new().route("/user", get(show_user));
        tokio::spawn(async move { axum::serve(main_api, router).await });

        let config = Config::from_env(all).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(server::run(config, listener, Router::new(), Clock::System, std::future::pending()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { base, client, _database: database, _folder: folder }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    async fn upload(&self, token: &str, field: &str, name: &str, bytes: &[u8]) -> Response {
        let head = format!(
            "--XYZ\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let body = [head.as_bytes(), bytes, b"\r\n--XYZ--\r\n"].concat();
        self.client
            .post(format!("{}/api/uploads", self.base))
            .bearer_auth(token)
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=XYZ")
            .body(body)
            .send()
            .await
            .unwrap()
    }

    async fn uploaded(&self, token: &str, name: &str, bytes: &[u8]) -> Value {
        let response = self.upload(token, "file", name, bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json::<Value>().await.unwrap()["data"].take()
    }

    async fn send(&self, token: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}/api/messages", self.base)).bearer_auth(token).json(body);
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
}

async fn show_user(headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let token = headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ");
    match [ANNA, BEN, CLEO].iter().position(|known| *known == token) {
        Some(index) => (StatusCode::OK, Json(json!({"data": {"id": index + 1, "name": "Someone"}}))),
        None => (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthenticated."}))),
    }
}

fn photo(width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([(x % 256) as u8, (y % 256) as u8, 90]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// The answer's code, after its frame was looked at.
async fn refusal(response: Response, status: StatusCode) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json; charset=utf-8");
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["success"], &body["message"]), (&json!(false), &body["error"]["message"]));
    assert!(body["meta"]["request_id"].is_string());
    body["error"]["code"].as_str().unwrap().to_owned()
}

async fn a_picture_goes_from_the_upload_to_both_participants_and_nobody_else(database: TestDatabase) {
    let service = TestService::start(database, &[]).await;
    let response = service.upload(ANNA, "image", "Sofa 1.JPG", &photo(800, 500)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(response.headers().contains_key("x-ratelimit-remaining"));
    let upload = response.json::<Value>().await.unwrap()["data"].take();
    let mut fields: Vec<_> = upload.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["height", "id", "mime_type", "name", "size", "thumbnail_url", "url", "width"]);
    assert_eq!(
        (&upload["name"], &upload["mime_type"], &upload["width"], &upload["height"]),
        (&json!("Sofa 1.jpg"), &json!("image/jpeg"), &json!(800), &json!(500)),
    );

    let body = json!({"receiver_id": 2, "type": "image", "attachment_id": upload["id"]});
    let (status, answer) = service.send(ANNA, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let message = &answer["data"];
    assert_eq!((&message["content"], &message["attachment"]["id"]), (&json!(""), &upload["id"]));
    assert_eq!(message["file_url"], message["attachment"]["url"]);

    let list = service.get(&format!("/api/conversations/{}/messages", message["conversation_id"]));
    let list: Value = list.bearer_auth(BEN).send().await.unwrap().json().await.unwrap();
    let seen = &list["data"][0]["attachment"];
    assert_eq!(seen["name"], "Sofa 1.jpg");
    for (link, longest_side) in [("url", 800), ("thumbnail_url", 400)] {
        let response = service.get(seen[link].as_str().unwrap()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let picture = image::load_from_memory(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(picture.width(), longest_side);
    }

    let path = format!("/files/{}/whatever", upload["id"]);
    for token in [ANNA, BEN] {
        assert_eq!(service.get(&path).bearer_auth(token).send().await.unwrap().status(), StatusCode::OK);
    }
    let foreign = service.get(&path).bearer_auth(CLEO).send().await.unwrap();
    assert_eq!(refusal(foreign, StatusCode::FORBIDDEN).await, "FORBIDDEN");
    let nobody = service.get(&path).send().await.unwrap();
    assert_eq!(refusal(nobody, StatusCode::UNAUTHORIZED).await, "UNAUTHENTICATED");
}

async fn an_unsent_upload_is_its_uploaders_alone(database: TestDatabase) {
    let service = TestService::start(database, &[]).await;
    let upload = service.uploaded(ANNA, "a.txt", b"hello").await;
    let path = format!("/files/{}/a.txt", upload["id"]);
    let own = service.get(&path).bearer_auth(ANNA).send().await.unwrap();
    assert!(own.headers()["content-disposition"].to_str().unwrap().starts_with("attachment"));
    assert_eq!(own.text().await.unwrap(), "hello");
    let other = service.get(&path).bearer_auth(BEN).send().await.unwrap();
    assert_eq!(refusal(other, StatusCode::FORBIDDEN).await, "FORBIDDEN");
    assert_eq!(upload["thumbnail_url"], Value::Null);
    let none = service.get(&format!("{path}?variant=thumbnail")).bearer_auth(ANNA).send().await.unwrap();
    assert_eq!(refusal(none, StatusCode::NOT_FOUND).await, "NOT_FOUND");
    for (path, status) in [
        ("/files/99999/a", StatusCode::NOT_FOUND),
        ("/files/99999999999999999999/a", StatusCode::NOT_FOUND),
        ("/files/abc/a", StatusCode::UNPROCESSABLE_ENTITY),
        ("/files/1", StatusCode::NOT_FOUND),
    ] {
        refusal(service.get(path).bearer_auth(ANNA).send().await.unwrap(), status).await;
    }
}

async fn links_open_one_file_for_a_while(database: TestDatabase) {
    let service = TestService::start(database, &[]).await;
    let first = service.uploaded(ANNA, "a.txt", b"first").await;
    let second = service.uploaded(ANNA, "a.txt", b"second").await;
    let url = first["url"].as_str().unwrap();
    assert_eq!(service.get(url).send().await.unwrap().text().await.unwrap(), "first");
    let (path, query) = url.split_once('?').unwrap();
    let other = format!("/files/{}/a.txt?{query}", second["id"]);
    let longer = url.replacen("exp=", "exp=9", 1);
    let past = format!("{path}?exp=1&sig=AAAA");
    for forged in [other, longer, past, format!("{url}A"), format!("{path}?exp=x&sig=%00")] {
        let response = service.get(&forged).send().await.unwrap();
        assert_eq!(refusal(response, StatusCode::FORBIDDEN).await, "FORBIDDEN");
    }
    let both = service.get(&format!("{path}?exp=1&sig=AAAA")).bearer_auth(ANNA).send().await.unwrap();
    assert_eq!(both.text().await.unwrap(), "first");
}

async fn ranges_are_served_and_refused_as_json(database: TestDatabase) {
    let service = TestService::start(database, &[]).await;
    let upload = service.uploaded(ANNA, "a.txt", b"0123456789").await;
    let url = upload["url"].as_str().unwrap();
    let part = service.get(url).header(header::RANGE, "bytes=2-4").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 2-4/10");
    assert_eq!(part.text().await.unwrap(), "234");

    let beyond = service.get(url).header(header::RANGE, "bytes=10-").send().await.unwrap();
    assert_eq!(beyond.headers()[header::CONTENT_RANGE], "bytes */10");
    assert_eq!(refusal(beyond, StatusCode::RANGE_NOT_SATISFIABLE).await, "BAD_REQUEST");

    let head = service.client.head(format!("{}{url}", service.base)).send().await.unwrap();
    assert_eq!(
        (head.status(), &head.headers()[header::CONTENT_LENGTH]),
        (StatusCode::OK, &"10".parse().unwrap())
    );
    let tag = head.headers()[header::ETAG].clone();
    let known = service.get(url).header(header::IF_NONE_MATCH, tag).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
}

async fn what_cannot_be_uploaded_is_refused_as_json(database: TestDatabase) {
    let service = TestService::start(database, &[]).await;
    for (bytes, status, code) in [
        (b"".to_vec(), StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_FAILED"),
        (b"MZ\x90\0\x03\0\0\0".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE"),
        (vec![b'a'; 100_001], StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
        (vec![b'a'; 190_000], StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
    ] {
        let response = service.upload(ANNA, "file", "a.jpg", &bytes).await;
        assert_eq!(refusal(response, status).await, code);
    }
    assert_eq!(service.uploaded(ANNA, "a.txt", &vec![b'a'; 100_000]).await["size"], 100_000);

    let missing = service.upload(ANNA, "note", "a.txt", b"hello").await.json::<Value>().await.unwrap();
    assert_eq!(missing["errors"]["file"], json!(["The file field is required."]));
    let request = service.client.post(format!("{}/api/uploads", service.base));
    let json =
        request.try_clone().unwrap().bearer_auth(ANNA).json(&json!({"file": "a"})).send().await.unwrap();
    assert_eq!(refusal(json, StatusCode::UNSUPPORTED_MEDIA_TYPE).await, "UNSUPPORTED_MEDIA_TYPE");
    let nobody = request.body("x").send().await.unwrap();
    assert_eq!(refusal(nobody, StatusCode::UNAUTHORIZED).await, "UNAUTHENTICATED");
}

async fn uploads_have_a_limit_of_their_own(database: TestDatabase) {
    let service = TestService::start(database, &[("RATE_LIMIT_UPLOADS", "6"), ("UPLOAD_QUOTA", "12")]).await;
    for _ in 0..2 {
        service.uploaded(ANNA, "a.txt", b"hello").await;
    }
    let response = service.upload(ANNA, "file", "a.txt", b"hello").await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(refusal(response, StatusCode::TOO_MANY_REQUESTS).await, "RATE_LIMITED");
    let full = service.upload(BEN, "file", "a.txt", b"more than twelve bytes").await;
    assert_eq!(refusal(full, StatusCode::UNPROCESSABLE_ENTITY).await, "VALIDATION_FAILED");
}

async fn an_upload_is_sent_once_and_by_its_uploader(database: TestDatabase) {
    let service = TestService::start(database, &[]).await;
    let upload = service.uploaded(ANNA, "a.txt", b"hello").await;
    let body =
        |receiver: i64| json!({"receiver_id": receiver, "type": "file", "attachment_id": upload["id"]});
    let (status, answer) = service.send(BEN, &body(1)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["errors"]["attachment_id"].is_array());
    assert_eq!(service.send(ANNA, &body(2)).await.0, StatusCode::CREATED);
    assert_eq!(service.send(ANNA, &body(3)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

async fn a_file_goes_with_its_message_and_with_a_deleted_conversation(database: TestDatabase) {
    let service = TestService::start(database, &[]).await;
    let mut sent = Vec::new();
    for words in ["first", "second"] {
        let upload = service.uploaded(ANNA, "a.txt", words.as_bytes()).await;
        let body = json!({"receiver_id": 2, "type": "file", "attachment_id": upload["id"]});
        let (status, answer) = service.send(ANNA, &body).await;
        assert_eq!(status, StatusCode::CREATED);
        sent.push((upload["url"].as_str().unwrap().to_owned(), answer["data"].clone()));
    }
    let remove = |token: &'static str, path: String| {
        let request = service.client.delete(format!("{}{path}", service.base)).bearer_auth(token);
        async move { assert_eq!(request.send().await.unwrap().status(), StatusCode::NO_CONTENT) }
    };
    remove(ANNA, format!("/api/messages/{}", sent[0].1["id"])).await;
    let (gone, _) = sent[0].0.split_once('?').unwrap();
    refusal(service.get(&sent[0].0).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    for token in [ANNA, BEN] {
        refusal(service.get(gone).bearer_auth(token).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    }

    remove(BEN, format!("/api/conversations/{}", sent[1].1["conversation_id"])).await;
    let (path, _) = sent[1].0.split_once('?').unwrap();
    refusal(service.get(path).bearer_auth(BEN).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    assert_eq!(service.get(path).bearer_auth(ANNA).send().await.unwrap().text().await.unwrap(), "second");
}
