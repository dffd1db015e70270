//! Pictures in, harmless pictures out.

use std::io::Read;

use image::{GenericImageView, ImageFormat, RgbImage, Rgba};
use proptest::prelude::*;

use super::*;
use crate::files::{
    kind::tests::file_of,
    samples::*,
    webp::tests::{chunk, container},
};

fn recoded(bytes: &[u8], format: PictureFormat) -> Result<(Vec<u8>, Picture)> {
    let input = file_of(bytes);
    pixels(&input, format)?;
    let mut output = tempfile::tempfile().unwrap();
    let picture = recode(&input, format, &mut output)?;
    let mut bytes = Vec::new();
    output.seek(SeekFrom::Start(0)).unwrap();
    output.read_to_end(&mut bytes).unwrap();
    Ok((bytes, picture))
}

fn sentence(bytes: &[u8], format: PictureFormat) -> String {
    let error = recoded(bytes, format).unwrap_err();
    assert_eq!(error.code(), "VALIDATION_FAILED");
    error.message().into_owned()
}

fn is_about(pixel: Rgba<u8>, expected: [u8; 3]) -> bool {
    pixel.0.iter().zip(expected).all(|(&found, expected)| found.abs_diff(expected) < 40)
}

#[test]
fn no_metadata_is_left_in_any_format() {
    let scene = scene(60, 40);
    for (format, image_format, bytes) in [
        (PictureFormat::Jpeg, ImageFormat::Jpeg, jpeg_with_metadata(&scene, 1)),
        (PictureFormat::Png, ImageFormat::Png, png_with_metadata(&scene, 1)),
        (PictureFormat::Gif, ImageFormat::Gif, gif_with_metadata(60, 40)),
        (PictureFormat::WebP, ImageFormat::WebP, webp_with_metadata(&scene, 1)),
    ] {
        assert!(holds(&bytes, SECRET));
        let (kept, picture) = recoded(&bytes, format).unwrap();
        for trace in [SECRET, b"Exif", b"EXIF", b"eXIf", b"tEXt", b"XMP"] {
            assert!(!holds(&kept, trace), "{format:?} {:?}", String::from_utf8_lossy(trace));
        }
        assert_eq!((picture.width, picture.height), (60, 40));
        let shown = image::load_from_memory_with_format(&kept, image_format).unwrap();
        assert_eq!(shown.dimensions(), (60, 40));
        assert!(is_about(shown.get_pixel(10, 30), [220, 0, 0]), "{format:?}");
    }
}

#[test]
fn pictures_are_turned_upright_before_the_orientation_is_lost() {
    // Orientation 6: the camera was turned, the picture has to be turned by 90° to the right.
    let scene = scene(60, 40);
    for (format, bytes) in [
        (PictureFormat::Jpeg, jpeg_with_metadata(&scene, 6)),
        (PictureFormat::Png, png_with_metadata(&scene, 6)),
        (PictureFormat::WebP, webp_with_metadata(&scene, 6)),
    ] {
        let (kept, picture) = recoded(&bytes, format).unwrap();
        assert_eq!((picture.width, picture.height), (40, 60), "{format:?}");
        let shown = image::load_from_memory(&kept).unwrap();
        // The left half is now above, and the line on top is at the right.
        assert!(is_about(shown.get_pixel(10, 15), [220, 0, 0]), "{format:?}");
        assert!(is_about(shown.get_pixel(10, 45), [0, 0, 220]), "{format:?}");
        assert!(is_about(shown.get_pixel(38, 30), [0, 200, 0]), "{format:?}");
        assert!(!holds(&kept, SECRET), "{format:?}");
    }
}

#[test]
fn a_picture_larger_than_400_gets_a_small_one() {
    for (width, height, expected) in [
        (400, 400, None),
        (401, 10, Some((400, 10))),
        (300, 800, Some((150, 400))),
        (2_000, 1_000, Some((400, 200))),
    ] {
        let bytes = encoded(scene(width, height), ImageFormat::Jpeg);
        let (_, picture) = recoded(&bytes, PictureFormat::Jpeg).unwrap();
        let small = picture.thumbnail.map(|thumbnail| {
            assert_eq!(thumbnail.extension, "jpg");
            image::load_from_memory_with_format(&thumbnail.bytes, ImageFormat::Jpeg).unwrap().dimensions()
        });
        assert_eq!(small, expected);
        assert_eq!((picture.width, picture.height), (width, height));
    }
}

#[test]
fn what_shows_through_still_does_in_the_small_picture() {
    let mut glass = image::RgbaImage::from_pixel(500, 500, Rgba([10, 20, 30, 255]));
    let opaque = recoded(&encoded(glass.clone(), ImageFormat::Png), PictureFormat::Png).unwrap().1;
    assert_eq!(opaque.thumbnail.unwrap().extension, "jpg");
    for pixel in glass.pixels_mut().take(100_000) {
        pixel.0[3] = 0;
    }
    let thumbnail =
        recoded(&encoded(glass, ImageFormat::Png), PictureFormat::Png).unwrap().1.thumbnail.unwrap();
    assert_eq!(thumbnail.extension, "png");
    let small = image::load_from_memory_with_format(&thumbnail.bytes, ImageFormat::Png).unwrap();
    assert_eq!((small.get_pixel(200, 10)[3], small.get_pixel(200, 390)[3]), (0, 255));
}

#[test]
fn animations_keep_their_frames_and_their_pace() {
    let (kept, _) = recoded(&gif_with_metadata(60, 40), PictureFormat::Gif).unwrap();
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(kept.as_slice()).unwrap();
    let mut colors = Vec::new();
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        assert_eq!((frame.width, frame.height, frame.delay), (60, 40, 10));
        colors.push(frame.buffer[..3].to_vec());
    }
    assert_eq!(colors, [[255, 0, 0], [0, 0, 255]]);
    assert_eq!(decoder.repeat(), gif::Repeat::Infinite);
}

#[test]
fn a_pixel_bomb_is_refused_before_it_is_decoded() {
    assert_eq!(
        sentence(&pixel_bomb(), PictureFormat::Png),
        "The picture must not have more than 50 megapixels."
    );
    let mut gif = gif_with_metadata(2, 2);
    gif[6..10].copy_from_slice(&[0xff; 4]);
    assert_eq!(sentence(&gif, PictureFormat::Gif), "The picture must not have more than 50 megapixels.");
}

#[test]
fn a_second_file_behind_or_inside_a_picture_does_not_stay() {
    let hidden = b"PK\x03\x04<script>alert(1)</script><?php evil(); ?>";
    let scene = scene(60, 40);
    for (format, bytes) in [
        (PictureFormat::Jpeg, encoded(scene.clone(), ImageFormat::Jpeg)),
        (PictureFormat::Png, encoded(scene.clone(), ImageFormat::Png)),
        (PictureFormat::Gif, gif_with_metadata(60, 40)),
        (PictureFormat::WebP, webp_with_metadata(&scene, 1)),
    ] {
        let polyglot = [bytes.as_slice(), hidden].concat();
        let (kept, _) = recoded(&polyglot, format).unwrap();
        assert!(!holds(&kept, b"<script>"), "{format:?}");
    }
    let comment = [&b"\xff\xfe\x00\x13"[..], b"<script>evil()</s"].concat();
    let jpeg = encoded(scene, ImageFormat::Jpeg);
    let (kept, _) = recoded(&[&jpeg[..2], &comment, &jpeg[2..]].concat(), PictureFormat::Jpeg).unwrap();
    assert!(!holds(&kept, b"<script>"));
}

#[test]
fn damaged_pictures_are_refused() {
    let scene = scene(300, 200);
    for (format, bytes) in [
        (PictureFormat::Png, encoded(scene.clone(), ImageFormat::Png)),
        (PictureFormat::Gif, gif_with_metadata(60, 40)),
        (PictureFormat::WebP, webp_with_metadata(&scene, 1)),
        (PictureFormat::Jpeg, encoded(scene, ImageFormat::Jpeg)),
    ] {
        // Of a JPEG that was cut short the rest is shown, as browsers do.
        let middle = if format == PictureFormat::Jpeg { 100 } else { bytes.len() / 3 };
        for length in [3, 20, middle] {
            assert_eq!(
                sentence(&bytes[..length], format),
                "The file field must be a readable picture.",
                "{format:?}"
            );
        }
    }
}

#[test]
fn sixteen_bits_and_grey_come_out_as_they_look() {
    let deep = image::ImageBuffer::from_pixel(20, 10, image::Rgb([65_535_u16, 0, 32_768]));
    let (kept, _) =
        recoded(&encoded(DynamicImage::ImageRgb16(deep), ImageFormat::Png), PictureFormat::Png).unwrap();
    let shown = image::load_from_memory(&kept).unwrap();
    assert_eq!(shown.color(), image::ColorType::Rgb8);
    assert!(is_about(shown.get_pixel(5, 5), [255, 0, 128]));

    let grey = image::GrayImage::from_pixel(20, 10, image::Luma([90]));
    let (kept, _) = recoded(&encoded(grey, ImageFormat::Jpeg), PictureFormat::Jpeg).unwrap();
    assert!(is_about(image::load_from_memory(&kept).unwrap().get_pixel(5, 5), [90, 90, 90]));
}

#[test]
fn colours_of_a_wide_profile_are_converted_and_the_profile_goes() {
    let profile = ColorProfile::new_display_p3().encode().unwrap();
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    image::ImageEncoder::set_icc_profile(&mut encoder, profile).unwrap();
    let p3 = RgbImage::from_pixel(32, 32, image::Rgb([200, 100, 100]));
    p3.write_with_encoder(encoder).unwrap();
    let (kept, _) = recoded(&bytes, PictureFormat::Jpeg).unwrap();
    assert!(!holds(&kept, b"ICC_PROFILE"));
    let pixel = image::load_from_memory(&kept).unwrap().get_pixel(16, 16);
    // Display P3 (200, 100, 100) is a stronger red in sRGB.
    assert!(pixel[0] > 206 && pixel[1] < 99, "{pixel:?}");
}

fn webp_with_metadata(picture: &RgbImage, orientation: u16) -> Vec<u8> {
    let plain = encoded(picture.clone(), ImageFormat::WebP);
    let size = |side: u32| (side - 1).to_le_bytes()[..3].to_vec();
    let extended = [vec![0b0000_1100, 0, 0, 0], size(picture.width()), size(picture.height())].concat();
    container(&[
        chunk(b"VP8X", &extended),
        plain[12..].to_vec(),
        chunk(b"EXIF", &exif(orientation)),
        chunk(b"XMP ", SECRET),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_makes_it_panic(which in 0_usize..4, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let scene = scene(24, 16);
        let (format, mut bytes) = match which {
            0 => (PictureFormat::Jpeg, jpeg_with_metadata(&scene, 6)),
            1 => (PictureFormat::Png, png_with_metadata(&scene, 6)),
            2 => (PictureFormat::Gif, gif_with_metadata(24, 16)),
            _ => (PictureFormat::WebP, webp_with_metadata(&scene, 6)),
        };
        for (index, byte) in changes {
            let index = usize::from(index) % bytes.len();
            bytes[index] = byte;
        }
        if let Ok((kept, _)) = recoded(&bytes, format) {
            prop_assert!(!holds(&kept, SECRET));
        }
    }
}
