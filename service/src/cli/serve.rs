//! `shieldgate serve`: start in order, serve, stop in reverse order.

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use shieldgate_models::Judge;
use shieldgate_models::runtime::Runtime;

use super::Failed;
use super::connect::{Connected, Role};
use super::signals::Signals;
use crate::assets::Assets;
use crate::config::{Common, Gate, Serve};
use crate::decoders::{Decoders, Program};
use crate::fetch::{FetchConfig, Fetcher};
use crate::housekeeping::{self, Housekeeping};
use crate::http::{self, HttpConfig};
use crate::media::{Limits, keep::Keep};
use crate::moderate::{ModerateConfig, Moderator, PolicyCache};
use crate::scheduler::{Scheduler, SchedulerConfig};
use crate::store;
use crate::telemetry::Metrics;

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(
        "`{address}` can't be served on\n  hint: another program may hold the port; name a free one with `--listen`"
    )]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "demo judges ({names}) would answer on `{address}`, which is not loopback\n  hint: they are for showing, not for judging: add the real model under their name or `shieldgate models remove` them; `--allow-demo` serves them all the same"
    )]
    Demo { names: String, address: std::net::SocketAddr },
    #[error(
        "no judge is installed\n  hint: `make build` fetches the default one; `shieldgate models add` adds others"
    )]
    NoJudges,
    #[error("no decoder could be started; `shieldgate doctor` tries it too")]
    Decoders(#[source] std::io::Error),
    #[error(
        "image URLs can't be fetched\n  hint: `--fetch-image-urls` wants the system's root certificates (Debian, Ubuntu: `apt-get install ca-certificates`)"
    )]
    Fetcher(#[source] reqwest::Error),
}

pub(super) async fn run(config: Serve, metrics: Arc<Metrics>) -> Result<ExitCode, Failed> {
    // First, so that a taken port is said before anything is made.
    let bind = |address| TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source });
    let listeners = Listeners {
        api: bind(config.gate.listen)?,
        metrics: config.gate.metrics_listen.map(bind).transpose()?,
    };
    let address = listeners.api.local_addr()?;
    std::fs::create_dir_all(&config.common.data_dir)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let or_cores = |count: usize| if count == 0 { cores } else { count };

    let assets = Assets::find(config.common.assets.as_deref())?;
    let runtime =
        Runtime::load(&assets.onnxruntime_library()?, config.gate.device, or_cores(config.gate.threads))?;
    let judges = open_judges(&runtime, &config.common, &assets)?;
    let demo: Vec<&str> =
        judges.iter().filter(|judge| judge.card().demo).map(|judge| judge.card().name.as_str()).collect();
    if !demo.is_empty() && !address.ip().is_loopback() && !config.gate.allow_demo {
        return Err(ServeError::Demo { names: demo.join(", "), address }.into());
    }

    // From here on there may be a Postgres to stop, so a signal may no longer just end the process.
    let mut signals = Signals::listen()?;
    let connected = tokio::select! {
        connected = Connected::open(&config.common, &config.database, Role::Service) => connected?,
        // A private Postgres that was just starting is told to stop when it is dropped.
        () = signals.told() => {
            tracing::info!("told to stop before it was ready");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let decoders = or_cores(config.gate.decoders);
    let served =
        serve(&config, (listeners, metrics), &runtime, judges, &connected, decoders, &mut signals).await;
    // Postgres last of all.
    connected.close().await;
    served?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Of these, what they may still do is told at every start: the kernel decides it.
async fn start_decoders(at_once: usize, limits: Limits) -> Result<Decoders, ServeError> {
    let program = Program::own().map_err(ServeError::Decoders)?;
    let (decoders, confinement) =
        Decoders::start(program, at_once, limits).await.map_err(ServeError::Decoders)?;
    if !confinement.is_complete() {
        tracing::warn!(?confinement, "decoders are not confined as they should be; see `shieldgate doctor`");
    }
    Ok(decoders)
}

fn fetcher(gate: &Gate) -> Result<Option<Fetcher>, ServeError> {
    let config = FetchConfig {
        bytes_max: gate.body_bytes_max,
        timeout: Duration::from_millis(gate.fetch_timeout_ms),
        at_once: gate.fetches_max,
    };
    gate.fetch_image_urls.then(|| Fetcher::new(config)).transpose().map_err(ServeError::Fetcher)
}

/// Open, so that nobody else takes them while the judges load.
struct Listeners {
    api: TcpListener,
    metrics: Option<TcpListener>,
}

async fn serve(
    config: &Serve,
    (listeners, metrics): (Listeners, Arc<Metrics>),
    runtime: &Arc<Runtime>,
    judges: Vec<Box<dyn Judge>>,
    connected: &Connected,
    decoders: usize,
    signals: &mut Signals,
) -> Result<(), Failed> {
    let address = listeners.api.local_addr()?;
    let store = connected.store.clone();
    let scheduler_config = SchedulerConfig {
        queue_max: config.gate.queue_max,
        judge_timeout: Duration::from_millis(config.gate.judge_timeout_ms),
        stop_grace: Duration::from_millis(config.gate.judge_stop_grace_ms),
        batch_target: Duration::from_millis(config.gate.batch_target_ms),
        bulk_share: config.gate.bulk_share,
    };
    let scheduler = Arc::new(Scheduler::start(judges, scheduler_config)?);
    make_known(&store, &scheduler).await?;
    let policies = Arc::new(PolicyCache::default());
    check_policies(&store, &scheduler).await?;

    let originals = Keep::new(&config.common.data_dir)?;
    let limits = Limits {
        bytes_max: config.gate.body_bytes_max,
        pixels_max: config.gate.pixels_max,
        ..Limits::default()
    };
    let decoding = start_decoders(decoders, limits).await?;
    let grace = Duration::from_millis(config.gate.shutdown_grace_ms);
    let http_config = HttpConfig {
        body_bytes_max: config.gate.body_bytes_max,
        body_budget_bytes: config.gate.body_budget_bytes,
        body_timeout: Duration::from_millis(config.gate.body_timeout_ms),
        in_flight_max: config.gate.in_flight_max,
        bulk_in_flight_max: config.gate.bulk_in_flight_max,
        request_timeout: Duration::from_millis(config.gate.request_timeout_ms),
        connections_max: config.gate.connections_max,
        workers: decoders,
        metrics_here: listeners.metrics.is_none(),
        shutdown_grace: grace,
        runtime: runtime.version().to_owned(),
        device: runtime.device(),
    };
    let moderate_config = ModerateConfig {
        limits,
        text_bytes_max: config.gate.text_bytes_max,
        keep: config.gate.media_keep,
        keep_for: Duration::from_secs(u64::from(config.gate.media_keep_days) * 86_400),
        pictures_budget_bytes: config.gate.pictures_budget_bytes,
        runtime: runtime.version().to_owned(),
        device: runtime.device(),
        subject_key: subject_key(&config.common.data_dir)?,
    };
    let housekeeping = Housekeeping::start(store.clone(), originals.clone());
    let moderator =
        Moderator::new(store, Arc::clone(&scheduler), policies, originals, decoding, moderate_config);
    let state = web::Data::new(http::State::new(moderator, metrics, fetcher(&config.gate)?, &http_config));
    let observed = tokio::spawn(http::observe(state.clone()));
    let metrics =
        listeners.metrics.map(|listener| http::serve_metrics(listener, state.clone())).transpose()?;
    let metrics = metrics.map(|server| (server.handle(), tokio::spawn(server)));
    let server = http::serve(listeners.api, state.clone(), &http_config)?;
    let handle = server.handle();
    let mut server = tokio::spawn(server);
    tracing::info!(%address, runtime = runtime.version(), device = runtime.device(), "serving");

    tokio::select! {
        () = signals.told() => {}
        ended = &mut server => return Ok(ended??),
    }
    tracing::info!("stopping: open requests are answered first");
    let until = tokio::time::Instant::now() + grace;
    let orderly = async {
        handle.stop(true).await;
        // Nobody waits for a job any more: one grace period for both.
        scheduler.shut_down(until.saturating_duration_since(tokio::time::Instant::now())).await;
        housekeeping.stop().await;
        state.give_back().await;
        observed.abort();
        if let Some((metrics, _)) = &metrics {
            metrics.stop(false).await;
        }
    };
    tokio::select! {
        () = orderly => {}
        () = signals.told() => tracing::warn!("told twice: stopping at once"),
    }
    Ok(())
}

/// Shipped models and added ones; an added one replaces a shipped one of its name.
fn open_judges(
    runtime: &Arc<Runtime>,
    common: &Common,
    assets: &Assets,
) -> Result<Vec<Box<dyn Judge>>, Failed> {
    let mut installed = super::models::all(common, assets)?;
    installed.sort_by(|a, b| a.name.cmp(&b.name));
    let opened = super::models::open(runtime, installed.iter())?;
    if opened.is_empty() { Err(ServeError::NoJudges.into()) } else { Ok(opened) }
}

async fn make_known(store: &store::Store, scheduler: &Scheduler) -> Result<(), Failed> {
    let mut conn = store.acquire().await?;
    for card in scheduler.cards() {
        let digest = card.digest.as_bytes();
        store::judgements::ensure_judge(&mut conn, digest, card.kind, &card.name, card.demo).await?;
    }
    let privileges = store::privileges(&mut conn).await?;
    if privileges.too_many() {
        tracing::warn!(
            user = privileges.user,
            superuser = privileges.superuser,
            owns_tables = privileges.owns_tables,
            "the service's database user could take the append-only guards away; give it the role \
             `shieldgate_service` and nothing more"
        );
    }
    housekeeping::partitions(&mut conn).await;
    Ok(())
}

/// A policy whose judge is missing stops the start, unless it says `when_missing: skip`.
async fn check_policies(store: &store::Store, scheduler: &Scheduler) -> Result<(), Failed> {
    let projects = {
        let mut conn = store.acquire().await?;
        store::policies::projects(&mut conn).await?
    };
    for project in projects {
        let set = crate::moderate::policies::load(store, scheduler, &project).await?;
        for active in &set.policies {
            if let Some(not_run) = active.not_run() {
                tracing::warn!(project, policy = not_run.policy, reason = not_run.reason, "policy not run");
            }
        }
    }
    Ok(())
}

/// 32 random bytes, made once; without them the subjects on record mean nothing.
fn subject_key(data_dir: &Path) -> Result<[u8; 32], Failed> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = data_dir.join("subject.key");
    if !path.exists() {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let partial = data_dir.join(format!("subject.key.{}", std::process::id()));
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&key)?;
        file.sync_all()?;
        // A link, not a rename: of two at once the first stays.
        let linked = std::fs::hard_link(&partial, &path);
        std::fs::remove_file(&partial)?;
        if let Err(error) = linked
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error.into());
        }
    }
    let bytes = std::fs::read(&path)?;
    bytes.try_into().map_err(|_| {
        format!(
            "`{}` does not hold 32 bytes\n  hint: restore it from the backup of the data directory",
            path.display()
        )
        .into()
    })
}
