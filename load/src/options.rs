//! The command line: a profile or the benchmarks, each with defaults that show something on two cores.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use conf::{Conf, Subcommands};

/// Uploads a run, at most: a bound on its time and on the disk that their verdicts take.
const UPLOADS_MAX: f64 = 1_000_000.0;
const SECONDS_MAX: u64 = 600;
const RATE_MAX: f64 = 10_000.0;
const OPEN_MAX: usize = 20_000;

/// Load against a gate on this machine: profiles with a report, and benchmarks that are ratios within one run.
///
/// Without `--url` a gate is started in a throw-away folder and stopped again.
#[derive(Conf, Debug)]
#[conf(name = "shieldgate-load", version)]
pub(crate) struct Cli {
    #[conf(subcommands)]
    pub(crate) command: Command,
}

#[derive(Subcommands, Debug)]
pub(crate) enum Command {
    /// Profile: uploads at a constant rate.
    Steady(Steady),
    /// Profile: a quiet rate, then several times as much, again and again.
    Burst(Burst),
    /// Profile: interactive uploads at a constant rate beside bulk callers that take all they can get.
    Mixed(Mixed),
    /// Profile: the same contents again and again, some far more often than others; most are recalled.
    Duplicates(Duplicates),
    /// Profile: interactive uploads beside clients that send their body bit by bit, or stop half-way.
    Slow(Slow),
    /// Benchmarks, each a ratio against its bound: `concurrency`, `lanes`, `recall`; all where none is named.
    Bench(Bench),
}

/// Which gate.
#[derive(Conf, Debug, Clone)]
pub(crate) struct Against {
    /// Address of a running gate on this machine, `http://127.0.0.1:8080`; one of our own where absent.
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The running gate's API key with the scope `moderate`; only from the environment, since everybody on the
    /// machine can read command lines.
    #[arg(env = "KEY", secret)]
    pub(crate) key: Option<String>,
    #[conf(flatten)]
    pub(crate) own: OwnGate,
}

/// A gate of our own.
#[derive(Conf, Debug, Clone)]
pub(crate) struct OwnGate {
    /// The binary to start; `shieldgate` beside this program where absent.
    #[arg(long)]
    pub(crate) gate: Option<PathBuf>,
    /// An option for `shieldgate serve`, as `--gate-option=--queue-max=8`; may be repeated.
    #[conf(repeat, long, allow_hyphen_values)]
    pub(crate) gate_option: Vec<String>,
}

/// What every profile has.
#[derive(Conf, Debug, Clone)]
pub(crate) struct Common {
    #[conf(flatten)]
    pub(crate) against: Against,
    /// How long uploads are sent, in seconds; at most 600.
    #[arg(long, default_value = "30")]
    pub(crate) seconds: u64,
    /// Uploads under way at once, at most; what is due beyond them is counted as not sent.
    #[arg(long, default_value = "512")]
    pub(crate) open_max: usize,
    /// Independent arrivals (a Poisson process) and not even gaps.
    #[arg(long)]
    pub(crate) random: bool,
    /// Of everything random: the same seed gives the same schedule and the same picks.
    #[arg(long, default_value = "1")]
    pub(crate) seed: u64,
    /// Everything that was measured, for programs.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// A picture of the run, for a browser.
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
    /// Pictures to upload, in turn; four photographs that come with the program where absent.
    #[conf(repeat, pos)]
    pub(crate) files: Vec<PathBuf>,
}

impl Common {
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=SECONDS_MAX).contains(&self.seconds), "`--seconds` is 1 to {SECONDS_MAX}");
        ensure!((1..=OPEN_MAX).contains(&self.open_max), "`--open-max` is 1 to {OPEN_MAX}");
        Ok(())
    }
}

#[derive(Conf, Debug)]
pub(crate) struct Steady {
    /// Uploads a second.
    #[arg(long, default_value = "10")]
    pub(crate) rate: f64,
    /// Send the pictures unchanged, so that all but the first of each are recalled; otherwise every upload is
    /// a new content.
    #[arg(long)]
    pub(crate) same: bool,
    #[conf(flatten)]
    pub(crate) common: Common,
}

#[derive(Conf, Debug)]
pub(crate) struct Burst {
    /// Uploads a second while it is quiet.
    #[arg(long, default_value = "3")]
    pub(crate) rate: f64,
    /// How many times as many in a burst.
    #[arg(long, default_value = "20")]
    pub(crate) times: f64,
    /// How long it is quiet, in seconds.
    #[arg(long, default_value = "8")]
    pub(crate) quiet_s: f64,
    /// How long a burst takes, in seconds.
    #[arg(long, default_value = "2")]
    pub(crate) burst_s: f64,
    /// Send the pictures unchanged, so that all but the first of each are recalled; otherwise every upload is
    /// a new content.
    #[arg(long)]
    pub(crate) same: bool,
    #[conf(flatten)]
    pub(crate) common: Common,
}

#[derive(Conf, Debug)]
pub(crate) struct Mixed {
    /// Interactive uploads a second.
    #[arg(long, default_value = "5")]
    pub(crate) rate: f64,
    /// Bulk callers: each sends its next upload when it has the answer to the one before, and waits as long
    /// as `Retry-After` says when it is turned away.
    #[arg(long, default_value = "16")]
    pub(crate) bulk_callers: usize,
    #[conf(flatten)]
    pub(crate) common: Common,
}

#[derive(Conf, Debug)]
pub(crate) struct Duplicates {
    /// Uploads a second.
    #[arg(long, default_value = "50")]
    pub(crate) rate: f64,
    /// Different contents.
    #[arg(long, default_value = "100")]
    pub(crate) contents: usize,
    /// How unequal they are: the k-th most frequent has the weight 1 / k^exponent; 0 for all alike.
    #[arg(long, default_value = "1")]
    pub(crate) exponent: f64,
    #[conf(flatten)]
    pub(crate) common: Common,
}

#[derive(Conf, Debug)]
pub(crate) struct Slow {
    /// Interactive uploads of swift clients, a second.
    #[arg(long, default_value = "5")]
    pub(crate) rate: f64,
    /// Uploads a second of clients whose body comes bit by bit.
    #[arg(long, default_value = "5")]
    pub(crate) trickle_rate: f64,
    /// How long such a body takes, in seconds.
    #[arg(long, default_value = "10")]
    pub(crate) trickle_s: f64,
    /// Uploads a second of clients that stop in the middle of their body and hold the connection.
    #[arg(long, default_value = "5")]
    pub(crate) stop_rate: f64,
    #[conf(flatten)]
    pub(crate) common: Common,
}

/// A profile's own rules, beyond those of [`Common`].
pub(crate) trait Check {
    fn common(&self) -> &Common;

    /// Its rates, a second, at their highest.
    fn rates(&self) -> Vec<f64>;

    fn own_faults(&self) -> Result<()> {
        Ok(())
    }

    /// What no option alone can see; an error says which option and what was expected.
    fn check(&self) -> Result<()> {
        self.common().check()?;
        self.own_faults()?;
        for rate in self.rates() {
            ensure!(
                rate > 0.0 && rate <= RATE_MAX,
                "rates are above 0 and at most {RATE_MAX} a second, in bursts as well; not {rate}"
            );
        }
        let uploads = self.rates().iter().sum::<f64>() * self.common().seconds as f64;
        ensure!(
            uploads <= UPLOADS_MAX,
            "that may be {uploads:.0} uploads; a run has at most {UPLOADS_MAX}: fewer `--seconds` or a lower `--rate`"
        );
        Ok(())
    }
}

/// Of seconds in a pattern.
fn pattern(name: &str, seconds: f64) -> Result<()> {
    ensure!((0.05..=600.0).contains(&seconds), "`--{name}` is 0.05 to 600 seconds, not {seconds}");
    Ok(())
}

impl Check for Steady {
    fn common(&self) -> &Common {
        &self.common
    }

    fn rates(&self) -> Vec<f64> {
        vec![self.rate]
    }
}

impl Check for Burst {
    fn common(&self) -> &Common {
        &self.common
    }

    fn rates(&self) -> Vec<f64> {
        vec![self.rate, self.rate * self.times]
    }

    fn own_faults(&self) -> Result<()> {
        ensure!((1.0..=1000.0).contains(&self.times), "`--times` is 1 to 1000, not {}", self.times);
        pattern("quiet-s", self.quiet_s)?;
        pattern("burst-s", self.burst_s)
    }
}

impl Check for Mixed {
    fn common(&self) -> &Common {
        &self.common
    }

    fn rates(&self) -> Vec<f64> {
        vec![self.rate]
    }

    fn own_faults(&self) -> Result<()> {
        ensure!((1..=1024).contains(&self.bulk_callers), "`--bulk-callers` is 1 to 1024");
        Ok(())
    }
}

impl Check for Duplicates {
    fn common(&self) -> &Common {
        &self.common
    }

    fn rates(&self) -> Vec<f64> {
        vec![self.rate]
    }

    fn own_faults(&self) -> Result<()> {
        ensure!((1..=1_000_000).contains(&self.contents), "`--contents` is 1 to 1000000");
        ensure!((0.0..=5.0).contains(&self.exponent), "`--exponent` is 0 to 5, not {}", self.exponent);
        Ok(())
    }
}

impl Check for Slow {
    fn common(&self) -> &Common {
        &self.common
    }

    fn rates(&self) -> Vec<f64> {
        vec![self.rate, self.trickle_rate, self.stop_rate]
    }

    fn own_faults(&self) -> Result<()> {
        pattern("trickle-s", self.trickle_s)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BenchName {
    Concurrency,
    Lanes,
    Recall,
}

impl BenchName {
    pub(crate) const ALL: [Self; 3] = [Self::Concurrency, Self::Lanes, Self::Recall];
}

impl FromStr for BenchName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "concurrency" => Ok(Self::Concurrency),
            "lanes" => Ok(Self::Lanes),
            "recall" => Ok(Self::Recall),
            _ => Err(format!("`{text}` is no benchmark: expected `concurrency`, `lanes` or `recall`")),
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
    /// The judge whose batches are counted.
    #[arg(long, default_value = "open-nsfw")]
    pub(crate) judge: String,
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
    /// `concurrency`, `lanes`, `recall`; all where none is named.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Command, String> {
        let args = [&["shieldgate-load"], args].concat();
        Cli::try_parse_from(args, Vec::<(&str, &str)>::new())
            .map(|cli| cli.command)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn every_profile_works_without_options() {
        for name in ["steady", "burst", "mixed", "duplicates", "slow", "bench"] {
            let command = parsed(&[name]).unwrap_or_else(|error| panic!("{name}: {error}"));
            match command {
                Command::Steady(options) => options.check(),
                Command::Burst(options) => options.check(),
                Command::Mixed(options) => options.check(),
                Command::Duplicates(options) => options.check(),
                Command::Slow(options) => options.check(),
                Command::Bench(options) => options.check(),
            }
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn a_run_is_bounded() {
        let fault = |args: &[&str]| match parsed(args) {
            Ok(Command::Steady(options)) => options.check().expect_err("out of bounds").to_string(),
            Ok(Command::Burst(options)) => options.check().expect_err("out of bounds").to_string(),
            other => panic!("{other:?}"),
        };
        assert!(fault(&["steady", "--rate", "5000", "--seconds", "600"]).contains("3000000 uploads"));
        assert!(fault(&["steady", "--rate", "0"]).contains("rates are above 0"));
        assert!(fault(&["steady", "--rate", "NaN"]).contains("rates are above 0"));
        assert!(fault(&["steady", "--seconds", "601"]).contains("`--seconds` is 1 to 600"));
        assert!(fault(&["burst", "--rate", "1000", "--times", "20"]).contains("in bursts as well"));
        assert!(fault(&["burst", "--quiet-s", "0"]).contains("`--quiet-s` is 0.05 to 600"));
    }

    #[test]
    fn the_gate_s_options_are_passed_on_and_benchmarks_are_named() {
        let args = ["bench", "--gate-option=--queue-max=8", "--gate-option=--threads=1", "recall", "lanes"];
        let Ok(Command::Bench(options)) = parsed(&args) else { panic!("it parses") };
        assert_eq!(options.own.gate_option, ["--queue-max=8", "--threads=1"]);
        assert_eq!(options.names, [BenchName::Recall, BenchName::Lanes]);
        assert!(parsed(&["bench", "speed"]).is_err_and(|error| error.contains("`speed` is no benchmark")));
    }
}
