//! JSON Schemas (2020-12) of what the service sends, from the types that are sent.
//!
//! Most types derive theirs; here are those whose JSON is written by hand, and the generator that puts
//! each named type once under `components/schemas`, where both documents refer to it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use crate::{
    clock::Timestamp,
    identity::{ProductCard, UserProfile},
    ids::{ProductId, UserId},
    quiet_hours::TimeOfDay,
};

/// The schemas of one document, by name.
#[derive(Debug)]
pub(super) struct Schemas {
    generator: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self { generator: settings.into_generator() }
    }

    /// A reference to a type's schema.
    pub(super) fn of<T: JsonSchema + ?Sized>(&mut self) -> Value {
        self.generator.subschema_for::<T>().to_value()
    }

    /// A list of it.
    pub(super) fn list_of<T: JsonSchema>(&mut self) -> Value {
        json!({"type": "array", "items": self.of::<T>()})
    }

    /// All of them, and those written by hand.
    pub(super) fn into_components(
        mut self,
        by_hand: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Value {
        let mut components = self.generator.take_definitions(true);
        components.extend(by_hand.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
        Value::Object(components)
    }
}

/// An object all of whose fields are there, but for those whose names end in `?`.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        match name.strip_suffix('?') {
            Some(name) => {
                properties.insert(name.to_owned(), schema);
            }
            None => {
                properties.insert(name.to_owned(), schema);
                required.push(name);
            }
        }
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The same schema with a sentence.
pub(super) fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
            "description": "A point in time: RFC 3339, UTC, with milliseconds and `Z`.",
            "examples": ["2025-12-05T10:30:00.000Z"],
        })
    }
}

impl JsonSchema for TimeOfDay {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TimeOfDay".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "examples": ["22:00"]})
    }
}

/// What `UserProfile` writes.
#[derive(JsonSchema)]
#[schemars(rename = "User")]
#[expect(dead_code, reason = "only its shape counts")]
struct UserShape {
    /// Who it is.
    id: UserId,
    /// The name to show, never empty.
    name: String,
    /// Where the picture is.
    avatar_url: Option<String>,
    /// The same as `avatar_url`.
    avatar: Option<String>,
}

/// What `ProductCard` writes.
#[derive(JsonSchema)]
#[schemars(rename = "Product")]
#[expect(dead_code, reason = "only its shape counts")]
struct ProductShape {
    /// Which product it is.
    id: ProductId,
    /// Its title, never empty.
    title: String,
    /// Where the small picture is.
    thumbnail_url: Option<String>,
    /// The same as `thumbnail_url`.
    thumbnail: Option<String>,
    /// The same as `image_urls`.
    images: Vec<String>,
    /// Where the pictures are.
    image_urls: Vec<String>,
    /// The price of a day, in the marketplace's currency.
    price_per_day: Option<f64>,
}

macro_rules! shaped_as {
    ($type:ty, $shape:ty) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                <$shape>::schema_name()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                <$shape>::json_schema(generator)
            }
        }
    };
}

shaped_as!(UserProfile, UserShape);
shaped_as!(ProductCard, ProductShape);
