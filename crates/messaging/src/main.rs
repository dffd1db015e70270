//! The binary `rented-messaging`.

fn main() {}
