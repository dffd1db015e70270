//! Telling people of messages that they have not seen.

pub mod email;
