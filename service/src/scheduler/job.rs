//! One content on its way through a judge: its views, what is asked, and the answers as they come in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shieldgate_models::{Answer, Content, Failure, Picture, Probability, Question};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Span;

use super::Refused;
use super::prepared::Prepared;
use crate::verdict::{FrameScore, Worst};

/// One judge's answer to one question about all views of a content.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub probability: Probability,
    pub worst: Worst,
    /// Of an animation, each frame that was looked at, the worst first; empty for a still picture.
    pub frames: Vec<FrameScore>,
}

/// In the order of the questions.
pub type Answers = Vec<Result<Scored, Failure>>;

/// One thing to judge, and where in the content it stands.
#[derive(Debug, Clone)]
pub struct View {
    pub shown: Shown,
    pub place: Worst,
}

#[derive(Debug, Clone)]
pub enum Shown {
    Picture(Picture),
    Text(Arc<str>),
}

impl Shown {
    pub(super) fn content(&self) -> Content<'_> {
        match self {
            Self::Picture(picture) => Content::Picture(picture),
            Self::Text(text) => Content::Text(text),
        }
    }
}

/// Decoded pictures, and their share of the memory that all of them together may hold: a job that nobody
/// waits for any more holds it until the judge has done with it.
#[derive(Debug)]
pub struct Views {
    pub views: Vec<View>,
    pub memory: Option<OwnedSemaphorePermit>,
}

pub(super) struct Job {
    views: Arc<Views>,
    /// One a view.
    pub(super) prepared: Vec<Prepared>,
    pub(super) questions: Vec<Question>,
    left: AtomicBool,
    /// The request's; batches are linked to it.
    pub(super) span: Span,
    /// From the queue's end to its head.
    wait: Mutex<Option<Span>>,
    progress: Mutex<Progress>,
}

struct Progress {
    /// A view's answers, where it had its turn.
    found: Vec<Option<Vec<Answer>>>,
    tell: Option<oneshot::Sender<Result<Answers, Refused>>>,
}

impl Job {
    pub(super) fn new(
        views: Arc<Views>,
        prepared: Vec<Prepared>,
        questions: Vec<Question>,
    ) -> (Arc<Self>, oneshot::Receiver<Result<Answers, Refused>>) {
        let (tell, told) = oneshot::channel();
        let progress = Mutex::new(Progress { found: vec![None; views.views.len()], tell: Some(tell) });
        let wait = Mutex::new(Some(tracing::info_span!("wait")));
        let (left, span) = (AtomicBool::new(false), Span::current());
        (Arc::new(Self { views, prepared, questions, left, span, wait, progress }), told)
    }

    /// Its first view's turn has come.
    pub(super) fn begins(&self) {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Nobody waits for it any more.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Nobody waits for it, or it has its answer.
    pub(super) fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) || self.progress().tell.is_none()
    }

    pub(super) fn refuse(&self, why: Refused) {
        self.tell(Err(why));
    }

    pub(super) fn fail(&self, failure: &Failure) {
        self.tell(Ok(vec![Err(failure.clone()); self.questions.len()]));
    }

    /// A view had its turn. The last one makes the answer; so does one that fails every question, for an
    /// unscored view is never safe.
    pub(super) fn found(&self, view: usize, answers: Vec<Answer>) {
        let mut progress = self.progress();
        if let Some(place) = progress.found.get_mut(view) {
            *place = Some(answers);
        }
        let seen = progress.found.iter().flatten();
        let failed =
            |question: usize| seen.clone().any(|answers| answers.get(question).is_none_or(Result::is_err));
        let hopeless = (0..self.questions.len()).all(failed) && !self.questions.is_empty();
        if !hopeless && progress.found.iter().any(Option::is_none) {
            return;
        }
        let answers = (0..self.questions.len()).map(|question| self.worst(&progress.found, question));
        let answers = answers.collect();
        drop(progress);
        self.tell(Ok(answers));
    }

    fn worst(&self, found: &[Option<Vec<Answer>>], question: usize) -> Result<Scored, Failure> {
        // What stands at one place counts as its worst: a frame over two backgrounds, a window in two forms.
        let mut ranked: Vec<(f32, &Worst)> = Vec::new();
        for (view, answers) in self.views.views.iter().zip(found) {
            let Some(answers) = answers else { continue };
            let short = || Failure::Runtime("there were fewer answers than questions".to_owned());
            let probability = answers.get(question).cloned().ok_or_else(short)??;
            let scored = (probability.get(), &view.place);
            // Views of one place follow each other.
            match ranked.last_mut().filter(|(_, place)| place.is_at(&view.place)) {
                Some(known) if known.0 >= scored.0 => {}
                Some(known) => *known = scored,
                None => ranked.push(scored),
            }
        }
        // Stable: among equals the first stands first.
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let unseen = || Failure::Runtime("there was nothing to look at".to_owned());
        let (probability, worst) = ranked.first().copied().ok_or_else(unseen)?;
        let probability = Probability::try_from(probability)
            .map_err(|error| Failure::NotAProbability(error.to_string()))?;
        let frame = |(probability, place): &(f32, &Worst)| match place {
            Worst::Frame(at) => Some(FrameScore { probability: *probability, place: at.clone() }),
            Worst::Window(_) => None,
        };
        let frames = if ranked.len() > 1 { ranked.iter().filter_map(frame).collect() } else { Vec::new() };
        Ok(Scored { probability, worst: worst.clone(), frames })
    }

    /// The first answer counts.
    fn tell(&self, answer: Result<Answers, Refused>) {
        if let Some(tell) = self.progress().tell.take() {
            // The receiver may have gone in the meantime; then nobody needs the answer.
            drop(tell.send(answer));
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
