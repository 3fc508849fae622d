//! Policy files: YAML in, policies out, and errors that name file, line and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::{Fault, Policy};

/// A policy is a page of text; a larger file is something else.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The policies that come with the build; activated at the first run on an empty database.
pub const SHIPPED: [(&str, &str); 8] = [
    ("policies/dangerous.yaml", include_str!("../../../policies/dangerous.yaml")),
    ("policies/harassment-text.yaml", include_str!("../../../policies/harassment-text.yaml")),
    ("policies/hate-text.yaml", include_str!("../../../policies/hate-text.yaml")),
    ("policies/self-harm-text.yaml", include_str!("../../../policies/self-harm-text.yaml")),
    ("policies/sexual.yaml", include_str!("../../../policies/sexual.yaml")),
    ("policies/sexual-text.yaml", include_str!("../../../policies/sexual-text.yaml")),
    ("policies/violence.yaml", include_str!("../../../policies/violence.yaml")),
    ("policies/violence-text.yaml", include_str!("../../../policies/violence-text.yaml")),
];

/// One thing wrong with one file.
#[derive(Debug)]
pub struct FileFault {
    pub file: PathBuf,
    /// From 1; absent where the file as a whole is meant.
    pub line: Option<u64>,
    pub message: String,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every `.yaml` and `.yml` file of a folder, or the one file named. All faults of all files at once.
pub fn read_all(path: &Path) -> Result<Vec<Policy>, Vec<FileFault>> {
    let files = files_of(path)?;
    if files.is_empty() {
        return Err(vec![whole(
            path,
            "no `.yaml` file in this folder: a policy is one YAML file".to_owned(),
        )]);
    }
    let mut policies: Vec<(PathBuf, Policy)> = Vec::new();
    let mut faults = Vec::new();
    for file in files {
        match read(&file) {
            Ok(policy) => match policies.iter().find(|(_, other)| other.id == policy.id) {
                Some((first, _)) => faults.push(whole(
                    &file,
                    format!("policy `{}` is already in {}: keep one of them", policy.id, first.display()),
                )),
                None => policies.push((file, policy)),
            },
            Err(mut of_file) => faults.append(&mut of_file),
        }
    }
    if faults.is_empty() { Ok(policies.into_iter().map(|(_, policy)| policy).collect()) } else { Err(faults) }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Vec<FileFault>> {
    let unreadable = |error: std::io::Error| vec![whole(path, format!("can't be read: {error}"))];
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Policy, Vec<FileFault>> {
    let unreadable = |error: std::io::Error| vec![whole(file, format!("can't be read: {error}"))];
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(vec![whole(file, format!("{bytes} bytes; a policy file has at most {FILE_BYTES_MAX}"))]);
    }
    parse(file, &std::fs::read_to_string(file).map_err(unreadable)?)
}

/// `file` is only named in the faults.
pub fn parse(file: &Path, text: &str) -> Result<Policy, Vec<FileFault>> {
    let policy: Policy = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|location| location.line());
        // The library's own rendering repeats the place and draws a snippet; one line reads better in a list.
        let message = error.without_snippet().to_string();
        vec![FileFault { file: file.to_path_buf(), line, message: one_line(&message) }]
    })?;
    let faults = policy.faults();
    if faults.is_empty() {
        return Ok(policy);
    }
    let places: Option<Places> = serde_saphyr::from_str(text).ok();
    Err(faults
        .into_iter()
        .map(|fault| FileFault {
            file: file.to_path_buf(),
            line: places.as_ref().and_then(|places| places.line_of(&fault)),
            message: format!("{}: {}", fault.at, fault.message),
        })
        .collect())
}

fn whole(file: &Path, message: String) -> FileFault {
    FileFault { file: file.to_path_buf(), line: None, message }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The same file read for the lines its parts stand on.
#[derive(Deserialize)]
struct Places {
    id: Spanned<IgnoredAny>,
    title: Spanned<IgnoredAny>,
    text: Spanned<IgnoredAny>,
    judges: Spanned<Vec<JudgePlaces>>,
    frames: Option<Spanned<IgnoredAny>>,
    #[serde(default)]
    openai: Vec<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
struct JudgePlaces {
    name: Spanned<IgnoredAny>,
    thresholds: Spanned<IgnoredAny>,
    calibration: Option<Spanned<IgnoredAny>>,
}

impl Places {
    fn line_of(&self, fault: &Fault) -> Option<u64> {
        let (path, field) = fault.at.split_once("].").unwrap_or((&fault.at, ""));
        let (name, index) = path.split_once('[').unwrap_or((path, "0"));
        let index: usize = index.trim_end_matches(']').parse().ok()?;
        let judge = || self.judges.value.get(index);
        let location = match (name, field) {
            ("id", _) => self.id.referenced,
            ("title", _) => self.title.referenced,
            ("text", _) => self.text.referenced,
            ("judges", "name") => judge()?.name.referenced,
            ("judges", "thresholds") => judge()?.thresholds.referenced,
            ("judges", "calibration") => judge()?.calibration.as_ref()?.referenced,
            ("judges", _) => self.judges.referenced,
            ("frames", _) => self.frames.as_ref()?.referenced,
            ("openai", _) => self.openai.get(index)?.referenced,
            _ => return None,
        };
        Some(location.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "id: gore\ntitle: Gore\nmodality: image\ntext: |\n  No gore.\njudges:\n  - name: a\n    thresholds: {review: 0.5, block: 0.8}\n  - name: b\n    thresholds: {review: 0.1, block: 0.2}\nopenai:\n  - violence\n  - violence/graphic\n";

    fn faults(text: &str) -> Vec<String> {
        let faults = parse(Path::new("gore.yaml"), text).expect_err("must be refused");
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn shipped_policies_are_good() {
        for (name, text) in SHIPPED {
            let policy = parse(Path::new(name), text).expect(name);
            assert!(name.contains(&policy.id), "a policy lies in a file of its name");
            assert!(!policy.text.contains('\n'), "the published texts are one line: {}", policy.text);
        }
    }

    #[test]
    fn the_version_ignores_layout_and_knows_content() {
        let version = |text: &str| parse(Path::new("x"), text).expect("good").version().expect("hashes");
        let relaid = GOOD.replace("{review: 0.5, block: 0.8}", "{block: 0.80, review: 0.5}  # a comment");
        assert_eq!(version(GOOD), version(&relaid));
        assert_eq!(version(GOOD), version(&format!("{GOOD}on_error: fail\n")), "defaults are written out");
        assert_ne!(version(GOOD), version(&GOOD.replace("block: 0.8", "block: 0.81")));
    }

    #[test]
    fn faults_name_file_line_and_what_to_do() {
        let above = faults(&GOOD.replace("review: 0.1", "review: 0.3"));
        assert!(
            above[0].starts_with("gore.yaml:10: judges[1].thresholds: review 0.3 is above block 0.2"),
            "{above:?}"
        );
        let category = faults(&GOOD.replace("violence/graphic", "violense"));
        assert!(category[0].starts_with("gore.yaml:13: openai[1]: `violense`"), "{category:?}");
        let unknown = faults(&GOOD.replace("title:", "titel:"));
        assert!(unknown[0].starts_with("gore.yaml:2: ") && unknown[0].contains("titel"), "{unknown:?}");
        let nan = faults(&GOOD.replace("review: 0.5", "review: .nan"));
        assert!(nan[0].contains("0..=1"), "{nan:?}");
    }

    #[test]
    fn all_faults_come_at_once() {
        let many = GOOD
            .replace("id: gore", "id: 'Gore!'")
            .replace("review: 0.5", "review: 0.9")
            .replace("- violence\n", "- x\n");
        assert_eq!(faults(&many).len(), 3, "{:?}", faults(&many));
    }

    #[test]
    fn hostile_files_are_refused() {
        for bad in ["", "- a", "id: [", "&a [*a]", "\u{0}", "id: gore\nid: gore\n"] {
            assert!(!faults(bad).is_empty());
        }
    }
}
