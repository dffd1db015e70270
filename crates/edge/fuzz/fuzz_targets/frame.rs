//! WebSocket frames: never a panic, and the same messages however the bytes are cut.

#![no_main]

use edge::codec::frame::{Decoder, FrameError, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_payload: 4000, max_fragments: 20 };

fn decode(bytes: &[u8], step: usize) -> (Vec<String>, Option<FrameError>) {
    let (mut decoder, mut found, mut waiting) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        waiting.extend_from_slice(piece);
        loop {
            match decoder.next(&mut waiting, LIMITS) {
                Err(error) => return (found, Some(error)),
                Ok((0, _)) => break,
                Ok((used, incoming)) => {
                    found.extend(incoming.map(|incoming| format!("{incoming:?}")));
                    waiting.drain(..used);
                }
            }
        }
    }
    (found, None)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(decode(bytes, 1), whole);
    assert_eq!(decode(bytes, 7), whole);
});
