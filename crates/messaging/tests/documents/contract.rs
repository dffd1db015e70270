//! Holds real answers against `/openapi.json`: the status, the headers, the content type and the body,
//! in which no field may be that the document does not know.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

use crate::service::TestService;

pub(crate) struct Contract {
    document: Value,
    schemas: Schemas,
    /// Operations and statuses that were seen.
    seen: Mutex<BTreeSet<(String, u16)>>,
    /// Codes that were seen.
    codes: Mutex<BTreeSet<String>>,
}

/// A checked answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Contract {
    pub(crate) async fn of(service: &TestService) -> Self {
        let response = service.request(Method::GET, "/openapi.json").send().await.unwrap();
        let document: Value = response.json().await.unwrap();
        let schemas = Schemas::of(&document);
        Self { document, schemas, seen: Mutex::default(), codes: Mutex::default() }
    }

    /// Sends a request and checks its answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let place = format!("{method} {path} → {status}: {}", String::from_utf8_lossy(&bytes));
        let body = self.check(&method, &path, status, &headers, &bytes, &place);
        Answer { status, headers, body }
    }

    fn check(
        &self,
        method: &Method,
        path: &str,
        status: u16,
        headers: &HeaderMap,
        bytes: &[u8],
        place: &str,
    ) -> Value {
        let operation =
            self.operation(method, path).unwrap_or_else(|| panic!("{place}: not in the document"));
        let id = operation["operationId"].as_str().unwrap().to_owned();
        let answer = &operation["responses"][status.to_string()];
        assert!(answer.is_object(), "{place}: {id} has no such status");
        self.seen.lock().insert((id, status));
        self.check_headers(answer, headers, place);
        let Some(content) = answer["content"].as_object() else {
            assert!(bytes.is_empty(), "{place}: a body that is not in the document");
            return Value::Null;
        };
        let sent = headers["content-type"].to_str().unwrap();
        let essence = sent.split(';').next().unwrap();
        let kind = content.get(essence).or_else(|| content.get("*/*"));
        let kind = kind.unwrap_or_else(|| panic!("{place}: {sent} is not in the document"));
        if essence != "application/json" {
            return Value::Null;
        }
        assert_eq!(sent, "application/json; charset=utf-8", "{place}");
        let body: Value = serde_json::from_slice(bytes).unwrap();
        self.validate(&kind["schema"], &body, place);
        if let Some(code) = body["error"]["code"].as_str() {
            self.codes.lock().insert(code.to_owned());
        }
        body
    }

    fn check_headers(&self, answer: &Value, headers: &HeaderMap, place: &str) {
        let documented = answer["headers"].as_object().unwrap();
        for (name, reference) in documented {
            let header = self.resolve(reference);
            match headers.get(name) {
                Some(value) => {
                    let text = value.to_str().unwrap();
                    let value = if header["schema"]["type"] == "integer" {
                        json!(text.parse::<i64>().unwrap())
                    } else {
                        json!(text)
                    };
                    self.validate(&header["schema"], &value, &format!("{place}: {name}"));
                }
                None => assert_ne!(header["required"], true, "{place}: {name} is missing"),
            }
        }
        for name in headers.keys().map(reqwest::header::HeaderName::as_str) {
            let is_ours =
                name.starts_with("x-ratelimit") || ["retry-after", "idempotent-replayed"].contains(&name);
            let is_documented = documented.keys().any(|known| known.eq_ignore_ascii_case(name));
            assert!(!is_ours || is_documented, "{place}: {name} is not in the document");
        }
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let matches = |template: &str| {
            let (parts, templates): (Vec<_>, Vec<_>) =
                (path.split('/').collect(), template.split('/').collect());
            parts.len() == templates.len()
                && parts
                    .iter()
                    .zip(&templates)
                    .all(|(part, template)| template.starts_with('{') || part == template)
        };
        let paths = self.document["paths"].as_object()?;
        // An exact path goes before one with parameters, as in the router.
        let exact = paths.get(path);
        let path =
            exact.or_else(|| paths.iter().find(|(template, _)| matches(template)).map(|(_, item)| item))?;
        path.get(method.as_str().to_lowercase())
    }

    fn resolve<'a>(&'a self, reference: &'a Value) -> &'a Value {
        match reference["$ref"].as_str() {
            Some(pointer) => self.document.pointer(pointer.trim_start_matches('#')).unwrap(),
            None => reference,
        }
    }

    /// Fails unless the value is of this schema and has nothing that the schema does not know.
    pub(crate) fn validate(&self, schema: &Value, value: &Value, place: &str) {
        self.schemas.validate(schema, value, place);
    }

    /// Fails unless every operation was answered with each of its successes.
    pub(crate) fn assert_complete(&self) {
        let seen = self.seen.lock();
        let operations = self.document["paths"].as_object().unwrap().values();
        let operations = operations.flat_map(|path| path.as_object().unwrap().values());
        let missing: Vec<_> = operations
            .flat_map(|operation| {
                let id = operation["operationId"].as_str().unwrap();
                let statuses = operation["responses"].as_object().unwrap().keys();
                statuses.map(move |status| (id.to_owned(), status.parse::<u16>().unwrap()))
            })
            .filter(|(_, status)| *status < 400)
            .filter(|answer| !seen.contains(answer))
            .collect();
        assert!(missing.is_empty(), "never answered so: {missing:?}");
    }

    pub(crate) fn codes(&self) -> BTreeSet<String> {
        self.codes.lock().clone()
    }
}

/// The schemas of a document, closed.
pub(crate) struct Schemas(Value);

impl Schemas {
    pub(crate) fn of(document: &Value) -> Self {
        let mut schemas = json!({"schemas": document["components"]["schemas"]});
        close(&mut schemas);
        Self(schemas)
    }

    /// Fails unless the value is of this schema and has nothing that the schema does not know.
    pub(crate) fn validate(&self, schema: &Value, value: &Value, place: &str) {
        let mut schema = schema.clone();
        close(&mut schema);
        schema["components"] = self.0.clone();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let problems: Vec<_> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{place}: {problems:#?}\n{value:#}");
    }
}

/// Refuses fields that a schema does not name.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("type") == Some(&json!("object")) && object.contains_key("properties") {
                object.entry("additionalProperties").or_insert(json!(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
