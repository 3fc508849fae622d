//! Media: golden colours against Pillow, refusals, truncation everywhere, hostile input, memory.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "this is all tests")]

mod animations;
mod bombs;
mod build;
mod golden;
mod hostile;
mod memory;
mod moving;
mod mutate;
#[path = "../../../tests/src/mutate.rs"]
pub mod mutator;
mod pdq;
mod prefixes;
mod refusals;
mod trailing;

use std::path::PathBuf;

use shieldgate::media::{Limits, Looked, MediaError, look};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/media")
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every sample picture, by name.
fn samples() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif"].iter().any(|end| name.ends_with(end))
        })
        .collect();
    names.sort_unstable();
    assert!(names.len() >= 65, "samples are missing");
    names.into_iter().map(|name| (name.clone(), sample(&name))).collect()
}

fn seen(bytes: &[u8]) -> Result<Looked, MediaError> {
    look(bytes, &Limits::default())
}

fn code(bytes: &[u8]) -> &'static str {
    match seen(bytes) {
        Ok(_) => "accepted",
        Err(e) => e.code(),
    }
}
