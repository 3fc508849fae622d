//! What follows a picture: ordinary leftovers pass, an archive, a program or a script is refused.
//!
//! Ordinary are Motion Photo videos, the further JPEGs of a multi-picture file, maker's notes, padding.
//! They are reported as trailing bytes, not judged. A further picture of another kind is treated alike:
//! no viewer shows it, and the count says that it was not looked at.

use std::borrow::Cow;

use super::error::MediaError;

/// How far from a file's end a ZIP's directory record may begin: its own length and a full comment.
const ZIP_TAIL: usize = 22 + 65_535;

pub(super) fn inspect(bytes: &[u8], end: usize) -> Result<(), MediaError> {
    // Over the whole file: a ZIP is read from its end, so it may begin inside the picture.
    if let Some(at) = zip_directory(bytes) {
        return Err(MediaError::AppendedArchive { found: "ZIP archive".into(), offset: at as u64 });
    }
    let tail = bytes.get(end..).unwrap_or_default();
    let padding = tail.iter().take_while(|b| **b == 0 || b.is_ascii_whitespace()).count();
    let first = &tail[padding..];
    if first.is_empty() {
        return Ok(());
    }
    let offset = |at: usize| (end + padding + at) as u64;
    if let Some(found) = archive_at_start(first) {
        return Err(MediaError::AppendedArchive { found: Cow::Borrowed(found), offset: offset(0) });
    }
    if first.starts_with(b"#!/") || first.starts_with(b"#! /") {
        return Err(MediaError::AppendedScript { found: "a script".into(), offset: offset(0) });
    }
    for (at, window) in first.windows(12).enumerate() {
        anywhere(window, first, at, offset(at))?;
    }
    // The last few bytes, which no full window begins at.
    for at in first.len().saturating_sub(11)..first.len() {
        anywhere(&first[at..], first, at, offset(at))?;
    }
    Ok(())
}

/// Signatures long enough not to turn up by chance in megabytes of video.
fn anywhere(here: &[u8], tail: &[u8], at: usize, offset: u64) -> Result<(), MediaError> {
    let archive = |found| Err(MediaError::AppendedArchive { found: Cow::Borrowed(found), offset });
    let script = |found| Err(MediaError::AppendedScript { found: Cow::Borrowed(found), offset });
    match here {
        [b'P', b'K', 3, 4, ..] if is_zip_entry(&tail[at..]) => archive("ZIP archive"),
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => archive("RAR archive"),
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => archive("7-Zip archive"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => archive("xz archive"),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => archive("bzip2 archive"),
        [b'%', b'P', b'D', b'F', b'-', b'0'..=b'9', ..] => archive("PDF"),
        [b'<', rest @ ..] => {
            let begins = |word: &[u8]| rest.get(..word.len()).is_some_and(|r| r.eq_ignore_ascii_case(word));
            if begins(b"?php") {
                script("PHP code")
            } else if begins(b"script") {
                script("a script")
            } else if begins(b"html") || begins(b"!doctype h") {
                script("an HTML page")
            } else if begins(b"iframe") {
                script("an HTML frame")
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

/// Shorter signatures, trusted only where the trailing data begins.
fn archive_at_start(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0 => Some("gzip archive"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("Zstandard archive"),
        [b'M', b'S', b'C', b'F', 0, 0, 0, 0, ..] => Some("cabinet archive"),
        [0x7f, b'E', b'L', b'F', 1 | 2, 1 | 2, ..] => Some("ELF program"),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => Some("Mach-O or Java program"),
        [b'P', b'K', 3, 4, ..] => Some("ZIP archive"),
        [b'M', b'Z', ..] if is_windows_program(first) => Some("Windows program"),
        _ if first.get(257..262) == Some(b"ustar") => Some("tar archive"),
        _ => None,
    }
}

fn is_windows_program(first: &[u8]) -> bool {
    let at = first.get(0x3c..0x40).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    at.is_some_and(|at| first.get(at as usize..).is_some_and(|rest| rest.starts_with(b"PE\0\0")))
}

/// Four bytes are found by chance once in 4 GB of video; with plausible fields behind them, never.
fn is_zip_entry(here: &[u8]) -> bool {
    let field = |at: usize| here.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let (Some(version), Some(method), Some(name)) = (field(4), field(8), field(26)) else { return false };
    version & 0xff <= 63 && (method <= 20 || (93..=99).contains(&method)) && (1..=1024).contains(&name)
}

/// A ZIP's end record that some unpacker would follow: its comment fits, and its directory (if it
/// lists anything) stands right before it, wherever the archive itself begins.
fn zip_directory(bytes: &[u8]) -> Option<usize> {
    let from = bytes.len().saturating_sub(ZIP_TAIL);
    let tail = &bytes[from..];
    (0..tail.len().saturating_sub(21)).rev().map(|at| from + at).find(|&at| {
        let record = &bytes[at..];
        if !record.starts_with(b"PK\x05\x06") {
            return false;
        }
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([record[at], record[at + 1]]));
        let size = u32::from_le_bytes([record[12], record[13], record[14], record[15]]) as usize;
        if 22 + u16_at(20) > record.len() {
            return false;
        }
        let listed = at.checked_sub(size).is_some_and(|dir| bytes[dir..].starts_with(b"PK\x01\x02"));
        // ZIP64 keeps the true numbers in a record of its own, right before this one.
        let zip64 = at.checked_sub(20).is_some_and(|locator| bytes[locator..].starts_with(b"PK\x06\x07"));
        listed || zip64
    })
}
