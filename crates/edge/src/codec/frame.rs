//! WebSocket frames (RFC 6455): decoding what clients send, encoding what goes to them.
//!
//! Owns masking, fragmentation, control frames and their limits; no I/O. Permessage-deflate is not offered: a
//! compressor per connection costs 10–300 KB, many times all else that a connection holds, and mixing secrets
//! with what a peer chose invites length attacks (CRIME). What messages mean is in `packet` and `plain`.

use std::borrow::Cow;

/// The opcodes that this server writes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A text message.
    Text = 0x1,
    /// A binary message.
    Binary = 0x2,
    /// The last frame of a direction.
    Close = 0x8,
    /// A question for a sign of life.
    Ping = 0x9,
    /// The answer to it.
    Pong = 0xA,
}

/// Appends one whole unmasked frame whose payload is these parts joined.
pub fn put(out: &mut Vec<u8>, opcode: Opcode, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve_exact(len + 10);
    out.push(0x80 | opcode as u8);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The length of the header of a frame made by [`put`].
fn header_len(frame: &[u8]) -> usize {
    match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    }
}

/// The payload of the first frame in a run of frames made by [`put`].
pub fn payload(frames: &[u8]) -> &[u8] {
    let header = header_len(frames);
    let len = match (frames.get(1), frames.get(2..header)) {
        (Some(126), Some(len)) => len.try_into().map_or(0, |len| usize::from(u16::from_be_bytes(len))),
        (Some(127), Some(len)) => len.try_into().map_or(0, |len| u64::from_be_bytes(len) as usize),
        (Some(&len), _) => usize::from(len),
        (None, _) => 0,
    };
    frames.get(header..header + len).unwrap_or_default()
}

/// Something whole that a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message, valid UTF-8.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping to be answered with the same payload.
    Ping(Vec<u8>),
    /// The answer to a ping.
    Pong,
    /// The end, with the code given.
    Close(Option<u16>),
}

/// What a client did wrong, and so the close code it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The frame breaks RFC 6455 (1002).
    Protocol,
    /// A text is not UTF-8 (1007).
    NotUtf8,
    /// A message is larger, or in more fragments, than allowed (1009).
    TooBig,
}

impl FrameError {
    /// The close code of RFC 6455 section 7.4.1.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// The message limits of a [`Decoder`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one message, over all its fragments.
    pub max_payload: usize,
    /// Fragments of one message.
    pub max_fragments: usize,
}

/// Turns a client's bytes into messages; between messages it holds no memory but itself.
#[derive(Debug, Default)]
pub struct Decoder {
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    text: bool,
    count: usize,
    data: Vec<u8>,
}

/// The header of one frame.
struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of the header itself.
    size: usize,
    payload: usize,
}

impl Decoder {
    /// Whether a fragmented message was begun and not finished.
    pub fn in_message(&self) -> bool {
        self.fragments.is_some()
    }

    /// Takes frames off the front of `bytes` until one completes something; says how many bytes it used.
    ///
    /// `None` with `0` used means that the first frame is not whole yet: call again with more after the same
    /// bytes. The payload is unmasked in place.
    pub fn next<'a>(
        &mut self,
        bytes: &'a mut [u8],
        limits: Limits,
    ) -> Result<(usize, Option<Incoming<'a>>), FrameError> {
        let Some(header) = Header::parse(bytes)? else { return Ok((0, None)) };
        let control = header.opcode & 0x8 != 0;
        let held = self.fragments.as_ref().map_or(0, |fragments| fragments.data.len());
        if !control {
            match (header.opcode, &self.fragments) {
                (0x0, Some(_)) | (0x1 | 0x2, None) => {}
                _ => return Err(FrameError::Protocol),
            }
            // Before the payload is waited for, let alone kept.
            if header.payload > limits.max_payload.saturating_sub(held) {
                return Err(FrameError::TooBig);
            }
        }
        let used = header.size + header.payload;
        let Some(payload) = bytes.get_mut(header.size..used) else { return Ok((0, None)) };
        unmask(payload, header.mask);
        let payload = &*payload;

        let incoming = match header.opcode {
            0x8 => Some(Incoming::Close(close_code(payload)?)),
            0x9 => Some(Incoming::Ping(payload.to_vec())),
            0xA => Some(Incoming::Pong),
            0x0 => {
                let Some(fragments) = &mut self.fragments else { return Err(FrameError::Protocol) };
                fragments.count += 1;
                if fragments.count > limits.max_fragments {
                    return Err(FrameError::TooBig);
                }
                fragments.data.extend_from_slice(payload);
                match self.fragments.take_if(|_| header.fin) {
                    None => None,
                    Some(whole) if whole.text => {
                        let text = String::from_utf8(whole.data).map_err(|_| FrameError::NotUtf8)?;
                        Some(Incoming::Text(text.into()))
                    }
                    Some(whole) => Some(Incoming::Binary(whole.data.into())),
                }
            }
            opcode if !header.fin => {
                let fragments = Fragments { text: opcode == 0x1, count: 1, data: payload.to_vec() };
                self.fragments = Some(Box::new(fragments));
                None
            }
            0x1 => {
                let text = std::str::from_utf8(payload).map_err(|_| FrameError::NotUtf8)?;
                Some(Incoming::Text(text.into()))
            }
            _ => Some(Incoming::Binary(payload.into())),
        };
        Ok((used, incoming))
    }
}

impl Header {
    /// Reads a header; `None` while it is not whole. Every rule that the bytes at hand can break is checked at
    /// once, so that a bad first byte is not waited upon.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let fin = first & 0x80 != 0;
        let opcode = first & 0x0F;
        if first & 0x70 != 0 || !matches!(opcode, 0x0 | 0x1 | 0x2 | 0x8 | 0x9 | 0xA) {
            return Err(FrameError::Protocol);
        }
        let control = opcode & 0x8 != 0;
        if control && !fin {
            return Err(FrameError::Protocol);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(FrameError::Protocol);
        }
        let (payload, size) = match second & 0x7F {
            126 | 127 if control => return Err(FrameError::Protocol),
            126 => {
                let Some(len) = bytes.get(2..4).and_then(|len| len.try_into().ok()) else { return Ok(None) };
                let len = u64::from(u16::from_be_bytes(len));
                if len < 126 {
                    return Err(FrameError::Protocol);
                }
                (len, 8)
            }
            127 => {
                let Some(len) = bytes.get(2..10).and_then(|len| len.try_into().ok()) else { return Ok(None) };
                let len = u64::from_be_bytes(len);
                if len <= 0xFFFF || len >> 63 != 0 {
                    return Err(FrameError::Protocol);
                }
                (len, 14)
            }
            len => (u64::from(len), 6),
        };
        // Longer than memory can ever be is too big whatever the limits say.
        let payload = usize::try_from(payload).map_err(|_| FrameError::TooBig)?;
        if payload > usize::MAX / 2 {
            return Err(FrameError::TooBig);
        }
        match bytes.get(size - 4..size).and_then(|mask| mask.try_into().ok()) {
            Some(mask) => Ok(Some(Self { fin, opcode, mask, size, payload })),
            // The mask is not here yet; the length is, and is worth refusing early.
            None => Ok(None),
        }
    }
}

/// Applies the mask, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes((&*chunk).try_into().expect("chunks of eight bytes"));
        chunk.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// The code in a close frame: none, or a valid one followed by UTF-8 (RFC 6455 section 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [_] => return Err(FrameError::Protocol),
    };
    if std::str::from_utf8(reason).is_err() {
        return Err(FrameError::NotUtf8);
    }
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Some(code)),
        _ => Err(FrameError::Protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_payload: 1000, max_fragments: 10 };

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
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
    }

    fn one(bytes: &mut [u8]) -> Result<Option<Incoming<'_>>, FrameError> {
        Decoder::default().next(bytes, LIMITS).map(|(_, incoming)| incoming)
    }

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (0xFFFF, 4), (0x10000, 10)] {
            let mut out = Vec::new();
            put(&mut out, Opcode::Binary, &[&vec![0; len]]);
            assert_eq!((out.len(), header_len(&out)), (len + header, header));
            out.extend([0x82, 0]);
            assert_eq!(payload(&out).len(), len);
        }
    }

    #[test]
    fn reserved_bits_unknown_opcodes_and_unmasked_frames_are_refused() {
        for first in [0xC1, 0xA1, 0x91, 0x83, 0x87, 0x8B, 0x8F] {
            assert_eq!(one(&mut masked(first, b"")), Err(FrameError::Protocol), "{first:x}");
        }
        assert_eq!(one(&mut [0x81, 0x01, b'a']), Err(FrameError::Protocol));
        // At the first byte that shows it, not later.
        assert_eq!(one(&mut [0xC1]), Err(FrameError::Protocol));
        assert_eq!(one(&mut [0x81, 0x01]), Err(FrameError::Protocol));
    }

    #[test]
    fn control_frames_are_short_and_whole() {
        assert_eq!(one(&mut masked(0x09, b"")), Err(FrameError::Protocol));
        assert_eq!(one(&mut masked(0x89, &[0; 126])), Err(FrameError::Protocol));
        assert_eq!(one(&mut masked(0x89, &[7; 125])), Ok(Some(Incoming::Ping(vec![7; 125]))));
    }

    #[test]
    fn close_codes_are_checked() {
        for good in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4401, 4999_u16] {
            let mut frame = masked(0x88, &good.to_be_bytes());
            assert_eq!(one(&mut frame), Ok(Some(Incoming::Close(Some(good)))));
        }
        for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535_u16] {
            assert_eq!(one(&mut masked(0x88, &bad.to_be_bytes())), Err(FrameError::Protocol), "{bad}");
        }
        assert_eq!(one(&mut masked(0x88, b"")), Ok(Some(Incoming::Close(None))));
        assert_eq!(one(&mut masked(0x88, &[3])), Err(FrameError::Protocol));
        assert_eq!(one(&mut masked(0x88, &[3, 0xE8, 0xFF])), Err(FrameError::NotUtf8));
    }

    #[test]
    fn a_length_is_refused_before_its_payload_comes() {
        let header = |len: u64| {
            let mut out = vec![0x82, 0xFF];
            out.extend(len.to_be_bytes());
            out.extend([0; 4]);
            out
        };
        for len in [1 << 16, 1 << 40, (1 << 63) - 1] {
            assert_eq!(one(&mut header(len)), Err(FrameError::TooBig), "{len}");
        }
        assert_eq!(one(&mut header(1 << 63)), Err(FrameError::Protocol));
        assert_eq!(one(&mut header(5)), Err(FrameError::Protocol));
        assert_eq!(one(&mut [0x82, 0xFE, 0, 125, 0, 0, 0, 0]), Err(FrameError::Protocol));
    }

    #[test]
    fn the_limits_hold_over_all_fragments() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&mut masked(0x02, &[0; 600]), LIMITS), Ok((608, None)));
        assert_eq!(decoder.next(&mut masked(0x80, &[0; 401]), LIMITS), Err(FrameError::TooBig));
        let mut decoder = Decoder::default();
        decoder.next(&mut masked(0x02, b""), LIMITS).unwrap();
        for _ in 1..10 {
            decoder.next(&mut masked(0x00, b""), LIMITS).unwrap();
        }
        assert_eq!(decoder.next(&mut masked(0x00, b""), LIMITS), Err(FrameError::TooBig));
    }

    #[test]
    fn fragments_begin_go_on_and_end_in_that_order() {
        assert_eq!(one(&mut masked(0x80, b"a")), Err(FrameError::Protocol));
        assert_eq!(one(&mut masked(0x00, b"a")), Err(FrameError::Protocol));
        let mut decoder = Decoder::default();
        decoder.next(&mut masked(0x01, b"a"), LIMITS).unwrap();
        assert_eq!(decoder.next(&mut masked(0x81, b"b"), LIMITS), Err(FrameError::Protocol));
    }

    #[test]
    fn utf8_may_be_split_over_fragments_and_must_be_sound_as_a_whole() {
        let text = "é🚲".as_bytes();
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&mut masked(0x01, &text[..1]), LIMITS).unwrap().1, None);
        assert_eq!(
            decoder.next(&mut masked(0x89, b"p"), LIMITS).unwrap().1,
            Some(Incoming::Ping(b"p".to_vec()))
        );
        assert_eq!(decoder.next(&mut masked(0x00, &text[1..4]), LIMITS).unwrap().1, None);
        let whole =
            decoder.next(&mut masked(0x80, &text[4..]), LIMITS).unwrap().1.map(|it| format!("{it:?}"));
        assert_eq!(whole, Some(format!("{:?}", Incoming::Text("é🚲".into()))));
        assert!(!decoder.in_message());

        assert_eq!(one(&mut masked(0x81, &[0xFF])), Err(FrameError::NotUtf8));
        let mut decoder = Decoder::default();
        decoder.next(&mut masked(0x01, &text[..1]), LIMITS).unwrap();
        assert_eq!(decoder.next(&mut masked(0x80, b""), LIMITS), Err(FrameError::NotUtf8));
    }
}
