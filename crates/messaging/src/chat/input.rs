//! What clients ask for, parsed once at the border: whatever gets past here is checked.
//!
//! Fields that the service does not know are ignored; fields that only the service decides
//! (`sender_id`, `id`, `is_read`, `created_at`) are never looked at (contract section 1).

use std::borrow::Cow;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    content::{ClientMessageId, FileUrl, MessageText, Metadata},
    errors::{Error, FieldErrors, Result},
    ids::{AttachmentId, ConversationId, MessageId, ProductId, UserId},
    storage::{batch::Target, batch::Which, rows::MessageType},
};

/// More messages than this at once belong into `up_to_id`.
pub const MAX_IDS: usize = 1000;

/// A JSON object whose fields are read one by one; what is wrong with them adds up.
#[derive(Debug)]
pub struct Fields {
    object: Map<String, Value>,
    errors: FieldErrors,
}

impl Fields {
    /// Reads a JSON object; an empty text is an empty object.
    pub fn parse(json: &str) -> Result<Self> {
        if json.trim().is_empty() {
            return Ok(Self { object: Map::new(), errors: FieldErrors::new() });
        }
        match serde_json::from_str(json) {
            Ok(Value::Object(object)) => Ok(Self { object, errors: FieldErrors::new() }),
            Ok(_) => Err(Error::BadRequest("The body must be a JSON object.".into())),
            Err(_) => Err(Error::BadRequest("The body is not valid JSON.".into())),
        }
    }

    /// Notes what is wrong with a field.
    pub fn refuse(&mut self, name: impl Into<Cow<'static, str>>, sentence: impl Into<String>) {
        self.errors.entry(name.into()).or_default().push(sentence.into());
    }

    /// Keeps a parsed value, or notes what was wrong with it.
    pub fn check<T>(&mut self, parsed: Result<T>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(Error::Validation(errors)) => {
                for (name, sentences) in errors {
                    self.errors.entry(name).or_default().extend(sentences);
                }
                None
            }
            Err(other) => {
                self.refuse("body", other.message().into_owned());
                None
            }
        }
    }

    /// A value that is there and not null.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A value that is there, null or not.
    pub fn given(&self, name: &str) -> Option<&Value> {
        self.object.get(name)
    }

    /// A text, if there is one.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.value(name) {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => {
                self.refuse(name, format!("The {name} field must be a string."));
                None
            }
        }
    }

    /// A positive 64-bit integer, if there is one.
    pub fn id(&mut self, name: &'static str) -> Option<i64> {
        let value = self.value(name)?;
        let id = value.as_i64().filter(|id| *id > 0);
        if id.is_none() {
            self.refuse(name, format!("The {name} field must be a positive integer."));
        }
        id
    }

    /// A yes or no that must be there.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        let flag = self.value(name).and_then(Value::as_bool);
        if flag.is_none() {
            self.refuse(name, format!("The {name} field must be true or false."));
        }
        flag
    }

    /// A positive integer that must be there.
    pub fn required_id(&mut self, name: &'static str) -> Option<i64> {
        if self.value(name).is_none() {
            self.refuse(name, format!("The {name} field is required."));
            return None;
        }
        self.id(name)
    }

    /// Whether anything was wrong so far.
    pub fn is_refused(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The end of reading: `value` if nothing was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ if self.errors.is_empty() => Err(Error::BadRequest("The request cannot be read.".into())),
            _ => Err(Error::Validation(self.errors)),
        }
    }
}

/// A message that a user wants to send (contract section 2, `POST /api/messages`).
#[derive(Debug, Clone)]
pub struct SendMessage {
    /// Where to.
    pub target: Target,
    /// What it is: text, image or file.
    pub kind: MessageType,
    /// The words; empty only beside a file.
    pub content: MessageText,
    /// A link to a file elsewhere.
    pub file_url: Option<FileUrl>,
    /// An upload of the sender.
    pub attachment_id: Option<AttachmentId>,
    /// The message answered.
    pub reply_to_id: Option<MessageId>,
    /// The sender's own id for it.
    pub client_message_id: Option<ClientMessageId>,
    /// What the client sends along.
    pub metadata: Option<Metadata>,
}

impl SendMessage {
    /// Reads a request body or an event's argument.
    pub fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let target = target(&mut fields);
        let kind = kind(&mut fields);
        let attachment_id = fields.id("attachment_id").map(AttachmentId);
        let file_url = fields.text("file_url").and_then(|url| fields.check(FileUrl::parse(&url)));
        let has_file = attachment_id.is_some() || fields.value("file_url").is_some();
        if matches!(kind, Some(MessageType::Image | MessageType::File)) && !has_file {
            fields.refuse("attachment_id", "An image or file needs an attachment_id or a file_url.");
        }
        let text = fields.text("content").unwrap_or_default();
        let content = if fields.errors.contains_key("content") {
            None
        } else if has_file {
            fields.check(MessageText::parse_beside_attachment(&text))
        } else {
            fields.check(MessageText::parse(&text))
        };
        let reply_to_id = fields.id("reply_to_id").map(MessageId);
        let client_message_id =
            fields.text("client_message_id").and_then(|id| fields.check(ClientMessageId::parse(&id)));
        let metadata = fields.value("metadata").cloned();
        let metadata = metadata.and_then(|value| fields.check(Metadata::parse(value))).flatten();
        let request = match (target, kind, content) {
            (Some(target), Some(kind), Some(content)) => Some(Self {
                target,
                kind,
                content,
                file_url,
                attachment_id,
                reply_to_id,
                client_message_id,
                metadata,
            }),
            _ => None,
        };
        fields.finish(request)
    }

    /// A hash of all that was asked for: the same client message id with another one is a conflict.
    pub fn fingerprint(&self) -> i64 {
        // What the client named as its target may be resolved to a conversation only later, so the
        // target is left out: one id means one message, wherever it was meant to go.
        let asked = serde_json::json!([
            self.kind,
            self.content.as_str(),
            self.file_url.as_ref().map(FileUrl::as_str),
            self.attachment_id,
            self.reply_to_id,
            self.metadata.as_ref().map(Metadata::to_json),
        ]);
        let hash = Sha256::digest(asked.to_string());
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(first)
    }
}

fn target(fields: &mut Fields) -> Option<Target> {
    if fields.value("conversation_id").is_some() {
        return fields.id("conversation_id").map(|id| Target::Conversation(ConversationId(id)));
    }
    let name = if fields.value("receiver_id").is_some() { "receiver_id" } else { "recipient_id" };
    if fields.value(name).is_none() {
        fields.refuse(
            "conversation_id",
            "The conversation_id field is required when receiver_id is not present.",
        );
        return None;
    }
    let receiver_id = fields.id(name).map(UserId);
    let product_id = fields.id("product_id").map(ProductId);
    if fields.is_refused() {
        return None;
    }
    receiver_id.map(|receiver_id| Target::User { receiver_id, product_id })
}

fn kind(fields: &mut Fields) -> Option<MessageType> {
    let Some(name) = fields.text("type") else {
        return (!fields.errors.contains_key("type")).then_some(MessageType::Text);
    };
    match name.parse() {
        Ok(kind @ (MessageType::Text | MessageType::Image | MessageType::File)) => Some(kind),
        // `system` and `offer` come from the main API alone.
        _ => {
            fields.refuse("type", "The selected type is invalid: it is text, image or file.");
            None
        }
    }
}

/// Messages that a user read or received (contract 4.3 `mark_read`, `mark_delivered`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkRead {
    /// Where.
    pub conversation_id: ConversationId,
    /// Which.
    pub which: Which,
}

impl MarkRead {
    /// All messages of a conversation.
    pub const fn all(conversation_id: ConversationId) -> Self {
        Self { conversation_id, which: Which::All }
    }

    /// Reads an event's argument: `{conversation_id, message_ids | up_to_id}`.
    pub fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let conversation_id = fields.required_id("conversation_id").map(ConversationId);
        let which = match fields.value("message_ids") {
            Some(Value::Array(values)) if values.len() > MAX_IDS => {
                fields.refuse(
                    "message_ids",
                    format!("The message_ids field must not have more than {MAX_IDS} items."),
                );
                None
            }
            Some(Value::Array(values)) => {
                let ids: Option<Vec<_>> =
                    values.iter().map(|value| value.as_i64().filter(|id| *id > 0).map(MessageId)).collect();
                if ids.is_none() {
                    fields.refuse(
                        "message_ids",
                        "The message_ids field must be an array of positive integers.",
                    );
                }
                ids.map(Which::Ids)
            }
            Some(_) => {
                fields.refuse("message_ids", "The message_ids field must be an array of positive integers.");
                None
            }
            None if fields.value("up_to_id").is_some() => {
                fields.id("up_to_id").map(|id| Which::UpToId(MessageId(id)))
            }
            None => {
                fields
                    .refuse("message_ids", "The message_ids field is required when up_to_id is not present.");
                None
            }
        };
        let mark = conversation_id.zip(which).map(|(conversation_id, which)| Self { conversation_id, which });
        fields.finish(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> Vec<String> {
        match SendMessage::parse(json) {
            Err(Error::Validation(fields)) => fields.into_keys().map(Cow::into_owned).collect(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_message_needs_a_target_and_words() {
        assert_eq!(refused("{}"), ["content", "conversation_id"]);
        assert_eq!(refused(r#"{"conversation_id":1,"content":"  "}"#), ["content"]);
        assert_eq!(refused(r#"{"conversation_id":"1","content":"x"}"#), ["conversation_id"]);
        assert_eq!(refused(r#"{"conversation_id":1.5,"content":"x"}"#), ["conversation_id"]);
        assert_eq!(refused(r#"{"receiver_id":-2,"content":"x"}"#), ["receiver_id"]);
        assert_eq!(refused(r#"{"recipient_id":2,"product_id":"five","content":"x"}"#), ["product_id"]);
        assert_eq!(refused(r#"{"conversation_id":1,"content":7}"#), ["content"]);
        assert_eq!(refused(r#"{"conversation_id":1,"content":"x","type":"offer"}"#), ["type"]);
        assert_eq!(refused(r#"{"conversation_id":1,"content":"x","type":"image"}"#), ["attachment_id"]);
    }

    #[test]
    fn what_only_the_service_decides_is_ignored() {
        let request =
            SendMessage::parse(r#"{"conversation_id":1,"content":" hi ","sender_id":9,"id":7,"unknown":{}}"#)
                .expect("a message");
        assert_eq!(request.target, Target::Conversation(ConversationId(1)));
        assert_eq!(request.content.as_str(), "hi");
        assert_eq!(request.kind, MessageType::Text);
    }

    #[test]
    fn words_may_be_missing_beside_a_file() {
        let request = SendMessage::parse(
            r#"{"receiver_id":2,"type":"image","file_url":"https://cdn.example.test/a.jpg"}"#,
        )
        .expect("a message");
        assert!(request.content.is_empty());
        assert_eq!(request.target, Target::User { receiver_id: UserId(2), product_id: None });
    }

    #[test]
    fn a_fingerprint_tells_bodies_apart() {
        let parse = |json: &str| SendMessage::parse(json).expect("a message").fingerprint();
        let one = parse(r#"{"conversation_id":1,"content":"hi","client_message_id":"a"}"#);
        assert_eq!(one, parse(r#"{"content":"hi ","conversation_id":1,"client_message_id":"a","x":1}"#));
        assert_ne!(one, parse(r#"{"conversation_id":1,"content":"ho","client_message_id":"a"}"#));
        assert_ne!(one, parse(r#"{"conversation_id":1,"content":"hi","reply_to_id":4}"#));
    }

    #[test]
    fn marks_name_messages_or_a_place() {
        let mark = MarkRead::parse(r#"{"conversation_id":1,"message_ids":[1,2]}"#).expect("a mark");
        assert_eq!(mark.which, Which::Ids(vec![MessageId(1), MessageId(2)]));
        let mark = MarkRead::parse(r#"{"conversation_id":1,"up_to_id":5}"#).expect("a mark");
        assert_eq!(mark.which, Which::UpToId(MessageId(5)));
        for bad in [
            r#"{"conversation_id":1}"#,
            r#"{"message_ids":[1]}"#,
            r#"{"conversation_id":1,"message_ids":["1"]}"#,
        ] {
            assert!(MarkRead::parse(bad).is_err(), "{bad}");
        }
    }
}
