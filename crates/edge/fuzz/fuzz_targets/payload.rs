//! Engine.IO payloads: never a panic, and what was decoded encodes to what decodes alike.

#![no_main]

use edge::codec::payload::{Encoder, Packet, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &str| {
    let Ok(packets) = decode(body, 100) else { return };
    assert!(!packets.is_empty() && packets.len() <= 100);
    let mut encoder = Encoder::default();
    for packet in &packets {
        match packet {
            Packet::Text(text) => encoder.text(text.as_bytes()),
            Packet::Binary(bytes) => encoder.binary(bytes),
        }
    }
    let again = encoder.finish();
    let again = std::str::from_utf8(&again).expect("text and base64 are UTF-8");
    assert_eq!(decode(again, 100), Ok(packets));
});
