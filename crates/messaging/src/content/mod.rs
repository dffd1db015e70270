//! What a message may carry, parsed once at the border and passed on as proof.
//!
//! Owns the rules of contract section 3 rule 3: text, metadata, reactions, links and the client's
//! own ids. It knows no user, no database and no transport; who may send is asked in `chat`.
//! Everything here refuses with a validation error that names the field as the wire does.

mod client_message_id;
mod emoji;
mod file_url;
mod markup;
mod metadata;
mod offer;
mod search;
mod text;

pub use client_message_id::ClientMessageId;
pub use emoji::Emoji;
pub use file_url::FileUrl;
pub use metadata::Metadata;
pub use offer::{Offer, OfferChange};
pub use search::{Highlight, Needle, folded};
pub use text::{MAX_CHARACTERS, MessageText};
