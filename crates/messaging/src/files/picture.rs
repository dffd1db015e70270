//! Reads pictures within bounds, and writes them without metadata, upright and with a small one.
//!
//! JPEG and PNG are decoded and encoded anew, in sRGB: nothing of the original bytes stays, so neither
//! EXIF (a phone writes its position there), nor a second file hidden in the first. A PNG animation
//! becomes its first picture. GIF and WebP keep their animations: their compressed frames are copied
//! into a new container that holds nothing else (see `webp`), after the first one was decoded.
//!
//! HEIC is refused by `kind`: nothing but a system library decodes it, and a photo that cannot be
//! decoded can neither be shown everywhere nor be freed of its metadata.
//!
//! Everything here blocks; run it off the async threads, as many at once as memory allows.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Cursor, Seek, SeekFrom, Write},
    num::NonZeroU64,
};

use image::{
    DynamicImage, GenericImageView, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::{
        jpeg::JpegEncoder,
        png::{CompressionType, FilterType, PngEncoder},
        webp::WebPEncoder,
    },
    imageops,
    metadata::Orientation,
};
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::{io_error, kind::PictureFormat, webp};
use crate::errors::{Error, Result};

/// Pixels a picture may have: the largest that phones take (8064 × 6048) with room to spare.
pub(super) const MAX_PIXELS: u64 = 50_000_000;

/// Pixels along one side; a GIF cannot have more, and a JPEG neither.
const MAX_SIDE: u32 = 65_535;

/// Bytes a decoded picture may have: 50 million pixels of RGBA.
const MAX_DECODED_BYTES: u64 = 4 * MAX_PIXELS;

/// Bytes of a colour profile that is read; those of cameras and screens have a few thousand.
const MAX_PROFILE_BYTES: usize = 64 * 1024;

/// The longest side of the small picture (contract section 7).
const THUMBNAIL_SIDE: u32 = 400;

/// Past this quality a photo grows faster than anyone sees.
const QUALITY: u8 = 90;
const THUMBNAIL_QUALITY: u8 = 82;

/// A picture that was written anew.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    /// The small picture, if the picture is larger than that.
    pub(super) thumbnail: Option<Thumbnail>,
}

/// A small picture: JPEG, or PNG where something shows through.
#[derive(Debug)]
pub(super) struct Thumbnail {
    pub(super) extension: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// How many pixels the picture says it has; decoding takes memory in proportion. Refuses what is too
/// large, before a single pixel is decoded.
pub(super) fn pixels(input: &File, format: PictureFormat) -> Result<u64> {
    let decoder = decoder(input, format)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED_BYTES {
        let megapixels = MAX_PIXELS / 1_000_000;
        return Err(Error::field(
            "file",
            format!("The picture must not have more than {megapixels} megapixels."),
        ));
    }
    Ok(pixels)
}

/// Writes the picture anew to `output`. The caller has asked for its [`pixels`].
pub(super) fn recode(input: &File, format: PictureFormat, output: &mut File) -> Result<Picture> {
    let mut decoder = decoder(input, format)?;
    // Damaged metadata is no reason to refuse the picture: it is thrown away.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().unwrap_or_default();
    let mut picture = eight_bits(DynamicImage::from_decoder(decoder).map_err(unreadable)?);
    if let Some(profile) = profile {
        convert_to_srgb(&mut picture, &profile);
    }
    picture.apply_orientation(orientation);

    let mut writer = BufWriter::new(output);
    match format {
        PictureFormat::Jpeg => encode_jpeg(&picture, QUALITY, &mut writer)?,
        PictureFormat::Png => encode_png(&picture, &mut writer)?,
        PictureFormat::Gif => copy_gif(input, &mut writer)?,
        PictureFormat::WebP if orientation != Orientation::NoTransforms => {
            picture.write_with_encoder(WebPEncoder::new_lossless(&mut writer)).map_err(failed)?;
        }
        PictureFormat::WebP => webp::copy_without_metadata(input, &mut writer)
            .map_err(io_error)?
            .ok_or_else(|| unreadable(()))?,
    }
    writer.flush().map_err(io_error)?;
    let (width, height) = picture.dimensions();
    Ok(Picture { width, height, thumbnail: thumbnail(picture)? })
}

fn decoder(mut input: &File, format: PictureFormat) -> Result<impl ImageDecoder> {
    input.seek(SeekFrom::Start(0)).map_err(io_error)?;
    let format = match format {
        PictureFormat::Jpeg => ImageFormat::Jpeg,
        PictureFormat::Png => ImageFormat::Png,
        PictureFormat::Gif => ImageFormat::Gif,
        PictureFormat::WebP => ImageFormat::WebP,
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    // The decoder's own buffers count as well; the picture alone is bounded in `pixels`.
    limits.max_alloc = Some(2 * MAX_DECODED_BYTES);
    let mut reader = ImageReader::with_format(BufReader::new(input), format);
    reader.limits(limits);
    reader.into_decoder().map_err(unreadable)
}

/// Eight bits a channel: what every screen of a chat shows.
fn eight_bits(picture: DynamicImage) -> DynamicImage {
    match picture {
        DynamicImage::ImageLuma8(_)
        | DynamicImage::ImageLumaA8(_)
        | DynamicImage::ImageRgb8(_)
        | DynamicImage::ImageRgba8(_) => picture,
        _ if picture.color().has_alpha() => DynamicImage::ImageRgba8(picture.into_rgba8()),
        _ if picture.color().has_color() => DynamicImage::ImageRgb8(picture.into_rgb8()),
        _ => DynamicImage::ImageLuma8(picture.into_luma8()),
    }
}

/// Phones photograph in Display P3; without the profile, which goes with the metadata, colours would
/// fade. A profile that cannot be read is ignored, as browsers do.
fn convert_to_srgb(picture: &mut DynamicImage, profile: &[u8]) {
    let (layout, channels) = match picture {
        DynamicImage::ImageRgb8(_) => (Layout::Rgb, 3),
        DynamicImage::ImageRgba8(_) => (Layout::Rgba, 4),
        _ => return,
    };
    if profile.len() > MAX_PROFILE_BYTES {
        return;
    }
    let Ok(profile) = ColorProfile::new_from_slice(profile) else { return };
    if profile.color_space != DataColorSpace::Rgb {
        return;
    }
    let srgb = ColorProfile::new_srgb();
    let Ok(transform) = profile.create_transform_8bit(layout, &srgb, layout, TransformOptions::default())
    else {
        return;
    };
    let row_bytes = picture.width() as usize * channels;
    let samples: &mut [u8] = match picture {
        DynamicImage::ImageRgb8(pixels) => pixels,
        DynamicImage::ImageRgba8(pixels) => pixels,
        _ => return,
    };
    // Row by row: a second picture as large as the first would double the memory.
    let mut converted = vec![0; row_bytes];
    for row in samples.chunks_exact_mut(row_bytes.max(1)) {
        if transform.transform(row, &mut converted).is_ok() {
            row.copy_from_slice(&converted);
        }
    }
}

fn thumbnail(picture: DynamicImage) -> Result<Option<Thumbnail>> {
    let longest = picture.width().max(picture.height());
    if longest <= THUMBNAIL_SIDE {
        return Ok(None);
    }
    // A fast pass to about twice the size, then a good one: the good one alone takes seconds and
    // hundreds of megabytes for a large picture.
    let rough = if longest > 4 * THUMBNAIL_SIDE {
        picture.thumbnail(2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE)
    } else {
        picture
    };
    let small = rough.resize(THUMBNAIL_SIDE, THUMBNAIL_SIDE, imageops::FilterType::CatmullRom);
    let mut bytes = Cursor::new(Vec::new());
    let shows_through = small.color().has_alpha() && small.pixels().any(|(_, _, pixel)| pixel[3] < u8::MAX);
    let extension = if shows_through {
        encode_png(&small, &mut bytes)?;
        "png"
    } else {
        encode_jpeg(&small, THUMBNAIL_QUALITY, &mut bytes)?;
        "jpg"
    };
    Ok(Some(Thumbnail { extension, bytes: bytes.into_inner() }))
}

fn encode_jpeg(picture: &DynamicImage, quality: u8, output: &mut impl Write) -> Result<()> {
    let encoder = JpegEncoder::new_with_quality(output, quality);
    match picture {
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_) => picture.write_with_encoder(encoder),
        // JPEG has no transparency.
        _ => picture.to_rgb8().write_with_encoder(encoder),
    }
    .map_err(failed)
}

fn encode_png(picture: &DynamicImage, output: &mut impl Write) -> Result<()> {
    let encoder = PngEncoder::new_with_quality(output, CompressionType::Default, FilterType::Adaptive);
    picture.write_with_encoder(encoder).map_err(failed)
}

/// Copies the frames of a GIF, still compressed, into a new one without comments, XMP or anything else
/// that is not a picture.
fn copy_gif(mut input: &File, output: &mut impl Write) -> Result<()> {
    input.seek(SeekFrom::Start(0)).map_err(io_error)?;
    let mut options = gif::DecodeOptions::new();
    options.skip_frame_decoding(true);
    options.check_frame_consistency(true);
    options.set_memory_limit(gif::MemoryLimit::Bytes(
        NonZeroU64::new(MAX_DECODED_BYTES).expect("it is a positive constant"),
    ));
    let mut decoder = options.read_info(BufReader::new(input)).map_err(unreadable)?;
    let palette = decoder.global_palette().unwrap_or_default().to_vec();
    let mut encoder =
        gif::Encoder::new(output, decoder.width(), decoder.height(), &palette).map_err(gif_failed)?;
    let mut is_first = true;
    while let Some(frame) = decoder.read_next_frame().map_err(unreadable)? {
        let frame = frame.clone();
        if is_first && decoder.repeat() != gif::Repeat::Finite(0) {
            encoder.set_repeat(decoder.repeat()).map_err(gif_failed)?;
        }
        is_first = false;
        encoder.write_lzw_pre_encoded_frame(&frame).map_err(unreadable)?;
    }
    Ok(())
}

/// The bytes are not a whole picture. What exactly is wrong helps nobody but the one who broke it.
fn unreadable<E>(_: E) -> Error {
    Error::field("file", "The file field must be a readable picture.")
}

fn failed(error: ImageError) -> Error {
    match error {
        ImageError::IoError(error) => io_error(error),
        other => Error::internal(other),
    }
}

fn gif_failed(error: gif::EncodingError) -> Error {
    match error {
        gif::EncodingError::Io(error) => io_error(error),
        other => Error::internal(other),
    }
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
