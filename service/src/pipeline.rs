//! What prepares contents for judges, by kind: its version is part of every judge's digest.

use shieldgate_models::Modality;

use crate::{media, text};

pub fn version(modality: Modality) -> &'static str {
    match modality {
        Modality::Image => media::PIPELINE_VERSION,
        Modality::Text => text::PIPELINE_VERSION,
    }
}
