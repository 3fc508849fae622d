//! What of an animation is looked at: every distinct frame, or a choice that nothing odd can hide from.

use shieldgate::media::{Limits, Looked, View, look};
use shieldgate::verdict::Background;

use super::build::{PNG_SIGNATURE, chunk, gif_header, gif_pixel};
use super::moving::{After, Frame, KINDS, Kind, animation, interlaced_apng};
use super::{code, sample, seen};

const SIZE: (u32, u32) = (48, 32);
const WHOLE: (u32, u32, u32, u32) = (0, 0, 48, 32);
const RED: [u8; 4] = [255, 0, 0, 255];
const GREEN: [u8; 4] = [0, 200, 0, 255];
const BLUE: [u8; 4] = [0, 0, 255, 255];
const CLEAR: [u8; 4] = [0; 4];

fn built(kind: Kind, frames: &[Frame]) -> Looked {
    seen(&animation(kind, SIZE, frames)).unwrap_or_else(|e| panic!("{kind:?}: {e}"))
}

fn at(view: &View, x: u32, y: u32) -> [u8; 3] {
    let at = (y * view.picture.width() + x) as usize * 3;
    view.picture.rgb()[at..at + 3].try_into().unwrap()
}

fn is_red(view: &View) -> bool {
    view.picture.rgb().as_chunks::<3>().0.iter().any(|p| p[0] > 200 && p[1] < 50 && p[2] < 50)
}

/// The one view with red in it.
fn red_view(looked: &Looked, what: &str) -> View {
    let mut red = looked.views.iter().filter(|view| is_red(view));
    let found = red.next().unwrap_or_else(|| panic!("{what}: no red among {} views", looked.views.len()));
    assert!(red.next().is_none(), "{what}");
    found.clone()
}

#[test]
fn a_red_frame_of_ten_milliseconds_among_green_ones_is_found() {
    for kind in KINDS {
        let mut frames = vec![Frame::new(WHOLE, GREEN); 31];
        frames[17] = Frame::new(WHOLE, RED).lasting(10);
        let looked = built(kind, &frames);
        assert_eq!((looked.frames_total, looked.frames_scored), (31, 31), "{kind:?}");
        assert_eq!(looked.frames_distinct, Some(2), "{kind:?}");
        let red = red_view(&looked, "whole");
        assert_eq!((red.frame, red.at_ms, red.background), (17, 1700, None), "{kind:?}");
        assert_eq!(looked.views.len(), 2, "{kind:?}");
    }
}

#[test]
fn a_partial_red_frame_is_found_whatever_becomes_of_it() {
    for kind in KINDS {
        for after in [After::Keep, After::Clear, After::Restore] {
            if kind == Kind::WebP && after == After::Restore {
                continue;
            }
            let mut frames = vec![Frame::new(WHOLE, GREEN); 9];
            frames[5] = Frame::new((20, 10, 6, 4), RED).lasting(10).then(after);
            let what = format!("{kind:?}, then {after:?}");
            let looked = built(kind, &frames);
            assert_eq!((looked.frames_scored, looked.frames_distinct), (9, Some(2)), "{what}");
            let red = red_view(&looked, &what);
            assert_eq!((red.frame, red.at_ms), (5, 500), "{what}");
            for (x, y, expected) in [(20, 10, [255, 0, 0]), (25, 13, [255, 0, 0]), (26, 13, [0, 200, 0])] {
                assert_eq!(at(&red, x, y), expected, "{what}: {x}, {y}");
            }
        }
    }
}

/// More distinct frames than are kept: what is unlike the rest stays, and the rest is spread over time.
#[test]
fn a_red_frame_among_more_shades_of_green_than_are_kept_is_found() {
    for kind in KINDS {
        for hidden in [1, 40, 98] {
            let shade = |i: u32| Frame::new(WHOLE, [0, 100 + i as u8, (i % 7) as u8, 255]);
            let mut frames: Vec<Frame> = (0..99).map(shade).collect();
            frames[hidden] = Frame::new((22, 8, 16, 16), RED).lasting(10);
            let looked = built(kind, &frames);
            let what = format!("{kind:?}, red at {hidden}");
            assert_eq!((looked.frames_total, looked.frames_distinct), (99, Some(99)), "{what}");
            assert_eq!((looked.frames_scored, looked.views.len()), (16, 16), "{what}");
            assert_eq!(red_view(&looked, &what).frame, hidden as u32, "{what}");
            assert_eq!(looked.views[0].frame, 0, "{what}");
            let times: Vec<u64> = looked.views.iter().map(|view| view.at_ms).collect();
            let last = *times.last().unwrap();
            let widest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(widest <= 1700 && last >= 8000, "{what}: {times:?}");
        }
    }
}

/// The times are all the same; then the order counts.
#[test]
fn frames_without_delays_are_spread_over_the_file() {
    let frames: Vec<Frame> = (0..200).map(|i| Frame::new(WHOLE, [i, i, i, 255]).lasting(0)).collect();
    let looked = built(Kind::Gif, &frames);
    assert!(looked.views.iter().all(|view| view.at_ms == 0));
    let order: Vec<u32> = looked.views.iter().map(|view| view.frame).collect();
    assert!(order.windows(2).all(|pair| pair[1] - pair[0] <= 30) && order[15] >= 170, "{order:?}");
}

#[test]
fn frames_are_disposed_of_as_browsers_do() {
    for kind in KINDS {
        let small = (8, 8, 8, 8);
        let looked = built(
            kind,
            &[
                Frame::new((0, 0, 48, 32), GREEN),
                Frame::new(small, RED).then(After::Clear),
                Frame::new((40, 24, 8, 8), BLUE),
            ],
        );
        // The red place is now a hole: seen over white and over black.
        let third: Vec<&View> = looked.views.iter().filter(|view| view.frame == 2).collect();
        let [white, black] = third[..] else { panic!("{kind:?}: {} views", third.len()) };
        assert_eq!((white.background, black.background), (Some(Background::White), Some(Background::Black)));
        assert_eq!((at(white, 9, 9), at(black, 9, 9)), ([255; 3], [0; 3]), "{kind:?}");
        assert_eq!((at(white, 41, 25), at(white, 0, 0)), ([0, 0, 255], [0, 200, 0]), "{kind:?}");
        assert_eq!((looked.frames_total, looked.views.len()), (3, 4), "{kind:?}");
    }
    // A disposal method that only old encoders write means the same as the third.
    let mut gif = animation(
        Kind::Gif,
        SIZE,
        &[
            Frame::new(WHOLE, GREEN),
            Frame::new((8, 8, 8, 8), RED).then(After::Restore),
            Frame::new((0, 0, 2, 2), BLUE),
        ],
    );
    let looked = seen(&gif).unwrap();
    assert_eq!(at(&looked.views[2], 9, 9), [0, 200, 0]);
    let control =
        gif.windows(4).enumerate().filter(|(_, w)| w.starts_with(&[0x21, 0xf9, 4])).nth(1).unwrap().0;
    assert_eq!(gif[control + 3] >> 2 & 7, 3);
    gif[control + 3] = 4 << 2;
    assert_eq!(at(&seen(&gif).unwrap().views[2], 9, 9), [0, 200, 0]);
}

/// White on nothing is seen over black, in every frame.
#[test]
fn see_through_frames_are_seen_over_both_backgrounds() {
    for kind in KINDS {
        let dot = |x: u32, pixel| Frame::new((x, 8, 4, 4), pixel).then(After::Clear);
        let looked =
            built(kind, &[Frame::new(WHOLE, CLEAR), dot(0, [255; 4]), dot(8, [0, 0, 0, 255]), dot(16, RED)]);
        assert_eq!((looked.frames_distinct, looked.views.len()), (Some(4), 8), "{kind:?}");
        let shows = |frame: u32, background| {
            let view =
                looked.views.iter().find(|v| v.frame == frame && v.background == Some(background)).unwrap();
            let first = at(view, 0, 0);
            view.picture.rgb().as_chunks::<3>().0.iter().any(|p| *p != first)
        };
        assert!(!shows(1, Background::White) || at(&looked.views[2], 0, 8) != [255; 3], "{kind:?}");
        assert!(shows(1, Background::Black) && shows(2, Background::White), "{kind:?}");
        assert!(shows(3, Background::White) && shows(3, Background::Black), "{kind:?}");
    }
}

/// Also one that would not be kept: it is refused, not skipped.
#[test]
fn a_damaged_frame_spoils_the_file() {
    for kind in KINDS {
        for damaged in [1, 30, 59] {
            let frames: Vec<Frame> = (0..60).map(|i| Frame::new(WHOLE, [0, i, 0, 255])).collect();
            let mut bytes = animation(kind, SIZE, &frames);
            let starts: Vec<usize> = match kind {
                Kind::Gif => {
                    bytes.windows(2).enumerate().filter(|(_, w)| *w == [0x21, 0xf9]).map(|(i, _)| i).collect()
                }
                Kind::Apng => {
                    bytes.windows(4).enumerate().filter(|(_, w)| *w == b"fcTL").map(|(i, _)| i).collect()
                }
                Kind::WebP => {
                    bytes.windows(4).enumerate().filter(|(_, w)| *w == b"ANMF").map(|(i, _)| i).collect()
                }
            };
            assert_eq!(starts.len(), 60, "{kind:?}");
            let start = starts[damaged];
            match kind {
                // Clear, end: fewer pixels than the frame has. Behind control, descriptor and palette.
                Kind::Gif => {
                    let data = start + 8 + 10 + 6;
                    let old = usize::from(bytes[data + 1]);
                    bytes.splice(data + 1..data + 2 + old, [1, 0x2c]);
                }
                // Into the compressed data behind the frame header and the chunk's own.
                Kind::Apng => bytes[start + 4 + 26 + 4 + 8 + 4 + 3] ^= 0x55,
                // The signature of the lossless picture, and what it says of the size.
                Kind::WebP => bytes[start + 8 + 16 + 8 + 1] ^= 0x55,
            }
            let refused = code(&bytes);
            assert!(
                ["image_corrupt", "image_truncated"].contains(&refused),
                "{kind:?} at {damaged}: {refused}"
            );
        }
    }
}

#[test]
fn fewer_frames_are_kept_where_memory_is_short() {
    for kind in KINDS {
        let frames: Vec<Frame> = (0..12).map(|i| Frame::new(WHOLE, [i * 20, 0, 0, 255])).collect();
        let bytes = animation(kind, SIZE, &frames);
        let needed = match look(&bytes, &Limits { memory_max: 0, ..Limits::default() }) {
            Err(shieldgate::media::MediaError::TooMuchMemory { needed, .. }) => needed,
            other => panic!("{kind:?}: {other:?}"),
        };
        let two_more = needed + 2 * 6 * u64::from(SIZE.0 * SIZE.1);
        for (memory_max, kept) in [(needed, 1), (two_more, 3), (1 << 30, 12)] {
            let looked = look(&bytes, &Limits { memory_max, ..Limits::default() }).unwrap();
            assert_eq!((looked.views.len(), looked.frames_scored), (kept, kept as u32), "{kind:?}");
            assert_eq!((looked.frames_total, looked.frames_distinct), (12, Some(12)), "{kind:?}");
        }
    }
}

#[test]
fn the_limit_on_frames_is_a_setting() {
    let frames: Vec<Frame> = (0..12).map(|i| Frame::new(WHOLE, [i * 20, 0, 0, 255])).collect();
    let bytes = animation(Kind::Gif, SIZE, &frames);
    for (frames_max, kept) in [(0, 1), (1, 1), (5, 5), (12, 12), (u32::MAX, 12)] {
        let looked = look(&bytes, &Limits { frames_max, ..Limits::default() }).unwrap();
        assert_eq!(looked.frames_scored, kept);
        assert_eq!(looked.views[0].frame, 0);
    }
}

#[test]
fn interlaced_partial_frames_are_laid_out_right() {
    let pixel = |frame: u32, x: u32, y: u32| [(frame * 100) as u8, (x * 7) as u8, (y * 11) as u8];
    let place = (3, 5, 13, 9);
    let looked = seen(&interlaced_apng((21, 17), place, pixel)).unwrap();
    assert_eq!((looked.frames_distinct, looked.views.len()), (Some(2), 2));
    for y in 0..17 {
        for x in 0..21 {
            assert_eq!(at(&looked.views[0], x, y), pixel(0, x, y));
            let inside = (3..16).contains(&x) && (5..14).contains(&y);
            let expected = if inside { pixel(1, x - 3, y - 5) } else { pixel(0, x, y) };
            assert_eq!(at(&looked.views[1], x, y), expected, "{x}, {y}");
        }
    }
    assert_eq!((looked.views[1].frame, looked.views[1].at_ms), (1, 100));
}

#[test]
fn a_still_picture_beside_its_animation_is_seen_as_well() {
    let looked = seen(&sample("animated_default.png")).unwrap();
    let times: Vec<_> = looked.views.iter().map(|view| (view.frame, view.at_ms)).collect();
    assert_eq!(times, [(0, 0), (1, 0), (2, 100)]);
}

/// Counts that contradict each other, and frames without an announcement: viewers show one or the other.
#[test]
fn animations_that_contradict_themselves_are_refused() {
    let good = animation(Kind::Apng, SIZE, &[Frame::new(WHOLE, GREEN), Frame::new(WHOLE, RED)]);
    assert_eq!(code(&good), "accepted");
    let header = good.windows(4).position(|w| w == b"acTL").unwrap() - 4;
    let behind = header + 20;
    for frames in [0u8, 1, 3] {
        let other = chunk(b"acTL", &[0, 0, 0, frames, 0, 0, 0, 0]);
        assert_eq!(code(&[&good[..header], &other, &good[behind..]].concat()), "image_corrupt", "{frames}");
    }
    assert_eq!(code(&[&good[..header], &good[behind..]].concat()), "image_corrupt", "unannounced");
    let twice = [&good[..behind], &good[header..]].concat();
    assert_eq!(code(&twice), "image_corrupt", "announced twice");
    let late =
        [&good[..header], &good[behind..good.len() - 12], &good[header..behind], &good[good.len() - 12..]]
            .concat();
    assert_eq!(code(&late), "image_corrupt", "announced behind the picture");
    assert!(good.starts_with(PNG_SIGNATURE));
}

#[test]
fn frames_that_stick_out_of_a_gif_are_cut() {
    let bytes = animation(
        Kind::Gif,
        SIZE,
        &[Frame::new(WHOLE, GREEN), Frame::new((40, 28, 30, 30), RED), Frame::new((500, 500, 3, 3), BLUE)],
    );
    let looked = seen(&bytes).unwrap();
    assert_eq!((looked.width, looked.height, looked.frames_distinct), (48, 32, Some(2)));
    assert_eq!((at(&looked.views[1], 47, 31), at(&looked.views[1], 39, 31)), ([255, 0, 0], [0, 200, 0]));
    // A frame alone too large is refused before it is decoded.
    let mut huge = gif_pixel(0, 0);
    huge[5..9].copy_from_slice(&[0xff; 4]);
    let huge = [&gif_header(4, 4)[..], &gif_pixel(0, 0), &huge, &[0x3b]].concat();
    assert_eq!(code(&huge), "image_too_many_pixels");
}
