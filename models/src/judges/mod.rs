//! The kinds of judges, in one list: how a folder of each kind is recognised, checked and opened.

use std::path::Path;
use std::sync::Arc;

use crate::installed::{Checked, Installed, ModelError};
use crate::runtime::Runtime;
use crate::{Digest, Judge, JudgeCard};

pub mod classifier;
pub mod shieldgemma2;

/// One kind of judge; a new kind is one file beside this one and one line in [`KINDS`].
pub struct Kind {
    pub name: &'static str,
    /// What a folder of this kind holds, for the error that names the kinds.
    pub looks_like: &'static str,
    pub recognises: fn(&Path) -> bool,
    /// Reads and checks everything in the folder, and hashes the files it will read later.
    pub check: fn(&Path) -> Result<Checked, ModelError>,
    pub open: Open,
}

type Open = fn(&Arc<Runtime>, &Path, JudgeCard) -> Result<Box<dyn Judge>, ModelError>;

pub const KINDS: &[Kind] = &[classifier::KIND, shieldgemma2::KIND];

/// Opens an installed model. `pipeline` names the media pipeline's version: it is part of the
/// judge's digest, so that a fixed decoder never serves old answers.
pub fn open(
    runtime: &Arc<Runtime>,
    installed: &Installed,
    pipeline: &str,
) -> Result<Box<dyn Judge>, ModelError> {
    let kind = KINDS
        .iter()
        .find(|kind| kind.name == installed.kind)
        .ok_or_else(|| ModelError::UnknownKind { kind: installed.kind.clone() })?;
    installed.check_unchanged()?;
    let card = JudgeCard {
        name: installed.name.clone(),
        kind: kind.name,
        digest: digest(installed, pipeline),
        demo: installed.demo,
    };
    (kind.open)(runtime, &installed.folder, card)
}

/// The digest that verdicts name: what the model's record covers, and the media pipeline before it.
pub fn digest(installed: &Installed, pipeline: &str) -> Digest {
    let covered =
        format!("shieldgate judge v1\0{}\0{}\0{pipeline}", installed.kind, installed.digest.hex());
    Digest::of(covered.as_bytes())
}
