//! The profiles' own options and the rules that no option alone can see.

use anyhow::{Result, ensure};
use conf::Conf;

use super::{Check, Common};

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
