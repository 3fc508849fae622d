//! Pictures broken on purpose: a seeded mutator that knows where each format keeps its chunks and lengths.
//!
//! Pure and without dependencies, so that the service's own media tests include this very file.

use std::ops::Range;

/// The same seed gives the same pictures, so that a failure can be run again.
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        // The generator stands still at zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Xorshift.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }

    /// One to three changes to `good`, and what they were. Pieces of `other` are spliced in.
    pub fn mutate(&mut self, good: &[u8], other: &[u8]) -> (String, Vec<u8>) {
        let mut bytes = good.to_vec();
        let mut what = Vec::new();
        for _ in 0..=self.below(3) {
            what.push(self.change(&mut bytes, other));
        }
        // Checksums would keep most damage from the decoder behind them.
        if self.below(4) > 0 && reseal_png(&mut bytes) {
            what.push("resealed");
        }
        (what.join(", "), bytes)
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) -> &'static str {
        match self.below(10) {
            0 => self.flip_bits(bytes),
            1 => self.set_extremes(bytes),
            2 => {
                bytes.truncate(self.below(bytes.len()));
                "cut short"
            }
            3 => {
                let hole = self.stretch(bytes.len());
                bytes.drain(hole);
                "a hole"
            }
            4 => {
                let stretch = self.stretch(bytes.len());
                let copy = bytes[stretch.clone()].to_vec();
                bytes.splice(stretch.end..stretch.end, copy);
                "a stretch twice"
            }
            5 => {
                let (keep, from) = (self.below(bytes.len()), self.below(other.len()));
                bytes.truncate(keep);
                bytes.extend(&other[from..]);
                "spliced with another"
            }
            6 => self.change_parts(bytes),
            7 => self.edit_length(bytes),
            8 => self.transplant(bytes, other),
            _ => self.edit_number(bytes),
        }
    }

    fn flip_bits(&mut self, bytes: &mut [u8]) -> &'static str {
        if bytes.is_empty() {
            return "nothing to flip";
        }
        for _ in 0..=self.below(8) {
            // Half of them in the first bytes, where the structure is.
            let within = if self.below(2) == 0 { bytes.len().min(200) } else { bytes.len() };
            let at = self.below(within);
            bytes[at] ^= 1 << self.below(8);
        }
        "flipped bits"
    }

    fn set_extremes(&mut self, bytes: &mut [u8]) -> &'static str {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().min(400));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = [0, 1, 0x7f, 0x80, 0xfe, 0xff][self.below(6)];
            }
        }
        "extreme bytes"
    }

    /// Within `len`, mostly short.
    fn stretch(&mut self, len: usize) -> Range<usize> {
        let start = self.below(len);
        let longest = if self.below(3) == 0 { len - start } else { (len - start).min(64) };
        start..start + self.below(longest + 1)
    }

    /// Doubles, drops or swaps whole chunks, segments or blocks.
    fn change_parts(&mut self, bytes: &mut Vec<u8>) -> &'static str {
        let parts = parts(bytes);
        if parts.is_empty() {
            return "no parts";
        }
        let part = parts[self.below(parts.len())].clone();
        match self.below(3) {
            0 => {
                let copies = 1 + self.below(4);
                let copy = bytes[part.clone()].repeat(copies);
                bytes.splice(part.end..part.end, copy);
                "a part several times"
            }
            1 => {
                bytes.drain(part);
                "a part less"
            }
            _ => {
                let (a, b) = (part, parts[self.below(parts.len())].clone());
                let (a, b) = if a.start <= b.start { (a, b) } else { (b, a) };
                if a.end <= b.start {
                    let (first, second) = (bytes[a.clone()].to_vec(), bytes[b.clone()].to_vec());
                    bytes.splice(b, first);
                    bytes.splice(a, second);
                }
                "parts swapped"
            }
        }
    }

    /// A length at the beginning of a chunk, segment or block.
    fn edit_length(&mut self, bytes: &mut [u8]) -> &'static str {
        let parts = parts(bytes);
        if parts.is_empty() {
            return "no lengths";
        }
        let start = parts[self.below(parts.len())].start;
        // PNG and TIFF have it first or soon, JPEG behind the marker, RIFF behind the name, GIF anywhere.
        let at = start + self.below(12);
        let len = bytes.len();
        let value = [0, 1, len as u64, u64::from(u32::MAX), 0x7fff_ffff, self.number()][self.below(6)];
        let width = [1, 2, 4][self.below(3)];
        let field = value.to_be_bytes();
        for (to, from) in bytes.iter_mut().skip(at).zip(&field[8 - width..]) {
            *to = *from;
        }
        "a length edited"
    }

    /// A part of another picture put between this one's.
    fn transplant(&mut self, bytes: &mut Vec<u8>, other: &[u8]) -> &'static str {
        let (here, there) = (parts(bytes), parts(other));
        if here.is_empty() || there.is_empty() {
            return "no parts to share";
        }
        let at = here[self.below(here.len())].start;
        let from = there[self.below(there.len())].clone();
        bytes.splice(at..at, other[from].iter().copied());
        "a part of another"
    }

    /// A number somewhere, one more or less or doubled, in either byte order.
    fn edit_number(&mut self, bytes: &mut [u8]) -> &'static str {
        let at = self.below(bytes.len().min(600));
        let Some(field) = bytes.get_mut(at..at + 2) else { return "no number" };
        let big = self.below(2) == 0;
        let value = if big {
            u16::from_be_bytes([field[0], field[1]])
        } else {
            u16::from_le_bytes([field[0], field[1]])
        };
        let value =
            [value.wrapping_add(1), value.wrapping_sub(1), value.wrapping_mul(2), value / 2][self.below(4)];
        field.copy_from_slice(&if big { value.to_be_bytes() } else { value.to_le_bytes() });
        "a number edited"
    }
}

/// The chunks, segments or blocks of a picture as far as they can be followed.
fn parts(bytes: &[u8]) -> Vec<Range<usize>> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        walk(bytes, 8, |at| Some(be32(bytes, at)? + 12))
    } else if bytes.starts_with(b"RIFF") {
        let mut parts = walk(bytes, 12, |at| Some((le32(bytes, at + 4)? + 8).next_multiple_of(2)));
        // And what is inside the frames of an animation.
        for part in parts.clone() {
            if bytes[part.clone()].starts_with(b"ANMF") {
                let inner =
                    walk(bytes, part.start + 24, |at| Some((le32(bytes, at + 4)? + 8).next_multiple_of(2)));
                parts.extend(inner.into_iter().take_while(|inner| inner.end <= part.end));
            }
        }
        parts
    } else if bytes.starts_with(&[0xff, 0xd8]) {
        walk(bytes, 2, |at| match bytes.get(at..at + 2)? {
            // A scan reaches to the next marker that is none of its own.
            [0xff, 0xda] => {
                let data = bytes.get(at + 2..)?;
                let end = data.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xd0..=0xd7));
                Some(2 + end?)
            }
            [0xff, 0xd9] => Some(2),
            [0xff, _] => {
                Some(2 + usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?])))
            }
            _ => None,
        })
    } else if bytes.starts_with(b"GIF8") {
        let palette = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        let sub_blocks = |mut at: usize| loop {
            match *bytes.get(at)? {
                0 => return Some(at + 1),
                len => at += 1 + usize::from(len),
            }
        };
        let first = 13 + bytes.get(10).map_or(0, |flags| palette(*flags));
        walk(bytes, first, |at| match bytes.get(at)? {
            0x21 => Some(sub_blocks(at + 2)? - at),
            0x2c => Some(sub_blocks(at + 11 + palette(*bytes.get(at + 9)?))? - at),
            _ => None,
        })
    } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
        let big = bytes.starts_with(b"MM");
        let number = |at: usize, len: usize| {
            let field = bytes.get(at..at + len)?.iter().copied().map(usize::from);
            Some(if big { field.fold(0, |n, b| n << 8 | b) } else { field.rev().fold(0, |n, b| n << 8 | b) })
        };
        let directory = number(4, 4).unwrap_or(0);
        let fields = number(directory, 2).unwrap_or(0);
        walk(bytes, directory + 2, |_| Some(12)).into_iter().take(fields).collect()
    } else {
        Vec::new()
    }
}

fn walk(bytes: &[u8], mut at: usize, len: impl Fn(usize) -> Option<usize>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    while let Some(end) = len(at).and_then(|len| at.checked_add(len.max(1))).filter(|end| *end <= bytes.len())
    {
        parts.push(at..end);
        at = end;
    }
    parts
}

fn be32(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 4)?.try_into().ok().map(|field| u32::from_be_bytes(field) as usize)
}

fn le32(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 4)?.try_into().ok().map(|field| u32::from_le_bytes(field) as usize)
}

/// Gives every chunk of a PNG the checksum its content has now.
fn reseal_png(bytes: &mut [u8]) -> bool {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return false;
    }
    for part in parts(bytes) {
        let sum = crc32(&bytes[part.start + 4..part.end - 4]);
        bytes[part.end - 4..part.end].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 != 0 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}
