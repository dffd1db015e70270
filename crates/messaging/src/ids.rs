//! Identifiers as types of their own, so that a user can never be passed where a conversation is meant.
//!
//! All are positive 64-bit integers and JSON numbers on the wire (contract section 1).

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
            schemars::JsonSchema,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(#[schemars(range(min = 1))] pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

id!(
    /// A user of the marketplace; the main API gives it out.
    UserId
);
id!(
    /// A product of the marketplace; the main API gives it out.
    ProductId
);
id!(
    /// A conversation of two users about one product, or about none.
    ConversationId
);
id!(
    /// A message.
    MessageId
);
id!(
    /// An uploaded file.
    AttachmentId
);
