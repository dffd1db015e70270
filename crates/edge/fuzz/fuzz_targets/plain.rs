//! Frames of the plain dialect: never a panic, and a name whenever there is a frame.

#![no_main]

use edge::codec::plain::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(frame) = parse(text) {
        assert!(frame.name.is_none_or(|name| !name.is_empty()));
        assert!(frame.reference.is_none_or(|reference| reference.len() <= 256));
    }
});
