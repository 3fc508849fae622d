//! `shieldgate heads fit`: labelled texts in, `heads.json` for a model out.

mod rows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use conf::{Conf, Subcommands};
use serde_json::json;
use shieldgate_models::Digest;
use shieldgate_models::fitting::{Fitted, OutOfFold, Recipe, fit_all};
use shieldgate_models::graph::text::Tap;
use shieldgate_models::judges::gemma3::heads::{Calibration, Head, Heads, Layer, Named, Stretches};
use shieldgate_models::judges::gemma3::{Pooling, Pools, Reader, layers_of, model_digest};
use shieldgate_models::measures::{Interval, Ranking, Samples, Scored, intervals};
use shieldgate_models::runtime::{DeviceChoice, Runtime};

use self::rows::{Read, Source};
use super::progress::Counting;
use super::{Failed, output};
use crate::assets::Assets;
use crate::config::Common;
use crate::policy::{Modality, Policy};

#[derive(Conf)]
pub(super) struct HeadsArgs {
    #[conf(subcommands)]
    command: HeadsCommand,
}

#[derive(Subcommands)]
enum HeadsCommand {
    /// Fit a small linear head for each policy that names one, on labelled texts, and write `heads.json`, which
    /// belongs beside the model.
    Fit(Fit),
}

#[derive(Conf)]
struct Fit {
    #[conf(flatten)]
    common: Common,
    /// Labelled texts, a row a line: `{"text": "…", "labels": {"hate": 1, "violence": 0}}`, where a label that is
    /// absent says nothing and `"safe": 1` is harmless in every way. May stand several times.
    #[arg(repeat, long)]
    data: Vec<PathBuf>,
    /// A folder of policy files, or one file; the shipped policies where absent. Each policy for texts that names
    /// a head gets one; labels are a policy's by its id or its OpenAI categories.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// The model: its folder, or its name among those installed.
    #[arg(long, default_value = "gemma3")]
    model: String,
    /// Where hidden states are read: after so many layers, or `final`; 4/9 and 2/3 of the layers and `final` where
    /// absent.
    #[arg(long)]
    layers: Option<String>,
    /// The weight of the loss against that of the regularisation.
    #[arg(long, default_value = "0.002")]
    c: f64,
    /// Folds of the trial on rows that a fit has not seen, which calibration and measures come from.
    #[arg(long, default_value = "10")]
    folds: usize,
    /// Tokens of the stretches that a head looks at beside the whole text; 0 for none.
    #[arg(long, default_value = "24")]
    stretch_tokens: usize,
    /// What is taken off a stretch's logit.
    #[arg(long, default_value = "4.0")]
    stretch_margin: f32,
    /// Where models run: `auto`, `cpu`, `cuda:N`.
    #[arg(long, env = "SHIELDGATE_DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Threads of the model's session; 0 for one a core.
    #[arg(long, env = "SHIELDGATE_THREADS", default_value = "0")]
    threads: usize,
    /// The file to write.
    #[arg(long, default_value = "heads.json")]
    out: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum HeadsError {
    #[error("no data is named\n  hint: `--data ROWS.jsonl`")]
    NoData,
    #[error(
        "no policy for texts names a head\n  hint: `head: NAME` under a judge, in the files of `--policies`"
    )]
    NoHead,
    #[error("the policies `{first}` and `{second}` name one head, `{head}`, and their labels may differ")]
    HeadTwice { head: String, first: String, second: String },
    #[error("there is no model `{model}`\n  hint: name its folder, or one of `shieldgate models list`")]
    NoModel { model: String },
    #[error("`--layers`: `{found}` is none of 0 to {most} and `final`")]
    Layer { found: String, most: usize },
    #[error("{of} can't be fitted")]
    Fit {
        of: String,
        #[source]
        source: shieldgate_models::fitting::FitError,
    },
    #[error("`{}` can't be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl HeadsArgs {
    pub(super) fn common(&self) -> &Common {
        match &self.command {
            HeadsCommand::Fit(fit) => &fit.common,
        }
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failed> {
        match self.command {
            // Not here: Ctrl-C would wait for an hour of reading.
            HeadsCommand::Fit(fit) => tokio::task::spawn_blocking(move || fit.run()).await??,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Fit {
    fn run(&self) -> Result<(), Failed> {
        if self.data.is_empty() {
            return Err(HeadsError::NoData.into());
        }
        let wanted = self.wanted()?;
        let assets = Assets::find(self.common.assets.as_deref())?;
        let folder = self.folder(&assets)?;
        let taps = self.taps(layers_of(&folder)?)?;
        let model = model_digest(&folder)?;

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { cores } else { self.threads };
        let runtime = Runtime::load(&assets.onnxruntime_library()?, self.device, threads)?;
        let policies: Vec<&Policy> = wanted.iter().map(|(_, policy)| policy).collect();
        let read = self.read(&runtime, &folder, &taps, &policies)?;

        let recipe = Recipe { c: self.c, folds: self.folds, ..Recipe::default() };
        let fits = (recipe.folds as u64 + 1) * (wanted.len() as u64 + 1);
        let progress = Counting::new("fits", fits);
        let fitted =
            fit_all(&read.features, &read.known, &read.groups, &recipe, &mut |_, _| progress.advance());
        drop(progress);
        let fitted = fitted.map_err(|source| self.named(&wanted, source))?;

        let layers: Vec<Layer> = taps.into_iter().map(Layer::from).collect();
        let stretches = (self.stretch_tokens > 0)
            .then_some(Stretches { tokens: self.stretch_tokens, margin: self.stretch_margin });
        let mut heads = BTreeMap::new();
        let mut table = vec![row("any harm", &fitted.first().map(measured).unwrap_or_default())];
        for ((name, _), fitted) in wanted.iter().zip(fitted.iter().skip(1)) {
            let found = measured(fitted);
            table.push(row(name, &found));
            let head = head_of(fitted, model, &layers, stretches, &read.sources, &recipe, &found);
            heads.insert(name.clone(), head.map_err(|source| self.named(&wanted, source))?);
        }
        self.write(&Heads::of(heads))?;
        output::table(&["HEAD", "ROWS", "POSITIVE", "AU-PRC", "AUROC"], &table);
        output::note(format_args!(
            "measured on rows that the fit had not seen, {} folds; heads of model {model} in `{}`",
            self.folds,
            self.out.display()
        ));
        Ok(())
    }

    /// The heads by name, each with the policy whose labels it learns.
    fn wanted(&self) -> Result<Vec<(String, Policy)>, Failed> {
        let policies = match &self.policies {
            Some(path) => super::policies::read(path)?,
            None => super::policies::shipped()?,
        };
        let mut wanted: BTreeMap<String, Policy> = BTreeMap::new();
        for policy in policies.into_iter().filter(|policy| policy.modality == Modality::Text) {
            let Some(head) = policy.judges.iter().find_map(|judge| judge.head.clone()) else { continue };
            let second = policy.id.clone();
            if let Some(first) = wanted.insert(head.clone(), policy) {
                return Err(HeadsError::HeadTwice { head, first: first.id, second }.into());
            }
        }
        if wanted.is_empty() {
            return Err(HeadsError::NoHead.into());
        }
        Ok(wanted.into_iter().collect())
    }

    /// A base model without heads is no judge yet, so it need not be installed.
    fn folder(&self, assets: &Assets) -> Result<PathBuf, Failed> {
        let path = Path::new(&self.model);
        if path.is_dir() {
            return Ok(path.to_path_buf());
        }
        let records = shieldgate_models::installed::Installed::list(&self.common.data_dir.join("models"))?;
        let added = records.into_iter().find(|record| record.name == self.model).map(|record| record.folder);
        let shipped = || Some(assets.models_dir().join(path)).filter(|folder| folder.is_dir());
        let named = path.components().count() == 1;
        let found = added.or_else(|| shipped().filter(|_| named));
        Ok(found.ok_or_else(|| HeadsError::NoModel { model: self.model.clone() })?)
    }

    fn taps(&self, layers: usize) -> Result<Vec<Tap>, HeadsError> {
        let Some(named) = &self.layers else {
            let mut taps = vec![Tap::Layer(layers * 4 / 9), Tap::Layer(layers * 2 / 3), Tap::Final];
            taps.dedup();
            return Ok(taps);
        };
        let tap = |found: &str| match (found, found.parse()) {
            ("final", _) => Ok(Layer::Named(Named::Final).into()),
            (_, Ok(after)) if after <= layers => Ok(Tap::Layer(after)),
            _ => Err(HeadsError::Layer { found: found.to_owned(), most: layers }),
        };
        named.split(',').map(str::trim).map(tap).collect()
    }

    fn read(
        &self,
        runtime: &Arc<Runtime>,
        folder: &Path,
        taps: &[Tap],
        policies: &[&Policy],
    ) -> Result<Read, Failed> {
        let sources = self.data.iter().map(|path| Source::open(path)).collect::<Result<Vec<_>, _>>()?;
        let pools = Pools { whole: vec![Pooling::Mean], stretches: Vec::new() };
        let reader = Reader::open(runtime, folder, taps.to_vec(), pools)?;
        let progress = Counting::new("texts", sources.iter().map(|source| source.rows).sum());
        rows::read(&reader, sources, policies, &|| progress.advance())
    }

    /// An error of a fit with the head's name for its number.
    fn named(&self, wanted: &[(String, Policy)], source: shieldgate_models::fitting::FitError) -> HeadsError {
        use shieldgate_models::fitting::FitError;
        match source {
            FitError::Category { category, source } => {
                let name = wanted.get(category).map_or("", |(name, _)| name.as_str());
                HeadsError::Fit { of: format!("head `{name}`"), source: *source }
            }
            source => HeadsError::Fit { of: "any harm".to_owned(), source },
        }
    }

    /// Whole or not at all.
    fn write(&self, heads: &Heads) -> Result<(), HeadsError> {
        let write = |source| HeadsError::Write { path: self.out.clone(), source };
        let mut body = serde_json::to_vec(heads).map_err(|error| write(error.into()))?;
        body.push(b'\n');
        let partial = self.out.with_extension(format!("json.{}", std::process::id()));
        std::fs::write(&partial, body).and_then(|()| std::fs::rename(&partial, &self.out)).map_err(write)
    }
}

/// What a head reached on rows that its fit had not seen.
#[derive(Default)]
struct Measured {
    rows: usize,
    positives: usize,
    au_prc: Option<(f64, Interval)>,
    auroc: Option<(f64, Interval)>,
}

fn measured(fitted: &Fitted) -> Measured {
    let scored =
        |one: &OutOfFold| Scored { probability: fitted.platt.probability(one.logit), positive: one.positive };
    let scored: Vec<Scored> = fitted.out_of_fold.iter().map(scored).collect();
    let Ok(ranking) = Ranking::new(&scored) else { return Measured::default() };
    let (areas, around) = (ranking.areas(), intervals(&ranking, &[], Samples::default()));
    let both = areas.zip(around);
    Measured {
        rows: ranking.rows(),
        positives: ranking.positives(),
        au_prc: both.as_ref().map(|(areas, around)| (areas.precision_recall, around.precision_recall)),
        auroc: both.as_ref().map(|(areas, around)| (areas.roc, around.roc)),
    }
}

fn row(name: &str, found: &Measured) -> Vec<String> {
    let area = |area: &Option<(f64, Interval)>| {
        area.map_or_else(String::new, |(area, Interval { low, high })| {
            format!("{area:.3} [{low:.3} {high:.3}]")
        })
    };
    let counts = [found.rows, found.positives].map(|count| count.to_string());
    [name.to_owned()].into_iter().chain(counts).chain([area(&found.au_prc), area(&found.auroc)]).collect()
}

fn head_of(
    fitted: &Fitted,
    model: Digest,
    layers: &[Layer],
    stretches: Option<Stretches>,
    sources: &[Source],
    recipe: &Recipe,
    found: &Measured,
) -> Result<Head, shieldgate_models::fitting::FitError> {
    let (weights, bias) = fitted.linear.rounded()?;
    let sources: Vec<_> = sources
        .iter()
        .map(|source| json!({"file": source.name(), "sha256": source.sha256, "rows": source.rows}))
        .collect();
    let area = |area: &Option<(f64, Interval)>| {
        area.map(|(area, Interval { low, high })| json!({"is": area, "low": low, "high": high}))
    };
    Ok(Head {
        model,
        layers: layers.to_vec(),
        pooling: Pooling::Mean,
        stretches,
        weights,
        bias,
        calibration: Calibration { scale: fitted.platt.scale as f32, offset: fitted.platt.offset as f32 },
        trained: json!({
            "data": sources,
            "rows": found.rows,
            "positives": found.positives,
            "c": recipe.c,
            "folds": recipe.folds,
            "seed": recipe.seed,
            "out_of_fold": {"au_prc": area(&found.au_prc), "auroc": area(&found.auroc)},
        }),
    })
}
