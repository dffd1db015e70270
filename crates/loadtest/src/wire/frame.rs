//! WebSocket frames (RFC 6455) from the client's side: masked out, unmasked in.
//!
//! Owns bytes to messages and back. What messages mean is in `packet`; the socket is in `link`.

use std::cell::Cell;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The goodbye, with a code and a reason.
    Close,
    /// To be answered with a pong of the same payload.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    fn code(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// No answer of the service comes near this; a length beyond it is a broken frame.
const MAX_MESSAGE: u64 = 64 * 1024 * 1024;

thread_local! {
    static MASK: Cell<u32> = const { Cell::new(0x9e37_79b9) };
}

/// Masks differ from frame to frame, as servers may expect; nothing here needs them to be secret.
fn next_mask() -> [u8; 4] {
    MASK.with(|mask| {
        let mut x = mask.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        mask.set(x);
        x.to_le_bytes()
    })
}

/// Appends one whole masked frame with the payload's parts.
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x80 | opcode.code());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(0x80 | short),
        (_, Ok(medium)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = next_mask();
    out.extend_from_slice(&mask);
    let mut place = 0;
    for part in parts {
        out.extend(part.iter().enumerate().map(|(index, byte)| byte ^ mask[(place + index) & 3]));
        place += part.len();
    }
}

/// Puts messages together from bytes as they come. Holds nothing while no frame is cut short.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
    fragments: Option<(Opcode, Vec<u8>)>,
}

/// A frame that the service should not have sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl Decoder {
    /// Takes bytes and hands each whole message on.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Opcode, &[u8]) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        if self.partial.is_empty() {
            let used = self.consume(bytes, &mut take)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(bytes);
        let used = self.consume(&whole, &mut take)?;
        if used < whole.len() {
            whole.drain(..used);
            self.partial = whole;
        }
        Ok(())
    }

    fn consume(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Opcode, &[u8]) -> Result<(), Broken>,
    ) -> Result<usize, Broken> {
        let mut used = 0;
        while let Some(head) = Head::read(&bytes[used..])? {
            let start = used + head.size;
            let Some(payload) = start.checked_add(head.length).and_then(|end| bytes.get(start..end)) else {
                break;
            };
            used = start + head.length;
            self.frame(&head, payload, take)?;
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        head: &Head,
        payload: &[u8],
        take: &mut impl FnMut(Opcode, &[u8]) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        match (head.opcode, self.fragments.take()) {
            (Some(opcode), rest) if opcode.code() >= 8 => {
                self.fragments = rest;
                take(opcode, payload)
            }
            (Some(opcode), None) if head.is_last => take(opcode, payload),
            (Some(opcode), None) => {
                self.fragments = Some((opcode, payload.to_vec()));
                Ok(())
            }
            (None, Some((opcode, mut message))) => {
                message.extend_from_slice(payload);
                if message.len() as u64 > MAX_MESSAGE {
                    return Err(Broken("a message is longer than 64 MiB"));
                }
                if head.is_last {
                    return take(opcode, &message);
                }
                self.fragments = Some((opcode, message));
                Ok(())
            }
            (Some(_), Some(_)) => Err(Broken("a message began inside another")),
            (None, None) => Err(Broken("a message was continued that never began")),
        }
    }
}

struct Head {
    is_last: bool,
    /// None is a continuation.
    opcode: Option<Opcode>,
    size: usize,
    length: usize,
}

impl Head {
    /// None: more bytes are needed.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Broken("a reserved bit is set although no extension was agreed on"));
        }
        if second & 0x80 != 0 {
            return Err(Broken("a frame of the server is masked"));
        }
        let opcode = match first & 0x0f {
            0 => None,
            code => Some(Opcode::from_code(code).ok_or(Broken("a frame has an unknown opcode"))?),
        };
        let (size, length) = match second & 0x7f {
            126 => match bytes.get(2..4).and_then(|bytes| bytes.try_into().ok()) {
                Some(length) => (4, u64::from(u16::from_be_bytes(length))),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
                Some(length) => (10, u64::from_be_bytes(length)),
                None => return Ok(None),
            },
            short => (2, u64::from(short)),
        };
        if length > MAX_MESSAGE {
            return Err(Broken("a frame is longer than 64 MiB"));
        }
        let length = usize::try_from(length).map_err(|_| Broken("a frame is longer than memory"))?;
        Ok(Some(Self { is_last: first & 0x80 != 0, opcode, size, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<(Opcode, Vec<u8>)>, Broken> {
        let mut messages = Vec::new();
        decoder.feed(bytes, |opcode, payload| {
            messages.push((opcode, payload.to_vec()));
            Ok(())
        })?;
        Ok(messages)
    }

    fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        if payload.len() < 126 {
            frame.push(u8::try_from(payload.len()).unwrap());
        } else {
            frame.push(126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_go_out_masked_and_read_back_the_same() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut out = Vec::new();
            encode(&mut out, Opcode::Text, &[&payload[..length / 2], &payload[length / 2..]]);
            assert_eq!(out[0], 0x81);
            assert_eq!(out[1] & 0x80, 0x80, "masked");
            let size = match out[1] & 0x7f {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            let mask: [u8; 4] = out[size..size + 4].try_into().unwrap();
            let read: Vec<_> =
                out[size + 4..].iter().enumerate().map(|(index, byte)| byte ^ mask[index & 3]).collect();
            assert_eq!(read, payload);
        }
    }

    #[test]
    fn messages_cut_anywhere_come_whole() {
        let long = vec![b'y'; 300];
        let mut bytes = unmasked(0x81, b"one");
        bytes.extend(unmasked(0x01, b"tw"));
        bytes.extend(unmasked(0x89, b"ping between"));
        bytes.extend(unmasked(0x80, b"o"));
        bytes.extend(unmasked(0x82, &long));
        let expected = vec![
            (Opcode::Text, b"one".to_vec()),
            (Opcode::Ping, b"ping between".to_vec()),
            (Opcode::Text, b"two".to_vec()),
            (Opcode::Binary, long),
        ];
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut messages = collect(&mut decoder, &bytes[..cut]).unwrap();
            messages.extend(collect(&mut decoder, &bytes[cut..]).unwrap());
            assert_eq!(messages, expected, "cut at {cut}");
            assert_eq!(decoder.partial.capacity(), 0, "an idle decoder holds nothing, cut at {cut}");
        }
    }

    #[test]
    fn broken_frames_are_told() {
        for (bytes, reason) in [
            (&[0xc1, 0][..], "a reserved bit is set although no extension was agreed on"),
            (&[0x81, 0x80, 0, 0, 0, 0], "a frame of the server is masked"),
            (&[0x83, 0], "a frame has an unknown opcode"),
            (&[0x80, 0], "a message was continued that never began"),
            (&[0x01, 0, 0x81, 0], "a message began inside another"),
            (&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], "a frame is longer than 64 MiB"),
        ] {
            assert_eq!(collect(&mut Decoder::default(), bytes), Err(Broken(reason)));
        }
    }
}
