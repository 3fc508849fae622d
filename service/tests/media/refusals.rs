//! Each reason to refuse, its kind and its stable code.

use image::{GrayImage, ImageFormat, RgbImage, RgbaImage};
use shieldgate::media::{ErrorKind, Limits, MediaError, look};

use super::build::{
    PNG_SIGNATURE, bmp, chunk, chunks, encoded, gif_header, gif_pixel, ihdr, riff, stored, vp8x,
};
use super::{code, sample, seen};

fn refused(bytes: &[u8]) -> MediaError {
    seen(bytes).expect_err("this must be refused")
}

#[test]
fn an_empty_body_is_malformed() {
    assert_eq!((refused(b"").kind(), refused(b"").code()), (ErrorKind::Malformed, "image_empty"));
}

#[test]
fn other_kinds_are_named_and_unsupported() {
    let cases: [(&[u8], &str); 22] = [
        (b"just some text, sent as image/png", "text"),
        ("grüße, auch das ist Text".as_bytes(), "text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "an SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- c -->\n<svg/>", "an SVG"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"{\"image\": 1}", "JSON text"),
        (b"data:image/png;base64,AAAA", "a data: URL"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "an AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "an AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC or HEIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "an MP4 or QuickTime video"),
        (b"II+\0\x08\0\0\0", "a BigTIFF"),
        (b"MM\0+\0\x08\0\0", "a BigTIFF"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"\x1f\x8b\x08\0", "gzip data"),
        (b"\0\0\x01\0\x01\0", "an icon (ICO)"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a RIFF file (AVI or WAV)"),
        (b"P6\n1 1\n255\n\0\0\0", "a Netpbm image"),
        (b"MZ\x90\0", "a Windows program"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0b\x0c\xff\xfe", "data of an unknown kind"),
    ];
    for (bytes, expected) in cases {
        let error = refused(bytes);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{expected}");
        let MediaError::Unsupported { found, hint } = error else { panic!("{expected}: {error:?}") };
        assert_eq!(found, expected);
        assert!(!hint.is_empty());
    }
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    let started = std::time::Instant::now();
    let header = [PNG_SIGNATURE, &ihdr(100_000, 100_000, 8, 2)].concat();
    let whole = [&header[..], &chunk(b"IDAT", &stored(&[0; 100])), &chunk(b"IEND", b"")].concat();
    for bytes in [&header, &whole] {
        let error = refused(bytes);
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unacceptable, "image_too_many_pixels"));
    }
    let tall = [PNG_SIGNATURE, &ihdr(1, 40_000, 8, 2)].concat();
    assert_eq!(code(&tall), "image_side_too_long");
    let mut jpeg = sample("baseline_420.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    assert_eq!(code(&jpeg), "image_too_many_pixels");
    assert_eq!(
        code(&[&gif_header(65_535, 65_535)[..], &gif_pixel(0, 0), &[0x3b]].concat()),
        "image_too_many_pixels"
    );
    assert_eq!(code(&bmp(40_000, 40_000, 24, 0, &[], &[0; 12])), "image_too_many_pixels");
    assert_eq!(code(&bmp(1, i32::MIN, 24, 0, &[], &[0; 12])), "image_too_many_pixels");
    assert_eq!(code(&bmp(-1, 1, 24, 0, &[], &[0; 12])), "image_corrupt");
    assert_eq!(code(&riff(&[(b"VP8X", &vp8x(0, 1 << 24, 1 << 24))])), "image_too_many_pixels");
    assert!(started.elapsed().as_millis() < 200, "{:?}", started.elapsed());

    let ordinary = sample("rgb24.bmp");
    let tight = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        look(&ordinary, &limits).expect_err("over the limit")
    };
    let error = tight(|l| l.bytes_max = 100);
    assert_eq!((error.kind(), error.code()), (ErrorKind::TooLarge, "image_too_many_bytes"));
    assert_eq!(tight(|l| l.pixels_max = 100).code(), "image_too_many_pixels");
    assert_eq!(tight(|l| l.side_max = 40).code(), "image_side_too_long");
    assert_eq!(tight(|l| l.memory_max = 10_000).code(), "image_too_much_memory");
}

#[test]
fn a_size_of_nothing_is_refused() {
    assert_eq!(code(&[PNG_SIGNATURE, &ihdr(0, 5, 8, 2)].concat()), "image_no_pixels");
    assert_eq!(code(&bmp(0, 1, 24, 0, &[], &[])), "image_no_pixels");
    let mut jpeg = sample("gray.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&[0, 0]);
    assert_eq!(code(&jpeg), "image_no_pixels");
}

#[test]
fn corrupt_png() {
    let good = encoded(RgbImage::from_fn(20, 20, |x, y| image::Rgb([x as u8, y as u8, 9])), ImageFormat::Png);
    assert_eq!(code(&good), "accepted");
    let mut flipped = good.clone();
    let data = good.windows(4).position(|w| w == b"IDAT").unwrap() + 8;
    flipped[data] ^= 0x10;
    assert_eq!(code(&flipped), "image_corrupt", "checksum");
    let short =
        [PNG_SIGNATURE, &ihdr(8, 8, 8, 0), &chunk(b"IDAT", &stored(&[0; 30])), &chunk(b"IEND", b"")].concat();
    assert!(
        ["image_corrupt", "image_truncated"].contains(&code(&short)),
        "too little data: {}",
        code(&short)
    );
    let none = [PNG_SIGNATURE, &ihdr(8, 8, 8, 0), &chunk(b"IEND", b"")].concat();
    assert_eq!(code(&none), "image_corrupt");
    let twice = [PNG_SIGNATURE, &ihdr(8, 8, 8, 0), &good[8..]].concat();
    assert_eq!(code(&twice), "image_corrupt", "two headers");
}

#[test]
fn jpeg_variants_no_browser_shows_are_unsupported() {
    for (marker, at) in [(0xc3, 0), (0xc9, 0)] {
        let mut jpeg = sample("baseline_420.jpg");
        let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        jpeg[frame + 1 + at] = marker;
        assert_eq!(code(&jpeg), "image_variant_unsupported");
    }
    let mut twelve_bit = sample("baseline_420.jpg");
    let frame = twelve_bit.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    twelve_bit[frame + 4] = 12;
    assert_eq!(code(&twelve_bit), "image_variant_unsupported");
}

/// Files in which two decoders would find two pictures.
#[test]
fn ambiguous_files_are_refused() {
    let opaque = chunks(&sample("lossless.webp"));
    let vp8l = &opaque.iter().find(|(kind, _)| kind == b"VP8L").unwrap().1;
    let alpha = chunks(&sample("lossy_alpha.webp"));
    let get = |kind: &[u8; 4]| alpha.iter().find(|(k, _)| k == kind).unwrap().1.clone();
    let (width, height) = (48, 32);
    let both = |flags: u8, list: &[(&[u8; 4], &[u8])]| {
        let header = vp8x(flags, width, height);
        code(&riff(&[&[(b"VP8X", &header[..])], list].concat()))
    };
    let (vp8, alph) = (get(b"VP8 "), get(b"ALPH"));
    assert_eq!(both(0x10, &[(b"ALPH", &alph), (b"VP8 ", &vp8)]), "accepted");
    assert_eq!(both(0x10, &[(b"VP8 ", &vp8)]), "accepted", "a flag without transparency misleads nobody");
    assert_eq!(both(0, &[(b"ALPH", &alph), (b"VP8 ", &vp8)]), "image_corrupt", "denied transparency");
    assert_eq!(both(0x10, &[(b"VP8 ", &vp8), (b"ALPH", &alph)]), "image_corrupt", "transparency behind");
    assert_eq!(both(0, &[(b"VP8 ", &vp8), (b"VP8L", vp8l)]), "image_corrupt", "two pictures");
    assert_eq!(both(0, &[(b"VP8L", vp8l)]), "accepted");
    let animated = chunks(&sample("animated.webp"));
    let anmf = &animated.iter().find(|(kind, _)| kind == b"ANMF").unwrap().1;
    assert_eq!(both(0, &[(b"VP8 ", &vp8), (b"ANMF", anmf)]), "image_corrupt", "an unannounced animation");
    // The bitstream says another size than the canvas: the decoder would allocate what it says.
    let header = vp8x(0, 16, 16);
    assert_eq!(code(&riff(&[(b"VP8X", &header), (b"VP8 ", &vp8)])), "image_corrupt");
    let mut huge = vp8.clone();
    huge[6..10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    assert_eq!(code(&riff(&[(b"VP8X", &header), (b"VP8 ", &huge)])), "image_corrupt");
    assert_eq!(code(&riff(&[(b"VP8 ", &huge)])), "image_too_many_pixels");
    let mut in_animation = anmf.clone();
    let bits = 24 + 1; // frame header, chunk header, signature
    in_animation[bits..bits + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(both(0x02, &[(b"ANIM", &[0; 6]), (b"ANMF", &in_animation)]), "image_corrupt");
}

#[test]
fn a_riff_size_that_lies() {
    let webp = sample("lossy.webp");
    let mut long = webp.clone();
    long[4..8].copy_from_slice(&(webp.len() as u32).to_le_bytes());
    assert_eq!(code(&long), "image_truncated");
    let mut short = webp.clone();
    short[4..8].copy_from_slice(&100u32.to_le_bytes());
    assert_eq!(code(&short), "image_corrupt");
    let mut none = webp;
    none[4..8].copy_from_slice(&[0; 4]);
    assert_eq!(code(&none), "image_corrupt");
}

#[test]
fn gifs_with_odd_screens() {
    let frames = |n: usize| gif_pixel(0, 0).repeat(n);
    let many = [&gif_header(100, 100)[..], &frames(100_000), &[0x3b]].concat();
    let looked = seen(&many).unwrap();
    assert_eq!((looked.frames_total, looked.width), (100_000, 100));
    assert_eq!(looked.views.len(), 2, "one red pixel on transparency");
    assert_eq!(looked.views[0].picture.rgb()[..6], [255, 0, 0, 255, 255, 255]);
    assert_eq!(looked.views[1].picture.rgb()[..6], [255, 0, 0, 0, 0, 0]);
    // A screen of nothing, or too small: the first frame makes it.
    let outside = seen(&[&gif_header(0, 0)[..], &gif_pixel(3, 1), &[0x3b]].concat()).unwrap();
    assert_eq!((outside.width, outside.height), (4, 2));
    assert_eq!(outside.views[0].picture.rgb()[21..], [255, 0, 0]);
    assert_eq!(
        code(&[&gif_header(1, 1)[..], &gif_pixel(65_535, 65_535), &[0x3b]].concat()),
        "image_too_many_pixels"
    );
    assert_eq!(code(&[&gif_header(1, 1)[..], &[0x3b]].concat()), "image_corrupt", "no frame");
    assert_eq!(
        code(&[&gif_header(1, 1)[..], &[0, 0x3b]].concat()),
        "image_corrupt",
        "a byte that begins nothing"
    );
    // The first frame's data ends before its pixels do.
    let mut empty = gif_pixel(0, 0);
    empty.splice(11.., [1, 0x2c, 0]); // clear, end
    assert_eq!(code(&[&gif_header(1, 1)[..], &empty, &[0x3b]].concat()), "image_truncated");
}

#[test]
fn bmp_forms() {
    let palette = [0, 0, 255, 0, 255, 0, 0, 0]; // red, blue
    let rgb = |bytes: &[u8]| seen(bytes).unwrap().views[0].picture.rgb().to_vec();
    let (red, blue) = ([255, 0, 0], [0, 0, 255]);
    // One column, red over blue: bottom up, then top down.
    assert_eq!(rgb(&bmp(1, 2, 8, 0, &palette, &[1, 0, 0, 0, 0, 0, 0, 0])), [red, blue].concat());
    assert_eq!(rgb(&bmp(1, -2, 8, 0, &palette, &[0, 0, 0, 0, 1, 0, 0, 0])), [red, blue].concat());
    let run = bmp(3, 1, 8, 1, &palette, &[2, 0, 1, 1, 0, 0, 0, 1]);
    assert_eq!(rgb(&run), [red, red, blue].concat());
    assert_eq!(rgb(&bmp(4, 1, 4, 2, &palette, &[4, 0x01, 0, 0, 0, 1])), [red, blue, red, blue].concat());
    assert_eq!(code(&run[..run.len() - 2]), "image_truncated", "no end of bitmap");
    let literal = bmp(3, 1, 8, 1, &palette, &[0, 3, 0, 1, 0, 0, 0, 1]);
    assert_eq!(rgb(&literal), [red, blue, red].concat());
    assert_eq!(code(&bmp(1, 1, 24, 4, &[], &[0; 40])), "image_variant_unsupported", "an embedded JPEG");
    assert_eq!(code(&bmp(1, 1, 7, 0, &[], &[0; 40])), "image_corrupt");
    // An archive that the file size field covers is still behind the pixels.
    let mut covered = bmp(1, 1, 24, 0, &[], b"\0\0\xff\0Rar!\x1a\x07\0");
    assert_eq!(code(&covered), "appended_archive");
    covered.truncate(58);
    assert_eq!(code(&covered), "accepted");
}

#[test]
fn alpha_gives_two_views_only_where_there_is_some() {
    let views = |image: RgbaImage| seen(&encoded(image, ImageFormat::Png)).unwrap().views;
    let opaque = views(RgbaImage::from_pixel(3, 3, image::Rgba([1, 2, 3, 255])));
    assert_eq!((opaque.len(), opaque[0].background), (1, None));
    assert_eq!(opaque[0].picture.rgb()[..3], [1, 2, 3]);
    let mut one = RgbaImage::from_pixel(3, 3, image::Rgba([200, 100, 0, 255]));
    one.put_pixel(0, 0, image::Rgba([200, 100, 0, 51]));
    let views = views(one);
    // 51/255 = a fifth: 0.2 × 200 + 0.8 × 255 = 244, and so on.
    assert_eq!(views[0].picture.rgb()[..3], [244, 224, 204]);
    assert_eq!(views[1].picture.rgb()[..3], [40, 20, 0]);
}

#[test]
fn sixteen_bits_and_lines_one_pixel_high() {
    let deep = image::ImageBuffer::from_fn(4, 1, |x, _| image::Rgb([x as u16 * 0x1234, 0xffff, 0x80ff]));
    let looked = seen(&encoded(image::DynamicImage::ImageRgb16(deep), ImageFormat::Png)).unwrap();
    assert_eq!(looked.views[0].picture.rgb()[3..6], [0x12, 0xff, 0x80]);
    let deep_gray = image::ImageBuffer::from_fn(2, 2, |x, _| image::LumaA([x as u16 * 0xff00, 0x8000]));
    assert_eq!(
        seen(&encoded(image::DynamicImage::ImageLumaA16(deep_gray), ImageFormat::Png)).unwrap().views.len(),
        2
    );
    let line = GrayImage::from_fn(30_000, 1, |x, _| image::Luma([x as u8]));
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp] {
        let looked = seen(&encoded(line.clone(), format)).unwrap();
        assert_eq!((looked.width, looked.height), (30_000, 1), "{format:?}");
    }
    let column = RgbImage::from_fn(1, 16_000, |_, y| image::Rgb([y as u8, 0, 0]));
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif]
    {
        assert_eq!(seen(&encoded(column.clone(), format)).unwrap().height, 16_000, "{format:?}");
    }
}

/// One 8-bit page: its fields, then its pixels.
fn tiff(fields: &[(u16, u16, u32, u32)], pixels: &[u8]) -> Vec<u8> {
    let mut out = b"II*\0\x08\0\0\0".to_vec();
    out.extend((fields.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in fields {
        out.extend(tag.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out.extend([0; 4]);
    out.extend(pixels);
    out
}

/// Each form changes one field of a good grey page of four pixels, or adds one.
#[test]
fn tiff_forms() {
    let at = 8 + 2 + 12 * 9 + 4;
    let good: [(u16, u16, u32, u32); 9] = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, at),
        (277, 3, 1, 1),
        (278, 4, 1, u32::MAX),
        (279, 4, 1, 4),
    ];
    let with = |tag: u16, kind: u16, value: u32| {
        let mut fields = good.to_vec();
        let place = fields.iter_mut().find(|field| field.0 == tag).unwrap();
        *place = (tag, kind, 1, value);
        code(&tiff(&fields, &[0, 80, 160, 255]))
    };
    // In place of the orientation that is not there: the rows a strip has, which the default serves as well.
    let instead = |tag: u16, kind: u16, value: u32| {
        let mut fields = good.to_vec();
        fields[7] = (tag, kind, 1, value);
        code(&tiff(&fields, &[0, 80, 160, 255]))
    };
    let looked = seen(&tiff(&good, &[0, 80, 160, 255])).unwrap();
    assert_eq!(looked.views[0].picture.rgb(), [[0; 3], [80; 3], [160; 3], [255; 3]].as_flattened());
    assert_eq!(
        (looked.media_type, looked.trailing_bytes, looked.frames_distinct),
        ("image/tiff".into(), None, Some(1))
    );
    for (tag, value, expected) in [
        (256, 0, "image_no_pixels"),
        (256, 3, "image_corrupt"),
        (258, 16, "image_corrupt"),
        (258, 7, "image_variant_unsupported"),
        (258, 32, "image_variant_unsupported"),
        (259, 7, "image_variant_unsupported"),
        (259, 4, "image_variant_unsupported"),
        (259, 50_000, "image_variant_unsupported"),
        (262, 6, "image_variant_unsupported"),
        (262, 8, "image_variant_unsupported"),
        (262, 3, "image_corrupt"),
        (262, 2, "image_corrupt"),
        (277, 0, "image_corrupt"),
        (277, 3, "image_variant_unsupported"),
    ] {
        assert_eq!(with(tag, 3, value), expected, "{tag} = {value}");
    }
    for (tag, value, expected) in [
        (266, 1, "accepted"),
        (266, 2, "image_variant_unsupported"),
        (274, 6, "accepted"),
        (284, 2, "accepted"),
        (284, 3, "image_corrupt"),
        (317, 3, "image_variant_unsupported"),
        (330, 8, "image_variant_unsupported"),
        (339, 1, "accepted"),
        (339, 3, "image_variant_unsupported"),
        (50_706, 1, "image_variant_unsupported"),
        (278, 0, "image_corrupt"),
    ] {
        assert_eq!(instead(tag, 3, value), expected, "{tag} = {value}");
    }
    assert_eq!(instead(256, 3, 2), "image_corrupt", "a field twice");
    assert_eq!(instead(317, 16, 2), "image_corrupt", "a type that only BigTIFF has");
    assert_eq!(instead(40_000, 16, 2), "accepted", "nobody reads it");
    assert_eq!(with(273, 4, at + 1), "image_truncated");
    assert_eq!(with(279, 4, 3), "image_corrupt", "too few bytes");
    // Pixels over the header, or over what the decoder is shown another value of.
    assert_eq!(with(273, 4, 4), "image_corrupt");
    assert_eq!(with(273, 4, 8 + 2 + 12 * 4 + 8 - 3), "image_corrupt");
    assert_eq!(with(273, 4, 8), "accepted", "the rest of a directory is read as it is");
    let mut early = tiff(&good, &[0, 80, 160, 255]);
    early[4] = 4;
    assert_eq!(code(&early), "image_corrupt");
}

/// A channel that does not say what it is may be transparency or nothing.
#[test]
fn an_unstated_channel_in_a_tiff_is_a_doubt() {
    let at = 8 + 2 + 12 * 9 + 4;
    let fields: [(u16, u16, u32, u32); 9] = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, at),
        (277, 3, 1, 4),
        (279, 4, 1, 4),
        (338, 3, 1, 0),
    ];
    let looked = seen(&tiff(&fields, &[9, 8, 7, 0])).unwrap();
    assert_eq!((looked.views.len(), looked.views[0].picture.rgb()), (1, &[9, 8, 7][..]));
    assert_eq!(
        looked.doubts.iter().map(|doubt| doubt.code.as_ref()).collect::<Vec<_>>(),
        ["transparency_unproven"]
    );
}

/// Numbers below 256 in a palette: black to some viewers, colours to others.
#[test]
fn an_eight_bit_palette_in_a_tiff_is_refused() {
    let at = 8 + 2 + 12 * 9 + 4;
    let fields = |map: u32| {
        [
            (256, 3, 1, 1),
            (257, 3, 1, 1),
            (258, 3, 1, 1),
            (259, 3, 1, 1),
            (262, 3, 1, 3),
            (273, 4, 1, map + 12),
            (277, 3, 1, 1),
            (279, 4, 1, 1),
            (320, 3, 6, map),
        ]
    };
    let file = |level: u16| {
        let map: Vec<u8> = [0, level, 0, 0, 0, level].iter().flat_map(|v: &u16| v.to_le_bytes()).collect();
        tiff(&fields(at), &[&map[..], &[0x80]].concat())
    };
    assert_eq!(seen(&file(0xff00)).unwrap().views[0].picture.rgb(), [255, 0, 255]);
    assert_eq!(code(&file(0)), "accepted", "black, whoever reads it");
    assert_eq!(code(&file(255)), "image_variant_unsupported");
}
