//! How a checkpoint wants its pictures: `preprocessor_config.json`, or its part of `processor_config.json`.
//!
//! Reference: transformers 5.23, `Gemma3ImageProcessor` and `ShieldGemma2Processor`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::config::Config;
use super::{CheckpointError, json, read_optional};

pub const PROCESSOR_FILE: &str = "processor_config.json";
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// Pillow's number for bilinear.
const BILINEAR: u32 = 2;

#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    /// Samples are 0..=255 and become `(sample − mean) / std`.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// The files this came from, relative to the folder.
    pub files: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawProcessor {
    image_processor: Option<Raw>,
    image_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct Raw {
    size: Option<Size>,
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
    resample: Option<u32>,
    rescale_factor: Option<f64>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    do_pan_and_scan: Option<bool>,
}

#[derive(Deserialize)]
struct Size {
    height: Option<usize>,
    width: Option<usize>,
}

impl Preprocessor {
    pub fn read(folder: &Path, config: &Config) -> Result<Self, CheckpointError> {
        let mut files = Vec::new();
        let path = folder.join(PROCESSOR_FILE);
        let processor: RawProcessor = match read_optional(&path)? {
            Some(body) => {
                files.push(PROCESSOR_FILE.into());
                json(&path, &body)?
            }
            None => RawProcessor::default(),
        };
        // The processor's own number of image tokens must be the model's, or the two would not fit.
        let tokens = processor.image_seq_length.unwrap_or(256);
        if tokens != config.image_tokens {
            let expected = format!("`mm_tokens_per_image` of `config.json`, {}", config.image_tokens);
            return Err(CheckpointError::unsupported(&path, "image_seq_length", tokens, expected));
        }
        // The nested form has priority, as in transformers.
        let (path, raw) = match processor.image_processor {
            Some(raw) => (path, raw),
            None => {
                let path = folder.join(PREPROCESSOR_FILE);
                let needed_for = "it says how pictures are resized and normalised";
                let Some(body) = read_optional(&path)? else {
                    return Err(CheckpointError::FileMissing { path, needed_for });
                };
                files.push(PREPROCESSOR_FILE.into());
                let raw = json(&path, &body)?;
                (path, raw)
            }
        };
        let (mean, std) = check(&path, &raw, config)?;
        Ok(Self { mean, std, files })
    }
}

fn check(path: &Path, raw: &Raw, config: &Config) -> Result<([f32; 3], [f32; 3]), CheckpointError> {
    let refuse = |key: &str, found: String, expected: &str| {
        Err(CheckpointError::unsupported(path, key, found, expected))
    };
    for (key, value) in
        [("do_resize", raw.do_resize), ("do_rescale", raw.do_rescale), ("do_normalize", raw.do_normalize)]
    {
        if value == Some(false) {
            return refuse(key, "false".to_owned(), "true");
        }
    }
    if raw.do_pan_and_scan == Some(true) {
        return refuse("do_pan_and_scan", "true".to_owned(), "false (ShieldGemma 2 sees the whole picture)");
    }
    let resample = raw.resample.unwrap_or(BILINEAR);
    if resample != BILINEAR {
        return refuse("resample", resample.to_string(), "2 (bilinear)");
    }
    let side = config.vision.image;
    let size = raw.size.as_ref().map_or((Some(224), Some(224)), |size| (size.height, size.width));
    if size != (Some(side), Some(side)) {
        let expected = format!("height and width {side}, the model's `image_size`");
        return refuse("size", format!("{size:?}"), &expected);
    }
    let scale = raw.rescale_factor.unwrap_or(1.0 / 255.0);
    if !(scale.is_finite() && scale > 0.0) {
        return refuse("rescale_factor", scale.to_string(), "a positive number");
    }
    let three = |key: &str, values: &Option<Vec<f64>>, valid: fn(f64) -> bool| {
        let values = values.clone().unwrap_or_else(|| vec![0.5; 3]);
        match values.as_slice() {
            // Rescaling is folded in, in single precision, as transformers does.
            &[r, g, b] if [r, g, b].into_iter().all(valid) => {
                Ok([r, g, b].map(|value| value as f32 * (1.0 / scale) as f32))
            }
            _ => {
                let found = Value::from(values).to_string();
                Err(CheckpointError::unsupported(
                    path,
                    key,
                    found,
                    "three finite numbers, `image_std` above 0",
                ))
            }
        }
    };
    Ok((
        three("image_mean", &raw.image_mean, f64::is_finite)?,
        three("image_std", &raw.image_std, |value| value.is_finite() && value > 0.0)?,
    ))
}
