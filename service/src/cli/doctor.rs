//! `shieldgate doctor`: what was tried, what came back, what to do.

use std::process::ExitCode;
use std::sync::Arc;

use conf::Conf;
use shieldgate_models::judges;
use shieldgate_models::runtime::{DeviceChoice, Runtime};

use super::connect::{Connected, Role};
use super::{Failed, output};
use crate::assets::Assets;
use crate::config::{Common, Database};
use crate::decoders::{Confinement, Decoders, Program};
use crate::media;
use crate::pipeline;
use crate::store;

#[derive(Conf)]
pub(crate) struct Doctor {
    #[conf(flatten)]
    pub(super) common: Common,
    #[conf(flatten)]
    database: Database,
    /// Where models are to run: `auto`, `cpu`, `cuda:N`, as for `serve`.
    #[arg(long, env = "SHIELDGATE_DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl Doctor {
    pub(super) async fn run(&self) -> Result<ExitCode, Failed> {
        examine(&self.common, &self.database, self.device).await
    }
}

async fn examine(common: &Common, database: &Database, device: DeviceChoice) -> Result<ExitCode, Failed> {
    let mut report = Report { failed: false };
    if let Some(assets) = report.tell("assets", Assets::find(common.assets.as_deref()), |assets| {
        format!("found in `{}`", assets.root().display())
    }) {
        let loaded = assets
            .onnxruntime_library()
            .map_err(Failed::from)
            .and_then(|path| Runtime::load(&path, device, 1).map_err(Failed::from));
        let runtime = report
            .tell("runtime", loaded, |runtime| format!("{} on {}", runtime.version(), runtime.device()));
        if let Some(runtime) = runtime {
            models(&mut report, common, &assets, &runtime);
        }
    }
    decoders(&mut report).await;
    let opened = Connected::open(common, database, Role::Command).await;
    let what = if database.database_url.is_some() { "DATABASE_URL" } else { "the private cluster" };
    if let Some(connected) = report.tell("database", opened, |_| format!("{what} answers and is up to date"))
    {
        records(&mut report, &connected.store).await;
        connected.close().await;
    }
    Ok(if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn models(report: &mut Report, common: &Common, assets: &Assets, runtime: &Arc<Runtime>) {
    for model in report
        .tell("models", super::models::all(common, assets), |all| format!("{} installed", all.len()))
        .unwrap_or_default()
    {
        let opened = judges::open(runtime, &model, pipeline::version);
        report.tell(&format!("model {}", model.name), opened, |judge| judge.card().digest.to_string());
    }
}

/// What a decoder may do, it found out by trying.
async fn decoders(report: &mut Report) {
    let started = async {
        let (_, confinement) = Decoders::start(Program::own()?, 1, media::Limits::default()).await?;
        Ok::<_, std::io::Error>(confinement)
    };
    let Some(found) = report.tell("decoders", started.await, |_| "start and answer".to_owned()) else {
        return;
    };
    let Confinement { no_files, no_network, no_processes, missing } = found;
    let reach = [(no_files, "files"), (no_network, "the network"), (no_processes, "other processes")];
    let within: Vec<&str> = reach.iter().filter(|(shut, _)| !shut).map(|(_, what)| *what).collect();
    if !within.is_empty() {
        report.warn(
            "decoders",
            &format!(
                "whoever takes one over by a picture reaches {}: this kernel confines too little",
                within.join(", ")
            ),
        );
    }
    for layer in missing {
        report.warn("decoders", &format!("one layer less around them: {layer}"));
    }
}

async fn records(report: &mut Report, store: &store::Store) {
    let mut conn = match store.acquire().await {
        Ok(conn) => conn,
        Err(error) => return report.bad("connection", &error),
    };
    if let Some(who) =
        report.tell("role", store::privileges(&mut conn).await, |who| format!("logged in as `{}`", who.user))
    {
        if who.too_many() {
            report.warn("role", "it could take the append-only guards away; give it the role `shieldgate_service` and nothing more");
        }
        if !who.can_record {
            report.warn("role", "it may not record verdicts: every upload will be answered 503; grant it the role `shieldgate_service`");
        }
    }
    let astray = report.tell("partitions", store::partitions::astray(&mut conn).await, |astray| {
        if astray.is_empty() {
            "every row has its partition".to_owned()
        } else {
            format!("rows in default partitions of {}", astray.join(", "))
        }
    });
    if astray.is_some_and(|astray| !astray.is_empty()) {
        report.warn("partitions", "move those rows before their partition can be made; nothing is lost");
    }
    if let Some(policies) =
        report.tell("policies", store::policies::in_force(&mut conn, "default").await, |in_force| {
            format!("{} active in project `default`", in_force.policies.len())
        })
        && policies.policies.is_empty()
    {
        report.warn(
            "policies",
            "nothing will be judged; `shieldgate policies apply --activate DIR` imports some",
        );
    }
}

struct Report {
    failed: bool,
}

impl Report {
    fn tell<T, E: Into<Failed>>(
        &mut self,
        what: &str,
        outcome: Result<T, E>,
        good: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match outcome {
            Ok(value) => {
                output::line(format_args!("ok    {what}: {}", good(&value)));
                Some(value)
            }
            Err(error) => {
                self.bad(what, &*error.into());
                None
            }
        }
    }

    fn warn(&mut self, what: &str, why: &str) {
        output::line(format_args!("warn  {what}: {why}"));
    }

    fn bad(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        self.failed = true;
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        output::line(format_args!("fail  {what}: {text}"));
    }
}
