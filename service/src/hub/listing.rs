//! What a model has at one commit, and which of it a checkpoint's reader needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::Value;

use super::client::{Asked, Client};
use super::digest::{Expected, is_hex};
use super::retry::Retry;
use super::{HubError, Reference, Watch};

/// Models of thousands of files are listed in less.
const BODY_BYTES_MAX: usize = 16 << 20;
const INDEX_BYTES_MAX: u64 = 256 << 20;
/// Of text that somebody at the Hub wrote and a terminal shows.
const SHOWN_CHARS_MAX: usize = 200;

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Without these there is nothing to read.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
const WELCOME: [&str; 6] = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    INDEX,
];

#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    model: String,
    pub(super) gated: bool,
    licence: Option<String>,
    files: BTreeMap<String, RemoteFile>,
}

#[derive(Debug, Clone)]
pub(super) struct RemoteFile {
    pub(super) bytes: u64,
    pub(super) digest: Expected,
    pub(super) gated: bool,
}

/// `GET /api/models/ORG/NAME/revision/REVISION?blobs=true`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    sha: String,
    siblings: Vec<Sibling>,
    /// `false`, `"auto"` or `"manual"`.
    #[serde(default)]
    gated: Value,
    /// The head of the model card, by whoever wrote it.
    #[serde(default)]
    card_data: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

pub(super) async fn ask(
    client: &Client,
    reference: &Reference,
    watch: &dyn Watch,
) -> Result<Listing, HubError> {
    let mut retry = Retry::new();
    loop {
        match body(client, reference).await {
            Ok(body) => return Listing::read(&body, &reference.model(), &client.endpoint_host()),
            Err(error) => retry.after(error, watch).await?,
        }
    }
}

async fn body(client: &Client, reference: &Reference) -> Result<Vec<u8>, HubError> {
    let (org, name) = (reference.org(), reference.name());
    let mut url = client.url(&["api", "models", org, name, "revision", reference.revision()]);
    url.set_query(Some("blobs=true"));
    let mut reply = client.get(url, 0, Asked::Listing).await?;
    let mut body = Vec::new();
    let broken = |error| client.broken_at(reply.host.clone(), error);
    while let Some(chunk) = reply.response.chunk().await.map_err(broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_BYTES_MAX {
            let reason = format!("its list of files is longer than {BODY_BYTES_MAX} bytes");
            return Err(HubError::Answer { host: reply.host, reason });
        }
    }
    Ok(body)
}

impl Listing {
    fn read(body: &[u8], model: &str, host: &str) -> Result<Self, HubError> {
        let answer = |reason: String| HubError::Answer { host: host.to_owned(), reason };
        let raw: Raw = serde_json::from_slice(body)
            .map_err(|error| answer(format!("its list of files can't be read ({error})")))?;
        if !is_hex(&raw.sha, 40) {
            return Err(answer("it names no commit".to_owned()));
        }
        let gated = !matches!(raw.gated, Value::Null | Value::Bool(false));
        let mut files = BTreeMap::new();
        for sibling in raw.siblings {
            let name = sibling.rfilename;
            if !is_inside(&name) {
                return Err(HubError::Outside { model: model.to_owned(), name: shown(&name) });
            }
            // Of files that are fetched digest and size must be known; the rest is not looked at.
            let wanted = NEEDED.contains(&name.as_str()) || WELCOME.contains(&name.as_str());
            if !wanted && (name.contains('/') || !name.ends_with(".safetensors")) {
                continue;
            }
            let (bytes, digest) = match (&sibling.lfs, &sibling.blob_id) {
                (Some(lfs), _) => (Some(lfs.size), Expected::sha256(&lfs.sha256)),
                (None, Some(blob)) => (sibling.size, Expected::git(blob)),
                (None, None) => (None, None),
            };
            let (Some(bytes), Some(digest)) = (bytes, digest) else {
                return Err(answer(format!("it lists no size and digest of `{}`", shown(&name))));
            };
            files.insert(name, RemoteFile { bytes, digest, gated });
        }
        let licence = licence(&raw.card_data);
        Ok(Self { commit: raw.sha, model: model.to_owned(), gated, licence, files })
    }

    /// The model, its commit and its terms, in one line.
    pub(super) fn terms(&self, endpoint: &str, reference: &Reference) -> String {
        let licence = self.licence.as_deref().unwrap_or("none is named");
        let gated = if self.gated {
            format!("; gated: its terms must be accepted at {endpoint}/{}", self.model)
        } else {
            String::new()
        };
        format!("{reference}, commit {}; licence: {licence}{gated}", self.commit)
    }

    pub(super) fn file(&self, name: &str) -> Result<RemoteFile, HubError> {
        self.files
            .get(name)
            .cloned()
            .ok_or_else(|| HubError::ShardNotListed { model: self.model.clone(), shard: shown(name) })
    }

    /// Everything but the numbers.
    pub(super) fn configuration(&self) -> Result<Vec<String>, HubError> {
        let missing = |missing| HubError::NotACheckpoint { model: self.model.clone(), missing };
        let has = |name: &&str| self.files.contains_key(*name);
        if let Some(name) = NEEDED.into_iter().find(|name| !has(name)) {
            return Err(missing(name));
        }
        if !has(&SINGLE) && !has(&INDEX) {
            return Err(missing(SINGLE));
        }
        Ok(NEEDED.into_iter().chain(WELCOME).filter(has).map(str::to_owned).collect())
    }

    /// The shards that the index in `snapshot` names, or the one file there is: a model may have more, for
    /// other programs.
    pub(super) fn weights(&self, snapshot: &Path) -> Result<Vec<String>, HubError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        if !self.files.contains_key(INDEX) {
            return Ok(vec![SINGLE.to_owned()]);
        }
        let path = snapshot.join(INDEX);
        let mut body = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(INDEX_BYTES_MAX).read_to_end(&mut body))
            .map_err(|source| HubError::Read { path: path.clone(), source })?;
        let index: Index =
            serde_json::from_slice(&body).map_err(|error| HubError::Read { path, source: error.into() })?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        if let Some(name) = shards.iter().find(|name| !is_inside(name) || name.contains('/')) {
            return Err(HubError::Outside { model: self.model.clone(), name: shown(name) });
        }
        Ok(shards.into_iter().collect())
    }
}

/// Whether a name stays in the folder it is put into.
fn is_inside(name: &str) -> bool {
    let plain = |component| matches!(component, Component::Normal(_));
    !name.is_empty()
        && !name.contains(['\\', '\0'])
        && Path::new(name).components().all(plain)
        // `components` forgives `a/./b` and `a//b`.
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn licence(card: &Value) -> Option<String> {
    let text = |key: &str| match card.get(key)? {
        Value::String(text) => Some(shown(text)),
        Value::Array(many) => {
            Some(many.iter().filter_map(Value::as_str).map(shown).collect::<Vec<_>>().join(", "))
        }
        _ => None,
    };
    let name = match text("license")? {
        // As the Hub says it of those it has no name for.
        other if other == "other" => text("license_name").unwrap_or(other),
        known => known,
    };
    Some(match text("license_link") {
        Some(link) => format!("{name} ({link})"),
        None => name,
    })
}

/// Without what would steer a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    fn read(answer: &Value) -> Result<Listing, HubError> {
        Listing::read(answer.to_string().as_bytes(), "a/b", "http://hub")
    }

    fn sibling(name: &str) -> Value {
        json!({"rfilename": name, "size": 2, "blobId": COMMIT})
    }

    fn with(names: &[&str]) -> Value {
        json!({"sha": COMMIT, "siblings": names.iter().map(|name| sibling(name)).collect::<Vec<_>>()})
    }

    #[test]
    fn only_what_the_reader_reads_is_wanted() {
        let listing = read(&with(&[
            "config.json",
            "tokenizer.json",
            "README.md",
            "pytorch_model.bin",
            "model.safetensors",
            "consolidated.safetensors",
            "onnx/model.safetensors",
            "chat_template.jinja",
            "evil.pkl",
        ]));
        let listing = listing.unwrap();
        assert_eq!(
            listing.configuration().unwrap(),
            ["config.json", "tokenizer.json", "chat_template.jinja"]
        );
        assert_eq!(listing.weights(Path::new("/nowhere")).unwrap(), ["model.safetensors"]);
        for (names, expected) in [
            (&["config.json", "model.safetensors"][..], "tokenizer.json"),
            (&["tokenizer.json", "model.safetensors"], "config.json"),
            (&["config.json", "tokenizer.json", "pytorch_model.bin"], "model.safetensors"),
        ] {
            let error = read(&with(names)).unwrap().configuration().unwrap_err();
            assert!(
                matches!(error, HubError::NotACheckpoint { missing, .. } if missing == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn the_index_says_which_shards() {
        let listing =
            read(&with(&["config.json", "tokenizer.json", INDEX, "x.safetensors", "y.safetensors"]));
        let (listing, folder) = (listing.unwrap(), tempfile::tempdir().unwrap());
        let weights = |map: Value| {
            std::fs::write(folder.path().join(INDEX), json!({"weight_map": map}).to_string()).unwrap();
            listing.weights(folder.path())
        };
        assert_eq!(weights(json!({"a": "x.safetensors", "b": "x.safetensors"})).unwrap(), ["x.safetensors"]);
        for bad in ["../x.safetensors", "/etc/passwd", "a/x.safetensors", ".."] {
            assert!(matches!(weights(json!({"a": bad})), Err(HubError::Outside { .. })), "{bad}");
        }
        let shards = weights(json!({"a": "z.safetensors"})).unwrap();
        assert!(matches!(listing.file(&shards[0]), Err(HubError::ShardNotListed { .. })));
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for bad in ["../x", "a/../../x", "/etc/passwd", "..", "", "a//b", "./a", "a\\..\\b", "a\0b"] {
            let error = read(&with(&["config.json", bad])).unwrap_err();
            assert!(matches!(error, HubError::Outside { .. }), "{bad}: {error}");
        }
        read(&with(&["a/b/c.json", "..a", ".gitattributes"])).unwrap();
    }

    #[test]
    fn digests_and_commits_are_hex_before_they_name_files() {
        let lfs = |sha256: &str| {
            json!({"sha": COMMIT, "siblings": [
            {"rfilename": "model.safetensors", "lfs": {"sha256": sha256, "size": 3}}]})
        };
        assert_eq!(read(&lfs(&"a".repeat(64))).unwrap().file(SINGLE).unwrap().bytes, 3);
        for bad in ["../../../../x", &"A".repeat(64), ""] {
            assert!(matches!(read(&lfs(bad)), Err(HubError::Answer { .. })), "{bad}");
        }
        let unnamed = json!({"sha": COMMIT, "siblings": [{"rfilename": "config.json"}]});
        assert!(matches!(read(&unnamed), Err(HubError::Answer { .. })));
        let elsewhere = json!({"sha": "../../x", "siblings": []});
        assert!(matches!(read(&elsewhere), Err(HubError::Answer { .. })));
        assert!(matches!(Listing::read(b"<html>", "a/b", "http://hub"), Err(HubError::Answer { .. })));
    }

    #[test]
    fn terms_are_named_and_steer_no_terminal() {
        let terms = |card: Value, gated: Value| {
            let answer = json!({"sha": COMMIT, "siblings": [], "cardData": card, "gated": gated});
            read(&answer).unwrap().terms("http://hub", &Reference::parse("a/b").unwrap())
        };
        let gemma = terms(json!({"license": "gemma", "license_link": "https://g"}), json!("manual"));
        assert!(gemma.contains("licence: gemma (https://g)"), "{gemma}");
        assert!(gemma.contains("accepted at http://hub/a/b"), "{gemma}");
        let own = terms(json!({"license": "other", "license_name": "mine\u{1b}[2J"}), json!(false));
        assert!(own.ends_with("licence: mine[2J"), "{own}");
        assert!(terms(Value::Null, Value::Null).ends_with("none is named"));
        assert!(terms(json!({"license": ["mit", "apache-2.0"]}), Value::Null).ends_with("mit, apache-2.0"));
    }
}
