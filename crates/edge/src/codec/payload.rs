//! Engine.IO payloads: the packets of one long-polling body, separated by `\x1e`.
//!
//! Owns splitting, joining and base64 of binary packets; what a text packet means is read in the driver. Packets
//! over WebSocket need no payload: a frame each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Between two packets; it cannot occur in one, since JSON escapes control characters.
const SEPARATOR: char = '\x1e';

/// One packet of a polling body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A text packet, its type digit included.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

/// A body that is no payload: the session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPayload;

/// Reads the packets of a client's body: at least one, at most `max_packets`, each of a type that clients send.
pub fn decode(body: &str, max_packets: usize) -> Result<Vec<Packet>, BadPayload> {
    let mut packets = Vec::new();
    for packet in body.split(SEPARATOR) {
        if packets.len() == max_packets {
            return Err(BadPayload);
        }
        packets.push(match packet.as_bytes().first() {
            Some(b'b') => {
                let bytes = STANDARD.decode(packet.get(1..).unwrap_or_default()).map_err(|_| BadPayload)?;
                Packet::Binary(bytes.into())
            }
            // Close, pong, message, noop: what a client may say by polling.
            Some(b'1' | b'3' | b'4' | b'6') => Packet::Text(packet.to_owned()),
            _ => return Err(BadPayload),
        });
    }
    Ok(packets)
}

/// Collects packets into the body of a poll's answer.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// Adds a text packet, its type digit included.
    pub fn text(&mut self, packet: &[u8]) {
        self.separate();
        self.0.extend_from_slice(packet);
    }

    /// Adds a binary message.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.separate();
        self.0.push(b'b');
        self.0.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    }

    /// The body so far.
    pub fn finish(self) -> Bytes {
        self.0.into()
    }

    fn separate(&mut self) {
        if !self.0.is_empty() {
            self.0.push(SEPARATOR as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(packet: &str) -> Packet {
        Packet::Text(packet.into())
    }

    #[test]
    fn packets_are_split_and_binary_is_base64() {
        let packets = decode("4hello\x1ebAQIDBA==\x1e3", 10).unwrap();
        assert_eq!(packets, [text("4hello"), Packet::Binary(Bytes::from_static(&[1, 2, 3, 4])), text("3")]);
        assert_eq!(decode("b", 10).unwrap(), [Packet::Binary(Bytes::new())]);
        assert_eq!(decode("4é\x1e4", 10).unwrap(), [text("4é"), text("4")]);
    }

    #[test]
    fn what_is_no_payload_is_refused() {
        for bad in ["", "abc", "4a\x1e", "\x1e4a", "b=", "b!", "bAQ", "0{}", "2", "5", "é", "4a\x1e\x1e4b"] {
            assert_eq!(decode(bad, 10), Err(BadPayload), "{bad:?}");
        }
        assert!(decode("4\x1e4\x1e4", 3).is_ok());
        assert_eq!(decode("4\x1e4\x1e4\x1e4", 3), Err(BadPayload));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut encoder = Encoder::default();
        encoder.text(b"4one");
        encoder.binary(&[0, 255]);
        encoder.text(b"4");
        let body = encoder.finish();
        assert_eq!(
            decode(std::str::from_utf8(&body).unwrap(), 3).unwrap(),
            [text("4one"), Packet::Binary(Bytes::from_static(&[0, 255])), text("4")]
        );
    }
}
