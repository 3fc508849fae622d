//! `ORG/NAME[@REVISION]`: a model as the Hub names it.

use std::fmt;

/// The Hub's own bound for `ORG/NAME`.
const MODEL_BYTES_MAX: usize = 96;
const REVISION_BYTES_MAX: usize = 200;
const DEFAULT_REVISION: &str = "main";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    org: String,
    name: String,
    revision: Option<String>,
}

impl Reference {
    /// None: it is not of this form. Its parts are safe as parts of a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (model, revision) = match text.split_once('@') {
            Some((model, revision)) => (model, Some(revision)),
            None => (text, None),
        };
        let (org, name) = model.split_once('/')?;
        let good = model.len() <= MODEL_BYTES_MAX
            && is_part(org)
            && is_part(name)
            && revision.is_none_or(is_revision);
        good.then(|| Self {
            org: org.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    pub(super) fn org(&self) -> &str {
        &self.org
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A branch, a tag or a commit.
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// `ORG/NAME`
    pub(super) fn model(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// The Hub's rule: no `--` and no `..`, no `-` or `.` at either end.
fn is_part(part: &str) -> bool {
    let edge = |c: char| matches!(c, '-' | '.');
    !part.is_empty()
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !part.contains("--")
        && !part.contains("..")
        && !part.starts_with(edge)
        && !part.ends_with(edge)
}

/// What git allows as a name, and less: its parts become files below `refs/`.
fn is_revision(revision: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'))
    };
    revision.len() <= REVISION_BYTES_MAX && revision.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_the_hub_are_told_from_folders() {
        let full = Reference::parse("google/shieldgemma-2-4b-it@refs/pr/3").unwrap();
        assert_eq!(full.to_string(), "google/shieldgemma-2-4b-it@refs/pr/3");
        assert_eq!((full.model().as_str(), full.revision()), ("google/shieldgemma-2-4b-it", "refs/pr/3"));
        assert_eq!(Reference::parse("a/b").unwrap().revision(), "main");
        for bad in [
            "",
            "a",
            "a/",
            "/a",
            "./a",
            "../a",
            "a/b/c",
            "a/..",
            "a//b",
            "a/b@",
            "a/b@..",
            "a/b@/c",
            "a/b@c/",
            "a/b@c/../d",
            "a/b@.git",
            "a/.b",
            "a/b-",
            "a/b--c",
            "a b/c",
            "ä/b",
            "a/b@c d",
            "a/b\0",
            "~/b",
            "a/b@c?d",
            "a/b@c%2e",
        ] {
            assert_eq!(Reference::parse(bad), None, "{bad}");
        }
        assert_eq!(Reference::parse(&format!("a/{}", "b".repeat(95))), None);
    }
}
