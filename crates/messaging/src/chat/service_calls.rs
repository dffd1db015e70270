//! What the main API does in conversations: notices of the marketplace, offers and their states.
//!
//! A message comes from one of the two all the same: the other one's counter moves, as with any
//! message, and everything that follows from one follows here. Refreshing, forgetting and erasing are
//! in `refresh` and `erase`.

use std::time::Instant;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Chat, PendingSend, input::Fields, views::MessageView};
use crate::{
    content::{ClientMessageId, MessageText, Metadata, Offer, OfferChange},
    errors::{Error, Result},
    ids::{ConversationId, ProductId, UserId},
    storage::{
        batch::{NewMessage, Target},
        changes::{MessageChange, Subject},
        rows::MessageType,
    },
};

/// Messages that one offer may be shown in; those past it are not changed.
const MAX_OF_OFFER: i64 = 100;

/// A notice or an offer that the main API wants to post.
#[derive(Debug, Clone)]
pub struct PostMessage {
    target: PostTarget,
    sender_id: UserId,
    content: MessageText,
    offer: Option<Offer>,
    metadata: Option<Metadata>,
    client_message_id: Option<ClientMessageId>,
}

#[derive(Debug, Clone, Copy)]
enum PostTarget {
    Conversation(ConversationId),
    Users { users: [UserId; 2], product_id: Option<ProductId> },
}

impl PostMessage {
    /// Reads a request body, and the header `Idempotency-Key` if there is one.
    pub fn parse(json: &str, idempotency_key: Option<&str>) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let target = target(&mut fields);
        let sender_id = fields.required_id("sender_id").map(UserId);
        if let (Some(PostTarget::Users { users, .. }), Some(sender_id)) = (target, sender_id)
            && !users.contains(&sender_id)
        {
            fields.refuse("sender_id", "The selected sender_id is not one of user_ids.");
        }
        let offer = match fields.text("type").as_deref() {
            Some("system") if fields.value("offer").is_some() => {
                fields.refuse("offer", "The offer field is only for messages of the type offer.");
                None
            }
            Some("system") => None,
            Some("offer") => {
                let offer = fields.value("offer").cloned().unwrap_or(Value::Null);
                fields.check(Offer::parse(&offer))
            }
            _ => {
                fields.refuse("type", "The selected type is invalid: it is system or offer.");
                None
            }
        };
        let text = fields.text("content").unwrap_or_default();
        let content = match offer {
            // The app shows the offer itself.
            Some(_) => fields.check(MessageText::parse_beside_attachment(&text)),
            None => fields.check(MessageText::parse(&text)),
        };
        let metadata = fields.value("metadata").cloned();
        let metadata = metadata.and_then(|value| fields.check(Metadata::parse(value))).flatten();
        let key = match (fields.text("client_message_id"), idempotency_key) {
            (Some(id), Some(key)) if id != key => {
                fields.refuse("client_message_id", "The client_message_id and the Idempotency-Key differ.");
                None
            }
            (id, key) => id.or_else(|| key.map(ToOwned::to_owned)),
        };
        let client_message_id = key.and_then(|key| fields.check(ClientMessageId::parse_of_main_api(&key)));
        let request = match (target, sender_id, content) {
            (Some(target), Some(sender_id), Some(content)) => {
                Some(Self { target, sender_id, content, offer, metadata, client_message_id })
            }
            _ => None,
        };
        fields.finish(request)
    }

    const fn kind(&self) -> MessageType {
        if self.offer.is_some() { MessageType::Offer } else { MessageType::System }
    }

    /// A hash of all that was asked for but the target, as with users' messages.
    fn fingerprint(&self) -> i64 {
        let asked = serde_json::json!([
            self.kind(),
            self.content.as_str(),
            self.offer.as_ref().map(Offer::to_json),
            self.metadata.as_ref().map(Metadata::to_json),
        ]);
        let hash = Sha256::digest(asked.to_string());
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(first)
    }
}

fn target(fields: &mut Fields) -> Option<PostTarget> {
    if fields.value("conversation_id").is_some() {
        return fields.id("conversation_id").map(|id| PostTarget::Conversation(ConversationId(id)));
    }
    let Some(given) = fields.value("user_ids") else {
        fields
            .refuse("conversation_id", "The conversation_id field is required when user_ids is not present.");
        return None;
    };
    let ids: Option<Vec<i64>> = given
        .as_array()
        .and_then(|ids| ids.iter().map(|id| id.as_i64().filter(|id| *id > 0)).collect::<Option<_>>());
    let users = match ids.as_deref() {
        Some([one, other]) if one != other => Some([UserId(*one), UserId(*other)]),
        _ => {
            fields.refuse("user_ids", "The user_ids field must be the ids of two different users.");
            None
        }
    };
    let is_product_wrong = fields.value("product_id").is_some_and(|id| id.as_i64().is_none_or(|id| id <= 0));
    let product_id = fields.id("product_id").map(ProductId);
    users.filter(|_| !is_product_wrong).map(|users| PostTarget::Users { users, product_id })
}

impl Chat {
    /// Queues a message of the main API among all others. No limit holds for it; a notice passes a
    /// block, an offer, which is a word of one user to the other, does not.
    pub async fn post_message(&self, request: PostMessage) -> Result<PendingSend> {
        let sender_id = request.sender_id;
        let target = match request.target {
            PostTarget::Conversation(id) => {
                let participants = self.inner.store.participants(id).await?;
                if participants.ok_or(Error::ConversationNotFound)?.other(sender_id).is_none() {
                    let sentence = "The selected sender_id takes no part in this conversation.";
                    return Err(Error::field("sender_id", sentence));
                }
                Target::Conversation(id)
            }
            PostTarget::Users { users: [one, other], product_id } => {
                match self.inner.store.find_conversation(one, other, product_id).await? {
                    Some(id) => Target::Conversation(id),
                    None => {
                        let receiver_id = if one == sender_id { other } else { one };
                        Target::User { receiver_id, product_id }
                    }
                }
            }
        };
        let message = NewMessage {
            sender_id,
            target,
            kind: request.kind(),
            fingerprint: request.fingerprint(),
            content: request.content.into_string(),
            file_url: None,
            attachment_id: None,
            reply_to_id: None,
            metadata: request.metadata.as_ref().map(Metadata::to_json),
            offer: request.offer.as_ref().map(Offer::to_json),
            client_message_id: request.client_message_id.map(ClientMessageId::into_string),
        };
        let outcome = self.writers().send(message)?;
        Ok(PendingSend { chat: self.clone(), outcome, queued_at: Instant::now(), rate_limit: None })
    }

    /// Changes an offer in every message that shows it. Answers them as they are then.
    pub async fn update_offer(&self, offer: i64, change: OfferChange) -> Result<Vec<MessageView>> {
        let ids = self.inner.store.messages_of_offer(offer, MAX_OF_OFFER).await?;
        if ids.is_empty() {
            return Err(Error::NotFound("There is no message with this offer.".into()));
        }
        for id in &ids {
            let (store, id, change) = (self.inner.store.clone(), *id, change.clone());
            self.carry_out(async move {
                store.change_message(id, |subject| changed_offer(subject, &change)).await
            })
            .await?;
        }
        let mut rows = self.inner.store.messages_by_id(&ids).await?;
        let rows = ids.iter().filter_map(|id| rows.remove(id)).collect();
        Ok(self.views(rows).await)
    }
}

fn changed_offer(subject: &Subject, change: &OfferChange) -> Result<Option<MessageChange>> {
    // Without one it was deleted meanwhile.
    let Some(stored) = &subject.message.offer else { return Ok(None) };
    Ok(change.apply(stored)?.map(|offer| MessageChange::Offer { offer }))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn refused(json: &str) -> Vec<String> {
        match PostMessage::parse(json, None) {
            Err(Error::Validation(fields)) => fields.into_keys().map(Cow::into_owned).collect(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_post_is_checked_field_by_field() {
        assert_eq!(refused("{}"), ["content", "conversation_id", "sender_id", "type"]);
        let base = r#""sender_id":1,"content":"x","type":"system""#;
        for users in ["[1]", "[1,1]", "[1,2,3]", r#"["1",2]"#, "[1,0]", "7", "[1,2.5]"] {
            assert_eq!(refused(&format!(r#"{{"user_ids":{users},{base}}}"#)), ["user_ids"], "{users}");
        }
        assert_eq!(refused(&format!(r#"{{"user_ids":[2,3],{base}}}"#)), ["sender_id"]);
        assert_eq!(refused(&format!(r#"{{"user_ids":[1,2],"product_id":"5",{base}}}"#)), ["product_id"]);
        assert_eq!(refused(&format!(r#"{{"conversation_id":1,"offer":{{}},{base}}}"#)), ["offer"]);
        assert_eq!(refused(r#"{"conversation_id":1,"sender_id":1,"type":"text","content":"x"}"#), ["type"]);
        assert_eq!(refused(r#"{"conversation_id":1,"sender_id":1,"type":"offer","content":"x"}"#), ["offer"]);
        assert_eq!(
            refused(r#"{"conversation_id":1,"sender_id":1,"type":"system","content":" "}"#),
            ["content"]
        );
    }

    #[test]
    fn a_key_may_come_by_header_or_body_but_not_two() {
        let body = r#"{"conversation_id":1,"sender_id":1,"type":"system","content":"x"}"#;
        let keyed =
            r#"{"conversation_id":1,"sender_id":1,"type":"system","content":"x","client_message_id":"a"}"#;
        let id = |json: &str, header| {
            PostMessage::parse(json, header)
                .map(|request| request.client_message_id.map(|id| id.into_string()))
        };
        assert_eq!(id(body, None).expect("a post"), None);
        assert_eq!(id(body, Some("a")).expect("a post"), id(keyed, None).expect("a post"));
        assert_eq!(id(keyed, Some("a")).expect("a post"), id(keyed, None).expect("a post"));
        assert!(id(keyed, Some("b")).is_err());
    }
}
