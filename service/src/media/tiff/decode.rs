//! Decoding a TIFF page: the `tiff` crate unpacks strips and tiles, their meaning is ours.
//!
//! The crate reads no palettes, no alpha beside grey and no planes. So it is shown each page as bare
//! samples: in a copy of the file whose header points at the page and whose page says "grey".

use std::io::Cursor;

use ::tiff::decoder::Decoder;
use ::tiff::{TiffError, TiffFormatError};

use super::{Page, TYPE, corrupt, truncated, unsupported};
use crate::media::Limits;
use crate::media::error::MediaError;
use crate::media::frames::Reel;
use crate::media::pixels::Raster;

pub(in crate::media) fn decode(
    bytes: &[u8],
    pages: &[Page],
    limits: &Limits,
    reel: &mut Reel<'_>,
) -> Result<(), MediaError> {
    let mut file = bytes.to_vec();
    let big = bytes.starts_with(b"MM");
    for page in pages {
        if !reel.admits(page.cost()) {
            return Ok(());
        }
        // It was read from a field of this width.
        let at = u32::try_from(page.directory_at).unwrap_or(u32::MAX);
        file[4..8].copy_from_slice(&if big { at.to_be_bytes() } else { at.to_le_bytes() });
        let meaning = &mut file[page.photometric_at..page.photometric_at + 2];
        meaning.copy_from_slice(if big { &[0, 1] } else { &[1, 0] });
        let samples = samples(&file, page, limits)?;
        file[page.photometric_at..page.photometric_at + 2]
            .copy_from_slice(&bytes[page.photometric_at..page.photometric_at + 2]);
        let rgba = page.colour.rgba(&samples, page.samples as usize);
        drop(samples);
        reel.page(Raster::rgba(page.width, page.height, rgba).oriented(page.orientation))?;
    }
    Ok(())
}

/// All samples of a page, pixel by pixel, one byte each: of 16 bits the high byte, fewer than 8 as they are.
fn samples(file: &[u8], page: &Page, limits: &Limits) -> Result<Vec<u8>, MediaError> {
    let mut decoder = Decoder::new(Cursor::new(file)).map_err(map_error)?;
    let mut allowed = ::tiff::decoder::Limits::default();
    let memory = usize::try_from(limits.memory_max).unwrap_or(usize::MAX);
    allowed.decoding_buffer_size = memory;
    allowed.intermediate_buffer_size = memory;
    decoder = decoder.with_limits(allowed);
    if decoder.dimensions().map_err(map_error)? != (page.width, page.height) {
        return Err(corrupt("two readers of a page disagree on its size"));
    }
    let (width, each) = (page.width as usize, page.samples as usize);
    let (planes, together) = if page.planar { (each, 1) } else { (1, each) };
    let across = page.width.div_ceil(page.chunk_width);
    let mut out = vec![0; width * page.height as usize * each];
    let mut buffer = Vec::new();
    for plane in 0..planes {
        for chunk in 0..page.chunks {
            let index = plane as u32 * page.chunks + chunk;
            let (chunk_width, chunk_height) = decoder.chunk_data_dimensions(index);
            let left = (chunk % across * page.chunk_width) as usize;
            let top = (chunk / across * page.chunk_height) as usize;
            let row_samples = chunk_width as usize * together;
            let row_bytes = (row_samples * page.bits as usize).div_ceil(8);
            buffer.resize(row_bytes * chunk_height as usize, 0);
            decoder.read_chunk_bytes(index, &mut buffer).map_err(map_error)?;
            for (y, row) in buffer.chunks_exact(row_bytes).enumerate() {
                let to = &mut out[((top + y) * width + left) * each..];
                let places = to.iter_mut().skip(plane).step_by(if page.planar { each } else { 1 });
                unpack(row, page.bits, places.take(row_samples));
            }
        }
    }
    Ok(out)
}

fn unpack<'a>(row: &[u8], bits: u32, places: impl Iterator<Item = &'a mut u8>) {
    match bits {
        8 => places.zip(row).for_each(|(to, from)| *to = *from),
        // The crate has turned them to this machine's order.
        16 => places
            .zip(row.as_chunks::<2>().0)
            .for_each(|(to, from)| *to = (u16::from_ne_bytes(*from) >> 8) as u8),
        _ => {
            let per_byte = 8 / bits;
            for (i, to) in (0u32..).zip(places) {
                let shift = 8 - bits * (i % per_byte + 1);
                *to = row[(i / per_byte) as usize] >> shift & ((1 << bits) - 1);
            }
        }
    }
}

fn map_error(error: TiffError) -> MediaError {
    match error {
        TiffError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => truncated(),
        TiffError::UnsupportedError(_) => unsupported("a coding that our decoder does not know"),
        TiffError::FormatError(TiffFormatError::InconsistentSizesEncountered) => {
            corrupt("two readers of a page disagree on its strips or tiles")
        }
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
