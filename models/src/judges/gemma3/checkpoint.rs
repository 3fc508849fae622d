//! A folder with a Gemma as a reader of texts: as transformers writes it, or one GGUF file.

use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::checkpoint::config::gemma::GemmaConfig;
use crate::checkpoint::config::{self, About, TextConfig};
use crate::checkpoint::weights::{BlocksAs, GgufFile, Weights};
use crate::checkpoint::{CheckpointError, gguf};
use crate::graph::text::{self as graph, Reads};
use crate::graph::{Built, GraphError};
use crate::installed::{FileRecord, ModelError};
use crate::prompt::TOKENIZER;
use crate::prompt::text::TextTemplate;
use crate::prompt::tokenizer::TextTokenizer;

/// Everything in a checkpoint's folder that turns texts into hidden states, the numbers themselves aside.
pub(super) struct Checkpoint {
    pub(super) text: TextConfig,
    pub(super) about: About,
    pub(super) tokenizer: TextTokenizer,
    pub(super) template: Option<TextTemplate>,
    pub(super) weights: Weights,
    /// What hidden states depend on, relative to the folder; heads are bound to it.
    pub(super) files: Vec<PathBuf>,
    /// Where the model's shape and its vocabulary stand, for messages.
    described_in: PathBuf,
    tokenizer_in: PathBuf,
}

/// Whether a folder looks like one.
pub(super) fn is_in(folder: &Path) -> bool {
    GemmaConfig::is_in(folder) || gguf_files(folder).is_ok_and(|files| !files.is_empty())
}

impl Checkpoint {
    pub(super) fn read(folder: &Path) -> Result<Self, ModelError> {
        if GemmaConfig::is_in(folder) { Self::of_transformers(folder) } else { Self::of_gguf(folder) }
            .and_then(Self::checked)
    }

    fn of_transformers(folder: &Path) -> Result<Self, ModelError> {
        let GemmaConfig { text, about } = GemmaConfig::read(folder)?;
        let weights = Weights::safetensors(folder)?;
        let own = [config::FILE, TOKENIZER].map(PathBuf::from);
        Ok(Self {
            text,
            about,
            tokenizer: TextTokenizer::read(folder)?,
            template: TextTemplate::read(folder)?,
            files: own.into_iter().chain(weights.files().iter().cloned()).collect(),
            weights,
            described_in: folder.join(config::FILE),
            tokenizer_in: folder.join(TOKENIZER),
        })
    }

    /// The file's own vocabulary, and its own chat template where none lies beside it.
    fn of_gguf(folder: &Path) -> Result<Self, ModelError> {
        let read = |source| ModelError::Read { path: folder.to_path_buf(), source };
        let files = gguf_files(folder).map_err(read)?;
        let [file] = files.as_slice() else {
            let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            let reason = format!(
                "it has {} GGUF files ({}), and one is a model; give each a folder of its own",
                names.len(),
                names.join(", ")
            );
            return Err(ModelError::broken(folder, reason));
        };
        let path = folder.join(file);
        let gguf_file = GgufFile::open(folder, file.clone())?;
        let gguf = gguf_file.gguf();
        let text = gguf.gemma3_config()?;
        let refuse = |reason| CheckpointError::Tokenizer { path: path.clone(), reason };
        let tokenizer = TextTokenizer::of(gguf.tokenizer()?).map_err(refuse)?;
        let template = match (TextTemplate::read(folder)?, gguf.chat_template()?) {
            (Some(beside), _) => Some(beside),
            (None, Some(gguf::ChatTemplate { source, special_tokens })) => {
                let refuse = |reason| CheckpointError::Template { path: path.clone(), reason };
                Some(TextTemplate::of(source, special_tokens, vec![file.clone()]).map_err(refuse)?)
            }
            (None, None) => None,
        };
        Ok(Self {
            text,
            about: About::default(),
            tokenizer,
            template,
            files: vec![file.clone()],
            weights: Weights::Gguf(gguf_file),
            described_in: path.clone(),
            tokenizer_in: path,
        })
    }

    pub(super) fn with_blocks(mut self, blocks: BlocksAs) -> Self {
        self.weights = match self.weights {
            Weights::Gguf(file) => Weights::Gguf(file.with_blocks(blocks)),
            numbers => numbers,
        };
        self
    }

    fn checked(self) -> Result<Self, ModelError> {
        let (largest, vocabulary) = (self.tokenizer.largest(), self.text.vocabulary);
        if largest as usize >= vocabulary {
            let reason = format!("it gives token {largest}; the model has {vocabulary}");
            return Err(ModelError::broken(&self.tokenizer_in, reason));
        }
        Ok(self)
    }

    /// Building it asks for every tensor by name and shape.
    pub(super) fn graph(&self, reads: &Reads) -> Result<Built, ModelError> {
        graph::build(&self.text, reads, &self.weights).map_err(|error| match error {
            GraphError::Checkpoint(error) => ModelError::Checkpoint(error),
            GraphError::Node { .. } => ModelError::broken(&self.described_in, error.to_string()),
        })
    }

    /// The one token that `word` is.
    pub(super) fn single(&self, word: &str) -> Result<u32, CheckpointError> {
        self.tokenizer.single(word).ok_or_else(|| CheckpointError::Tokenizer {
            path: self.tokenizer_in.clone(),
            reason: format!("`{word}` is no single token, and answers are read as one"),
        })
    }
}

/// Relative to the folder, by name.
fn gguf_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = PathBuf::from(entry?.file_name());
        let is_gguf = name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if is_gguf && folder.join(&name).is_file() {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

/// How many layers a folder's model has.
pub fn layers_of(folder: &Path) -> Result<usize, ModelError> {
    Ok(Checkpoint::read(folder)?.text.layers.len())
}

/// Names the model that heads belong to: the configuration, the tokenizer and the weights.
pub fn model_digest(folder: &Path) -> Result<Digest, ModelError> {
    let files = Checkpoint::read(folder)?.files;
    let files = files.into_iter().map(|file| FileRecord::of(folder, file)).collect::<Result<Vec<_>, _>>()?;
    Ok(digest_of(&files))
}

pub(super) fn digest_of(files: &[FileRecord]) -> Digest {
    let mut covered = "shieldgate text model v1".to_owned();
    for file in files {
        // A GGUF is the whole model, whatever people call it.
        let name = match files {
            [_] => "".into(),
            _ => file.path.to_string_lossy(),
        };
        covered.push_str(&format!("\0{name}\0{}", file.sha256.hex()));
    }
    Digest::of(covered.as_bytes())
}
