//! Files that lie, assembled by hand: what no encoder writes and every gate is sent one day.

use crate::samples;

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 != 0 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    })
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("fixtures are small")
}

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let covered = [kind.as_slice(), body].concat();
    [length(body).to_be_bytes().as_slice(), &covered, &crc32(&covered).to_be_bytes()].concat()
}

/// A PNG whose header claims a size that its few bytes do not hold.
pub fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let header = [width.to_be_bytes().as_slice(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".as_slice(),
        &chunk(b"IHDR", &header),
        &chunk(b"IDAT", &zeros(64)),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

/// A small good PNG with a compressed text chunk that inflates to about `bytes`.
pub fn png_with_text_bomb(bytes: u64) -> Vec<u8> {
    let png = samples::unique(77);
    // Keyword, compressed, method, language, translated keyword, text.
    let body = [b"Comment\0\x01\0\0\0".as_slice(), &zeros(bytes)].concat();
    // Behind the signature and the header: 8 and 25 bytes.
    [&png[..33], &chunk(b"iTXt", &body), &png[33..]].concat()
}

/// A zlib stream of about so many zeros, at 13 bits for 258 of them.
fn zeros(count: u64) -> Vec<u8> {
    let (mut bits, mut held, mut stream) = (0_u32, 0_u32, vec![0x78, 0x9c]);
    let mut put = |value: u32, width: u32, stream: &mut Vec<u8>| {
        bits |= value << held;
        held += width;
        while held >= 8 {
            stream.push(bits.to_le_bytes()[0]);
            bits >>= 8;
            held -= 8;
        }
    };
    let repeats = count / 258;
    // The last block, fixed codes; Huffman codes stand with their first bit first.
    put(0b011, 3, &mut stream);
    put(0b0000_1100, 8, &mut stream); // literal 0
    for _ in 0..repeats {
        put(0b1010_0011, 8, &mut stream); // length 258
        put(0, 5, &mut stream); // distance 1
    }
    put(0, 7 + 7, &mut stream); // end of block, and zeros up to a byte
    let total = 1 + repeats * 258;
    let sum = u32::try_from(total % 65_521).expect("below the modulus") << 16 | 1;
    stream.extend(sum.to_be_bytes());
    stream
}

/// An archive of one stored file, as any unpacker reads it.
pub fn zip(name: &str, data: &[u8]) -> Vec<u8> {
    let fields = [
        [20, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(),
        &crc32(data).to_le_bytes(),
        &length(data).to_le_bytes(),
        &length(data).to_le_bytes(),
        &length(name.as_bytes()).to_le_bytes()[..2],
        &[0, 0],
    ]
    .concat();
    let entry = [b"PK\x03\x04".as_slice(), &fields, name.as_bytes(), data].concat();
    let directory = [b"PK\x01\x02\x14\0".as_slice(), &fields, &[0; 14], name.as_bytes()].concat();
    let end = [
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0".as_slice(),
        &length(&directory).to_le_bytes(),
        &length(&entry).to_le_bytes(),
        &[0, 0],
    ]
    .concat();
    [entry, directory, end].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bomb_inflates_to_what_it_says() {
        // A picture of the same stream: 64 rows of 64 RGB pixels, each with its filter byte.
        let rows = 64 * (1 + 64 * 3);
        let stream = zeros(rows + 300);
        let header = [64_u32.to_be_bytes().as_slice(), &64_u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        let png = [
            b"\x89PNG\r\n\x1a\n".as_slice(),
            &chunk(b"IHDR", &header),
            &chunk(b"IDAT", &stream),
            &chunk(b"IEND", b""),
        ]
        .concat();
        let picture = image::load_from_memory(&png).expect("decodes").to_rgb8();
        assert!(picture.pixels().all(|pixel| pixel.0 == [0, 0, 0]));
        assert!(png_with_text_bomb(1 << 30).len() < 8 << 20, "it is small itself");
    }
}
