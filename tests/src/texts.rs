//! A gate that judges texts: by a Gemma 3 of the exact architecture, tiny, with random weights.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Gate, Setup};

/// The committed random checkpoint, under a name that policies can call.
pub fn tiny() -> (TempDir, PathBuf) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/gemma3/a/checkpoint");
    let folder = TempDir::new().expect("a folder");
    let target = folder.path().join("tiny-gemma");
    std::fs::create_dir(&target).expect("makes a folder");
    for entry in std::fs::read_dir(from).expect("is committed") {
        let entry = entry.expect("is readable");
        std::fs::copy(entry.path(), target.join(entry.file_name())).expect("copies");
    }
    (folder, target)
}

/// A policy that reviews every text, or none: the weights are random.
pub fn policy(id: &str, review: f32, openai: &str) -> String {
    format!(
        "id: {id}\ntitle: T\nmodality: text\ntext: No {id}.\njudges:\n  - name: tiny-gemma\n    thresholds: {{review: {review}, block: 1.0}}\nopenai: [{openai}]\n"
    )
}

/// One policy that reviews every text, one that reviews none.
pub fn gate(model: &Path) -> Setup {
    Gate::with()
        .model(model)
        .policy("insults", &policy("insults", 0.0, "harassment, hate"))
        .policy("threats", &policy("threats", 1.0, "harassment/threatening"))
}
