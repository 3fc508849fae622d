//! The profiles: what each sends and when, and the one way in which all of them run and report.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::arrivals::{Arrivals, Shape};
use crate::machine::Machine;
use crate::open_loop::{self, Flow, Sender};
use crate::options::{Burst, Check, Common, Duplicates, Mixed, Slow, Steady};
use crate::pictures::{self, Mix, Source, Zipf};
use crate::report::Report;
use crate::slow::{Client, Manner};
use crate::tally::{Run, Stream};
use crate::target::Target;
use crate::upload::Endpoint;
use crate::{callers, say};

pub(crate) const INTERACTIVE: Stream = "interactive";
pub(crate) const BULK: Stream = "bulk";
const TRICKLING: Stream = "trickling";
const STOPPING: Stream = "stopping";

/// Where a profile's uploads go and what they are made of.
pub(crate) struct Scene<'a> {
    target: &'a Target,
    originals: Vec<Vec<u8>>,
    common: &'a Common,
}

/// Callers beside the open loop, that send as fast as they are answered.
pub(crate) struct Closed {
    count: usize,
    source: Source,
}

/// All that a profile sends.
pub(crate) struct Plan {
    flows: Vec<Flow<Source>>,
    bulk: Option<Closed>,
}

pub(crate) trait Profile: Check {
    const NAME: &'static str;

    /// What was asked for, in a few words.
    fn line(&self) -> String;

    fn plan(&self, scene: &Scene<'_>) -> Result<Plan>;
}

impl Scene<'_> {
    fn swift(&self, shape: Shape, mix: Mix) -> Result<Flow<Source>> {
        let sender = Sender::Swift(self.target.uploader(Endpoint::Images)?);
        Ok(self.flow(INTERACTIVE, shape, mix, sender))
    }

    fn slow(&self, stream: Stream, rate: f64, manner: Manner) -> Flow<Source> {
        let client = Client { address: self.target.address().to_owned(), key: self.target.key.clone() };
        self.flow(stream, Shape::Steady { rate }, Mix::Fresh, Sender::Slow(client, manner))
    }

    fn flow(&self, stream: Stream, shape: Shape, mix: Mix, sender: Sender) -> Flow<Source> {
        let (length, seed) = (self.common.length(), self.common.seed);
        let arrivals = match self.common.random {
            true => Arrivals::random(shape, length, seed),
            false => Arrivals::even(shape, length),
        };
        Flow { stream, arrivals, bodies: self.source(stream, mix), sender }
    }

    fn source(&self, stream: Stream, mix: Mix) -> Source {
        Source::new(self.originals.clone(), mix, stream, self.common.seed)
    }
}

fn mix(same: bool) -> Mix {
    if same { Mix::Same } else { Mix::Fresh }
}

impl Profile for Steady {
    const NAME: &'static str = "steady";

    fn line(&self) -> String {
        format!("{} a second", self.rate)
    }

    fn plan(&self, scene: &Scene<'_>) -> Result<Plan> {
        let flow = scene.swift(Shape::Steady { rate: self.rate }, mix(self.same))?;
        Ok(Plan { flows: vec![flow], bulk: None })
    }
}

impl Profile for Burst {
    const NAME: &'static str = "burst";

    fn line(&self) -> String {
        let Self { rate, times, quiet_s, burst_s, .. } = self;
        format!("{rate} a second for {quiet_s} s, then {times} × as many for {burst_s} s, repeated")
    }

    fn plan(&self, scene: &Scene<'_>) -> Result<Plan> {
        let shape = Shape::Burst {
            rate: self.rate,
            times: self.times,
            quiet: Duration::from_secs_f64(self.quiet_s),
            burst: Duration::from_secs_f64(self.burst_s),
        };
        Ok(Plan { flows: vec![scene.swift(shape, mix(self.same))?], bulk: None })
    }
}

impl Profile for Mixed {
    const NAME: &'static str = "mixed";

    fn line(&self) -> String {
        format!("{} a second interactive, beside {} bulk callers", self.rate, self.bulk_callers)
    }

    fn plan(&self, scene: &Scene<'_>) -> Result<Plan> {
        let flow = scene.swift(Shape::Steady { rate: self.rate }, Mix::Fresh)?;
        let bulk = Closed { count: self.bulk_callers, source: scene.source(BULK, Mix::Fresh) };
        Ok(Plan { flows: vec![flow], bulk: Some(bulk) })
    }
}

impl Profile for Duplicates {
    const NAME: &'static str = "duplicates";

    fn line(&self) -> String {
        let Self { rate, contents, exponent, .. } = self;
        format!("{rate} a second of {contents} contents, the k-th with weight 1/k^{exponent}")
    }

    fn plan(&self, scene: &Scene<'_>) -> Result<Plan> {
        let mix = Mix::Zipf(Zipf::new(self.contents, self.exponent));
        let flow = scene.swift(Shape::Steady { rate: self.rate }, mix)?;
        Ok(Plan { flows: vec![flow], bulk: None })
    }
}

impl Profile for Slow {
    const NAME: &'static str = "slow";

    fn line(&self) -> String {
        let Self { rate, trickle_rate, trickle_s, stop_rate, .. } = self;
        format!(
            "{rate} a second swift, {trickle_rate} a second that take {trickle_s} s to send, {stop_rate} a second that stop half-way"
        )
    }

    fn plan(&self, scene: &Scene<'_>) -> Result<Plan> {
        let trickle = Manner::Trickle(Duration::from_secs_f64(self.trickle_s));
        let flows = vec![
            scene.swift(Shape::Steady { rate: self.rate }, Mix::Fresh)?,
            scene.slow(TRICKLING, self.trickle_rate, trickle),
            scene.slow(STOPPING, self.stop_rate, Manner::Stop),
        ];
        Ok(Plan { flows, bulk: None })
    }
}

/// Runs a profile against its gate and reports.
pub(crate) async fn run<P: Profile>(options: P) -> Result<ExitCode> {
    options.check()?;
    let common = options.common();
    let originals = pictures::load(&common.files)?;
    let mut target = Target::open(&common.against).await?;
    let about = target.about(&common.against.own).await?;
    let plan = options.plan(&Scene { target: &target, originals, common })?;
    let mut machine = Machine::look();
    say::note(format!("{}: {}, for {} s", P::NAME, options.line(), common.seconds));

    let (started_at, run) = (time::OffsetDateTime::now_utc(), Run::begin(common.length()));
    let open = Arc::new(Semaphore::new(common.open_max));
    let mut sending = JoinSet::new();
    for flow in plan.flows {
        sending.spawn(open_loop::run(flow, run.clone(), Arc::clone(&open)));
    }
    if let Some(Closed { count, source }) = plan.bulk {
        let (run, uploader, length) = (run.clone(), target.uploader(Endpoint::BulkImages)?, common.length());
        sending.spawn(async move { callers::run(count, BULK, &uploader, source, &run, length).await });
    }
    while let Some(done) = sending.join_next().await {
        done??;
    }
    machine.look_again();
    if let Some(own) = &mut target.own {
        own.check()?;
    }
    let report = Report::new(P::NAME, options.line(), started_at, machine, about, &run.tally())?;
    say::result(report.text());
    if let Some(path) = &common.json {
        report.write_json(path)?;
    }
    if let Some(path) = &common.svg {
        report.write_svg(path)?;
    }
    Ok(ExitCode::SUCCESS)
}
