//! What `make build` fetched, or only some of its models: a gate opens all that it finds.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::binary::target_dir;

/// The default judge of pictures alone: Gemma 3 would cost every gate two seconds and 800 MB.
const USUAL: &[&str] = &["open-nsfw"];

/// Whole, as the binary finds it by itself.
pub fn all_assets() -> PathBuf {
    let assets = target_dir().join("assets");
    assert!(assets.is_dir(), "no assets at `{}`: run `make build` first", assets.display());
    assets
}

/// With these models and no others; `target/tmp/assets-…`, of links.
pub fn assets_with(models: &[&str]) -> PathBuf {
    let folder = target_dir().join("tmp").join(format!("assets-{}", models.join("-")));
    std::fs::create_dir_all(folder.join("models")).expect("makes a folder");
    link(&all_assets(), &folder, ["onnxruntime", "postgres"]);
    link(&all_assets().join("models"), &folder.join("models"), models.iter().copied());
    folder
}

pub(crate) fn usual_assets() -> PathBuf {
    assets_with(USUAL)
}

fn link<'a>(from: &Path, to: &Path, names: impl IntoIterator<Item = &'a str>) {
    for name in names {
        // Several tests may be at it; the first one's link is as good.
        if !to.join(name).exists() {
            drop(symlink(from.join(name), to.join(name)));
        }
        assert!(to.join(name).exists(), "no `{name}` in the assets: run `make build` first");
    }
}
