//! The classifier judge: any ONNX image classifier, described by a manifest and no code.
//!
//! A folder with a `judge.yaml` ([`Manifest`]) beside its `.onnx` file. The model has one image input
//! of one fixed size (batch first) and one output of one score a label. Where the batch's size is free, pictures
//! of several requests go through together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::Session;
use ort::value::TensorRef;
use serde::Deserialize;

use crate::installed::{Checked, FileRecord, ModelError};
use crate::judge::{calibrated, pictures};
use crate::judges::Kind;
use crate::resample::resize;
use crate::runtime::{Runtime, failure, stoppable};
use crate::{
    Answer, Asked, Content, Digest, Failure, Judge, JudgeCard, Modality, Picture, PolicyText, Probability,
    Question, QuestionError, Stop,
};

const MANIFEST: &str = "judge.yaml";

/// Raised with every change to how a manifest is turned into scores.
const VERSION: u32 = 1;

/// Model inputs larger than this are a slip in the manifest, not a model.
const SIDE_MAX: u32 = 4096;

pub const KIND: Kind = Kind {
    name: "classifier",
    modality: Modality::Image,
    looks_like: "`judge.yaml` beside an ONNX file (an image classifier)",
    recognises: |folder| folder.join(MANIFEST).is_file(),
    check,
    optional: &[],
    method: || format!("v{VERSION}"),
    open: |runtime, folder, card| Ok(Box::new(Classifier::open(runtime, folder, card)?)),
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `classifier`.
    pub kind: String,
    pub name: String,
    /// For showing, not for judging.
    #[serde(default)]
    pub demo: bool,
    pub license: String,
    pub source: String,
    pub model: ModelFile,
    pub input: Input,
    pub output: Output,
    /// Policy id → the labels that break it.
    pub policies: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Relative to the manifest.
    pub file: PathBuf,
    /// 64 hex digits.
    pub sha256: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub layout: Layout,
    pub channels: Channels,
    pub width: u32,
    pub height: u32,
    pub fit: Fit,
    /// A sample becomes `(sample × scale − mean) / std`; samples are 0..=255.
    pub scale: f32,
    /// In channel order.
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Input {
    /// Width and height to which a picture is squashed.
    fn squashed(&self) -> [u32; 2] {
        match self.fit {
            Fit::Squash => [self.width, self.height],
            Fit::Crop { resize } => resize,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    Nhwc,
    Nchw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    Rgb,
    Bgr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The whole picture, aspect ratio not kept.
    Squash,
    /// Squash to `resize` [width, height], then take the middle; what lies outside is not seen.
    Crop { resize: [u32; 2] },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    pub activation: Activation,
    /// One a score, in the model's order.
    pub labels: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Scores are probabilities that sum to 1.
    None,
    Softmax,
    /// Labels are independent of each other.
    Sigmoid,
}

impl Manifest {
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let manifest: Self =
            serde_saphyr::from_str(&text).map_err(|error| ModelError::broken(&path, error.to_string()))?;
        manifest.check().map_err(|reason| ModelError::broken(&path, reason))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        let side = |side: u32| (1..=SIDE_MAX).contains(&side);
        if self.kind != KIND.name {
            return Err(format!("`kind` is `{}`; expected `{}`", self.kind, KIND.name));
        }
        if !side(self.input.width) || !side(self.input.height) {
            return Err(format!("`input.width` and `input.height` must be 1 to {SIDE_MAX}"));
        }
        if let Fit::Crop { resize: [width, height] } = self.input.fit
            && !(side(width) && side(height) && width >= self.input.width && height >= self.input.height)
        {
            return Err(format!("`input.fit.crop.resize` must cover the input and be at most {SIDE_MAX}"));
        }
        let numbers = self.input.mean.iter().chain(&self.input.std).chain([&self.input.scale]);
        if numbers.into_iter().any(|number| !number.is_finite()) || self.input.std.contains(&0.0) {
            return Err("`input.scale`, `mean` and `std` must be finite, and `std` not zero".to_owned());
        }
        let mut seen = std::collections::HashSet::new();
        for label in &self.output.labels {
            if label.is_empty() || label.chars().any(char::is_control) || !seen.insert(label) {
                return Err(format!(
                    "`output.labels`: {label:?} is empty, stands twice or has control characters"
                ));
            }
        }
        for (policy, labels) in &self.policies {
            if labels.is_empty() {
                return Err(format!("`policies.{policy}` names no label"));
            }
            for label in labels {
                if !self.output.labels.contains(label) {
                    let known = self.output.labels.join("`, `");
                    return Err(format!(
                        "`policies.{policy}` names `{label}`; `output.labels` has `{known}`"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check(folder: &Path) -> Result<Checked, ModelError> {
    let manifest = Manifest::read(folder)?;
    let model = FileRecord::of(folder, &manifest.model.file)?;
    if Digest::parse(&manifest.model.sha256) != Some(model.sha256) {
        let reason = format!(
            "its SHA-256 is {}, but `{MANIFEST}` says {}: a damaged or another file",
            model.sha256.hex(),
            manifest.model.sha256
        );
        return Err(ModelError::broken(&folder.join(&manifest.model.file), reason));
    }
    let described = FileRecord::of(folder, MANIFEST)?;
    Ok(Checked { name: Some(manifest.name), demo: manifest.demo, files: vec![described, model] })
}

pub struct Classifier {
    card: JudgeCard,
    manifest: Manifest,
    input: String,
    /// Pictures a run.
    batch_max: usize,
    /// `run` wants it exclusively.
    session: Mutex<Session>,
}

/// Pictures a run where the model leaves it open: past this a batch only costs memory.
const BATCH_MAX: usize = 16;

impl Classifier {
    pub fn open(runtime: &Arc<Runtime>, folder: &Path, card: JudgeCard) -> Result<Self, ModelError> {
        let manifest = Manifest::read(folder)?;
        let path = folder.join(&manifest.model.file);
        let session = runtime.session_from_file(&path)?;
        let ([input], [_]) = (session.inputs(), session.outputs()) else {
            let reason = format!(
                "it has {} inputs and {} outputs; a classifier has one of each",
                session.inputs().len(),
                session.outputs().len()
            );
            return Err(ModelError::broken(&path, reason));
        };
        let shape = input.dtype().tensor_shape();
        let open = shape.is_some_and(|shape| shape.first().is_some_and(|batch| *batch < 0));
        let batch_max = if open { BATCH_MAX } else { 1 };
        let input = input.name().to_owned();
        let judge = Self { card, manifest, input, batch_max, session: Mutex::new(session) };
        // One run at start: a wrong layout, size or label count must show now, not at the first upload.
        let grey = Picture::from_pixels(8, 8, vec![128; 8 * 8 * 3]);
        if let Err(error) = judge.scores(&[&grey], &Stop::default()) {
            return Err(ModelError::broken(&path, format!("it can't judge a grey picture: {error}")));
        }
        Ok(judge)
    }

    /// For each picture one probability a label.
    fn scores(&self, pictures: &[&Picture], stop: &Stop) -> Result<Vec<Vec<f32>>, Failure> {
        let _span = tracing::info_span!("classify", pictures = pictures.len()).entered();
        let samples: Vec<f32> = pictures.iter().flat_map(|picture| self.samples(picture)).collect();
        let (width, height) = (i64::from(self.manifest.input.width), i64::from(self.manifest.input.height));
        let count = pictures.len() as i64;
        let shape = match self.manifest.input.layout {
            Layout::Nhwc => [count, height, width, 3],
            Layout::Nchw => [count, 3, height, width],
        };
        let options = stoppable(stop)?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |error: ort::Error| failure(&error, stop);
        let tensor = TensorRef::from_array_view((shape, samples.as_slice())).map_err(fail)?;
        let outputs =
            session.run_with_options(ort::inputs![self.input.as_str() => tensor], &*options).map_err(fail)?;
        let (_, raw) = outputs[0].try_extract_tensor::<f32>().map_err(fail)?;
        let labels = self.manifest.output.labels.len();
        if raw.len() != labels * pictures.len() {
            return Err(Failure::Runtime(format!(
                "the model gave {} scores for {} pictures, `output.labels` has {labels}",
                raw.len(),
                pictures.len()
            )));
        }
        Ok(raw.chunks(labels.max(1)).map(|raw| activated(self.manifest.output.activation, raw)).collect())
    }

    fn samples(&self, picture: &Picture) -> Vec<f32> {
        let input = &self.manifest.input;
        let [across, down] = input.squashed();
        let resized = resize(picture, across, down);
        let (left, top) = ((across - input.width) / 2, (down - input.height) / 2);
        let pixels: Vec<[f32; 3]> = resized
            .rgb()
            .chunks_exact(across as usize * 3)
            .skip(top as usize)
            .take(input.height as usize)
            .flat_map(|row| row.chunks_exact(3).skip(left as usize).take(input.width as usize))
            .map(|pixel| {
                let mut sample = [0.0; 3];
                for (channel, value) in sample.iter_mut().enumerate() {
                    let source = if input.channels == Channels::Bgr { 2 - channel } else { channel };
                    let level = f32::from(pixel.get(source).copied().unwrap_or_default());
                    *value = (level * input.scale - input.mean[channel]) / input.std[channel];
                }
                sample
            })
            .collect();
        match input.layout {
            Layout::Nhwc => pixels.into_iter().flatten().collect(),
            Layout::Nchw => (0..3).flat_map(|channel| pixels.iter().map(move |p| p[channel])).collect(),
        }
    }

    fn answer(&self, question: &Question, scores: &[f32]) -> Answer {
        let asked = question.asked.split('\n').collect::<Vec<_>>();
        let of_label = |label: &String| asked.contains(&label.as_str());
        let matching = self.manifest.output.labels.iter().zip(scores).filter(|(label, _)| of_label(label));
        let mut scores = matching.map(|(_, score)| *score).peekable();
        if scores.peek().is_none() {
            return Err(Failure::Runtime("the question names no label of this model".to_owned()));
        }
        // Exclusive labels add up; of independent ones the likeliest decides. NaN passes through
        // `sum`, but not through `max`: so it is looked for first.
        let p = match self.manifest.output.activation {
            Activation::None | Activation::Softmax => scores.sum::<f32>(),
            Activation::Sigmoid => scores.fold(0.0, |a: f32, b| if a.is_nan() || b <= a { a } else { b }),
        };
        let p = Probability::try_from(p).map_err(|error| Failure::NotAProbability(error.to_string()))?;
        let p = f64::from(p.get());
        calibrated(p.ln(), (1.0 - p).ln(), question.temperature, question.alpha)
    }
}

fn activated(activation: Activation, raw: &[f32]) -> Vec<f32> {
    match activation {
        Activation::None => raw.to_vec(),
        Activation::Sigmoid => raw.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Activation::Softmax => {
            let top = raw.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = raw.iter().map(|x| (x - top).exp()).collect();
            let total: f32 = powers.iter().sum();
            powers.iter().map(|power| power / total).collect()
        }
    }
}

impl Judge for Classifier {
    fn card(&self) -> &JudgeCard {
        &self.card
    }

    /// What is asked is the label set, one a line.
    fn question(&self, policy: &PolicyText<'_>) -> Result<Question, QuestionError> {
        policy.names_no_head(&self.card.name)?;
        let labels = self.manifest.policies.get(policy.id).ok_or_else(|| QuestionError {
            judge: self.card.name.clone(),
            policy: policy.id.to_owned(),
            reason: format!(
                "its label map has no `{}` (it has `{}`)",
                policy.id,
                self.manifest.policies.keys().cloned().collect::<Vec<_>>().join("`, `")
            ),
        })?;
        Ok(Question::new(labels.join("\n"), policy.temperature, policy.alpha))
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn work(&self, _: Content<'_>) -> usize {
        1
    }

    fn reduced(&self, picture: &Picture) -> Option<Picture> {
        let [width, height] = self.manifest.input.squashed();
        picture.is_larger_than(width, height).then(|| resize(picture, width, height))
    }

    fn judge_batch(&self, batch: &[Asked<'_>], stop: &Stop) -> Vec<Vec<Answer>> {
        let failed = |asked: &Asked<'_>, error: &Failure| vec![Err(error.clone()); asked.questions.len()];
        let mut answers = Vec::with_capacity(batch.len());
        let shown = match pictures(batch) {
            Ok(shown) => shown,
            Err(failed) => return failed,
        };
        for (batch, shown) in batch.chunks(self.batch_max).zip(shown.chunks(self.batch_max)) {
            match self.scores(shown, stop) {
                Err(error) => answers.extend(batch.iter().map(|asked| failed(asked, &error))),
                Ok(scores) => answers.extend(batch.iter().zip(&scores).map(|(asked, scores)| {
                    // A NaN anywhere means the run went wrong, whichever label it stands at.
                    if scores.iter().any(|score| score.is_nan()) {
                        return failed(asked, &Failure::NotAProbability("a score is NaN".to_owned()));
                    }
                    asked.questions.iter().map(|question| self.answer(question, scores)).collect()
                })),
            }
        }
        answers
    }
}
