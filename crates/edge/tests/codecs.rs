//! The wire formats against arbitrary input: nothing panics, nothing depends on where bytes are cut.
//!
//! The corpus that the fuzz targets grow from is run here too, so that a bounded run is part of every test.

use std::path::Path;

use edge::codec::frame::{Decoder, FrameError, Incoming, Limits, Opcode, payload, put};
use edge::codec::{packet, payload as polling, plain};
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_payload: 4000, max_fragments: 20 };

/// Everything that a decoder finds when the bytes come in pieces cut at these places.
fn decode(bytes: &[u8], mut cuts: Vec<usize>) -> (Vec<String>, Option<FrameError>) {
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let (mut decoder, mut found, mut waiting, mut at) = (Decoder::default(), Vec::new(), Vec::new(), 0);
    for cut in cuts {
        waiting.extend_from_slice(&bytes[at..cut]);
        at = cut;
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

/// A client's frame: final or not, opcode, mask, payload.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let sound = prop_oneof![
        5 => Just(0x81_u8), 3 => Just(0x82), 3 => Just(0x01), 2 => Just(0x02), 4 => Just(0x00), 4 => Just(0x80),
        2 => Just(0x89), 1 => Just(0x8A), 1 => Just(0x88), 1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => "[a-zé🚲]{0,40}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..130),
        1 => (0..4200_usize).prop_map(|len| vec![b'x'; len]),
    ];
    (sound, any::<[u8; 4]>(), payload).prop_map(|(first, mask, payload)| {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    })
}

proptest! {
    #[test]
    fn frames_are_the_same_wherever_they_are_cut(
        frames in prop::collection::vec(frames(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes = frames.concat();
        let cuts = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        prop_assert_eq!(decode(&bytes, cuts), decode(&bytes, Vec::new()));
        let every = (0..bytes.len()).collect();
        prop_assert_eq!(decode(&bytes, every), decode(&bytes, Vec::new()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode(&bytes, (0..bytes.len()).collect());
        run_all(&bytes);
    }

    #[test]
    fn what_was_split_into_fragments_is_joined_again(
        text in "[a-zé🚲]{0,60}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let (mut wire, mut at) = (Vec::new(), 0);
        for (n, &cut) in cuts.iter().enumerate() {
            let first = if n == 0 { 0x01 } else { 0x00 } | if n + 1 == cuts.len() { 0x80 } else { 0 };
            wire.extend([first, 0x80 | (cut - at) as u8, 0, 0, 0, 0]);
            wire.extend(&bytes[at..cut]);
            at = cut;
        }
        prop_assume!(text.len() <= 125);
        let whole = format!("{:?}", Incoming::Text(text.as_str().into()));
        prop_assert_eq!(decode(&wire, Vec::new()), (vec![whole], None));
    }

    #[test]
    fn what_is_put_has_the_payload_it_was_given(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..4)) {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        put(&mut out, Opcode::Binary, &parts);
        out.extend([0x81, 0]);
        prop_assert_eq!(payload(&out), parts.concat());
    }

    #[test]
    fn texts_near_the_grammar_never_panic(text in "[0-9]{0,3}-?(/[a-z]{0,3},?)?[0-9]{0,3}[\\[\\]{}\",a-z0-9:]{0,30}") {
        run_all(text.as_bytes());
    }

    #[test]
    fn polling_payloads_come_back_as_they_were(
        packets in prop::collection::vec(
            prop_oneof![
                "4[^\u{1e}]{0,20}".prop_map(polling::Packet::Text),
                prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| polling::Packet::Binary(bytes.into())),
            ],
            1..10,
        ),
    ) {
        let mut encoder = polling::Encoder::default();
        for packet in &packets {
            match packet {
                polling::Packet::Text(text) => encoder.text(text.as_bytes()),
                polling::Packet::Binary(bytes) => encoder.binary(bytes),
            }
        }
        let body = encoder.finish();
        prop_assert_eq!(polling::decode(std::str::from_utf8(&body).unwrap(), 10).unwrap(), packets);
    }
}

/// What each fuzz target does with its input.
fn run_all(bytes: &[u8]) {
    decode(bytes, Vec::new());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = polling::decode(text, 10);
        let _ = packet::parse(text);
        if let Ok(frame) = plain::parse(text) {
            assert!(frame.name.is_none_or(|name| !name.is_empty()));
        }
    }
}

#[test]
fn the_corpus_of_every_fuzz_target_runs_clean() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for target in ["frame", "payload", "packet", "plain"] {
        let mut seeds = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            run_all(&bytes);
            let whole = decode(&bytes, Vec::new());
            assert_eq!(decode(&bytes, (0..bytes.len()).collect()), whole);
            seeds += 1;
        }
        assert!(seeds >= 5, "{target} has {seeds} seeds");
    }
}
