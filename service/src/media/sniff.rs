//! Which format the bytes are, by their content alone, with a name and a hint for those we refuse.

use super::error::MediaError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

impl Format {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => super::jpeg::TYPE,
            Self::Png => super::png::TYPE,
            Self::WebP => super::webp::TYPE,
            Self::Gif => super::gif::TYPE,
            Self::Bmp => super::bmp::TYPE,
            Self::Tiff => super::tiff::TYPE,
        }
    }
}

const CONVERT: &str = "convert it upstream to JPEG, PNG or WebP";
const RASTERISE: &str = "render it upstream to PNG; a drawing that can run scripts is never judged as it is";
const NOT_AN_IMAGE: &str = "send the bytes of one image";

pub(super) fn sniff(bytes: &[u8]) -> Result<Format, MediaError> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => return Ok(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => return Ok(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => return Ok(Format::WebP),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => return Ok(Format::Gif),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => return Ok(Format::Tiff),
        _ if is_bmp(bytes) => return Ok(Format::Bmp),
        _ => {}
    }
    // The first bytes of a supported format and no more: an upload that broke off at once.
    let supported: [(&[u8], &'static str); 7] = [
        (b"\xff\xd8\xff", super::jpeg::TYPE),
        (b"\x89PNG\r\n\x1a\n", super::png::TYPE),
        (b"GIF89a", super::gif::TYPE),
        (b"GIF87a", super::gif::TYPE),
        (b"BM", super::bmp::TYPE),
        (b"II*\0", super::tiff::TYPE),
        (b"MM\0*", super::tiff::TYPE),
    ];
    if let Some((_, media_type)) = supported
        .iter()
        .find(|(magic, _)| bytes.len() < 12 && (magic.starts_with(bytes) || bytes.starts_with(magic)))
    {
        return Err(MediaError::truncated(media_type));
    }
    if bytes.len() < 12 && bytes.starts_with(b"RIFF") {
        return Err(MediaError::truncated(super::webp::TYPE));
    }
    let (found, hint) = name(bytes);
    Err(MediaError::Unsupported { found: found.into(), hint: hint.into() })
}

/// `BM` begins many a text; the size of the header that must follow does not.
fn is_bmp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"BM")
        && bytes.get(14..18).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).is_some_and(|n| n <= 256)
}

fn name(bytes: &[u8]) -> (&'static str, &'static str) {
    let magics: [(&[u8], &'static str, &'static str); 23] = [
        (b"II+\0", "a BigTIFF", CONVERT),
        (b"MM\0+", "a BigTIFF", CONVERT),
        (b"\xff\x0a", "a JPEG XL", CONVERT),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL", CONVERT),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000", CONVERT),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream", CONVERT),
        (b"\0\0\x01\0", "an icon (ICO)", CONVERT),
        (b"\0\0\x02\0", "a cursor (CUR)", CONVERT),
        (b"8BPS", "a Photoshop document", CONVERT),
        (b"\x76\x2f\x31\x01", "an OpenEXR image", CONVERT),
        (b"qoif", "a QOI image", CONVERT),
        (b"DDS ", "a DDS texture", CONVERT),
        (b"%PDF-", "a PDF", "render its pages upstream and send each as an image"),
        (b"%!PS", "a PostScript document", "render it upstream and send it as an image"),
        (b"PK\x03\x04", "a ZIP archive", NOT_AN_IMAGE),
        (b"PK\x05\x06", "a ZIP archive", NOT_AN_IMAGE),
        (b"Rar!\x1a\x07", "a RAR archive", NOT_AN_IMAGE),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", NOT_AN_IMAGE),
        (b"\x1f\x8b", "gzip data", "send it uncompressed"),
        (b"\x7fELF", "an ELF program", NOT_AN_IMAGE),
        (b"MZ", "a Windows program", NOT_AN_IMAGE),
        (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", "send its frames as images"),
        (b"RIFF", "a RIFF file (AVI or WAV)", NOT_AN_IMAGE),
    ];
    if let Some((_, found, hint)) = magics.iter().find(|(magic, _, _)| bytes.starts_with(magic)) {
        return (found, hint);
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return iso_media(bytes);
    }
    if let [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] = bytes {
        return ("a Netpbm image", CONVERT);
    }
    text(bytes)
}

/// ISO base media: the major brand, then the compatible ones, say what is inside.
fn iso_media(bytes: &[u8]) -> (&'static str, &'static str) {
    let size = bytes.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes) as usize;
    let end = size.clamp(12, 256).min(bytes.len());
    let brands = bytes.get(8..end).unwrap_or_default();
    let has = |wanted: &[&[u8; 4]]| brands.chunks_exact(4).any(|b| wanted.iter().any(|w| b == w.as_slice()));
    if has(&[b"avif", b"avis"]) {
        ("an AVIF", "AVIF is not decoded yet: convert it upstream to JPEG, PNG or WebP")
    } else if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
        ("a HEIC or HEIF", "HEIC is not decoded: convert it upstream to JPEG, PNG or WebP")
    } else if has(&[b"crx "]) {
        ("a Canon raw photograph", CONVERT)
    } else {
        ("an MP4 or QuickTime video", "send its frames as images")
    }
}

fn text(bytes: &[u8]) -> (&'static str, &'static str) {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return ("text (UTF-16)", NOT_AN_IMAGE);
    }
    let head = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let head = &head[..head.len().min(4096)];
    // Cut at the last whole character: only the end of the excerpt may be torn.
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return ("data of an unknown kind", NOT_AN_IMAGE),
    };
    let lower = valid.trim_start().to_ascii_lowercase();
    if lower.starts_with('<') && lower.contains("<svg") {
        ("an SVG", RASTERISE)
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        ("an HTML page", NOT_AN_IMAGE)
    } else if lower.starts_with('<') {
        ("XML or HTML text", NOT_AN_IMAGE)
    } else if lower.starts_with("data:") {
        ("a data: URL", "decode its base64 and send the raw bytes")
    } else if lower.starts_with('{') || lower.starts_with('[') {
        ("JSON text", NOT_AN_IMAGE)
    } else if valid.chars().all(|c| !c.is_control() || c.is_whitespace()) {
        ("text", NOT_AN_IMAGE)
    } else {
        ("data of an unknown kind", NOT_AN_IMAGE)
    }
}
