//! The command line: a profile or the benchmarks, each with defaults that show something on two cores.

mod bench;
mod profiles;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use conf::{Conf, Subcommands};

pub(crate) use bench::{Bench, BenchName};
pub(crate) use profiles::{Burst, Duplicates, Mixed, Slow, Steady};

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
    /// Benchmarks, each a ratio against its bound: `concurrency`, `lanes`, `recall`, `texts`; all where none is named.
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
        let args = ["bench", "--gate-option=--queue-max=8", "--gate-option=--threads=1", "recall", "texts"];
        let Ok(Command::Bench(options)) = parsed(&args) else { panic!("it parses") };
        assert_eq!(options.own.gate_option, ["--queue-max=8", "--threads=1"]);
        assert_eq!(options.names, [BenchName::Recall, BenchName::Texts]);
        assert!(parsed(&["bench", "speed"]).is_err_and(|error| error.contains("`speed` is no benchmark")));
    }
}
