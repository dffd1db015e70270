//! One REST operation and how it is written in OpenAPI 3.1.
//!
//! What all operations have in common is added here: the envelope, the request id, and for each status
//! the errors that come with it.

use std::collections::BTreeMap;

use http::StatusCode;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::{
    errors,
    examples::{self, NOW, REQUEST_ID},
    schemas::{Schemas, described, object},
};

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever has a token.
    Bearer,
    /// Everybody.
    Open,
    /// Whoever has a token or a signed link.
    BearerOrLink,
    /// Whoever has `METRICS_TOKEN`, where it is set.
    MetricsToken,
    /// The main API, by `SERVICE_API_KEY`.
    ServiceKey,
}

/// One operation under construction.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: String,
    access: Access,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Value>,
    codes: Vec<&'static str>,
}

/// A refusal that every operation may meet.
const ALWAYS: &[&str] = &["INTERNAL"];
/// What checking a token may end in.
const SIGN_IN: &[&str] = &["UNAUTHENTICATED", "AUTH_UNAVAILABLE", "SERVICE_UNAVAILABLE"];
/// What checking the service's key may end in; without any there is nothing at the address.
const SERVICE_KEY: &[&str] = &["UNAUTHENTICATED", "RATE_LIMITED", "NOT_FOUND", "SERVICE_UNAVAILABLE"];
/// What reading a JSON body may end in.
const BODY: &[&str] = &["BAD_REQUEST", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "VALIDATION_FAILED"];

impl Operation {
    pub(super) fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            description: String::new(),
            access: Access::Bearer,
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            codes: ALWAYS.to_vec(),
        }
        .refused(SIGN_IN)
    }

    /// The same operation for whoever else may call it.
    pub(super) fn access(mut self, access: Access) -> Self {
        self.access = access;
        match access {
            Access::Bearer | Access::BearerOrLink => {}
            Access::Open | Access::MetricsToken => self.codes = ALWAYS.to_vec(),
            Access::ServiceKey => self.codes = [ALWAYS, SERVICE_KEY].concat(),
        }
        self
    }

    /// More than the summary says.
    pub(super) fn describe(mut self, sentences: &str) -> Self {
        self.description = sentences.to_owned();
        self
    }

    /// Codes of the catalogue that may refuse it, besides those that every operation of its kind has.
    pub(super) fn refused(mut self, codes: &[&'static str]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// A parameter of the path.
    pub(super) fn path(mut self, name: &str, schema: Value, description: &str, example: Value) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": schema, "example": example,
        }));
        self.refused(&["BAD_REQUEST", "VALIDATION_FAILED"])
    }

    /// The id in the path. A number that is no id exists nowhere.
    pub(super) fn id(self, description: &str, example: impl serde::Serialize) -> Self {
        let schema = json!({"type": "integer", "format": "int64", "minimum": 1});
        self.path("id", schema, description, examples::json(&example))
    }

    /// A parameter of the query.
    pub(super) fn query(mut self, name: &str, schema: Value, description: &str) -> Self {
        self.parameters
            .push(json!({"name": name, "in": "query", "description": description, "schema": schema}));
        self.refused(&["VALIDATION_FAILED"])
    }

    /// A parameter of the query that must be there.
    pub(super) fn required_query(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self.refused(&["VALIDATION_FAILED"])
    }

    /// `page` and `limit`.
    pub(super) fn paged(self, default_limit: u32, max_limit: u32) -> Self {
        let number = |default: u32| json!({"type": "integer", "minimum": 1, "default": default});
        self.query("page", number(1), "From 1; past the end it is empty.").query(
            "limit",
            number(default_limit),
            &format!("Items a page; more than {max_limit} are {max_limit}."),
        )
    }

    /// A JSON body.
    pub(super) fn body(mut self, schema: Value, example: Value) -> Self {
        self.body = Some(json!({
            "required": true,
            "content": {"application/json": {"schema": schema, "example": example}},
        }));
        self.refused(BODY)
    }

    /// A JSON body that may be left out.
    pub(super) fn optional_body(self, schema: Value, example: Value) -> Self {
        let mut operation = self.body(schema, example);
        if let Some(body) = &mut operation.body {
            body["required"] = json!(false);
        }
        operation
    }

    /// A body of another kind.
    pub(super) fn raw_body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// 200 with data.
    pub(super) fn ok(self, data: Value, example: Value) -> Self {
        self.answer(StatusCode::OK, "Done.", data, example)
    }

    /// 200 with one of our types.
    pub(super) fn ok_with<T: JsonSchema>(self, schemas: &mut Schemas, example: Value) -> Self {
        let data = schemas.of::<T>();
        self.ok(data, example)
    }

    /// 200 with a list of one of our types.
    pub(super) fn ok_list<T: JsonSchema>(self, schemas: &mut Schemas, example: Value) -> Self {
        let data = schemas.list_of::<T>();
        self.ok(data, json!([example]))
    }

    /// 201 with data.
    pub(super) fn created(self, description: &str, data: Value, example: Value) -> Self {
        self.answer(StatusCode::CREATED, description, data, example)
    }

    /// 204.
    pub(super) fn no_content(self, description: &str) -> Self {
        self.raw_answer(204, json!({"description": description}))
    }

    /// 200 with a page of a list.
    pub(super) fn page_of<T: JsonSchema>(self, schemas: &mut Schemas, example: Value) -> Self {
        let mut operation = self.ok_list::<T>(schemas, example);
        if let Some(content) = operation.json_of(200) {
            content["schema"]["properties"]["meta"] = json!({"$ref": "#/components/schemas/PageMeta"});
            content["example"]["meta"] = page_meta_example();
        }
        operation
    }

    /// A field of a 200 answer that is at the top level too, where the app reads it.
    pub(super) fn flat(mut self, name: &str, schema: Value, example: Value) -> Self {
        if let Some(content) = self.json_of(200) {
            content["schema"]["properties"][name] = schema;
            if let Some(required) = content["schema"]["required"].as_array_mut() {
                required.push(json!(name));
            }
            content["example"][name] = example;
        }
        self
    }

    /// A further field of the `meta` of a page.
    pub(super) fn meta(mut self, name: &str, schema: Value, example: Value) -> Self {
        if let Some(content) = self.json_of(200) {
            let mut meta = meta_schema(true);
            meta["properties"][name] = schema;
            if let Some(required) = meta["required"].as_array_mut() {
                required.push(json!(name));
            }
            content["schema"]["properties"]["meta"] = meta;
            content["example"]["meta"][name] = example;
        }
        self
    }

    /// A header of an answer, by its name among the components.
    pub(super) fn header(mut self, status: u16, names: &[&str]) -> Self {
        if let Some(answer) = self.answers.get_mut(&status) {
            for name in names {
                answer["headers"][name] = json!({"$ref": format!("#/components/headers/{name}")});
            }
        }
        self
    }

    /// Answers 304 to a client that has the answer already and says so.
    pub(super) fn unless_known(self) -> Self {
        let known = json!({"name": "If-None-Match", "in": "header", "required": false, "schema": {"type": "string"},
            "description": "The `ETag` of the answer that the client has."});
        self.required_query(known)
            .header(200, &["ETag"])
            .raw_answer(304, json!({"description": "The client has it already."}))
            .header(304, &["ETag"])
    }

    /// An answer without the envelope.
    pub(super) fn raw_answer(mut self, status: u16, answer: Value) -> Self {
        self.answers.insert(status, answer);
        self
    }

    fn answer(self, status: StatusCode, description: &str, data: Value, example: Value) -> Self {
        let mut schema = object([
            ("success", json!({"const": true})),
            ("data", data),
            ("meta", json!({"$ref": "#/components/schemas/Meta"})),
        ]);
        schema["type"] = json!("object");
        let content = json!({"schema": schema, "example": examples::envelope(example)});
        let answer = json!({"description": description, "content": {"application/json": content}});
        self.raw_answer(status.as_u16(), answer)
    }

    fn json_of(&mut self, status: u16) -> Option<&mut Value> {
        self.answers.get_mut(&status)?.get_mut("content")?.get_mut("application/json")
    }

    /// The operation as OpenAPI writes it.
    pub(super) fn into_json(mut self) -> Value {
        for (status, errors) in errors::by_status(&self.codes) {
            let refusal = refusal(&errors);
            // `/ready` describes its 503 itself; a 416 has the code of a 400.
            self.answers.entry(status.as_u16()).or_insert(refusal);
        }
        let mut responses = Map::new();
        for (status, mut answer) in self.answers {
            answer["headers"]["X-Request-Id"] = json!({"$ref": "#/components/headers/X-Request-Id"});
            responses.insert(status.to_string(), answer);
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "responses": responses,
        });
        if !self.description.is_empty() {
            operation["description"] = json!(self.description);
        }
        if !self.parameters.is_empty() {
            operation["parameters"] = Value::Array(self.parameters);
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        match self.access {
            Access::Bearer => {}
            Access::Open => operation["security"] = json!([]),
            Access::BearerOrLink => operation["security"] = json!([{"bearer": []}, {}]),
            Access::MetricsToken => operation["security"] = json!([{"metricsToken": []}, {}]),
            Access::ServiceKey => {
                operation["security"] = json!([{"serviceKey": []}, {"serviceKeyHeader": []}])
            }
        }
        operation
    }
}

/// The answer of a status with these errors.
pub(super) fn refusal(errors: &[crate::errors::Error]) -> Value {
    let codes: Vec<_> = errors.iter().map(crate::errors::Error::code).collect();
    let meanings: Vec<_> =
        errors.iter().map(|error| format!("`{}`: {}", error.code(), errors::meaning(error))).collect();
    let code = json!({"properties": {"error": {"properties": {"code": {"enum": codes}}}}});
    let examples: Map<String, Value> = errors
        .iter()
        .map(|error| (error.code().to_owned(), json!({"value": error.body(REQUEST_ID, NOW)})))
        .collect();
    let mut answer = json!({
        "description": meanings.join("\n\n"),
        "content": {"application/json": {
            "schema": {"allOf": [{"$ref": "#/components/schemas/Error"}, code]},
            "examples": examples,
        }},
    });
    let header = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    if codes.contains(&"RATE_LIMITED") {
        for name in RATE_LIMIT {
            answer["headers"][name] = header(name);
        }
    }
    if errors.iter().any(|error| error.retry_after().is_some()) {
        answer["headers"]["Retry-After"] = header("Retry-After");
    }
    if codes.contains(&"UNAUTHENTICATED") {
        answer["headers"]["WWW-Authenticate"] = header("WWW-Authenticate");
    }
    answer
}

/// The headers that tell how much of a limit is left.
pub(super) const RATE_LIMIT: [&str; 3] = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];

/// Headers that answers refer to.
pub(super) fn headers() -> Value {
    let header = |schema: Value, required: bool, description: &str| json!({"schema": schema, "required": required, "description": description});
    let number = |minimum: u8| json!({"type": "integer", "minimum": minimum});
    let text = || json!({"type": "string"});
    json!({
        "X-Request-Id": header(text(), true, "The request's name: the client's own if it is short and plain, else made here. It is in the log."),
        "Retry-After": header(number(1), true, "Seconds to wait before trying again."),
        "WWW-Authenticate": header(json!({"const": "Bearer"}), true, "How to introduce oneself."),
        "X-RateLimit-Limit": header(number(0), false, "Requests a minute; absent where there is no limit."),
        "X-RateLimit-Remaining": header(number(0), false, "Requests that may follow at once."),
        "X-RateLimit-Reset": header(number(0), false, "When all of them are back, in seconds since the Unix epoch."),
        "Idempotent-Replayed": header(json!({"const": "true"}), false, "The message was stored before, under the same `client_message_id`."),
        "ETag": header(text(), true, "A word for this answer; another one means another answer."),
        "Accept-Ranges": header(json!({"const": "bytes"}), true, "Parts may be asked for."),
        "Content-Range": header(text(), true, "Which part this is, of how many bytes."),
        "Content-Disposition": header(text(), true, "Whether to show or to save it, and under which name."),
    })
}

/// `meta` of every answer, and of a page.
pub(super) fn meta_schema(is_page: bool) -> Value {
    let timestamp = ("timestamp", json!({"$ref": "#/components/schemas/Timestamp"}));
    if !is_page {
        return described(object([timestamp]), "About the answer.");
    }
    let number = |minimum: u8| json!({"type": "integer", "minimum": minimum});
    let schema = object([
        timestamp,
        ("current_page", described(number(1), "From 1.")),
        ("per_page", described(number(1), "Items a page.")),
        ("total", described(number(0), "Items on all pages.")),
        ("total_pages", described(number(1), "At least one.")),
        ("has_more", described(json!({"type": "boolean"}), "More follows in the direction of reading.")),
    ]);
    described(schema, "About the page.")
}

fn page_meta_example() -> Value {
    json!({
        "timestamp": NOW, "current_page": 1, "per_page": 50, "total": 1, "total_pages": 1, "has_more": false,
    })
}
