//! What every place for files must do, on each of them; the bucket is a stand-in that speaks S3.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use axum::{Router, body::Body, extract::State, response::Response};
use futures_util::TryStreamExt;
use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::*;
use crate::files::kind::tests::file_of;

async fn read(store: &FileStore, key: &str, range: Option<Range<u64>>) -> Option<Vec<u8>> {
    let content = store.get(key, range).await.unwrap()?;
    let chunks: Vec<Bytes> = content.stream.try_collect().await.unwrap();
    Some(chunks.concat())
}

/// What every place must do.
async fn conforms(store: FileStore) {
    // Larger than a part, and not a multiple of anything.
    let bytes: Vec<u8> = (0..PART_BYTES + 12_345).map(|index| (index * 31 % 251) as u8).collect();
    store.put_file("aa/large", file_of(&bytes)).await.unwrap();
    assert!(read(&store, "aa/large", None).await.unwrap() == bytes);
    for range in [0..1, 5..70_000, 70_000..PART_BYTES + 1, bytes.len() - 1..bytes.len()] {
        let part = read(&store, "aa/large", Some(range.start as u64..range.end as u64)).await.unwrap();
        assert!(part == bytes[range]);
    }
    assert_eq!(store.get("aa/large", Some(0..1)).await.unwrap().unwrap().size, bytes.len() as u64);

    store.put_file("small", file_of(b"hello")).await.unwrap();
    store.put_bytes("small-thumbnail.jpg", b"tiny".to_vec()).await.unwrap();
    assert_eq!(read(&store, "small", None).await.unwrap(), b"hello");
    assert_eq!(read(&store, "small-thumbnail.jpg", None).await.unwrap(), b"tiny");

    store.delete("small").await.unwrap();
    store.delete("small").await.unwrap();
    assert_eq!(read(&store, "small", None).await, None);
    assert_eq!(read(&store, "never", None).await, None);
    assert_eq!(read(&store, "small-thumbnail.jpg", None).await.unwrap(), b"tiny");
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("made/on/demand");
    conforms(FileStore::open(location.to_str().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn memory_conforms() {
    conforms(FileStore::open("memory:///").unwrap()).await;
}

#[tokio::test]
async fn keys_stay_inside_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    let store = FileStore::open(inside.to_str().unwrap()).unwrap();
    store.put_bytes("../outside", b"x".to_vec()).await.unwrap();
    assert!(!folder.path().join("outside").exists());
}

#[test]
fn a_location_that_cannot_be_used_is_one_sentence() {
    for location in ["ftp://example.test/a", "s3://", "http://user:hunter2@example.test/"] {
        let sentence = FileStore::open(location).unwrap_err();
        assert!(sentence.ends_with('.') && !sentence.contains("hunter2"), "{sentence}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(FileStore::open(file.path().join("x").to_str().unwrap()).is_err());
}

#[tokio::test]
async fn a_bucket_conforms() {
    let bucket = Arc::new(Bucket::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(Bucket::answer).with_state(bucket.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let account = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_access_key_id("key")
        .with_secret_access_key("secret");
    let store = FileStore::open_bucket(account, &Url::parse("s3://chat/some/folder").unwrap()).unwrap();
    conforms(store).await;

    let objects = bucket.objects.lock().unwrap();
    assert_eq!(
        objects.keys().collect::<Vec<_>>(),
        ["/chat/some/folder/aa/large", "/chat/some/folder/small-thumbnail.jpg"]
    );
    assert_eq!(*bucket.largest_request.lock().unwrap(), PART_BYTES);
    assert!(bucket.parts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_may_answer_later() {
    let account = AmazonS3Builder::new()
        .with_endpoint("http://127.0.0.1:1")
        .with_allow_http(true)
        .with_access_key_id("key")
        .with_secret_access_key("secret");
    let store = FileStore::open_bucket(account, &Url::parse("s3://chat").unwrap()).unwrap();
    let code = |error: Error| error.code();
    assert_eq!(store.put_bytes("a", b"x".to_vec()).await.map_err(code), Err("SERVICE_UNAVAILABLE"));
    assert_eq!(store.put_file("a", file_of(b"x")).await.map_err(code), Err("SERVICE_UNAVAILABLE"));
    assert_eq!(store.get("a", None).await.map(drop).map_err(code), Err("SERVICE_UNAVAILABLE"));
    assert_eq!(store.delete("a").await.map_err(code), Err("SERVICE_UNAVAILABLE"));
}

/// The few calls of S3 that are used, over a map.
#[derive(Default)]
struct Bucket {
    objects: Mutex<BTreeMap<String, Bytes>>,
    parts: Mutex<BTreeMap<usize, Bytes>>,
    largest_request: Mutex<usize>,
}

impl Bucket {
    async fn answer(
        State(bucket): State<Arc<Self>>,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Body,
    ) -> Response {
        assert!(headers[header::AUTHORIZATION].to_str().unwrap().starts_with("AWS4-HMAC-SHA256"));
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let mut largest = bucket.largest_request.lock().unwrap();
        *largest = (*largest).max(body.len());
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let path = uri.path().to_owned();
        let mut objects = bucket.objects.lock().unwrap();
        let mut parts = bucket.parts.lock().unwrap();
        let answer = Response::builder().header(header::ETAG, "\"tag\"");
        if method == Method::PUT {
            match query.get("partNumber") {
                Some(number) => parts.insert(number.parse().unwrap(), body),
                None => objects.insert(path, body),
            };
        } else if method == Method::POST && query.contains_key("uploads") {
            let xml = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
            return answer.body(xml.into()).unwrap();
        } else if method == Method::POST {
            let whole = std::mem::take(&mut *parts).into_values().collect::<Vec<_>>().concat();
            objects.insert(path, whole.into());
            let xml = "<CompleteMultipartUploadResult><ETag>tag</ETag></CompleteMultipartUploadResult>";
            return answer.body(xml.into()).unwrap();
        } else if method == Method::DELETE {
            objects.remove(&path);
            return answer.status(StatusCode::NO_CONTENT).body(Body::empty()).unwrap();
        } else {
            return Self::get(answer, objects.get(&path), headers.get(header::RANGE));
        }
        answer.body(Body::empty()).unwrap()
    }

    fn get(
        answer: http::response::Builder,
        object: Option<&Bytes>,
        range: Option<&http::HeaderValue>,
    ) -> Response {
        let Some(object) = object else {
            return answer.status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
        };
        let answer = answer.header(header::LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT");
        let Some(range) = range else { return answer.body(object.clone().into()).unwrap() };
        let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap());
        answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", object.len()))
            .body(object.slice(first..=last).into())
            .unwrap()
    }
}
