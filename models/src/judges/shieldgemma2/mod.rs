//! The ShieldGemma 2 judge: a picture and a policy's text in, the probability that one breaks the other out.
//!
//! A folder as transformers writes it. What policies share is computed once: the vision tower once a
//! picture; everything before the policies' texts (the image among it) in one pass; the policies as one
//! batch of suffixes over its keys and values. P(violation) is the `Yes` of `Yes` and `No`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::Session;
use ort::value::{DynValue, TensorRef};

use crate::checkpoint::config::{self, Config};
use crate::checkpoint::preprocessor::Preprocessor;
use crate::checkpoint::weights::Weights;
use crate::graph::{Built, GRAPH_VERSION, GraphError, decoder as decoder_graph, vision as vision_graph};
use crate::installed::{Checked, FileRecord, ModelError};
use crate::judge::{calibrated, pictures};
use crate::judges::Kind;
use crate::prompt::{Prompter, Tokens};
use crate::runtime::{Runtime, failure, stoppable};
use crate::{
    Answer, Asked, Content, Failure, Judge, JudgeCard, Modality, Picture, PolicyText, Question,
    QuestionError, Stop,
};

mod decoder;
mod pixels;

use decoder::{Decoder, Logits, Start};

/// Raised with every change to how pictures or prompts are prepared.
const PREPROCESSING_VERSION: u32 = 1;

/// What the graphs compute in, whatever the weights are stored as.
const PRECISION: &str = "fp32";

/// Rows of a batch of suffixes (pictures × policies): keys and values of the prefixes are repeated for each,
/// so it bounds memory.
const ROWS_MAX: usize = 12;

/// Pictures a batch of the vision tower and of the prefixes; a few use a GPU well, more only cost memory.
const PICTURES_MAX: usize = 4;

/// The configuration that a checkpoint may lack, whichever of it is read in the end.
const OPTIONAL: &[&str] = &[
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
];

pub const KIND: Kind = Kind {
    name: "shieldgemma2",
    modality: Modality::Image,
    looks_like: "a ShieldGemma 2 checkpoint (`config.json` with `model_type: shieldgemma2`, safetensors, tokenizer)",
    // Any `config.json`, so that another architecture is named instead of being no model at all: a kind
    // that reads one too stands before this in the list, and looks at `model_type`.
    recognises: |folder| folder.join(config::FILE).is_file(),
    check,
    optional: OPTIONAL,
    method: || format!("graph v{GRAPH_VERSION}, preprocessing v{PREPROCESSING_VERSION}, {PRECISION}"),
    open: |runtime, folder, card| Ok(Box::new(ShieldGemma2::open(runtime, folder, card)?)),
};

/// Everything in a checkpoint's folder but the numbers themselves, and the graphs over those.
struct Checkpoint {
    config: Config,
    weights: Weights,
    preprocessor: Preprocessor,
    prompter: Prompter,
    vision: Built,
    decoder: Built,
}

impl Checkpoint {
    fn read(folder: &Path) -> Result<Self, ModelError> {
        let config = Config::read(folder)?;
        let weights = Weights::safetensors(folder)?;
        let preprocessor = Preprocessor::read(folder, &config)?;
        let prompter = Prompter::read(folder, &config)?;
        let graph = |error| match error {
            GraphError::Checkpoint(error) => ModelError::Checkpoint(error),
            GraphError::Node { .. } => ModelError::broken(&folder.join(config::FILE), error.to_string()),
        };
        // Building them asks for every tensor by name and shape.
        let vision = vision_graph::build(&config, &weights).map_err(graph)?;
        let decoder = decoder_graph::build(&config, &weights).map_err(graph)?;
        Ok(Self { config, weights, preprocessor, prompter, vision, decoder })
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![PathBuf::from(config::FILE)];
        let parts = [self.weights.files(), &self.preprocessor.files, self.prompter.files()];
        for file in parts.into_iter().flatten() {
            if !files.contains(file) {
                files.push(file.clone());
            }
        }
        files
    }
}

fn check(folder: &Path) -> Result<Checked, ModelError> {
    let checkpoint = Checkpoint::read(folder)?;
    let mut files = checkpoint.files();
    let beside = OPTIONAL.iter().map(PathBuf::from).filter(|file| folder.join(file).is_file());
    for file in beside {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    let files = files.into_iter().map(|file| FileRecord::of(folder, file)).collect::<Result<Vec<_>, _>>()?;
    let about = checkpoint.config.about;
    Ok(Checked { name: about.name, demo: about.demo, files })
}

/// Writes `vision.onnx` and `decoder.onnx` into `target`, to look at: their weights stay in `folder`.
pub fn write_graphs(folder: &Path, target: &Path) -> Result<[PathBuf; 2], ModelError> {
    let checkpoint = Checkpoint::read(folder)?;
    let write = |name: &str, graph: &[u8]| {
        let path = target.join(name);
        match std::fs::write(&path, graph) {
            Ok(()) => Ok(path),
            Err(source) => Err(ModelError::Write { path, source }),
        }
    };
    Ok([write("vision.onnx", &checkpoint.vision.onnx)?, write("decoder.onnx", &checkpoint.decoder.onnx)?])
}

pub struct ShieldGemma2 {
    card: JudgeCard,
    /// Pictures are squashed to this side.
    side: usize,
    preprocessor: Preprocessor,
    prompter: Prompter,
    /// `run` wants it exclusively.
    vision: Mutex<Session>,
    decoder: Decoder,
}

impl ShieldGemma2 {
    pub fn open(runtime: &Arc<Runtime>, folder: &Path, card: JudgeCard) -> Result<Self, ModelError> {
        let Checkpoint { config, weights, preprocessor, prompter, vision, decoder } =
            Checkpoint::read(folder)?;
        let vision = runtime.session_from_graph(&vision, &weights)?;
        let decoder = runtime.session_from_graph(&decoder, &weights)?;
        let side = config.vision.image;
        let decoder = Decoder::new(decoder, config.text).map_err(|source| {
            crate::runtime::RuntimeError::Session { what: "the decoder".to_owned(), source }
        })?;
        Ok(Self { card, side, preprocessor, prompter, vision: Mutex::new(vision), decoder })
    }

    /// The ids of a question's prompt, and where the image is among them.
    pub fn tokens(&self, question: &Question) -> Result<Tokens, Failure> {
        self.prompter.tokens(&question.asked).map_err(|error| Failure::Runtime(error.to_string()))
    }

    /// The vision tower's input, [3, side, side].
    pub fn pixels(&self, picture: &Picture) -> Vec<f32> {
        pixels::pixels(picture, self.side, &self.preprocessor)
    }

    /// The images' tokens for the decoder, [pictures, tokens, hidden]; they stay ONNX Runtime's.
    pub fn features(&self, pictures: &[&Picture], stop: &Stop) -> Result<DynValue, Failure> {
        let _span = tracing::info_span!("vision", pictures = pictures.len()).entered();
        let fail = |error: ort::Error| failure(&error, stop);
        let pixels: Vec<f32> = pictures.iter().flat_map(|picture| self.pixels(picture)).collect();
        let shape = [pictures.len(), 3, self.side, self.side];
        let tensor = TensorRef::from_array_view((shape, pixels.as_slice())).map_err(fail)?;
        let mut session = self.vision.lock().unwrap_or_else(PoisonError::into_inner);
        let options = stoppable(stop)?;
        let inputs = ort::inputs![vision_graph::PIXELS => tensor];
        let mut outputs = session.run_with_options(inputs, &*options).map_err(fail)?;
        let features = outputs.remove(vision_graph::FEATURES);
        features.ok_or_else(|| Failure::Runtime("no image features came back".to_owned()))
    }

    /// For each picture the logits of Yes and No for each prompt.
    fn logits(
        &self,
        pictures: &[&Picture],
        prompts: &[&Tokens],
        stop: &Stop,
    ) -> Result<Vec<Vec<Logits>>, Failure> {
        let features = self.features(pictures, stop)?;
        let Some((first, others)) = prompts.split_first() else {
            return Ok(vec![Vec::new(); pictures.len()]);
        };
        let shared = shared_start(prompts);
        let mut logits = vec![Vec::with_capacity(prompts.len()); pictures.len()];
        let mut add = |rows: Vec<Logits>, each: usize| {
            for (logits, rows) in logits.iter_mut().zip(rows.chunks(each)) {
                logits.extend_from_slice(rows);
            }
        };
        // A lone prompt has nothing to share; nor have prompts that differ before the image.
        if others.is_empty() || shared < first.image.end {
            let _span = tracing::info_span!("policies", policies = prompts.len()).entered();
            for tokens in prompts {
                let whole = Start { ids: &tokens.ids, image: tokens.image.clone(), rows: pictures.len() };
                add(self.decoder.first(&whole, &features, stop)?.0, 1);
            }
            return Ok(logits);
        }
        let (prefix, _) = first.ids.split_at(shared);
        let prefix = Start { ids: prefix, image: first.image.clone(), rows: pictures.len() };
        let past = {
            let _span = tracing::info_span!("prefix", tokens = shared).entered();
            self.decoder.first(&prefix, &features, stop)?.1
        };
        let _span = tracing::info_span!("policies", policies = prompts.len()).entered();
        let suffixes: Vec<&[u32]> = prompts.iter().filter_map(|tokens| tokens.ids.get(shared..)).collect();
        for suffixes in suffixes.chunks((ROWS_MAX / pictures.len()).max(1)) {
            add(self.decoder.rest(suffixes, first.image.clone(), &past, stop)?, suffixes.len());
        }
        Ok(logits)
    }

    /// Pictures that are asked the same, together.
    fn answers(&self, pictures: &[&Picture], questions: &[Question], stop: &Stop) -> Vec<Vec<Answer>> {
        let tokens: Vec<Result<Tokens, Failure>> =
            questions.iter().map(|question| self.tokens(question)).collect();
        let prompts: Vec<&Tokens> = tokens.iter().filter_map(|tokens| tokens.as_ref().ok()).collect();
        let logits = if prompts.is_empty() {
            Ok(vec![Vec::new(); pictures.len()])
        } else {
            self.logits(pictures, &prompts, stop)
        };
        let logits = match logits {
            Ok(logits) => logits,
            Err(failure) => return vec![vec![Err(failure); questions.len()]; pictures.len()],
        };
        let of_picture = |logits: Vec<Logits>| -> Vec<Answer> {
            let mut logits = logits.into_iter();
            let mut answer = |question: &Question, tokens: &Result<Tokens, Failure>| {
                tokens.as_ref().map_err(Clone::clone)?;
                let missing = || Failure::Runtime("fewer logits came back than prompts went in".to_owned());
                let [yes, no] = logits.next().ok_or_else(missing)?;
                calibrated(f64::from(yes), f64::from(no), question.temperature, question.alpha)
            };
            questions.iter().zip(&tokens).map(|(question, tokens)| answer(question, tokens)).collect()
        };
        logits.into_iter().map(of_picture).collect()
    }
}

/// How many tokens all prompts begin with; at least one of each is left over, for it to answer at.
fn shared_start(prompts: &[&Tokens]) -> usize {
    let Some((first, others)) = prompts.split_first() else { return 0 };
    let same = |other: &&Tokens| first.ids.iter().zip(&other.ids).take_while(|(a, b)| a == b).count();
    let shared = others.iter().map(same).min().unwrap_or(first.ids.len());
    let shortest = prompts.iter().map(|tokens| tokens.ids.len()).min().unwrap_or_default();
    shared.min(shortest.saturating_sub(1))
}

impl Judge for ShieldGemma2 {
    fn card(&self) -> &JudgeCard {
        &self.card
    }

    /// `asked` is the rendered prompt with the image's placeholder in it.
    fn question(&self, policy: &PolicyText<'_>) -> Result<Question, QuestionError> {
        let refuse = |reason: String| QuestionError {
            judge: self.card.name.clone(),
            policy: policy.id.to_owned(),
            reason,
        };
        policy.names_no_head(&self.card.name)?;
        if policy.text.trim().is_empty() {
            return Err(refuse("it has no text, and a prompted judge asks by the text".to_owned()));
        }
        let prompt = self.prompter.render(policy.text).map_err(|error| refuse(error.to_string()))?;
        // A prompt that can't be run is refused now, not at the first picture.
        self.prompter.tokens(&prompt).map_err(|error| refuse(error.to_string()))?;
        Ok(Question::new(prompt, policy.temperature, policy.alpha))
    }

    fn batch_max(&self) -> usize {
        PICTURES_MAX
    }

    fn work(&self, _: Content<'_>) -> usize {
        1
    }

    fn reduced(&self, picture: &Picture) -> Option<Picture> {
        let side = self.side as u32;
        picture.is_larger_than(side, side).then(|| pixels::squashed(picture, self.side))
    }

    fn judge_batch(&self, batch: &[Asked<'_>], stop: &Stop) -> Vec<Vec<Answer>> {
        let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); batch.len()];
        let shown = match pictures(batch) {
            Ok(shown) => shown,
            Err(failed) => return failed,
        };
        let mut open: Vec<usize> = (0..batch.len()).collect();
        while let Some(first) = open.first().and_then(|at| batch.get(*at)) {
            let alike = |at: &usize| batch.get(*at).is_some_and(|asked| asked.questions == first.questions);
            let (mut same, others): (Vec<usize>, Vec<usize>) = open.iter().partition(|at| alike(at));
            // What does not fit stays for the next round.
            let rest = same.split_off(PICTURES_MAX.min(same.len()));
            let same_shown: Vec<&Picture> = same.iter().filter_map(|at| shown.get(*at).copied()).collect();
            let found = self.answers(&same_shown, first.questions, stop);
            for (at, found) in same.into_iter().zip(found) {
                if let Some(answers) = answers.get_mut(at) {
                    *answers = found;
                }
            }
            open = rest.into_iter().chain(others).collect();
        }
        answers
    }
}
