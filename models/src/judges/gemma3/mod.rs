//! The Gemma 3 judge: a text and a policy in, the probability that one breaks the other out. Gemma 2 (ShieldGemma 1)
//! is the same with other numbers.
//!
//! Two ways to ask, as the policy says. One that names a head of `heads.json` is judged by that: one pass over the
//! text serves all heads. Any other is asked in words, where the checkpoint has a chat template: P(violation) is
//! the `Yes` of `Yes` and `No` at the prompt's last position.
//!
//! In words there are two orders, taken by a text's length alone, so that an answer depends on nothing but
//! the text and the question: short texts come behind the policy, whose keys and values are kept; long ones
//! before it, and are read once for all policies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::weights::multiplies_bytes;
use crate::graph::text::{Reads, Tap};
use crate::graph::{GRAPH_VERSION, text as graph};
use crate::installed::{Checked, FileRecord, ModelError};
use crate::judge::{calibrated, texts};
use crate::judges::Kind;
use crate::prompt::PromptError;
use crate::prompt::text::{Around, TextTemplate, fenced};
use crate::runtime::Runtime;
use crate::{
    Answer, Asked, Content, Failure, Judge, JudgeCard, Modality, Picture, PolicyText, Question,
    QuestionError, Stop,
};

mod asking;
mod checkpoint;
mod decoder;
pub mod heads;
mod packing;
mod prefixes;
mod prompted;
mod reader;

use asking::Asking;
use checkpoint::{Checkpoint, digest_of};
pub use checkpoint::{layers_of, model_digest};
pub use decoder::Pooling;
use decoder::Reading;
use heads::{Head, Heads, Stretches};
use prefixes::Prefixes;
use prompted::Prompted;
use reader::failed;
pub use reader::{Pools, Reader};

/// Raised with every change to how texts or prompts are prepared.
const PREPARATION_VERSION: u32 = 1;

/// What the graphs compute in, which is the processor's to choose for blocks of a GGUF ([`crate::checkpoint::weights::BlocksAs`]): so processes
/// on unlike machines are unlike judges.
fn precision() -> &'static str {
    if multiplies_bytes() { "fp32, blocks by 8 bits" } else { "fp32, blocks by 8 bits where there are many" }
}

/// Texts a batch; the model takes them by length, in batches of its own.
const TEXTS_MAX: usize = 32;

/// What a checkpoint may lack, whichever of it is read in the end.
const OPTIONAL: &[&str] = &[
    heads::FILE,
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
];

pub const KIND: Kind = Kind {
    name: "gemma3",
    modality: Modality::Text,
    looks_like: "a Gemma checkpoint that reads texts (`config.json` with `model_type: gemma3_text`, `gemma3` or \
                 `gemma2`, safetensors, tokenizer; or one GGUF file of a Gemma 3)",
    recognises: checkpoint::is_in,
    check,
    optional: OPTIONAL,
    method: || {
        let (graph, precision) = (graph::VERSION, precision());
        format!("graph v{GRAPH_VERSION}.{graph}, preparation v{PREPARATION_VERSION}, {precision}")
    },
    open: |runtime, folder, card| Ok(Box::new(Gemma3::open(runtime, folder, card)?)),
};

/// How a folder's model is asked: what is read from it for that.
struct Ways {
    heads: BTreeMap<String, Head>,
    reads: Reads,
    pools: Pools,
}

impl Ways {
    fn read(folder: &Path, checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let heads = Heads::read(folder, &checkpoint.text)?;
        let (mut reads, pools) = heads.as_ref().map(Heads::reads).unwrap_or_default();
        if let Some(template) = &checkpoint.template {
            reads.answers = vec![checkpoint.single("Yes")?, checkpoint.single("No")?];
            let refuse = |error: PromptError| CheckpointError::Template {
                path: template.files().first().map(|file| folder.join(file)).unwrap_or_default(),
                reason: error.to_string(),
            };
            let prompt = template.render("No test.").map_err(refuse)?;
            Around::of(&checkpoint.tokenizer, &prompt.prompt).map_err(refuse)?;
        }
        let heads = heads.map(|heads| heads.heads).unwrap_or_default();
        if heads.is_empty() && checkpoint.template.is_none() {
            let reason = "there is neither a head for a policy in it nor a chat template beside it, so that the \
                          model can't be asked; add the checkpoint's own chat template, or heads";
            return Err(ModelError::broken(&folder.join(heads::FILE), reason));
        }
        Ok(Self { heads, reads, pools })
    }
}

fn check(folder: &Path) -> Result<Checked, ModelError> {
    let checkpoint = Checkpoint::read(folder)?;
    let ways = Ways::read(folder, &checkpoint)?;
    checkpoint.graph(&ways.reads)?;
    let record = |file: PathBuf| FileRecord::of(folder, file);
    let mut files = checkpoint.files.into_iter().map(record).collect::<Result<Vec<_>, _>>()?;
    if let Some(heads) = Heads::read(folder, &checkpoint.text)? {
        heads.check_model(folder, digest_of(&files))?;
    }
    let beside = OPTIONAL.iter().map(PathBuf::from).filter(|file| folder.join(file).is_file());
    for file in beside {
        if !files.iter().any(|known| known.path == file) {
            files.push(record(file)?);
        }
    }
    let about = checkpoint.about;
    Ok(Checked { name: about.name, demo: about.demo, files })
}

pub struct Gemma3 {
    card: JudgeCard,
    reader: Reader,
    heads: BTreeMap<String, Head>,
    template: Option<TextTemplate>,
    prefixes: Prefixes,
}

/// A question, ready to be answered.
enum Way<'a> {
    Head(&'a Head),
    Prompt(Prompted),
}

/// One text of a batch, and what is asked about it.
pub(super) type AskedText<'a> = (&'a str, &'a [Question]);

impl Gemma3 {
    /// The folder is as it was when it was checked: which model the heads belong to is not looked at again.
    pub fn open(runtime: &Arc<Runtime>, folder: &Path, card: JudgeCard) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::read(folder)?;
        let Ways { heads, reads, pools } = Ways::read(folder, &checkpoint)?;
        let template = checkpoint.template.take();
        let reader = Reader::over(runtime, checkpoint, reads, pools)?;
        Ok(Self { card, reader, heads, template, prefixes: Prefixes::default() })
    }

    /// For tests, which compare: so many tokens of a text a pass.
    pub fn with_piece(mut self, tokens: usize) -> Self {
        self.reader = self.reader.with_piece(tokens);
        self
    }

    /// For each text one answer per question, in their order. They depend on the other texts by rounding
    /// alone.
    fn answer_batch(&self, batch: &[AskedText<'_>], stop: &Stop) -> Vec<Vec<Answer>> {
        let mut ways = BTreeMap::new();
        for question in batch.iter().flat_map(|(_, questions)| *questions) {
            ways.entry(question.hash).or_insert_with(|| self.way(question));
        }
        let way = |question: &Question| match ways.get(&question.hash) {
            Some(Ok(way)) => Ok(way),
            Some(Err(failure)) => Err(failure.clone()),
            None => Err(Failure::Runtime("the question was not read".to_owned())),
        };
        // The two ways share the model, and each goes through all texts at once.
        let headed = |question: &Question| match way(question) {
            Ok(Way::Head(head)) => Some(*head),
            _ => None,
        };
        let prompted = |question: &Question| match way(question) {
            Ok(Way::Prompt(prompt)) => Some(prompt),
            _ => None,
        };
        let by_head = self.by_head(batch, &headed, stop);
        let by_prompt = self.by_prompt(batch, &prompted, stop);
        let answers = batch.iter().zip(by_head.into_iter().zip(by_prompt));
        answers
            .map(|((_, questions), (by_head, by_prompt))| {
                let each = questions.iter().zip(by_head.into_iter().zip(by_prompt));
                each.map(|(question, (by_head, by_prompt))| {
                    way(question)?;
                    let logits = by_head.or(by_prompt);
                    let unread = || Failure::Runtime("the question was not asked".to_owned());
                    let [yes, no] = logits.ok_or_else(unread)??;
                    calibrated(yes, no, question.temperature, question.alpha)
                })
                .collect()
            })
            .collect()
    }

    fn way(&self, question: &Question) -> Result<Way<'_>, Failure> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::Runtime(format!("the question is none that this judge asks: {error}"))
        };
        match Asking::of(&question.asked).map_err(|error| unreadable(&error))? {
            Asking::Head { name, head: digest, .. } => {
                let head = self.heads.get(&name).filter(|head| head.digest() == digest);
                let gone = || unreadable(&format!("`{}` has no head `{name}` {digest}", heads::FILE));
                head.map(Way::Head).ok_or_else(gone)
            }
            Asking::Prompt(prompt) => {
                let prompted = Prompted::of(&self.reader.tokenizer, &prompt);
                prompted.map(Way::Prompt).map_err(|error| unreadable(&error))
            }
        }
    }

    fn known_heads(&self) -> String {
        let known: Vec<&str> = self.heads.keys().map(String::as_str).collect();
        format!(
            "its `{}` has: {}",
            heads::FILE,
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )
    }

    /// Logits of the questions that heads answer; `None` for all others.
    fn by_head<'a>(
        &self,
        batch: &[AskedText<'_>],
        headed: &dyn Fn(&Question) -> Option<&'a Head>,
        stop: &Stop,
    ) -> Vec<Vec<Option<Logits>>> {
        let asked = |questions: &[Question]| questions.iter().any(|question| headed(question).is_some());
        let ids: Vec<Option<Result<Vec<u32>, Failure>>> =
            batch.iter().map(|(text, questions)| asked(questions).then(|| self.reader.ids(text))).collect();
        let wanted: Vec<Result<Vec<u32>, Failure>> = ids.iter().flatten().cloned().collect();
        let _span =
            (!wanted.is_empty()).then(|| tracing::info_span!("heads", texts = wanted.len()).entered());
        let mut readings = self.reader.read_all(&wanted, stop).into_iter();
        let mut of_text = |(ids, (_, questions)): (&Option<_>, &AskedText<'_>)| {
            let reading = ids.as_ref().and_then(|_| readings.next());
            let logits = |question: &Question| {
                let head = headed(question)?;
                let reading = reading.as_ref()?.as_ref();
                Some(reading.map_err(Clone::clone).map(|reading| [self.logit(head, reading), 0.0]))
            };
            questions.iter().map(logits).collect()
        };
        ids.iter().zip(batch).map(&mut of_text).collect()
    }

    /// A head's logit over what was read for all heads: the whole text's, or a stretch's that is above it by the
    /// head's margin.
    fn logit(&self, head: &Head, reading: &Reading) -> f64 {
        let Reader { text, taps, pools, .. } = &self.reader;
        let of_pool = |pool: usize| {
            let of_layer = move |layer: &heads::Layer| {
                let tap = taps.iter().position(|tap| *tap == Tap::from(*layer)).unwrap_or_default();
                reading.pooled.iter().skip((tap * reading.pools.len() + pool) * text.hidden).take(text.hidden)
            };
            head.logit(head.layers.iter().flat_map(of_layer))
        };
        let whole = pools.whole.iter().position(|pooling| *pooling == head.pooling).unwrap_or_default();
        let whole = of_pool(whole);
        let Some(Stretches { tokens, margin }) = head.stretches else { return whole };
        let stretches = reading.pools.iter().enumerate().skip(pools.whole.len());
        let of_size = stretches.filter(|(_, stretch)| stretch.tokens.len() == tokens);
        // A NaN among them must stay one.
        of_size
            .map(|(at, _)| of_pool(at) - f64::from(margin))
            .fold(whole, |worst, logit| if worst >= logit || worst.is_nan() { worst } else { logit })
    }
}

/// For and against; a head's is against nothing.
type Logits = Result<[f64; 2], Failure>;

impl Judge for Gemma3 {
    fn card(&self) -> &JudgeCard {
        &self.card
    }

    /// `asked` is JSON: the head, or the rendered prompts with the text's place marked.
    fn question(&self, policy: &PolicyText<'_>) -> Result<Question, QuestionError> {
        let refuse = |reason: String| QuestionError {
            judge: self.card.name.clone(),
            policy: policy.id.to_owned(),
            reason,
        };
        let asking = match (policy.head, &self.template) {
            (Some(name), _) => match self.heads.get(name) {
                Some(head) => Asking::head(name, head),
                None => return Err(refuse(format!("it has no head `{name}`; {}", self.known_heads()))),
            },
            (None, Some(template)) => {
                if policy.text.trim().is_empty() {
                    return Err(refuse("it has no text, and a prompted judge asks by the text".to_owned()));
                }
                let prompt = template.render(policy.text).map_err(|error| refuse(error.to_string()))?;
                // A prompt that can't be run is refused now, not at the first text.
                let prompted = Prompted::of(&self.reader.tokenizer, &prompt);
                let prompted = prompted.map_err(|error| refuse(error.to_string()))?;
                // Half of what the model can read is left for texts.
                let (longest, max) = (prompted.longest(), self.reader.text.positions / 2);
                if longest > max {
                    return Err(refuse(format!("its prompt has {longest} tokens; {max} are allowed")));
                }
                let (largest, vocabulary) = (prompted.largest(), self.reader.text.vocabulary);
                if largest as usize >= vocabulary {
                    let reason = format!("its prompt has the token {largest}; the model knows {vocabulary}");
                    return Err(refuse(reason));
                }
                Asking::Prompt(prompt)
            }
            (None, None) => {
                return Err(refuse(format!(
                    "without a chat template the model can't be asked in words; let the policy name a head under \
                     the judge (`head: NAME`); {}",
                    self.known_heads()
                )));
            }
        };
        let asked = asking.text().map_err(|error| refuse(error.to_string()))?;
        Ok(Question::new(asked, policy.temperature, policy.alpha))
    }

    fn batch_max(&self) -> usize {
        TEXTS_MAX
    }

    /// Tokens: those of the text alone, whatever is asked about it.
    fn work(&self, content: Content<'_>) -> usize {
        match content {
            Content::Text(text) => self.reader.ids(text).map_or(1, |ids| ids.len()),
            Content::Picture(_) => 1,
        }
    }

    fn reduced(&self, _: &Picture) -> Option<Picture> {
        None
    }

    fn judge_batch(&self, batch: &[Asked<'_>], stop: &Stop) -> Vec<Vec<Answer>> {
        match texts(batch) {
            Ok(texts) => {
                let questions = batch.iter().map(|asked| asked.questions);
                let batch: Vec<AskedText<'_>> = texts.into_iter().zip(questions).collect();
                self.answer_batch(&batch, stop)
            }
            Err(failed) => failed,
        }
    }
}
