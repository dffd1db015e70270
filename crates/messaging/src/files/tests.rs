//! Whole uploads through the door, as a browser, a phone or an attacker would send them.

use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use image::{GenericImageView, ImageFormat};
use tempfile::TempDir;

use super::{samples::*, *};

const LIMIT: u64 = 200_000;
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    files: Files,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with_quota(0)
    }

    fn with_quota(quota: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = FilesOptions {
            location: folder.path().join("uploads").to_str().unwrap().to_owned(),
            temporary_dir: folder.path().join("temporary"),
            max_file_size: LIMIT,
            quota,
        };
        let clock = Clock::manual(Timestamp::from_millis(1_764_930_600_000));
        let signer = Signer::new(b"a key", None, Duration::from_secs(86_400));
        Self { files: Files::open(&options, signer, clock).unwrap(), folder }
    }

    async fn upload(&self, name: &str, claimed_type: &str, bytes: &[u8]) -> Result<FileRecord> {
        let body = form(&[("file", Some((name, claimed_type)), bytes)]);
        self.files.receive(self.multipart(Body::from(body)).await, 0, PATIENCE).await.map(StoredFile::keep)
    }

    async fn multipart(&self, body: Body) -> Multipart {
        self.files.open_upload(request(body)).await.unwrap()
    }

    async fn code(&self, name: &str, claimed_type: &str, bytes: &[u8]) -> &'static str {
        self.upload(name, claimed_type, bytes).await.unwrap_err().code()
    }

    async fn get(
        &self,
        file: &FileRecord,
        variant: Variant,
        headers: &[(header::HeaderName, &str)],
    ) -> Response {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect::<HeaderMap>();
        self.files.serve(file, variant, &headers).await.unwrap()
    }

    fn kept(&self) -> usize {
        files_under(&self.folder.path().join("uploads"))
    }

    fn temporary(&self) -> usize {
        files_under(&self.folder.path().join("temporary"))
    }
}

fn files_under(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files_under(&path) } else { 1 })
        .sum()
}

type Part<'a> = (&'a str, Option<(&'a str, &'a str)>, &'a [u8]);

fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, file, bytes) in parts {
        body.extend(format!("--XYZ\r\nContent-Disposition: form-data; name=\"{field}\"").bytes());
        if let Some((name, claimed_type)) = file {
            body.extend(format!("; filename=\"{name}\"\r\nContent-Type: {claimed_type}").bytes());
        }
        body.extend(b"\r\n\r\n");
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--XYZ--\r\n");
    body
}

fn request(body: Body) -> Request<Body> {
    Request::post("/api/uploads")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=XYZ")
        .body(body)
        .unwrap()
}

async fn body_of(response: Response) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

/// Waits until a task that nobody holds has done its work.
async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..200 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come true within two seconds");
}

#[tokio::test]
async fn a_picture_is_recoded_kept_and_served_with_its_small_one() {
    let place = Place::new();
    let sent = jpeg_with_metadata(&scene(900, 600), 6);
    let file = place.upload("IMG 1.JPG", "image/jpeg", &sent).await.unwrap();
    assert_eq!((file.name.as_str(), file.mime_type.as_str()), ("IMG 1.jpg", "image/jpeg"));
    assert_eq!((file.width, file.height), (Some(600), Some(900)));
    assert_eq!((place.kept(), place.temporary()), (2, 0));

    let response = place.get(&file, Variant::Original, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "image/jpeg");
    let bytes = body_of(response).await;
    assert_eq!(bytes.len() as i64, file.size);
    assert!(!holds(&bytes, SECRET) && !holds(&bytes, b"Exif"));
    assert_eq!(image::load_from_memory(&bytes).unwrap().dimensions(), (600, 900));

    let small = place.get(&file, Variant::Thumbnail, &[]).await;
    assert_eq!(small.headers()[header::CONTENT_TYPE], "image/jpeg");
    let length = small.headers()[header::CONTENT_LENGTH].to_str().unwrap().to_owned();
    let small = body_of(small).await;
    assert_eq!(small.len().to_string(), length);
    assert_eq!(image::load_from_memory(&small).unwrap().dimensions(), (267, 400));
}

#[tokio::test]
async fn ranges_and_known_bytes_are_served() {
    let place = Place::new();
    let text: Vec<u8> = (0..100_000).map(|index| b'a' + (index % 23) as u8).collect();
    let file = place.upload("a.txt", "text/plain", &text).await.unwrap();
    let part = place.get(&file, Variant::Original, &[(header::RANGE, "bytes=70000-80000")]).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 70000-80000/100000");
    let tag = part.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(body_of(part).await, text[70_000..=80_000]);

    let known = place.get(&file, Variant::Original, &[(header::IF_NONE_MATCH, &tag)]).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert!(body_of(known).await.is_empty());
    let beyond = place.get(&file, Variant::Original, &[(header::RANGE, "bytes=100000-")]).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn bytes_decide_what_a_file_is_and_its_name_follows() {
    let place = Place::new();
    let png = encoded(scene(20, 10), ImageFormat::Png);
    for (name, claimed_type, bytes, kept_name, kept_type) in [
        ("evil.html", "text/html", png.as_slice(), "evil.html.png", "image/png"),
        ("photo.jpg", "image/jpeg", b"<script>alert(1)</script>", "photo.jpg.txt", "text/plain"),
        ("logo.svg", "image/svg+xml", b"<svg onload=\"alert(1)\"/>", "logo.svg", "text/plain"),
        ("../../etc/cron.d/x", "application/pdf", b"%PDF-1.4\n\xff", "x.pdf", "application/pdf"),
        ("..%2f..%2fx.txt", "text/plain", b"hello", "%2f..%2fx.txt", "text/plain"),
    ] {
        let file = place.upload(name, claimed_type, bytes).await.unwrap();
        assert_eq!((file.name.as_str(), file.mime_type.as_str()), (kept_name, kept_type));
        assert!(!file.storage_key.contains("..") && !file.storage_key.contains(&file.name));
    }
}

#[tokio::test]
async fn markup_is_only_ever_saved_and_runs_nothing() {
    let place = Place::new();
    for (name, markup) in [("a.svg", "<svg onload=\"alert(1)\"/>"), ("a.html", "<script>alert(1)</script>")] {
        let file = place.upload(name, "text/html", markup.as_bytes()).await.unwrap();
        let response = place.get(&file, Variant::Original, &[]).await;
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/plain; charset=utf-8");
        assert!(header("content-disposition").starts_with("attachment"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert!(header("content-security-policy").contains("sandbox"));
    }
}

#[tokio::test]
async fn what_is_not_accepted_is_refused_and_nothing_stays() {
    let place = Place::new();
    assert_eq!(place.code("a.jpg", "image/jpeg", b"MZ\x90\0\x03\0\0\0").await, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(
        place.code("a.heic", "image/heic", b"\0\0\0\x18ftypheic\0\0\0\0").await,
        "UNSUPPORTED_MEDIA_TYPE"
    );
    assert_eq!(place.code("bomb.png", "image/png", &pixel_bomb()).await, "VALIDATION_FAILED");
    let png = encoded(scene(20, 10), ImageFormat::Png);
    assert_eq!(place.code("cut.png", "image/png", &png[..40]).await, "VALIDATION_FAILED");
    assert_eq!(place.code("empty.txt", "text/plain", b"").await, "VALIDATION_FAILED");
    assert_eq!((place.kept(), place.temporary()), (0, 0));
}

#[tokio::test]
async fn the_largest_file_is_taken_and_one_byte_more_is_not() {
    let place = Place::new();
    let mut bytes = vec![b'a'; LIMIT as usize];
    assert_eq!(place.upload("a.txt", "text/plain", &bytes).await.unwrap().size, LIMIT as i64);
    bytes.push(b'a');
    let error = place.upload("a.txt", "text/plain", &bytes).await.unwrap_err();
    assert!(matches!(error, Error::PayloadTooLarge { limit: LIMIT }));
    assert_eq!((place.kept(), place.temporary()), (1, 0));
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_at_the_limit() {
    let place = Place::new();
    let head = form(&[("file", Some(("a.txt", "text/plain")), b"")]);
    let head = Bytes::copy_from_slice(&head[..head.len() - b"\r\n--XYZ--\r\n".len()]);
    let endless = stream::iter([head]).chain(stream::repeat(Bytes::from(vec![b'a'; 10_000])));
    let body = Body::from_stream(endless.map(Ok::<_, Infallible>));
    let error = place.files.receive(place.multipart(body).await, 0, PATIENCE).await.unwrap_err();
    assert_eq!(error.code(), "PAYLOAD_TOO_LARGE");
    assert_eq!(place.temporary(), 0);
}

#[tokio::test]
async fn a_body_that_ends_early_is_refused_and_nothing_stays() {
    let place = Place::new();
    let body = form(&[("file", Some(("a.txt", "text/plain")), b"hello hello hello")]);
    for length in [1, 20, 60, body.len() - 20, body.len() - 5] {
        let truncated = Body::from(body[..length].to_vec());
        let error = place.files.receive(place.multipart(truncated).await, 0, PATIENCE).await.unwrap_err();
        assert_eq!(error.code(), "BAD_REQUEST", "{length}");
    }
    assert_eq!((place.kept(), place.temporary()), (0, 0));
}

#[tokio::test]
async fn either_field_carries_the_file_and_others_are_ignored() {
    let place = Place::new();
    let file: Part<'_> = ("image", Some(("a.txt", "text/plain")), b"hello");
    let body = form(&[("uploader_id", None, b"7"), file, ("note", None, b"x")]);
    let kept =
        place.files.receive(place.multipart(Body::from(body)).await, 0, PATIENCE).await.unwrap().keep();
    assert_eq!(kept.name, "a.txt");

    for (parts, sentence) in [
        (vec![("note", None, b"x".as_slice())], "The file field is required."),
        (vec![], "The file field is required."),
        (
            vec![file, ("file", Some(("b.txt", "text/plain")), b"b")],
            "Only one file can be uploaded at a time.",
        ),
    ] {
        let error = place
            .files
            .receive(place.multipart(Body::from(form(&parts))).await, 0, PATIENCE)
            .await
            .unwrap_err();
        assert_eq!((error.code(), &*error.message()), ("VALIDATION_FAILED", sentence));
    }
    let padding = vec![b'x'; MULTIPART_OVERHEAD_BYTES as usize + 1];
    let body = Body::from(form(&[("note", None, &padding), file]));
    let error = place.files.receive(place.multipart(body).await, 0, PATIENCE).await.unwrap_err();
    assert_eq!(error.code(), "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let place = Place::new();
    // In the middle of the body.
    let head =
        Bytes::copy_from_slice(&form(&[("file", Some(("a.txt", "text/plain")), &[b'a'; 50_000])])[..40_000]);
    let body = Body::from_stream(stream::iter([Ok::<_, Infallible>(head)]).chain(stream::pending()));
    let receiving = place.files.receive(place.multipart(body).await, 0, PATIENCE);
    tokio::time::timeout(Duration::from_millis(100), receiving).await.unwrap_err();
    assert_eq!((place.kept(), place.temporary()), (0, 0));

    // After the body, at every moment until the answer: each run is dropped one step later.
    let picture = jpeg_with_metadata(&scene(500, 20), 1);
    for polls in 1..40 {
        let body = form(&[("file", Some(("a.jpg", "image/jpeg")), &picture)]);
        let mut receiving =
            Box::pin(place.files.receive(place.multipart(Body::from(body)).await, 0, PATIENCE));
        for _ in 0..polls {
            if Once(receiving.as_mut()).await.is_ready() {
                break;
            }
            // Lets the threads and tasks that it waits for come some way.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(receiving);
    }
    eventually(|| place.kept() == 0).await;
    assert_eq!(place.temporary(), 0);
}

/// Polls a future once and says what came of it.
struct Once<'a, F>(Pin<&'a mut F>);

impl<F: Future> Future for Once<'_, F> {
    type Output = Poll<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(self.0.as_mut().poll(context))
    }
}

#[tokio::test]
async fn a_file_without_a_record_is_deleted_and_one_with_it_stays() {
    let place = Place::new();
    let body = form(&[("file", Some(("a.txt", "text/plain")), b"hello")]);
    let stored = place.files.receive(place.multipart(Body::from(body)).await, 0, PATIENCE).await.unwrap();
    assert_eq!(place.kept(), 1);
    drop(stored);
    eventually(|| place.kept() == 0).await;

    let file = place.upload("b.txt", "text/plain", b"hello").await.unwrap();
    assert_eq!(place.kept(), 1);
    place.files.delete(&file.storage_key, file.thumbnail_key.as_deref()).await.unwrap();
    assert_eq!(place.kept(), 0);
    let error = place.files.serve(&file, Variant::Original, &HeaderMap::new()).await.unwrap_err();
    assert_eq!(error.code(), "NOT_FOUND");
}

#[tokio::test]
async fn nobody_keeps_more_than_their_quota() {
    let place = Place::with_quota(1_000);
    for (used, size, is_taken) in
        [(0, 1_000, true), (0, 1_001, false), (999, 1, true), (999, 2, false), (1_000, 1, false)]
    {
        let body = Body::from(form(&[("file", Some(("a.txt", "text/plain")), &vec![b'a'; size])]));
        let result = place.files.receive(place.multipart(body).await, used, PATIENCE).await;
        assert_eq!(result.is_ok(), is_taken, "{used} + {size}");
        if let Err(error) = result {
            assert_eq!(error.code(), "VALIDATION_FAILED");
        }
    }
}

#[tokio::test]
async fn many_uploads_at_once_all_come_through() {
    let place = Place::new();
    let picture = encoded(scene(600, 400), ImageFormat::Jpeg);
    let uploads = (0..30).map(|_| place.upload("a.jpg", "image/jpeg", &picture));
    for result in futures_util::future::join_all(uploads).await {
        result.unwrap();
    }
    assert_eq!((place.kept(), place.temporary()), (60, 0));
}

#[test]
fn links_open_what_they_were_given_out_for() {
    let place = Place::new();
    let links = place.files.links(AttachmentId(7), "a.jpg", false);
    assert_eq!(links.thumbnail_url, None);
    let query = links.url.split_once("exp=").unwrap().1;
    let (exp, sig) = query.split_once("&sig=").unwrap();
    assert!(place.files.verify(AttachmentId(7), Variant::Original, exp, sig).is_ok());
    assert!(place.files.verify(AttachmentId(8), Variant::Original, exp, sig).is_err());
}
