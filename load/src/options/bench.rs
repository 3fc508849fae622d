//! The benchmarks' options.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use conf::Conf;

use super::OwnGate;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BenchName {
    Concurrency,
    Lanes,
    Recall,
    Texts,
}

impl BenchName {
    pub(crate) const ALL: [Self; 4] = [Self::Concurrency, Self::Lanes, Self::Recall, Self::Texts];
}

impl FromStr for BenchName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "concurrency" => Ok(Self::Concurrency),
            "lanes" => Ok(Self::Lanes),
            "recall" => Ok(Self::Recall),
            "texts" => Ok(Self::Texts),
            _ => {
                Err(format!("`{text}` is no benchmark: expected `concurrency`, `lanes`, `recall` or `texts`"))
            }
        }
    }
}

#[derive(Conf, Debug)]
pub(crate) struct Bench {
    #[conf(flatten)]
    pub(crate) own: OwnGate,
    /// Rounds, each with every side of the ratio in turn; 5 to 100.
    #[arg(long, default_value = "5")]
    pub(crate) rounds: usize,
    /// How long one side of one round takes, in seconds.
    #[arg(long, default_value = "8")]
    pub(crate) seconds: u64,
    /// The judge of pictures whose batches are counted.
    #[arg(long, default_value = "open-nsfw")]
    pub(crate) judge: String,
    /// The judge of texts whose batches are counted.
    #[arg(long, default_value = "gemma3")]
    pub(crate) text_judge: String,
    /// `pgbench`; the one beside the gate's own Postgres where absent.
    #[arg(long)]
    pub(crate) pgbench: Option<PathBuf>,
    /// The picture that `recall` uploads; a photograph of 64 KB that comes with the program where absent.
    #[arg(long)]
    pub(crate) picture: Option<PathBuf>,
    /// End with exit code 1 where a bound is missed.
    #[arg(long)]
    pub(crate) enforce: bool,
    /// Everything that was measured, for programs.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// `concurrency`, `lanes`, `recall`, `texts`; all where none is named.
    #[conf(repeat, pos)]
    pub(crate) names: Vec<BenchName>,
}

impl Bench {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!((5..=100).contains(&self.rounds), "`--rounds` is 5 to 100: a median of fewer says little");
        ensure!((1..=120).contains(&self.seconds), "`--seconds` of a benchmark's side is 1 to 120");
        Ok(())
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
