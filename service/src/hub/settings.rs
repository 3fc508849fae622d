//! The Hub's environment, as the Python tools read it: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and the like.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::HubError;

const ENDPOINT: &str = "https://huggingface.co";
const TOKEN_BYTES_MAX: u64 = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Settings {
    endpoint: Url,
    /// `Bearer …`; never shown, not even by `Debug`.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) cache: PathBuf,
    /// The cache alone answers.
    pub(super) offline: bool,
    /// How long a server may send nothing.
    pub(super) patience: Duration,
}

impl Settings {
    pub fn from_env() -> Result<Self, HubError> {
        Self::read(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().trim().to_owned());
        let home_folder = variable("HOME").map(PathBuf::from);
        let path = |name: &str| variable(name).map(|value| expand(value.into(), home_folder.as_deref()));
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home_folder.as_ref().map(|home| home.join(".cache/huggingface")));
        let below = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = path("HF_HUB_CACHE").or_else(|| below("hub")).ok_or(HubError::NoHome)?;
        let cache =
            std::path::absolute(&cache).map_err(|source| HubError::Read { path: cache.clone(), source })?;

        let token = match text("HF_TOKEN") {
            Some(token) => Some((token, "HF_TOKEN".to_owned())),
            None => match path("HF_TOKEN_PATH").or_else(|| below("token")) {
                Some(file) => read_token(&file)?.map(|token| (token, format!("`{}`", file.display()))),
                None => None,
            },
        };
        let authorization = token.filter(|(token, _)| !token.is_empty()).map(header).transpose()?;
        let switched_on = |name: &str| {
            text(name).is_some_and(|value| {
                matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true")
            })
        };
        let patience = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.parse().ok());
        Ok(Self {
            endpoint: endpoint(text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT))?,
            authorization,
            cache,
            offline: switched_on("HF_HUB_OFFLINE") || switched_on("TRANSFORMERS_OFFLINE"),
            patience: patience
                .filter(|seconds| (1..=3600).contains(seconds))
                .map_or(PATIENCE, Duration::from_secs),
        })
    }

    /// Without a `/` at its end.
    pub fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    pub(super) fn origin(&self) -> reqwest::Url {
        self.endpoint.clone()
    }
}

/// Nothing of a refused one is shown: it may hold a password.
fn endpoint(text: &str) -> Result<Url, HubError> {
    let url = Url::parse(text).map_err(|_| HubError::Endpoint)?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain && url.has_host() && matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(HubError::Endpoint)
    }
}

fn header((token, from): (String, String)) -> Result<HeaderValue, HubError> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| HubError::Token { from })?;
    value.set_sensitive(true);
    Ok(value)
}

fn read_token(path: &Path) -> Result<Option<String>, HubError> {
    let read = |source| HubError::Read { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(read(error)),
    };
    let mut token = String::new();
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut token).map_err(read)?;
    Ok(Some(token.trim().to_owned()))
}

/// `~` and `~/…`, which no shell expands behind a quote or in a unit file.
fn expand(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::read(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_lies_where_the_python_tools_have_it() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("HOME", "/h")], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/f")], "/h/f/hub"),
            (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HF_HUB_CACHE", "/c")], "/c"),
        ];
        for (variables, expected) in cases {
            assert_eq!(read(variables).unwrap().cache, Path::new(expected), "{variables:?}");
        }
        assert!(matches!(read(&[]), Err(HubError::NoHome)));
    }

    #[test]
    fn the_token_is_found_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let shown = |variables: &[(&str, &str)]| {
            let settings = read(variables).unwrap();
            let text = format!("{settings:?}");
            assert!(!text.contains("hf_"), "{text}");
            settings.authorization.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(shown(&[("HF_HOME", home)]), None);
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(folder.path().join("other"), "hf_other").unwrap();
        let other = folder.path().join("other");
        let other = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(shown(&[("HF_HOME", home)]).as_deref(), Some("Bearer hf_file"));
        assert_eq!(shown(&[("HF_HOME", home), other]).as_deref(), Some("Bearer hf_other"));
        let own = ("HF_TOKEN", " hf_own ");
        assert_eq!(shown(&[("HF_HOME", home), other, own]).as_deref(), Some("Bearer hf_own"));
        let error = read(&[("HF_HOME", home), ("HF_TOKEN", "hf_\u{7}x")]).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("hf_"), "{error}");
    }

    #[test]
    fn an_endpoint_is_an_address_and_no_more() {
        let read = |endpoint| read(&[("HOME", "/h"), ("HF_ENDPOINT", endpoint)]);
        assert_eq!(read("http://mirror:8080/hub/").unwrap().endpoint(), "http://mirror:8080/hub");
        for bad in [
            "mirror",
            "ftp://mirror",
            "https://",
            "https://me:secret@mirror",
            "https://m/?a=b",
            "file:///etc",
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn offline_is_said_in_several_ways() {
        let offline = |name, value| read(&[("HOME", "/h"), (name, value)]).unwrap().offline;
        assert!(offline("HF_HUB_OFFLINE", "1") && offline("TRANSFORMERS_OFFLINE", "True"));
        assert!(!offline("HF_HUB_OFFLINE", "0"));
    }
}
