//! From a policy's text to token ids, by the checkpoint's own chat template and tokenizer.
//!
//! Reference: transformers 5.23, `ShieldGemma2Processor.__call__`: one user message `[image, text]`
//! through the template; the image's placeholder replaced by its tokens; the tokenizer with its special
//! tokens added (so a template that begins with `<bos>` gives two of them, as in the reference).

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::checkpoint::config::Config;
use crate::checkpoint::{CheckpointError, json, read_optional};

mod template;
pub mod text;
pub mod tokenizer;

use template::Template;

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(crate) const TEMPLATE: &str = "chat_template.jinja";
pub(crate) const OLDER_TEMPLATE: &str = "chat_template.json";

/// Turns policies into prompts and prompts into token ids.
pub struct Prompter {
    template: Template,
    tokenizer: Tokenizer,
    /// Stands for the image in a rendered prompt.
    placeholder: String,
    /// What it is replaced by.
    image: String,
    image_token: u32,
    image_tokens: usize,
    /// Longest prompt in tokens.
    positions: usize,
    files: Vec<PathBuf>,
}

/// A prompt as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<u32>,
    /// Where the image's tokens are.
    pub image: Range<usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("the chat template gives an error: {0}")]
    Template(String),
    #[error(
        "the prompt has the placeholder `{placeholder}` {count} times; the policy's text must not name it"
    )]
    Placeholder { placeholder: String, count: usize },
    #[error(
        "the prompt has {found} image tokens instead of {expected} in one row; the policy's text must not name them"
    )]
    ImageTokens { found: usize, expected: usize },
    #[error("the prompt has {found} tokens; the model takes {max}")]
    TooLong { found: usize, max: usize },
    #[error("the tokenizer gives an error: {0}")]
    Tokenizer(String),
}

/// Tokens are written as text, or as an object around it.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Added { content: String },
}

impl Prompter {
    pub fn read(folder: &Path, config: &Config) -> Result<Self, CheckpointError> {
        let mut files = vec![PathBuf::from(TOKENIZER)];
        let tokenizer = read_tokenizer(folder)?;
        let path = folder.join(TOKENIZER_CONFIG);
        let settings: Value = match read_optional(&path)? {
            Some(body) => {
                files.push(TOKENIZER_CONFIG.into());
                json(&path, &body)?
            }
            None => Value::Null,
        };
        let (template_file, source) = read_template(folder, &settings)?;
        if !files.contains(&template_file) {
            files.push(template_file.clone());
        }
        let variables = special_tokens(&settings);
        // By the name that the tokenizer's settings give it, else by the number in `config.json`.
        let token = |name: &str, id: u32| {
            let named = variables.iter().find(|(key, _)| key == name).map(|(_, token)| token.clone());
            named.or_else(|| tokenizer.id_to_token(id)).ok_or_else(|| CheckpointError::Tokenizer {
                path: folder.join(TOKENIZER),
                reason: format!("it has no token {id}, which `config.json` names as `{name}`"),
            })
        };
        let placeholder = token("boi_token", config.boi_token)?;
        let (soft, end) = (token("image_token", config.image_token)?, token("eoi_token", config.eoi_token)?);
        if tokenizer.token_to_id(&soft) != Some(config.image_token) {
            return Err(CheckpointError::Tokenizer {
                path: folder.join(TOKENIZER),
                reason: format!(
                    "`{soft}` is {:?}; `image_token_index` of `config.json` is {}",
                    tokenizer.token_to_id(&soft),
                    config.image_token
                ),
            });
        }
        let image = format!("\n\n{placeholder}{}{end}\n\n", soft.repeat(config.image_tokens));
        let refuse = |reason| CheckpointError::Template { path: folder.join(&template_file), reason };
        let prompter = Self {
            template: Template::new(source, variables).map_err(refuse)?,
            tokenizer,
            placeholder,
            image,
            image_token: config.image_token,
            image_tokens: config.image_tokens,
            positions: config.text.positions,
            files,
        };
        // A template for another kind of message must show when the model is added, not at the first policy.
        let tokens = prompter
            .render("No test.")
            .and_then(|prompt| prompter.tokens(&prompt))
            .map_err(|error| refuse(error.to_string()))?;
        let outside = tokens.ids.iter().filter(|id| **id != config.image_token);
        if let Some(id) = outside.into_iter().find(|id| **id as usize >= config.text.vocabulary) {
            return Err(CheckpointError::Tokenizer {
                path: folder.join(TOKENIZER),
                reason: format!("it gives token {id}; `vocab_size` is {}", config.text.vocabulary),
            });
        }
        Ok(prompter)
    }

    /// The files this came from, relative to the folder.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The prompt with the image's placeholder in it.
    pub fn render(&self, policy: &str) -> Result<String, PromptError> {
        let prompt = self.template.render(policy).map_err(PromptError::Template)?;
        match prompt.matches(&self.placeholder).count() {
            1 => Ok(prompt),
            count => Err(PromptError::Placeholder { placeholder: self.placeholder.clone(), count }),
        }
    }

    /// The ids of a rendered prompt.
    pub fn tokens(&self, prompt: &str) -> Result<Tokens, PromptError> {
        let expanded = prompt.replacen(&self.placeholder, &self.image, 1);
        let encoding = self
            .tokenizer
            .encode_fast(expanded, true)
            .map_err(|error| PromptError::Tokenizer(error.to_string()))?;
        let ids = encoding.get_ids().to_vec();
        if ids.len() > self.positions {
            return Err(PromptError::TooLong { found: ids.len(), max: self.positions });
        }
        let found = ids.iter().filter(|id| **id == self.image_token).count();
        let wrong = PromptError::ImageTokens { found, expected: self.image_tokens };
        let Some(start) = ids.iter().position(|id| *id == self.image_token) else { return Err(wrong) };
        let image = start..start + self.image_tokens;
        let together = ids.get(image.clone()).is_some_and(|ids| ids.iter().all(|id| *id == self.image_token));
        // Something must follow the image, or no position could answer.
        if found != self.image_tokens || !together || image.end == ids.len() {
            return Err(wrong);
        }
        Ok(Tokens { ids, image })
    }
}

fn read_tokenizer(folder: &Path) -> Result<Tokenizer, CheckpointError> {
    let path = folder.join(TOKENIZER);
    let Some(body) = read_optional(&path)? else {
        return Err(CheckpointError::FileMissing { path, needed_for: "prompts become tokens by it" });
    };
    let broken = |reason: String| CheckpointError::Tokenizer { path: path.clone(), reason };
    let mut tokenizer =
        Tokenizer::from_bytes(&body).map_err(|error| broken(format!("it is no tokenizer: {error}")))?;
    // As transformers does for every call: what the file says of them does not count.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| broken(error.to_string()))?;
    Ok(tokenizer)
}

/// The processor's own template before the tokenizer's, newer forms before older ones.
fn read_template(folder: &Path, settings: &Value) -> Result<(PathBuf, String), CheckpointError> {
    let path = folder.join(TEMPLATE);
    let refuse = |path: &Path, reason: &str| CheckpointError::Template {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    };
    if let Some(body) = read_optional(&path)? {
        let source = String::from_utf8(body).map_err(|_| refuse(&path, "it is not UTF-8"))?;
        return Ok((TEMPLATE.into(), source));
    }
    let older = folder.join(OLDER_TEMPLATE);
    if let Some(body) = read_optional(&older)? {
        let body: Value = json(&older, &body)?;
        let source = body.get("chat_template").and_then(Value::as_str);
        let source = source.ok_or_else(|| refuse(&older, "it has no text under `chat_template`"))?;
        return Ok((OLDER_TEMPLATE.into(), source.to_owned()));
    }
    match settings.get("chat_template").and_then(Value::as_str) {
        Some(source) => Ok((TOKENIZER_CONFIG.into(), source.to_owned())),
        None => Err(CheckpointError::FileMissing { path, needed_for: "policies become prompts by it" }),
    }
}

/// What a template may name: `bos_token`, `eos_token`, … and the image's tokens.
fn special_tokens(settings: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let nested = ["extra_special_tokens", "model_specific_special_tokens"].map(|key| settings.get(key));
    for object in [Some(settings)].into_iter().chain(nested).flatten().filter_map(Value::as_object) {
        for (key, value) in object.iter().filter(|(key, _)| key.ends_with("_token")) {
            match serde_json::from_value(value.clone()) {
                Ok(SpecialToken::Text(content) | SpecialToken::Added { content }) => {
                    found.push((key.clone(), content))
                }
                // `add_bos_token: true` and `unk_token: null` are no tokens.
                Err(_) => {}
            }
        }
    }
    found
}
