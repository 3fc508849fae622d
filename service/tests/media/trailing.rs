//! What may follow a picture and what may not.

use super::build::zip;
use super::mutator::Mutator;
use super::{code, sample, samples, seen};

const ONE_OF_EACH: [&str; 6] =
    ["baseline_420.jpg", "rgba.png", "lossy.webp", "animated.gif", "rgb24.bmp", "rgb_lzw.tif"];

fn appended(name: &str, tail: &[u8]) -> Vec<u8> {
    [&sample(name)[..], tail].concat()
}

#[test]
fn archives_programs_and_scripts_are_refused_behind_every_format() {
    let mut program = vec![0; 256];
    program[..2].copy_from_slice(b"MZ");
    program[0x3c] = 128;
    program[128..132].copy_from_slice(b"PE\0\0");
    let mut tar = vec![b'a'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let archives: Vec<(&str, Vec<u8>)> = vec![
        ("zip", zip("a.txt", b"hello", b"")),
        ("zip with a comment", zip("a.txt", b"hello", &[b'x'; 65_535])),
        ("zip behind a prefix", [&[7; 999][..], &zip("a.txt", b"hello", b"")].concat()),
        ("zip cut short", zip("a.txt", &[1; 200], b"")[..60].to_vec()),
        ("rar", b"Rar!\x1a\x07\x01\0rest".to_vec()),
        ("rar behind a prefix", b"junk junkRar!\x1a\x07\0".to_vec()),
        ("7z", b"7z\xbc\xaf\x27\x1c\0\x04".to_vec()),
        ("pdf", b"%PDF-1.7\n1 0 obj".to_vec()),
        ("elf", b"\x7fELF\x02\x01\x01\0\0\0".to_vec()),
        ("pe", program),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec()),
        ("xz", b"\xfd7zXZ\0\0\x04".to_vec()),
        ("bzip2", b"BZh91AY&SY....".to_vec()),
        ("tar", tar),
        ("zip after padding", [&[0; 64][..], &zip("a.txt", b"hello", b"")].concat()),
    ];
    let scripts: [&[u8]; 7] = [
        b"<script>alert(1)</script>",
        b"\n<SCRIPT SRC=x>",
        b"....<?php system($_GET[0]); ?>",
        b"<html><body>",
        b"#!/bin/sh\nrm -rf x",
        b"<!DOCTYPE html>",
        b"xxxxxxxxxxxxxxxxxx<?php",
    ];
    for name in ONE_OF_EACH {
        for (what, archive) in &archives {
            assert_eq!(code(&appended(name, archive)), "appended_archive", "{what} behind {name}");
        }
        for script in scripts {
            let shown = String::from_utf8_lossy(script);
            assert_eq!(code(&appended(name, script)), "appended_script", "{shown} behind {name}");
        }
    }
}

#[test]
fn ordinary_leftovers_are_reported_and_accepted() {
    // As a Motion Photo ends: a video, its boxes named, its samples all but random.
    let mut rng = Mutator::new(42);
    let mut video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08free\0\x10\0\0mdat".to_vec();
    video.extend(std::iter::repeat_with(|| rng.number() as u8).take(4 << 20));
    let second = sample("noise.jpg");
    for name in ONE_OF_EACH {
        for tail in [&video[..], &second, &[0; 4096], b"\r\n", b"SEFH maker's note SEFT"] {
            let looked = seen(&appended(name, tail)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(looked.trailing_bytes, Some(tail.len() as u64), "{name}");
            let alone = seen(&sample(name)).unwrap();
            assert_eq!(looked.views[0].picture.rgb(), alone.views[0].picture.rgb(), "{name}");
        }
    }
}

#[test]
fn a_multi_picture_file_is_its_first_picture_and_trailing_bytes() {
    let bytes = sample("mpo.jpg");
    let looked = seen(&bytes).unwrap();
    let trailing = looked.trailing_bytes.unwrap() as usize;
    let second = &bytes[bytes.len() - trailing..];
    assert!(second.starts_with(&[0xff, 0xd8, 0xff]), "the end is where the second picture begins");
    assert_eq!(seen(second).unwrap().width, 48);
    assert_eq!((looked.width, looked.frames_total), (72, 1));
}

#[test]
fn a_thumbnail_inside_exif_does_not_end_the_picture() {
    let bytes = sample("exif_thumbnail.jpg");
    let ends = bytes.windows(2).filter(|w| *w == [0xff, 0xd9]).count();
    assert_eq!(ends, 2, "the sample holds a thumbnail");
    assert_eq!(seen(&bytes).unwrap().trailing_bytes, None);
}

/// A ZIP that begins inside the picture: its entries in a comment, its directory behind.
#[test]
fn a_zip_that_only_ends_behind_the_picture_is_refused() {
    let archive = zip("a.txt", b"hello", b"");
    let directory = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    for name in ONE_OF_EACH {
        assert_eq!(code(&appended(name, &archive[directory..])), "appended_archive", "{name}");
    }
    // And one wholly inside: in the last comment of a GIF.
    let gif = sample("animated.gif");
    let mut hidden = gif[..gif.len() - 1].to_vec();
    hidden.extend([0x21, 0xfe, archive.len() as u8]);
    hidden.extend(&archive);
    hidden.extend([0, 0x3b]);
    // Its comment length does not reach the end of the file, yet unpackers find it.
    assert_eq!(code(&hidden), "appended_archive");
}

#[test]
fn no_sample_is_taken_for_an_archive() {
    for (name, bytes) in samples() {
        assert_eq!(code(&bytes), "accepted", "{name}");
    }
}
