//! Copies a WebP picture without its metadata, still or moving.
//!
//! WebP is a RIFF container; EXIF, XMP and colour profiles are chunks of their own beside those with
//! the picture, which are copied as they are. Encoding anew is no option: there is only a lossless
//! encoder, which would make a photo ten times as large, and none for animations.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

/// Flags of the extended header for chunks that are left out: colour profile, EXIF, XMP.
const LEFT_OUT_FLAGS: u8 = 0b0010_1100;

/// Bytes of a chunk before its content: the name and the length.
const HEADER_BYTES: u32 = 8;

/// Bytes of an animation frame's chunk before the chunks inside it.
const FRAME_HEADER_BYTES: u32 = 16;

/// Copies the picture from the start of `input`; `None` if the container is damaged.
pub(super) fn copy_without_metadata(
    input: impl Read + Seek,
    output: &mut (impl Write + Seek),
) -> io::Result<Option<()>> {
    let mut input = BufReader::new(input);
    input.seek(SeekFrom::Start(0))?;
    match copy(&mut input, output) {
        Ok(()) => Ok(Some(())),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn copy(input: &mut (impl Read + Seek), output: &mut (impl Write + Seek)) -> io::Result<()> {
    let (name, length) = read_header(input)?;
    let mut form = [0; 4];
    input.read_exact(&mut form)?;
    if &name != b"RIFF" || &form != b"WEBP" {
        return Err(damaged());
    }
    output.write_all(b"RIFF\0\0\0\0WEBP")?;
    // What follows the container in the file is not read: another file could hide there.
    let written = copy_chunks(input, output, length.checked_sub(4).ok_or_else(damaged)?, Place::Top)?;
    output.seek(SeekFrom::Start(4))?;
    output.write_all(&(written + 4).to_le_bytes())?;
    output.seek(SeekFrom::End(0))?;
    output.flush()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Frame,
}

/// Copies the wanted chunks among the next `length` bytes and returns how many bytes they have.
fn copy_chunks(
    input: &mut (impl Read + Seek),
    output: &mut (impl Write + Seek),
    length: u32,
    place: Place,
) -> io::Result<u32> {
    let mut left = length;
    let mut written = 0_u32;
    while left > 0 {
        let (name, length) = read_header(input)?;
        let padded = length.checked_next_multiple_of(2).ok_or_else(damaged)?;
        left =
            left.checked_sub(HEADER_BYTES).and_then(|left| left.checked_sub(padded)).ok_or_else(damaged)?;
        let copied = match (&name, place) {
            (b"VP8X", Place::Top) => {
                let mut content = [0; 10];
                if length as usize != content.len() {
                    return Err(damaged());
                }
                input.read_exact(&mut content)?;
                content[0] &= !LEFT_OUT_FLAGS;
                write_header(output, name, length)?;
                output.write_all(&content)?;
                length
            }
            (b"ANMF", Place::Top) => {
                let inner = padded.checked_sub(FRAME_HEADER_BYTES).ok_or_else(damaged)?;
                let mut header = [0; FRAME_HEADER_BYTES as usize];
                input.read_exact(&mut header)?;
                let start = output.stream_position()?;
                write_header(output, name, 0)?;
                output.write_all(&header)?;
                let inner = FRAME_HEADER_BYTES + copy_chunks(input, output, inner, Place::Frame)?;
                output.seek(SeekFrom::Start(start))?;
                write_header(output, name, inner)?;
                output.seek(SeekFrom::End(0))?;
                inner
            }
            (b"VP8 " | b"VP8L" | b"ALPH", _) | (b"ANIM", Place::Top) => {
                write_header(output, name, length)?;
                if io::copy(&mut input.by_ref().take(padded.into()), output)? != u64::from(padded) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                padded
            }
            _ => {
                input.seek_relative(padded.into())?;
                continue;
            }
        };
        written = written.checked_add(HEADER_BYTES + copied).ok_or_else(damaged)?;
    }
    Ok(written)
}

fn read_header(input: &mut impl Read) -> io::Result<([u8; 4], u32)> {
    let (mut name, mut length) = ([0; 4], [0; 4]);
    input.read_exact(&mut name)?;
    input.read_exact(&mut length)?;
    Ok((name, u32::from_le_bytes(length)))
}

fn write_header(output: &mut impl Write, name: [u8; 4], length: u32) -> io::Result<()> {
    output.write_all(&name)?;
    output.write_all(&length.to_le_bytes())
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    pub(in crate::files) fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut bytes = name.to_vec();
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes
    }

    pub(in crate::files) fn container(chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
    }

    fn copied(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut output = Cursor::new(Vec::new());
        copy_without_metadata(Cursor::new(bytes), &mut output).unwrap()?;
        Some(output.into_inner())
    }

    #[test]
    fn metadata_and_what_follows_the_picture_are_left_out() {
        let frame = |extra: Option<Vec<u8>>| {
            let inner =
                [vec![7; 16], chunk(b"ALPH", b"a"), chunk(b"VP8 ", b"odd"), extra.unwrap_or_default()];
            chunk(b"ANMF", &inner.concat())
        };
        let bytes = container(&[
            chunk(b"VP8X", &[0b0011_1110, 0, 0, 0, 1, 0, 0, 1, 0, 0]),
            chunk(b"ICCP", b"profile"),
            chunk(b"ANIM", &[0; 6]),
            frame(Some(chunk(b"JUNK", b"hidden"))),
            frame(None),
            chunk(b"EXIF", b"GPS"),
            chunk(b"XMP ", b"GPS"),
        ]);
        let expected = container(&[
            chunk(b"VP8X", &[0b0001_0010, 0, 0, 0, 1, 0, 0, 1, 0, 0]),
            chunk(b"ANIM", &[0; 6]),
            frame(None),
            frame(None),
        ]);
        assert_eq!(copied(&[bytes, b"<script>".to_vec()].concat()).unwrap(), expected);
        assert_eq!(copied(&expected).unwrap(), expected);
    }

    #[test]
    fn a_damaged_container_is_noticed() {
        let bytes = container(&[chunk(b"VP8 ", &[1; 50])]);
        for length in [0, 3, 11, 15, 20, bytes.len() - 1] {
            assert_eq!(copied(&bytes[..length]), None, "{length}");
        }
        for (index, byte) in [(0, b'X'), (8, b'X'), (4, 3), (4, 0), (16, 255), (19, 255)] {
            let mut damaged = bytes.clone();
            damaged[index] = byte;
            assert_eq!(copied(&damaged), None, "{index}");
        }
        assert_eq!(copied(&container(&[chunk(b"ANMF", &[0; 14])])), None);
        assert_eq!(copied(&container(&[chunk(b"VP8X", &[0; 9])])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_nothing_grows(bytes in proptest::collection::vec(any::<u8>(), 0..200), length: u32) {
            let riff = [b"RIFF".as_slice(), &length.to_le_bytes(), b"WEBP", &bytes].concat();
            if let Some(copy) = copied(&riff) {
                prop_assert!(copy.len() <= riff.len());
            }
        }
    }
}
