//! `shieldgate models add|remove|list|verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use conf::{Conf, Subcommands};
use shieldgate_models::checkpoint::config as checkpoint_config;
use shieldgate_models::installed::{Installed, ModelError};
use shieldgate_models::runtime::{DeviceChoice, Runtime};
use shieldgate_models::{Judge, judges};

use super::progress::Progress;
use super::{Failed, output};
use crate::assets::Assets;
use crate::config::Common;
use crate::hub::{self, HubError, Reference, Settings};
use crate::pipeline;
use crate::policy::Policy;

#[derive(Conf)]
pub(super) struct Models {
    #[conf(subcommands)]
    command: ModelsCommand,
}

#[derive(Subcommands)]
enum ModelsCommand {
    /// Check a model, open it once and record it: a folder, or a model of the Hugging Face Hub, which is
    /// downloaded into the Hub's own cache. Its weights are read where they lie.
    Add(Add),
    /// Forget a model that was added; its folder stays as it is.
    Remove(Remove),
    /// List the models that came with the build and those that were added.
    List(List),
    /// Hash every file again and compare with the record.
    Verify(Verify),
}

#[derive(Conf)]
struct Add {
    #[conf(flatten)]
    common: Common,
    /// The model's folder, or ORG/NAME or ORG/NAME@REVISION at the Hub. HF_TOKEN, HF_ENDPOINT, HF_HOME,
    /// HF_HUB_CACHE and HF_HUB_OFFLINE count as they do for the Python tools.
    #[arg(pos)]
    model: PathBuf,
    /// The name policies call it by; where absent what the folder says, or NAME.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Conf)]
struct Remove {
    #[conf(flatten)]
    common: Common,
    /// The model's name.
    #[arg(pos)]
    name: String,
}

#[derive(Conf)]
struct List {
    #[conf(flatten)]
    common: Common,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Conf)]
struct Verify {
    #[conf(flatten)]
    common: Common,
    /// Only this model.
    #[arg(pos)]
    name: Option<String>,
}

impl Models {
    pub(super) fn common(&self) -> &Common {
        match &self.command {
            ModelsCommand::Add(it) => &it.common,
            ModelsCommand::Remove(it) => &it.common,
            ModelsCommand::List(it) => &it.common,
            ModelsCommand::Verify(it) => &it.common,
        }
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failed> {
        match self.command {
            ModelsCommand::Add(add) => {
                let found = find(&add).await?;
                // Not here: Ctrl-C would wait for gigabytes to be hashed.
                tokio::task::spawn_blocking(move || record(&add, &found)).await??;
            }
            ModelsCommand::Remove(remove) => {
                if !Installed::forget(&remove.common.data_dir.join("models"), &remove.name)? {
                    return Err(format!(
                        "no model `{}` was added\n  hint: `shieldgate models list`",
                        remove.name
                    )
                    .into());
                }
                output::note("forgotten; a running service keeps it until it is started anew");
            }
            ModelsCommand::List(list) => {
                let found = all(&list.common, &Assets::find(list.common.assets.as_deref())?)?;
                if list.json {
                    let rows = found
                        .iter()
                        .map(|model| {
                            let mut row = serde_json::to_value(model)?;
                            row["digest"] = judges::digest(model, pipeline::version)?.to_string().into();
                            Ok(row)
                        })
                        .collect::<Result<Vec<_>, Failed>>()?;
                    return output::json(&rows).map(|()| ExitCode::SUCCESS);
                }
                let rows: Vec<Vec<String>> = found
                    .iter()
                    .map(|model| -> Result<Vec<String>, Failed> {
                        let digest = judges::digest(model, pipeline::version)?;
                        let bytes: u64 = model.files.iter().map(|file| file.bytes).sum();
                        let demo = if model.demo { "demo" } else { "" };
                        Ok(vec![
                            model.name.clone(),
                            model.kind.clone(),
                            format!("{:.1} MB", bytes as f64 / 1e6),
                            digest.to_string().chars().take(19).collect(),
                            model.folder.display().to_string(),
                            demo.to_owned(),
                        ])
                    })
                    .collect::<Result<_, _>>()?;
                output::table(&["NAME", "KIND", "SIZE", "DIGEST", "FOLDER", ""], &rows);
            }
            ModelsCommand::Verify(verify) => {
                let found = all(&verify.common, &Assets::find(verify.common.assets.as_deref())?)?;
                let chosen: Vec<&Installed> = found
                    .iter()
                    .filter(|model| verify.name.as_ref().is_none_or(|name| *name == model.name))
                    .collect();
                if chosen.is_empty() {
                    let names: Vec<&str> = found.iter().map(|model| model.name.as_str()).collect();
                    return Err(format!(
                        "no such model is installed\n  hint: there are {}",
                        names.join(", ")
                    )
                    .into());
                }
                for model in chosen {
                    model.verify()?;
                    output::line(format_args!(
                        "{} good: {} files as recorded",
                        model.name,
                        model.files.len()
                    ));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where a model that is to be added lies.
struct Found {
    folder: PathBuf,
    /// What it is called where neither option nor folder say it.
    otherwise: Option<String>,
}

/// The folder of that name, else the model of that name at the Hub.
async fn find(add: &Add) -> Result<Found, Failed> {
    if add.model.is_dir() {
        return Ok(Found { folder: add.model.clone(), otherwise: None });
    }
    let Some(reference) = add.model.to_str().and_then(Reference::parse) else {
        return Err(format!(
            "`{}` is no folder, and no model of the Hub either\n  hint: name a model's folder, or ORG/NAME or \
             ORG/NAME@REVISION at the Hub, like google/shieldgemma-2-4b-it",
            add.model.display()
        )
        .into());
    };
    // Eight gigabytes of another architecture would be refused after they came.
    let accept =
        |folder: &Path| checkpoint_config::check(folder).map_err(|error| HubError::Refused(Box::new(error)));
    let snapshot = hub::fetch(&Settings::from_env()?, &reference, &Progress::new(), accept).await?;
    Ok(Found { folder: snapshot.folder, otherwise: Some(reference.name().to_ascii_lowercase()) })
}

fn record(add: &Add, found: &Found) -> Result<(), Failed> {
    let model = Installed::check_or(&found.folder, add.name.as_deref(), found.otherwise.as_deref())?;
    hub::check_links(&model.folder, model.files.iter().map(|file| (file.path.as_path(), file.sha256.hex())))?;
    // What can't be opened would stop the next start of the service.
    judges::open(&runtime(&add.common)?, &model, pipeline::version)?;
    let record = model.save(&add.common.data_dir.join("models"))?;
    let digest = judges::digest(&model, pipeline::version)?;
    output::line(format_args!("{} {} {digest}", model.name, model.kind));
    output::note(format_args!(
        "recorded in `{}`; a running service opens it at its next start",
        record.display()
    ));
    Ok(())
}

/// Shipped and added; an added one replaces a shipped one of its name.
pub(super) fn all(common: &Common, assets: &Assets) -> Result<Vec<Installed>, Failed> {
    let mut found = Installed::list(&common.data_dir.join("models"))?;
    let shipped_dir = assets.models_dir();
    if shipped_dir.is_dir() {
        for shipped in Installed::shipped(&shipped_dir)? {
            if !found.iter().any(|added| added.name == shipped.name) {
                found.push(shipped);
            }
        }
    }
    Ok(found)
}

/// Opens those of `installed` that one of `policies` names.
pub(super) fn open_for(
    runtime: &Arc<Runtime>,
    installed: &[Installed],
    policies: &[Policy],
) -> Result<Vec<Box<dyn Judge>>, ModelError> {
    let named =
        |name: &str| policies.iter().any(|policy| policy.judges.iter().any(|judge| judge.name == name));
    open(runtime, installed.iter().filter(|model| named(&model.name)))
}

pub(super) fn open<'m>(
    runtime: &Arc<Runtime>,
    models: impl Iterator<Item = &'m Installed>,
) -> Result<Vec<Box<dyn Judge>>, ModelError> {
    let mut opened = Vec::new();
    for model in models {
        let judge = judges::open(runtime, model, pipeline::version)?;
        let card = judge.card();
        tracing::info!(judge = card.name, kind = card.kind, digest = %card.digest, demo = card.demo, "judge loaded");
        opened.push(judge);
    }
    Ok(opened)
}

/// For commands that only look: the CPU, one thread.
pub(super) fn runtime(common: &Common) -> Result<Arc<Runtime>, Failed> {
    let assets = Assets::find(common.assets.as_deref())?;
    Ok(Runtime::load(&assets.onnxruntime_library()?, DeviceChoice::Cpu, 1)?)
}
