//! The kinds of judges, in one list: how a folder of each kind is recognised, checked and opened.

use std::path::Path;
use std::sync::Arc;

use crate::installed::{Checked, Installed, ModelError};
use crate::runtime::Runtime;
use crate::{Digest, Judge, JudgeCard, Modality};

pub mod classifier;
pub mod gemma3;
mod positions;
pub mod shieldgemma2;

/// One kind of judge; a new kind is one file beside this one and one line in [`KINDS`].
pub struct Kind {
    pub name: &'static str,
    pub modality: Modality,
    /// What a folder of this kind holds, for the error that names the kinds.
    pub looks_like: &'static str,
    pub recognises: fn(&Path) -> bool,
    /// Reads and checks everything in the folder, and hashes the files it will read later.
    pub check: fn(&Path) -> Result<Checked, ModelError>,
    /// Files that a folder of this kind may do without; one that appears later may change answers.
    pub optional: &'static [&'static str],
    /// How this build turns the files into answers: graph builder, preprocessing, precision. Raised with
    /// every change that may change an answer.
    pub method: fn() -> String,
    pub open: Open,
}

type Open = fn(&Arc<Runtime>, &Path, JudgeCard) -> Result<Box<dyn Judge>, ModelError>;

pub const KINDS: &[Kind] = &[classifier::KIND, gemma3::KIND, shieldgemma2::KIND];

/// Opens an installed model. `pipeline` names the version of what prepares contents of a kind for judges.
pub fn open(
    runtime: &Arc<Runtime>,
    installed: &Installed,
    pipeline: fn(Modality) -> &'static str,
) -> Result<Box<dyn Judge>, ModelError> {
    let kind = kind_of(installed)?;
    installed.check_unchanged(kind.optional)?;
    let card = JudgeCard {
        name: installed.name.clone(),
        kind: kind.name,
        modality: kind.modality,
        digest: digest(installed, pipeline)?,
        demo: installed.demo,
    };
    (kind.open)(runtime, &installed.folder, card)
}

/// The digest that verdicts name, over the model's files, this build's way with them and the pipeline before
/// it: made anew by every build, so that neither a mended graph nor a mended decoder serves old answers.
pub fn digest(installed: &Installed, pipeline: fn(Modality) -> &'static str) -> Result<Digest, ModelError> {
    let kind = kind_of(installed)?;
    let pipeline = pipeline(kind.modality);
    let mut covered = format!("shieldgate judge v1\0{}\0{}\0{pipeline}", kind.name, (kind.method)());
    for file in &installed.files {
        covered.push_str(&format!("\0{}\0{}", file.path.display(), file.sha256.hex()));
    }
    Ok(Digest::of(covered.as_bytes()))
}

fn kind_of(installed: &Installed) -> Result<&'static Kind, ModelError> {
    let known = KINDS.iter().find(|kind| kind.name == installed.kind);
    known.ok_or_else(|| ModelError::UnknownKind { kind: installed.kind.clone() })
}
