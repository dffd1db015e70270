//! Answers a request for a file: which bytes, and headers under which nothing in them can do harm.
//!
//! Pure: `plan` reads the request, `respond` builds the answer around a body. Who may have the file is
//! decided before.

use std::ops::Range;

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    kind::{Class, by_mime_type},
    name::content_disposition,
};

/// A file as it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served<'a> {
    /// Its safe name.
    pub name: &'a str,
    /// What it is, from the list of what is accepted.
    pub mime_type: &'a str,
    /// Bytes.
    pub size: u64,
    /// A word for these bytes and no others: hexadecimal digits and hyphens.
    pub tag: &'a str,
}

/// Which bytes answer a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// All of them: 200.
    Full,
    /// Some of them: 206.
    Part(Range<u64>),
    /// None, the client has them already: 304.
    NotModified,
    /// None, there are no such bytes: 416.
    NotSatisfiable,
}

/// Reads `If-None-Match`, `Range` and `If-Range` (RFC 9110, sections 13 and 14). Of several ranges all
/// bytes are sent, which the standard allows: nobody plays a picture in pieces.
pub fn plan(headers: &HeaderMap, served: &Served<'_>) -> Plan {
    let tag = entity_tag(served.tag);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    for value in known.flat_map(|value| value.split(',')) {
        let value = value.trim();
        if value == "*" || value.strip_prefix("W/").unwrap_or(value) == tag {
            return Plan::NotModified;
        }
    }
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Plan::Full;
    };
    let is_current = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == tag.as_bytes());
    if is_current { plan_range(range, served.size) } else { Plan::Full }
}

/// A range that cannot be read is ignored, as the standard says.
fn plan_range(range: &str, size: u64) -> Plan {
    let Some((unit, spec)) = range.split_once('=') else { return Plan::Full };
    let Some((first, last)) = spec.trim().split_once('-') else { return Plan::Full };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, last) = (first.trim(), last.trim());
    if !unit.trim().eq_ignore_ascii_case("bytes") || !is_number(first) || !is_number(last) {
        return Plan::Full;
    }
    // A number too large for 64 bits is beyond any file.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    match (first, last) {
        ("", "") => Plan::Full,
        ("", suffix) => match number(suffix) {
            0 => Plan::NotSatisfiable,
            _ if size == 0 => Plan::NotSatisfiable,
            suffix => Plan::Part(size.saturating_sub(suffix)..size),
        },
        (first, _) if number(first) >= size => Plan::NotSatisfiable,
        (first, "") => Plan::Part(number(first)..size),
        (first, last) if number(last) < number(first) => Plan::Full,
        (first, last) => Plan::Part(number(first)..number(last).saturating_add(1).min(size)),
    }
}

/// The answer for a plan; `body` are the planned bytes, and is dropped where there are none.
/// `max_age` is how many seconds a client may keep it.
pub fn respond(served: &Served<'_>, plan: &Plan, max_age: u64, body: Body) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let shared = [
        (header::ETAG, entity_tag(served.tag)),
        // Only for whoever asked: the link is the key.
        (header::CACHE_CONTROL, format!("private, max-age={max_age}, immutable")),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        // The type is as it says, whatever a browser makes of the bytes.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        // Opened as a page of its own, a file can load and run nothing and is of no origin.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; img-src 'self'; media-src 'self'; sandbox".to_owned(),
        ),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        // The app shows pictures from another origin than its own.
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin".to_owned()),
    ];
    for (name, value) in shared {
        insert(headers, name, &value);
    }
    match plan {
        Plan::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        Plan::NotSatisfiable => {
            insert(headers, header::CONTENT_RANGE, &format!("bytes */{}", served.size));
            insert(headers, header::CACHE_CONTROL, "no-store");
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return response;
        }
        Plan::Full => insert(headers, header::CONTENT_LENGTH, &served.size.to_string()),
        Plan::Part(range) => {
            let last = range.end.saturating_sub(1);
            insert(headers, header::CONTENT_LENGTH, &(range.end.saturating_sub(range.start)).to_string());
            insert(headers, header::CONTENT_RANGE, &format!("bytes {}-{last}/{}", range.start, served.size));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
    }
    let headers = response.headers_mut();
    let (content_type, disposition) = presentation(served.mime_type);
    insert(headers, header::CONTENT_TYPE, content_type);
    insert(headers, header::CONTENT_DISPOSITION, &content_disposition(disposition, served.name));
    *response.body_mut() = body;
    response
}

/// The `Content-Type` and whether a browser may show the file in place. Pictures were recoded, and
/// audio and video run nothing; everything else is saved.
fn presentation(mime_type: &str) -> (&str, &'static str) {
    match by_mime_type(mime_type) {
        Some(kind) if kind.class != Class::Document => (kind.mime_type, "inline"),
        Some(kind) if kind.mime_type == "text/plain" => ("text/plain; charset=utf-8", "attachment"),
        Some(kind) => (kind.mime_type, "attachment"),
        // Stored by a version with another list.
        None => ("application/octet-stream", "attachment"),
    }
}

fn entity_tag(tag: &str) -> String {
    format!("\"{tag}\"")
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // A name or tag that no header can carry is left out rather than guessed at.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHOTO: Served<'static> =
        Served { name: "größe.jpg", mime_type: "image/jpeg", size: 1_000, tag: "abc" };

    fn planned(headers: &[(HeaderName, &str)]) -> Plan {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        plan(&map, &PHOTO)
    }

    fn header(response: &Response, name: &str) -> String {
        response.headers().get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (range, expected) in [
            ("bytes=0-0", Plan::Part(0..1)),
            ("bytes=0-499", Plan::Part(0..500)),
            ("bytes=500-", Plan::Part(500..1_000)),
            ("bytes=-300", Plan::Part(700..1_000)),
            ("bytes=-5000", Plan::Part(0..1_000)),
            ("bytes=900-5000", Plan::Part(900..1_000)),
            ("Bytes = 1-2", Plan::Part(1..3)),
            ("bytes=0-99999999999999999999999", Plan::Part(0..1_000)),
            ("bytes=1000-", Plan::NotSatisfiable),
            ("bytes=99999999999999999999999-", Plan::NotSatisfiable),
            ("bytes=-0", Plan::NotSatisfiable),
            ("bytes=5-2", Plan::Full),
            ("bytes=0-1,3-4", Plan::Full),
            ("bytes=", Plan::Full),
            ("bytes=-", Plan::Full),
            ("bytes=a-b", Plan::Full),
            ("bytes=+1-2", Plan::Full),
            ("items=0-1", Plan::Full),
            ("nonsense", Plan::Full),
        ] {
            assert_eq!(planned(&[(header::RANGE, range)]), expected, "{range}");
        }
    }

    #[test]
    fn bytes_that_a_client_has_are_not_sent_again() {
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert_eq!(
                planned(&[(header::IF_NONE_MATCH, known), (header::RANGE, "bytes=0-1")]),
                Plan::NotModified
            );
        }
        assert_eq!(planned(&[(header::IF_NONE_MATCH, "\"abcd\"")]), Plan::Full);
    }

    #[test]
    fn a_range_of_other_bytes_is_answered_in_full() {
        let range = (header::RANGE, "bytes=0-1");
        assert_eq!(planned(&[range.clone(), (header::IF_RANGE, "\"abc\"")]), Plan::Part(0..2));
        assert_eq!(planned(&[range.clone(), (header::IF_RANGE, "\"old\"")]), Plan::Full);
        assert_eq!(planned(&[range, (header::IF_RANGE, "Wed, 21 Oct 2015 07:28:00 GMT")]), Plan::Full);
    }

    #[test]
    fn answers_carry_their_ranges() {
        let full = respond(&PHOTO, &Plan::Full, 60, Body::empty());
        assert_eq!((full.status(), header(&full, "content-length")), (StatusCode::OK, "1000".into()));
        assert_eq!(header(&full, "accept-ranges"), "bytes");
        let part = respond(&PHOTO, &Plan::Part(10..20), 60, Body::empty());
        assert_eq!(
            (part.status(), header(&part, "content-length")),
            (StatusCode::PARTIAL_CONTENT, "10".into())
        );
        assert_eq!(header(&part, "content-range"), "bytes 10-19/1000");
        let none = respond(&PHOTO, &Plan::NotSatisfiable, 60, Body::empty());
        assert_eq!(none.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(
            (header(&none, "content-range"), header(&none, "cache-control")),
            ("bytes */1000".into(), "no-store".into())
        );
        assert_eq!(respond(&PHOTO, &Plan::NotModified, 60, Body::empty()).status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn every_answer_is_harmless_in_a_browser() {
        for plan in [Plan::Full, Plan::Part(0..1), Plan::NotModified, Plan::NotSatisfiable] {
            let response = respond(&PHOTO, &plan, 60, Body::empty());
            assert_eq!(header(&response, "x-content-type-options"), "nosniff");
            assert!(header(&response, "content-security-policy").contains("sandbox"));
        }
    }

    #[test]
    fn only_what_runs_nothing_is_shown_in_place() {
        for (mime_type, content_type, disposition) in [
            ("image/jpeg", "image/jpeg", "inline"),
            ("video/mp4", "video/mp4", "inline"),
            ("application/pdf", "application/pdf", "attachment"),
            ("text/plain", "text/plain; charset=utf-8", "attachment"),
            ("text/html", "application/octet-stream", "attachment"),
            ("image/svg+xml", "application/octet-stream", "attachment"),
        ] {
            let response = respond(&Served { mime_type, ..PHOTO }, &Plan::Full, 60, Body::empty());
            assert_eq!(header(&response, "content-type"), content_type);
            let expected =
                format!("{disposition}; filename=\"gr__e.jpg\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.jpg");
            assert_eq!(header(&response, "content-disposition"), expected);
        }
    }

    proptest! {
        #[test]
        fn a_planned_range_lies_within_the_file(range in "(bytes=)?[0-9]{0,22}-?[0-9]{0,22}|\\PC{0,30}", size in 0_u64..2_000) {
            if let Plan::Part(range) = plan_range(&range, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
