//! Socket.IO packets: never a panic, and namespaces are short.

#![no_main]

use edge::codec::packet::{Packet, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(
        Packet::Connect { namespace, .. }
        | Packet::Disconnect { namespace }
        | Packet::Event { namespace, .. }
        | Packet::Ack { namespace, .. },
    ) = parse(text)
    {
        assert!(namespace.starts_with('/') && namespace.len() <= 128);
    }
});
