//! How llama.cpp stores weights: blocks of small whole numbers with shared scales, and back to numbers.
//!
//! Reference: `dequantize_row_*` in llama.cpp's `ggml-quants.c`, and the package `gguf` 0.19 in Python,
//! whose results are reproduced bit for bit.

use half::{bf16, f16};

/// How a tensor's numbers are stored. Names are llama.cpp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    F32,
    F16,
    BF16,
    Q4_0,
    Q5_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

const ALL: [Stored; 9] = [
    Stored::F32,
    Stored::F16,
    Stored::BF16,
    Stored::Q4_0,
    Stored::Q5_0,
    Stored::Q8_0,
    Stored::Q4K,
    Stored::Q5K,
    Stored::Q6K,
];
/// Known, but not read: for messages only.
const OTHERS: [(u32, &str); 13] = [
    (3, "Q4_1"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (18, "IQ3_XXS"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (39, "MXFP4"),
];

impl Stored {
    /// Its number in the file, or else the name of what that number stands for.
    pub(super) fn from_number(number: u32) -> Result<Self, String> {
        if let Some(stored) = ALL.into_iter().find(|stored| stored.facts().0 == number) {
            return Ok(stored);
        }
        let other = OTHERS.iter().find(|(of, _)| *of == number);
        Err(other.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned()))
    }

    /// Number in the file, name, numbers in a block, bytes of a block.
    fn facts(self) -> (u32, &'static str, usize, usize) {
        match self {
            Self::F32 => (0, "F32", 1, 4),
            Self::F16 => (1, "F16", 1, 2),
            Self::BF16 => (30, "BF16", 1, 2),
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q4K => (12, "Q4_K", 256, 144),
            Self::Q5K => (13, "Q5_K", 256, 176),
            Self::Q6K => (14, "Q6_K", 256, 210),
        }
    }

    pub fn name(self) -> &'static str {
        self.facts().1
    }

    pub(super) fn names() -> String {
        ALL.map(Self::name).join(", ")
    }

    /// In a block.
    pub fn numbers(self) -> usize {
        self.facts().2
    }

    /// Of a block.
    pub fn bytes(self) -> usize {
        self.facts().3
    }
}

/// Numbers that share a scale: 32 of them, or 16 for Q6_K.
pub(super) struct Group<'a> {
    /// From 0.
    pub(super) quants: &'a [u8],
    pub(super) scale: f32,
    pub(super) offset: Offset,
}

/// What turns a group's whole numbers into weights.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offset {
    /// `scale × (quant − centre)`
    Centre(u8),
    /// `scale × quant − minimum`
    Minimum(f32),
}

impl Group<'_> {
    fn numbers(&self) -> impl Iterator<Item = f32> {
        let (scale, offset) = (self.scale, self.offset);
        self.quants.iter().map(move |quant| match offset {
            Offset::Centre(centre) => scale * f32::from(i16::from(*quant) - i16::from(centre)),
            Offset::Minimum(minimum) => scale * f32::from(*quant) - minimum,
        })
    }

    pub(super) fn extend(&self, numbers: &mut Vec<f32>) {
        numbers.extend(self.numbers());
    }
}

/// Whole blocks to numbers, in order, appended.
pub(super) fn dequantise(stored: Stored, bytes: &[u8], numbers: &mut Vec<f32>) {
    let halves = |bytes: &[u8]| [bytes[0], bytes[1]];
    match stored {
        Stored::F32 => {
            numbers.extend(bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)));
        }
        Stored::F16 => numbers.extend(bytes.chunks_exact(2).map(|n| f16::from_le_bytes(halves(n)).to_f32())),
        Stored::BF16 => {
            numbers.extend(bytes.chunks_exact(2).map(|n| bf16::from_le_bytes(halves(n)).to_f32()));
        }
        _ => groups(stored, bytes, |group| group.extend(numbers)),
    }
}

/// Every group of whole blocks, in order; none for types that are plain numbers.
pub(super) fn groups(stored: Stored, bytes: &[u8], mut each: impl FnMut(Group<'_>)) {
    match stored {
        Stored::F32 | Stored::F16 | Stored::BF16 => {}
        Stored::Q4_0 => bytes.as_chunks().0.iter().for_each(|block| q4_0(block, &mut each)),
        Stored::Q5_0 => bytes.as_chunks().0.iter().for_each(|block| q5_0(block, &mut each)),
        Stored::Q8_0 => bytes.as_chunks().0.iter().for_each(|block| q8_0(block, &mut each)),
        Stored::Q4K => bytes.as_chunks().0.iter().for_each(|block| q4_k(block, &mut each)),
        Stored::Q5K => bytes.as_chunks().0.iter().for_each(|block| q5_k(block, &mut each)),
        Stored::Q6K => bytes.as_chunks().0.iter().for_each(|block| q6_k(block, &mut each)),
    }
}

fn scale_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low four bits of sixteen bytes are the first half, the high ones the second.
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    std::array::from_fn(|at| if at < 16 { bytes[at] & 15 } else { bytes[at - 16] >> 4 })
}

/// f16 scale, 16 bytes of two.
fn q4_0(block: &[u8; 18], each: &mut impl FnMut(Group<'_>)) {
    let quants = nibbles(&block[2..]);
    each(Group { quants: &quants, scale: scale_at(block, 0), offset: Offset::Centre(8) });
}

/// f16 scale, 32 fifth bits, 16 bytes of two.
fn q5_0(block: &[u8; 22], each: &mut impl FnMut(Group<'_>)) {
    let mut quants = nibbles(&block[6..]);
    for (at, quant) in quants.iter_mut().enumerate() {
        *quant |= (block[2 + at / 8] >> (at % 8) & 1) << 4;
    }
    each(Group { quants: &quants, scale: scale_at(block, 0), offset: Offset::Centre(16) });
}

/// f16 scale, 32 signed bytes.
fn q8_0(block: &[u8; 34], each: &mut impl FnMut(Group<'_>)) {
    let quants: [u8; 32] = std::array::from_fn(|at| block[2 + at] ^ 128);
    each(Group { quants: &quants, scale: scale_at(block, 0), offset: Offset::Centre(128) });
}

/// f16 scale of scales, f16 scale of minima, 8 + 8 six-bit ones in 12 bytes, 128 bytes of two.
fn q4_k(block: &[u8; 144], each: &mut impl FnMut(Group<'_>)) {
    for group in 0..8 {
        // Two groups share 32 bytes.
        let (from, shift) = (16 + group / 2 * 32, group % 2 * 4);
        let quants: [u8; 32] = std::array::from_fn(|at| block[from + at] >> shift & 15);
        each(with_minimum(block, group, &quants));
    }
}

/// As Q4_K, with 32 bytes of fifth bits, a bit of each a group, before the 128.
fn q5_k(block: &[u8; 176], each: &mut impl FnMut(Group<'_>)) {
    for group in 0..8 {
        let (from, shift) = (48 + group / 2 * 32, group % 2 * 4);
        let quants: [u8; 32] =
            std::array::from_fn(|at| block[from + at] >> shift & 15 | (block[16 + at] >> group & 1) << 4);
        each(with_minimum(block, group, &quants));
    }
}

fn with_minimum<'a>(block: &[u8], group: usize, quants: &'a [u8]) -> Group<'a> {
    let packed = &block[4..16];
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    };
    Group {
        quants,
        scale: scale_at(block, 0) * f32::from(scale),
        offset: Offset::Minimum(scale_at(block, 2) * f32::from(minimum)),
    }
}

/// 128 bytes of low four bits, 64 of high two, 16 signed scales, f16 scale of scales.
fn q6_k(block: &[u8; 210], each: &mut impl FnMut(Group<'_>)) {
    let whole = scale_at(block, 208);
    for group in 0..16 {
        // Halves of 128 numbers; in each, four runs of 32; in each, two groups.
        let (half, run, first) = (group / 8, group % 8 / 2, group % 2 * 16);
        let low = half * 64 + run % 2 * 32 + first;
        let high = 128 + half * 32 + first;
        let quants: [u8; 16] = std::array::from_fn(|at| {
            block[low + at] >> (run / 2 * 4) & 15 | (block[high + at] >> (run * 2) & 3) << 4
        });
        let scale = whole * f32::from(block[192 + group].cast_signed());
        each(Group { quants: &quants, scale, offset: Offset::Centre(32) });
    }
}
