//! TIFF: walk the directories, one a page, refuse what our decoder does not read as viewers do, then decode.

mod colour;
mod decode;
mod directory;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use image::metadata::Orientation;

use self::colour::Colour;
pub(super) use self::decode::decode;
use self::directory::{self as tag, Directory, Endian};
use super::error::MediaError;
use super::{Doubt, Layout, Limits};

pub(super) const TYPE: &str = "image/tiff";

const HEADER: usize = 8;
/// Fields of all directories together: directories may overlap, so that a small file could list very many.
const FIELDS_MAX: usize = 500_000;
/// Strips or tiles of one page.
const CHUNKS_MAX: usize = 100_000;

/// What a page costs beside its pixels, as so many pixels: its directory is read anew.
const PAGE_COST: u64 = 9000;

const EXTRA_CHANNEL: Doubt = Doubt {
    code: Cow::Borrowed("transparency_unproven"),
    message: Cow::Borrowed(
        "this TIFF has a channel of unstated meaning, which some viewers take for transparency and some ignore, \
         so a person should see it",
    ),
};

/// One picture, and how its samples are stored.
pub(super) struct Page {
    width: u32,
    height: u32,
    /// Where its directory stands, and in it the two bytes that say what the samples mean.
    directory_at: usize,
    photometric_at: usize,
    colour: Colour,
    /// Bits a sample: 1, 2, 4, 8 or 16.
    bits: u32,
    /// Samples a pixel.
    samples: u32,
    /// Each sample in strips or tiles of its own.
    planar: bool,
    chunk_width: u32,
    chunk_height: u32,
    /// Strips or tiles of one plane.
    chunks: u32,
    orientation: Orientation,
}

impl Page {
    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Pixels that are decoded for it, those beyond its edges included.
    fn decoded_pixels(&self) -> u64 {
        u64::from(self.chunks) * self.chunk_pixels()
    }

    fn cost(&self) -> u64 {
        self.decoded_pixels() + PAGE_COST
    }

    fn chunk_pixels(&self) -> u64 {
        u64::from(self.chunk_width) * u64::from(self.chunk_height)
    }
}

fn truncated() -> MediaError {
    MediaError::truncated(TYPE)
}

fn corrupt(fact: &str) -> MediaError {
    MediaError::corrupt(TYPE, fact)
}

fn unsupported(feature: &'static str) -> MediaError {
    MediaError::variant(TYPE, feature)
}

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<(Layout, Vec<Page>), MediaError> {
    let endian = if bytes.starts_with(b"II") { Endian::Little } else { Endian::Big };
    let mut at = endian.u32_at(bytes, 4).ok_or_else(truncated)? as usize;
    let mut pages: Vec<Page> = Vec::new();
    let mut doubts = Vec::new();
    let mut seen = HashSet::new();
    let (mut end, mut fields) = (HEADER, 0);
    while at != 0 {
        if !seen.insert(at) {
            return Err(corrupt("its pages go round in a circle"));
        }
        if at < HEADER {
            return Err(corrupt("a directory lies in the file's header"));
        }
        let directory = Directory::read(bytes, at, endian)?;
        fields += directory.len();
        let page = page(&directory, at, limits, &mut doubts)?;
        let chunks_end = check_chunks(&directory, &page)?;
        fields += directory.count(tag::STRIP_OFFSETS).max(directory.count(tag::TILE_OFFSETS));
        if fields > FIELDS_MAX {
            return Err(corrupt("its directories list more fields than any document has"));
        }
        end = end.max(directory.end).max(chunks_end);
        at = directory.next;
        pages.push(page);
    }
    let first = pages.first().ok_or_else(|| corrupt("it has no picture"))?;
    // As stored, as RGBA and turned; then the canvas and two views; a copy of the file.
    let needed = |page: &Page| {
        let stored = u64::from(page.samples) * (page.pixels() + page.chunk_pixels() * 2);
        stored + page.pixels() * 14
    };
    let memory = pages.iter().map(needed).max().unwrap_or(0) + bytes.len() as u64;
    let layout = Layout {
        width: first.width,
        height: first.height,
        frames_total: u32::try_from(pages.len()).unwrap_or(u32::MAX),
        // Each page is turned by itself.
        orientation: Orientation::NoTransforms,
        end,
        memory,
        doubts,
    };
    Ok((layout, pages))
}

fn page(
    directory: &Directory<'_>,
    at: usize,
    limits: &Limits,
    doubts: &mut Vec<Doubt>,
) -> Result<Page, MediaError> {
    let width = directory.required(tag::WIDTH)?;
    let height = directory.required(tag::HEIGHT)?;
    limits.admit_size(width, height)?;
    refuse_unknown_forms(directory)?;
    let samples = directory.number(tag::SAMPLES)?.unwrap_or(1);
    let bits = directory.uniform(tag::BITS)?.unwrap_or(1);
    let (photometric, photometric_at) = directory
        .short_field(tag::PHOTOMETRIC)?
        .ok_or_else(|| corrupt("it does not say what its colours mean"))?;
    let (colour, unstated) = Colour::of(directory, photometric, bits, samples)?;
    if unstated && doubts.is_empty() {
        doubts.push(EXTRA_CHANNEL);
    }
    let planar = match directory.number(tag::PLANAR)?.unwrap_or(1) {
        1 => false,
        2 => samples > 1,
        _ => return Err(corrupt("its samples are arranged in no known way")),
    };
    let tiled = directory.count(tag::TILE_OFFSETS) > 0;
    let (chunk_width, chunk_height) = if tiled {
        (directory.required(tag::TILE_WIDTH)?, directory.required(tag::TILE_HEIGHT)?)
    } else {
        (width, directory.number(tag::ROWS_PER_STRIP)?.unwrap_or(height).min(height))
    };
    if chunk_width == 0 || chunk_height == 0 {
        return Err(corrupt("its strips or tiles have no pixels"));
    }
    limits.admit_size(chunk_width, chunk_height)?;
    let chunks = u64::from(width.div_ceil(chunk_width)) * u64::from(height.div_ceil(chunk_height));
    let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
    let orientation =
        directory.number(tag::ORIENTATION)?.and_then(|o| Orientation::from_exif(u8::try_from(o).ok()?));
    let page = Page {
        width,
        height,
        directory_at: at,
        photometric_at,
        colour,
        bits,
        samples,
        planar,
        chunk_width,
        chunk_height,
        chunks,
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
    };
    if page.decoded_pixels() > limits.pixels_max.max(page.pixels() * 2) {
        return Err(corrupt("its tiles reach far beyond the picture"));
    }
    Ok(page)
}

/// What the decoder would read in another way than viewers, or not at all.
fn refuse_unknown_forms(directory: &Directory<'_>) -> Result<(), MediaError> {
    if directory.count(tag::DNG_VERSION) > 0 {
        return Err(unsupported("raw sensor data (DNG)"));
    }
    if directory.count(tag::SUB_DIRECTORIES) > 0 {
        return Err(unsupported("further pictures inside a page"));
    }
    match directory.number(tag::COMPRESSION)?.unwrap_or(1) {
        1 | 5 | 8 | 32_773 | 32_946 => {}
        2..=4 => return Err(unsupported("fax compression")),
        6 | 7 => return Err(unsupported("JPEG compression inside TIFF")),
        _ => return Err(unsupported("an uncommon compression")),
    }
    if !matches!(directory.number(tag::PREDICTOR)?, None | Some(1 | 2)) {
        return Err(unsupported("an uncommon predictor"));
    }
    if !matches!(directory.number(tag::FILL_ORDER)?, None | Some(1)) {
        return Err(unsupported("bits in reversed order"));
    }
    if !matches!(directory.uniform(tag::SAMPLE_FORMAT)?, None | Some(1 | 4)) {
        return Err(unsupported("samples that are not whole numbers from 0"));
    }
    Ok(())
}

/// Where the last strip or tile ends; all of them must lie within the file.
fn check_chunks(directory: &Directory<'_>, page: &Page) -> Result<usize, MediaError> {
    let tiled = directory.count(tag::TILE_OFFSETS) > 0;
    let (offsets, sizes) =
        if tiled { (tag::TILE_OFFSETS, tag::TILE_SIZES) } else { (tag::STRIP_OFFSETS, tag::STRIP_SIZES) };
    if tiled && directory.count(tag::STRIP_OFFSETS) > 0 {
        return Err(corrupt("it is stored in strips and in tiles"));
    }
    let planes = if page.planar { page.samples as usize } else { 1 };
    let expected = page.chunks as usize * planes;
    if directory.count(offsets) != expected || directory.count(sizes) != expected {
        return Err(corrupt("it lists another number of strips or tiles than its size needs"));
    }
    if expected > CHUNKS_MAX {
        return Err(unsupported("very many strips or tiles"));
    }
    let uncompressed = directory.number(tag::COMPRESSION)?.unwrap_or(1) == 1;
    let samples = if page.planar { 1 } else { page.samples };
    let row = (u64::from(page.chunk_width) * u64::from(samples) * u64::from(page.bits)).div_ceil(8);
    let mut end = 0;
    for index in 0..expected {
        let (offset, size) =
            directory.entry(offsets, index).zip(directory.entry(sizes, index)).ok_or_else(truncated)?;
        let chunk_end = (offset as usize).saturating_add(size as usize);
        if chunk_end > directory.file_len() {
            return Err(truncated());
        }
        // The decoder is shown other bytes in these places: see `decode`.
        let field = page.photometric_at..page.photometric_at + 2;
        let covers = |place: Range<usize>| (offset as usize) < place.end && chunk_end > place.start;
        if size > 0 && (covers(0..HEADER) || covers(field)) {
            return Err(corrupt("its pixels lie where its directory is"));
        }
        // The decoder would read on into whatever follows.
        let below = page.height
            - (index % page.chunks as usize) as u32 / page.width.div_ceil(page.chunk_width)
                * page.chunk_height;
        let rows = if tiled { page.chunk_height } else { page.chunk_height.min(below) };
        if uncompressed && u64::from(size) < row * u64::from(rows) {
            return Err(corrupt("a strip or tile is shorter than its pixels"));
        }
        end = end.max(chunk_end);
    }
    Ok(end)
}
