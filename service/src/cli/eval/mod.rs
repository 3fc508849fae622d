//! `shieldgate eval`: labelled rows in, how good the installed judges are on them out.

mod tables;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use conf::Conf;
use futures_util::StreamExt as _;
use serde::Serialize;
use shieldgate_models::runtime::{DeviceChoice, Runtime};

use super::progress::Counting;
use super::{Failed, output};
use crate::assets::Assets;
use crate::config::Common;
use crate::evaluation::report::Answerer;
use crate::evaluation::{Collected, Content, Data, Judging, Overview, Report, Row, Score};
use crate::policy::Policy;
use crate::verdict::PolicyNotRun;

#[derive(Conf)]
pub(super) struct Eval {
    #[conf(flatten)]
    pub(super) common: Common,
    /// Labelled rows: a file with a row a line, `{"text": "…", "labels": {"hate": 1, "violence": 0}}` (or `file`,
    /// a picture's path, for `text`), or a folder of pictures, `FOLDER/violence/…` and `FOLDER/safe/…`.
    #[arg(long)]
    data: PathBuf,
    /// A folder of policy files, or one file; the shipped policies where absent.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// Where models run: `auto`, `cpu`, `cuda:N`.
    #[arg(long, env = "SHIELDGATE_DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Threads of each model session; 0 for one a core.
    #[arg(long, env = "SHIELDGATE_THREADS", default_value = "0")]
    threads: usize,
    /// Samples that each interval is drawn from.
    #[arg(long, default_value = "2000")]
    samples: usize,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Write a picture of curves and calibration to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write every probability to this file, one a line: row, policy, judge, label, probability.
    #[arg(long)]
    scores: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum EvalError {
    #[error("`{}` can't be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "no policy is for {modality}s, and the rows are\n  hint: name policies for them with `--policies DIR`"
    )]
    NoPolicy { modality: &'static str },
    #[error("no policy can be judged: {reasons}\n  hint: `shieldgate models add` adds a judge")]
    NotRun { reasons: String },
    #[error("none of the rows was judged: {why}")]
    NothingJudged { why: String },
}

/// A line of `--scores`.
#[derive(Serialize)]
struct ScoreLine<'a> {
    row: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
    policy: &'a str,
    judge: &'a str,
    label: Option<u8>,
    probability: f32,
}

impl Eval {
    pub(super) async fn run(self) -> Result<ExitCode, Failed> {
        let path = self.data.clone();
        let (data, overview) = off_the_async_threads(move || {
            let data = Data::open(&path)?;
            let overview = data.overview()?;
            Ok((data, overview))
        })
        .await?;
        let (judging, not_run, runtime) = self.judging(&overview).await?;
        for policy in &not_run {
            output::note(format_args!("policy `{}` is not run: {}", policy.policy, policy.reason));
        }
        // Before an hour is spent on what can't be written.
        let picture = self.svg.as_deref().map(create).transpose()?;
        let scores = self.scores.as_deref().map(create).transpose()?;

        let scored = self.score(&data, &overview, &judging, scores).await;
        judging.shut_down().await;
        let collected = scored?;
        let samples = self.samples;
        let mut report = off_the_async_threads(move || Ok(collected.report(samples)?)).await?;
        report.data = self.data.display().to_string();
        report.runtime = runtime.version().to_owned();
        report.device = runtime.device();
        report.labels_of_no_policy = Data::of_no_policy(&overview.names, judging.policies());
        report.policies_not_run = not_run;
        report.judges = answerers(&judging);
        self.tell(&report)?;
        if let (Some(mut file), Some(path)) = (picture, &self.svg) {
            let written = file.write_all(report.svg().as_bytes()).and_then(|()| file.flush());
            written.map_err(|source| EvalError::Write { path: path.clone(), source })?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The judges of the policies for what the rows are, opened as `serve` opens them.
    async fn judging(
        &self,
        overview: &Overview,
    ) -> Result<(Judging, Vec<PolicyNotRun>, std::sync::Arc<Runtime>), Failed> {
        let mut policies: Vec<Policy> = match &self.policies {
            Some(path) => super::policies::read(path)?,
            None => super::policies::shipped()?,
        };
        policies.retain(|policy| policy.modality == overview.modality);
        if policies.is_empty() {
            return Err(EvalError::NoPolicy { modality: overview.modality.word() }.into());
        }
        let assets = Assets::find(self.common.assets.as_deref())?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { cores } else { self.threads };
        let runtime = Runtime::load(&assets.onnxruntime_library()?, self.device, threads)?;
        let installed = super::models::all(&self.common, &assets)?;
        let (opening, loading) = (policies.clone(), runtime.clone());
        // Not here: Ctrl-C would wait for gigabytes to be read.
        let (judges, mut resolved) = off_the_async_threads(move || {
            let judges = super::models::open_for(&loading, &installed, &opening)?;
            let resolved = super::policies::resolve(&opening, &judges, &installed)?;
            Ok((judges, resolved))
        })
        .await?;
        let not_run: Vec<PolicyNotRun> = resolved.iter().filter_map(|active| active.not_run()).collect();
        resolved.retain(|active| !active.asked.is_empty());
        if resolved.is_empty() {
            let reasons: Vec<String> =
                not_run.iter().map(|policy| format!("`{}`: {}", policy.policy, policy.reason)).collect();
            return Err(EvalError::NotRun { reasons: reasons.join("; ") }.into());
        }
        Ok((Judging::start(judges, resolved, overview.modality).await?, not_run, runtime))
    }

    async fn score(
        &self,
        data: &Data,
        overview: &Overview,
        judging: &Judging,
        mut scores: Option<BufWriter<File>>,
    ) -> Result<Collected, Failed> {
        let mut collected = Collected::new(judging.policies());
        let progress = Counting::new("rows", overview.rows);
        let answers = futures_util::stream::iter(data.rows()?).map(async |row| {
            let row: Row = row?;
            let answer = judging.answer(&row.content).await;
            Ok::<_, Failed>((row, answer?))
        });
        // In their order, so that the same rows give the same report.
        let mut answers = std::pin::pin!(answers.buffered(judging.at_once()));
        while let Some(answered) = answers.next().await {
            let (row, answer) = answered?;
            let mut written = Ok(());
            collected.add(judging.policies(), &data.place(&row), &row.labels, &answer, &mut |score| {
                if let (Some(to), true) = (scores.as_mut(), written.is_ok()) {
                    written = write_score(to, &row, score);
                }
            });
            written.map_err(|source| self.scores_unwritten(source))?;
            progress.advance();
        }
        if let Some(to) = &mut scores {
            to.flush().map_err(|source| self.scores_unwritten(source))?;
        }
        Ok(collected)
    }

    fn scores_unwritten(&self, source: std::io::Error) -> EvalError {
        EvalError::Write { path: self.scores.clone().unwrap_or_default(), source }
    }

    fn tell(&self, report: &Report) -> Result<(), Failed> {
        for (unanswered, what) in
            [(&report.refused, "refused"), (&report.failed, "not judged by every policy")]
        {
            if unanswered.rows > 0 {
                output::note(format_args!("{} of {} rows were {what}:", unanswered.rows, report.rows));
                unanswered.first.iter().for_each(|row| output::note(format_args!("  {row}")));
            }
        }
        if report.refused.rows + report.failed.rows == report.rows {
            let first = report.refused.first.iter().chain(&report.failed.first).next().cloned();
            return Err(EvalError::NothingJudged { why: first.unwrap_or_default() }.into());
        }
        if !report.labels_of_no_policy.is_empty() {
            let names = report.labels_of_no_policy.join(", ");
            output::note(format_args!("labels that are of no policy count for any harm alone: {names}"));
        }
        if report.judges.iter().any(|judge| judge.demo) {
            output::note("a demo judge answered: these numbers say nothing of a real one");
        }
        if self.json {
            return output::json(report);
        }
        tables::show(report);
        Ok(())
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, EvalError> {
    let file = File::create(path).map_err(|source| EvalError::Write { path: path.to_path_buf(), source })?;
    Ok(BufWriter::new(file))
}

fn write_score(to: &mut BufWriter<File>, row: &Row, score: Score<'_>) -> std::io::Result<()> {
    let file = match &row.content {
        Content::Picture(file) => Some(file.as_path()),
        Content::Text(_) => None,
    };
    let Score { policy, judge, probability, label } = score;
    let line = ScoreLine { row: row.number, file, policy, judge, label: label.map(u8::from), probability };
    serde_json::to_writer(&mut *to, &line)?;
    to.write_all(b"\n")
}

fn answerers(judging: &Judging) -> Vec<Answerer> {
    let asked = judging.policies().iter().flat_map(|active| &active.asked);
    let mut names: Vec<&str> = asked.map(|asked| asked.judge.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let cards = names.into_iter().filter_map(|name| judging.card(name));
    cards
        .map(|card| Answerer { name: card.name.clone(), digest: card.digest.to_string(), demo: card.demo })
        .collect()
}

async fn off_the_async_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await?
}
