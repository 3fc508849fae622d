//! Thousands of seeded broken files: no panic, no nonsense, no second for one of them.

use std::time::{Duration, Instant};

use super::build::{PNG_SIGNATURE, chunk};
use super::mutator::Mutator;
use super::{MediaError, samples, seen};

/// Holds for whatever comes: a refusal with a code, or whole pictures of the stated size.
pub(super) fn check(what: &str, bytes: &[u8]) {
    let started = Instant::now();
    match seen(bytes) {
        Ok(looked) => {
            assert!((1..=32).contains(&looked.views.len()), "{what}");
            assert!((1..=looked.frames_total).contains(&looked.frames_scored), "{what}");
            assert!(looked.frames_distinct.is_none_or(|n| n <= looked.frames_total), "{what}");
            let first = &looked.views[0].picture;
            assert_eq!((first.width(), first.height()), (looked.width, looked.height), "{what}");
            for pair in looked.views.windows(2) {
                let (a, b) = (&pair[0], &pair[1]);
                assert!(a.frame < b.frame || a.background != b.background, "{what}");
                assert!(a.at_ms <= b.at_ms && b.frame < looked.frames_total, "{what}");
            }
        }
        // Caught, so it cost one request; but a known panic is to be refused by a walk.
        Err(MediaError::DecoderFailed) => panic!("{what}: the decoder panicked"),
        Err(e) => assert!(!e.code().is_empty() && !e.to_string().is_empty(), "{what}"),
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{what} took {took:?}");
}

#[test]
fn random_bytes() {
    let mut rng = Mutator::new(1);
    let magics: [&[u8]; 9] = [
        b"",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xff\0\0\0WEBPVP8X",
        b"GIF89a",
        b"BM",
        b"RIFF\x40\0\0\0WEBPVP8L",
    ];
    for round in 0..10_000 {
        let len = rng.below(300);
        let mut bytes = magics[round % magics.len()].to_vec();
        bytes.extend(std::iter::repeat_with(|| rng.number() as u8).take(len));
        check(&format!("random {round}"), &bytes);
    }
}

#[test]
fn flipped_bits() {
    let mut rng = Mutator::new(2);
    for (name, good) in samples() {
        for round in 0..200 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(8) {
                // Half of them in the first bytes, where the structure is.
                let within = if rng.below(2) == 0 { bytes.len().min(200) } else { bytes.len() };
                let at = rng.below(within);
                bytes[at] ^= 1 << rng.below(8);
            }
            check(&format!("{name} flipped, round {round}"), &bytes);
        }
    }
}

/// Damage that the checksums own up to, so that it reaches the decoder behind them.
#[test]
fn resealed_png_chunks() {
    let mut rng = Mutator::new(5);
    for (name, good) in samples().into_iter().filter(|(name, _)| name.ends_with(".png")) {
        for round in 0..400 {
            let mut bytes = PNG_SIGNATURE.to_vec();
            let mut rest = &good[8..];
            while !rest.is_empty() {
                let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                let kind: [u8; 4] = rest[4..8].try_into().unwrap();
                let mut body = rest[8..8 + len].to_vec();
                rest = &rest[12 + len..];
                if !body.is_empty() && rng.below(3) == 0 {
                    let at = rng.below(body.len());
                    body[at] ^= 1 << rng.below(8);
                }
                bytes.extend(chunk(&kind, &body));
            }
            check(&format!("{name} resealed, round {round}"), &bytes);
        }
    }
}

#[test]
fn bytes_set_to_extremes() {
    let mut rng = Mutator::new(3);
    for (name, good) in samples() {
        for round in 0..200 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len().min(250));
                bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][rng.below(6)];
            }
            check(&format!("{name} extreme, round {round}"), &bytes);
        }
    }
}

#[test]
fn splices() {
    let mut rng = Mutator::new(4);
    let all = samples();
    for round in 0..6000 {
        let (a_name, a) = &all[rng.below(all.len())];
        let (b_name, b) = &all[rng.below(all.len())];
        let (i, j) = (rng.below(a.len()), rng.below(b.len()));
        check(&format!("{a_name}+{b_name}, round {round}"), &[&a[..i], &b[j..]].concat());
        // And a hole, and a doubled stretch, within one file.
        let k = i + rng.below(a.len() - i);
        check(&format!("{a_name} holed, round {round}"), &[&a[..i], &a[k..]].concat());
        check(&format!("{a_name} doubled, round {round}"), &[&a[..k], &a[i..]].concat());
    }
}
