//! Who is calling, and what is known of users and products.
pub mod cards;
