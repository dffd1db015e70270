//! Pictures for tests, made in code: honest ones and hostile ones.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// What no kept file may hold.
pub(super) const SECRET: &[u8] = b"48.8584N 2.2945E";

/// A picture whose left half is red and whose right half is blue, with a green line on top.
pub(super) fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        if y < height / 8 {
            Rgb([0, 200, 0])
        } else if x < width / 2 {
            Rgb([220, 0, 0])
        } else {
            Rgb([0, 0, 220])
        }
    })
}

pub(super) fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// EXIF as a phone writes it: an orientation, and a GPS directory that holds [`SECRET`].
pub(super) fn exif(orientation: u16) -> Vec<u8> {
    let mut tiff = b"II*\0\x08\0\0\0".to_vec();
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    // The first directory: 2 entries at 10..34, then the offset of the next one.
    tiff.extend(2_u16.to_le_bytes());
    tiff.extend(entry(0x0112, 3, 1, orientation.into()));
    tiff.extend(entry(0x8825, 4, 1, 38));
    tiff.extend([0; 4]);
    // The GPS directory, at 38: its processing method is text, at 56.
    tiff.extend(1_u16.to_le_bytes());
    tiff.extend(entry(0x001b, 7, SECRET.len() as u32, 56));
    tiff.extend([0; 4]);
    tiff.extend(SECRET);
    tiff
}

/// A JPEG with EXIF, XMP and a comment, each holding [`SECRET`].
pub(super) fn jpeg_with_metadata(picture: &RgbImage, orientation: u16) -> Vec<u8> {
    let plain = encoded(picture.clone(), ImageFormat::Jpeg);
    let segment = |marker: u8, content: &[u8]| {
        let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
        [&[0xff, marker], &length[..], content].concat()
    };
    let segments = [
        segment(0xe1, &[b"Exif\0\0".as_slice(), &exif(orientation)].concat()),
        segment(0xe1, &[b"http://ns.adobe.com/xap/1.0/\0".as_slice(), SECRET].concat()),
        segment(0xfe, SECRET),
    ];
    [&plain[..2], &segments.concat(), &plain[2..]].concat()
}

/// A PNG chunk with its checksum.
pub(super) fn png_chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let checked = [name.as_slice(), content].concat();
    let mut crc = u32::MAX;
    for &byte in &checked {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    [&(content.len() as u32).to_be_bytes()[..], &checked, &(!crc).to_be_bytes()].concat()
}

/// A PNG with EXIF and text that hold [`SECRET`].
pub(super) fn png_with_metadata(picture: &RgbImage, orientation: u16) -> Vec<u8> {
    let plain = encoded(picture.clone(), ImageFormat::Png);
    // The signature and the header chunk have 33 bytes.
    let chunks = [
        png_chunk(b"tEXt", &[b"Comment\0".as_slice(), SECRET].concat()),
        png_chunk(b"eXIf", &exif(orientation)),
    ];
    [&plain[..33], &chunks.concat(), &plain[33..]].concat()
}

/// A PNG of a hundred bytes that says it has 60,000 × 60,000 pixels.
pub(super) fn pixel_bomb() -> Vec<u8> {
    let side = 60_000_u32.to_be_bytes();
    let header = [&side[..], &side, &[8, 2, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        png_chunk(b"IHDR", &header),
        png_chunk(b"IDAT", &[0x78, 0x9c, 3, 0]),
        png_chunk(b"IEND", b""),
    ]
    .concat()
}

/// An animation of two frames, endless, with a comment and XMP that hold [`SECRET`].
pub(super) fn gif_with_metadata(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, &[]).unwrap();
    encoder.set_repeat(gif::Repeat::Infinite).unwrap();
    encoder.write_raw_extension(gif::AnyExtension(gif::Extension::Comment as u8), &[SECRET]).unwrap();
    encoder
        .write_raw_extension(gif::AnyExtension(gif::Extension::Application as u8), &[b"XMP DataXMP", SECRET])
        .unwrap();
    for color in [[255, 0, 0], [0, 0, 255]] {
        let pixels = color.repeat(usize::from(width) * usize::from(height));
        let mut frame = gif::Frame::from_rgb(width, height, &pixels);
        frame.delay = 10;
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

pub(super) fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}
