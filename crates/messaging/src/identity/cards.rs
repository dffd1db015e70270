//! What the service shows of a user and of a product, in the shapes of the wire.
//!
//! Read from the main API's answers and cleaned here, kept by `directory`, embedded in
//! conversations and messages by `chat`. Nothing here ever holds an e-mail address.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Value};

use crate::ids::{ProductId, UserId};

/// More of a name than this is cut: it is a caption, not a text.
const NAME_CHARS: usize = 200;
/// More of a product's title than this is cut.
const TITLE_CHARS: usize = 300;
/// A longer address is left out: cut in the middle, it would lead elsewhere.
const URL_BYTES: usize = 2000;
/// More pictures than this are left out.
const IMAGES: usize = 20;

/// What everybody may see of a user.
///
/// On the wire `{"id","name","avatar_url","avatar"}`; `avatar` repeats `avatar_url`, the app reads both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserProfile {
    /// Who it is.
    pub id: UserId,
    /// The name to show, never empty.
    pub name: String,
    /// Where the picture is.
    pub avatar_url: Option<String>,
}

impl UserProfile {
    /// The profile of somebody of whom only the id is known.
    pub fn unknown(id: UserId) -> Self {
        Self { id, name: format!("User {id}"), avatar_url: None }
    }

    /// What others see of somebody who was erased.
    pub fn deleted(id: UserId) -> Self {
        Self { id, name: "Deleted user".into(), avatar_url: None }
    }

    /// Reads a user as the main API writes it; `None` where there is no valid `id`.
    pub fn from_main_api(user: &Map<String, Value>) -> Option<Self> {
        let id = UserId(positive_id(user.get("id")?)?);
        let name = caption(user.get("name"), NAME_CHARS);
        Some(Self {
            id,
            name: if name.is_empty() { Self::unknown(id).name } else { name },
            avatar_url: address(user.get("avatar_url")),
        })
    }
}

impl Serialize for UserProfile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("UserProfile", 4)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("avatar_url", &self.avatar_url)?;
        fields.serialize_field("avatar", &self.avatar_url)?;
        fields.end()
    }
}

/// What a conversation shows of the product it is about.
///
/// On the wire `{"id","title","thumbnail_url","thumbnail","images","image_urls","price_per_day"}`;
/// `thumbnail` and `images` repeat their twins, the app reads both.
#[derive(Debug, Clone, PartialEq)]
pub struct ProductCard {
    /// Which product it is.
    pub id: ProductId,
    /// Its title, never empty.
    pub title: String,
    /// Where the small picture is.
    pub thumbnail_url: Option<String>,
    /// Where the pictures are.
    pub image_urls: Vec<String>,
    /// The price of a day, in the marketplace's currency.
    pub price_per_day: Option<f64>,
    /// Whose it is, where that is known; not on the wire.
    pub owner_id: Option<UserId>,
}

impl ProductCard {
    /// The card of a product of which only the id is known.
    pub fn unknown(id: ProductId) -> Self {
        Self {
            id,
            title: format!("Product {id}"),
            thumbnail_url: None,
            image_urls: Vec::new(),
            price_per_day: None,
            owner_id: None,
        }
    }

    /// Reads a product as the main API writes it; `None` where there is no valid `id`.
    pub fn from_main_api(product: &Map<String, Value>) -> Option<Self> {
        let id = ProductId(positive_id(product.get("id")?)?);
        let title = caption(product.get("title"), TITLE_CHARS);
        let images = product.get("image_urls").and_then(Value::as_array);
        Some(Self {
            id,
            title: if title.is_empty() { Self::unknown(id).title } else { title },
            thumbnail_url: address(product.get("thumbnail_url")),
            image_urls: images
                .into_iter()
                .flatten()
                .filter_map(|image| address(Some(image)))
                .take(IMAGES)
                .collect(),
            price_per_day: amount(product.get("price_per_day")),
            owner_id: product.get("owner").and_then(|owner| positive_id(owner.get("id")?)).map(UserId),
        })
    }
}

impl Serialize for ProductCard {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ProductCard", 7)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("title", &self.title)?;
        fields.serialize_field("thumbnail_url", &self.thumbnail_url)?;
        fields.serialize_field("thumbnail", &self.thumbnail_url)?;
        fields.serialize_field("images", &self.image_urls)?;
        fields.serialize_field("image_urls", &self.image_urls)?;
        fields.serialize_field("price_per_day", &self.price_per_day)?;
        fields.end()
    }
}

/// A positive id, as an integer or as a numeric string (contract section 5).
fn positive_id(value: &Value) -> Option<i64> {
    let id = match value {
        Value::Number(number) => number.as_i64()?,
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        _ => return None,
    };
    (id > 0).then_some(id)
}

/// A short text without control characters, cut to so many characters.
fn caption(value: Option<&Value>, max_chars: usize) -> String {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    let kept: String = text.chars().filter(|c| !c.is_control()).take(max_chars).collect();
    kept.trim().to_owned()
}

/// An address that may stand in a page: http, https, or relative to the marketplace.
fn address(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?.trim();
    if text.is_empty() || text.len() > URL_BYTES || text.chars().any(char::is_control) {
        return None;
    }
    match url::Url::parse(text) {
        // `javascript:` and `data:` would run or hide things in a client that trusts us.
        Ok(url) if !matches!(url.scheme(), "http" | "https") => None,
        Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => Some(text.to_owned()),
        Err(_) => None,
    }
}

/// A price: a number, or a numeric string as Laravel's decimal casts write it.
fn amount(value: Option<&Value>) -> Option<f64> {
    let amount = match value? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (amount.is_finite() && amount >= 0.0).then_some(amount)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(value: Value) -> Option<UserProfile> {
        UserProfile::from_main_api(value.as_object().expect("an object"))
    }

    fn product(value: Value) -> Option<ProductCard> {
        ProductCard::from_main_api(value.as_object().expect("an object"))
    }

    #[test]
    fn a_profile_has_the_shape_of_the_wire_and_no_email() {
        let profile = user(
            json!({"id": 2, "name": "Jane", "email": "jane@example.test", "avatar_url": "https://cdn.example.test/2.jpg"}),
        );
        assert_eq!(
            serde_json::to_value(profile).expect("JSON"),
            json!({
                "id": 2, "name": "Jane",
                "avatar_url": "https://cdn.example.test/2.jpg", "avatar": "https://cdn.example.test/2.jpg",
            })
        );
    }

    #[test]
    fn a_card_has_the_shape_of_the_wire() {
        let card = product(json!({
            "id": "5", "title": "Camera", "description": "Old", "price_per_day": 12.5, "thumbnail_url": "/storage/5.jpg",
            "image_urls": ["/storage/5a.jpg", "/storage/5b.jpg"], "owner": {"id": 2, "email": "jane@example.test"},
        }));
        assert_eq!(
            serde_json::to_value(card).expect("JSON"),
            json!({
                "id": 5, "title": "Camera", "thumbnail_url": "/storage/5.jpg", "thumbnail": "/storage/5.jpg",
                "images": ["/storage/5a.jpg", "/storage/5b.jpg"], "image_urls": ["/storage/5a.jpg", "/storage/5b.jpg"],
                "price_per_day": 12.5,
            })
        );
    }

    #[test]
    fn an_id_is_a_positive_integer_or_a_numeric_string() {
        for good in [json!(7), json!("7"), json!("007")] {
            assert_eq!(user(json!({"id": good})).map(|profile| profile.id), Some(UserId(7)), "{good}");
        }
        for bad in [
            json!(0),
            json!(-7),
            json!(7.5),
            json!("-7"),
            json!("7x"),
            json!(""),
            json!(null),
            json!([7]),
            json!(u64::MAX),
            json!("99999999999999999999"),
        ] {
            assert_eq!(user(json!({"id": bad})), None, "{bad}");
        }
        assert_eq!(user(json!({"name": "Nobody"})), None);
    }

    #[test]
    fn an_empty_name_becomes_one_that_can_be_shown() {
        assert_eq!(
            user(json!({"id": 2, "name": " \u{7} "})).expect("a user"),
            UserProfile::unknown(UserId(2))
        );
        assert_eq!(UserProfile::unknown(UserId(2)).name, "User 2");
        assert_eq!(product(json!({"id": 5, "title": null})).expect("a product").title, "Product 5");
    }

    #[test]
    fn addresses_that_are_not_of_the_web_are_left_out() {
        for bad in ["javascript:alert(1)", "data:text/html,x", " ", "https://"] {
            assert_eq!(user(json!({"id": 2, "avatar_url": bad})).expect("a user").avatar_url, None, "{bad}");
        }
        let endless = format!("https://cdn.example.test/{}", "x".repeat(URL_BYTES));
        assert_eq!(user(json!({"id": 2, "avatar_url": endless})).expect("a user").avatar_url, None);
    }

    #[test]
    fn a_price_may_be_a_numeric_string() {
        let price = |value: Value| {
            product(json!({"id": 5, "price_per_day": value})).expect("a product").price_per_day
        };
        assert_eq!(price(json!("12.50")), Some(12.5));
        assert_eq!(price(json!(12)), Some(12.0));
        assert_eq!(price(json!(null)), None);
        assert_eq!(price(json!("NaN")), None);
        assert_eq!(price(json!(-1)), None);
    }

    #[test]
    fn what_is_too_long_is_cut_or_left_out() {
        let card = product(json!({
            "id": 5, "title": "é".repeat(1000), "image_urls": vec!["/a.jpg"; 1000],
        }))
        .expect("a product");
        assert_eq!(card.title.chars().count(), TITLE_CHARS);
        assert_eq!(card.image_urls.len(), IMAGES);
    }
}
