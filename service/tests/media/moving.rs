//! Animations assembled frame by frame, alike in GIF, APNG and WebP.

use image::{ImageFormat, Rgba, RgbaImage};

use super::build::{chunk, chunks, encoded, ihdr, riff, stored, vp8x};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gif,
    Apng,
    WebP,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Gif, Kind::Apng, Kind::WebP];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Clear,
    /// GIF and APNG.
    Restore,
}

/// A rectangle of one colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub place: (u32, u32, u32, u32),
    pub pixel: [u8; 4],
    /// GIF counts in tens.
    pub delay_ms: u32,
    pub after: After,
    pub over: bool,
}

impl Frame {
    pub(super) fn new(place: (u32, u32, u32, u32), pixel: [u8; 4]) -> Self {
        Self { place, pixel, delay_ms: 100, after: After::Keep, over: true }
    }

    pub(super) fn lasting(self, delay_ms: u32) -> Self {
        Self { delay_ms, ..self }
    }

    pub(super) fn then(self, after: After) -> Self {
        Self { after, ..self }
    }
}

pub(super) fn animation(kind: Kind, size: (u32, u32), frames: &[Frame]) -> Vec<u8> {
    match kind {
        Kind::Gif => animated_gif(size, frames),
        Kind::Apng => apng(size, frames),
        Kind::WebP => animated_webp(size, frames),
    }
}

fn animated_gif((width, height): (u32, u32), frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = gif::Encoder::new(&mut out, width as u16, height as u16, &[]).unwrap();
    for frame in frames {
        let (left, top, width, height) = frame.place;
        let [r, g, b, a] = frame.pixel;
        let coded = gif::Frame {
            delay: (frame.delay_ms / 10) as u16,
            dispose: match frame.after {
                After::Keep => gif::DisposalMethod::Keep,
                After::Clear => gif::DisposalMethod::Background,
                After::Restore => gif::DisposalMethod::Previous,
            },
            transparent: (a == 0).then_some(0),
            left: left as u16,
            top: top as u16,
            width: width as u16,
            height: height as u16,
            palette: Some(vec![r, g, b, 9, 9, 9]),
            buffer: vec![0; (width * height) as usize].into(),
            ..gif::Frame::default()
        };
        encoder.write_frame(&coded).unwrap();
    }
    drop(encoder);
    out
}

fn apng((width, height): (u32, u32), frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_animated(frames.len() as u32, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for frame in frames {
        let (left, top, width, height) = frame.place;
        writer.reset_frame_position().unwrap();
        writer.set_frame_dimension(width, height).unwrap();
        writer.set_frame_position(left, top).unwrap();
        writer.set_frame_delay(frame.delay_ms as u16, 1000).unwrap();
        writer.set_blend_op(if frame.over { png::BlendOp::Over } else { png::BlendOp::Source }).unwrap();
        writer
            .set_dispose_op(match frame.after {
                After::Keep => png::DisposeOp::None,
                After::Clear => png::DisposeOp::Background,
                After::Restore => png::DisposeOp::Previous,
            })
            .unwrap();
        writer.write_image_data(&frame.pixel.repeat((width * height) as usize)).unwrap();
    }
    writer.finish().unwrap();
    out
}

/// The frame's picture, lossless, as its chunk's body.
fn vp8l(width: u32, height: u32, pixel: [u8; 4]) -> Vec<u8> {
    let file = encoded(RgbaImage::from_pixel(width, height, Rgba(pixel)), ImageFormat::WebP);
    chunks(&file).into_iter().find(|(kind, _)| kind == b"VP8L").unwrap().1
}

fn animated_webp((width, height): (u32, u32), frames: &[Frame]) -> Vec<u8> {
    let bodies: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| {
            let (left, top, width, height) = frame.place;
            assert!(left % 2 == 0 && top % 2 == 0, "WebP places frames at even pixels");
            assert_ne!(frame.after, After::Restore, "WebP restores nothing");
            let mut body = Vec::new();
            for field in [left / 2, top / 2, width - 1, height - 1, frame.delay_ms] {
                body.extend(&field.to_le_bytes()[..3]);
            }
            body.push(u8::from(!frame.over) << 1 | u8::from(frame.after == After::Clear));
            let picture = vp8l(width, height, frame.pixel);
            body.extend(b"VP8L");
            body.extend((picture.len() as u32).to_le_bytes());
            body.extend(&picture);
            body.resize(body.len().next_multiple_of(2), 0);
            body
        })
        .collect();
    let header = vp8x(0x12, width, height);
    let mut list: Vec<(&[u8; 4], &[u8])> = vec![(b"VP8X", &header), (b"ANIM", &[0; 6])];
    list.extend(bodies.iter().map(|body| (b"ANMF", &body[..])));
    riff(&list)
}

/// An interlaced APNG, which no encoder at hand writes: a first frame of `size` and a second one within it,
/// both 8-bit RGB.
pub(super) fn interlaced_apng(
    size: (u32, u32),
    place: (u32, u32, u32, u32),
    pixel: impl Fn(u32, u32, u32) -> [u8; 3],
) -> Vec<u8> {
    let control = |sequence: u32, (left, top, width, height): (u32, u32, u32, u32)| {
        let mut body = Vec::new();
        for field in [sequence, width, height, left, top] {
            body.extend(field.to_be_bytes());
        }
        body.extend([0, 10, 0, 100, 0, 0]);
        chunk(b"fcTL", &body)
    };
    let adam7 = |frame: u32, width: u32, height: u32| {
        let mut raw = Vec::new();
        let passes = [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ];
        for (x0, y0, dx, dy) in passes {
            for y in (y0..height).step_by(dy) {
                if x0 < width {
                    raw.push(0);
                    raw.extend((x0..width).step_by(dx).flat_map(|x| pixel(frame, x, y)));
                }
            }
        }
        stored(&raw)
    };
    let mut header = ihdr(size.0, size.1, 8, 2);
    header[20] = 1;
    let header = chunk(b"IHDR", &header[8..21]);
    let second = [&2u32.to_be_bytes()[..], &adam7(1, place.2, place.3)].concat();
    [
        super::build::PNG_SIGNATURE,
        &header,
        &chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]),
        &control(0, (0, 0, size.0, size.1)),
        &chunk(b"IDAT", &adam7(0, size.0, size.1)),
        &control(1, place),
        &chunk(b"fdAT", &second),
        &chunk(b"IEND", b""),
    ]
    .concat()
}
