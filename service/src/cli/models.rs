//! `shieldgate models add|list|verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use conf::{Conf, Subcommands};
use shieldgate_models::installed::Installed;
use shieldgate_models::{Digest, judges};

use super::{Failed, output};
use crate::assets::Assets;
use crate::config::Common;
use crate::media;

#[derive(Conf)]
pub(super) struct Models {
    #[conf(subcommands)]
    command: ModelsCommand,
}

#[derive(Subcommands)]
enum ModelsCommand {
    /// Check a model's folder and record it; its weights are read where they lie.
    Add(Add),
    /// List the models that came with the build and those that were added.
    List(List),
    /// Hash every file again and compare with the record.
    Verify(Verify),
}

#[derive(Conf)]
struct Add {
    #[conf(flatten)]
    common: Common,
    /// The model's folder.
    #[arg(pos)]
    folder: PathBuf,
    /// The name policies call it by; what the folder says where absent.
    #[arg(long)]
    name: Option<String>,
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
            ModelsCommand::List(it) => &it.common,
            ModelsCommand::Verify(it) => &it.common,
        }
    }

    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        match self.command {
            ModelsCommand::Add(add) => {
                let model = Installed::check(&add.folder, add.name.as_deref())?;
                let record = model.save(&add.common.data_dir.join("models"))?;
                output::line(format_args!("{} {} {}", model.name, model.kind, judge_digest(&model)));
                output::note(format_args!(
                    "recorded in `{}`; a running service opens it at its next start",
                    record.display()
                ));
            }
            ModelsCommand::List(list) => {
                let found = all(&list.common, &Assets::find(list.common.assets.as_deref())?)?;
                if list.json {
                    let rows = found
                        .iter()
                        .map(|model| {
                            let mut row = serde_json::to_value(model)?;
                            row["digest"] = judge_digest(model).to_string().into();
                            Ok(row)
                        })
                        .collect::<Result<Vec<_>, serde_json::Error>>()?;
                    return output::json(&rows).map(|()| ExitCode::SUCCESS);
                }
                let rows: Vec<Vec<String>> = found
                    .iter()
                    .map(|model| {
                        let bytes: u64 = model.files.iter().map(|file| file.bytes).sum();
                        let demo = if model.demo { "demo" } else { "" };
                        vec![
                            model.name.clone(),
                            model.kind.clone(),
                            format!("{:.1} MB", bytes as f64 / 1e6),
                            judge_digest(model).to_string().chars().take(19).collect(),
                            model.folder.display().to_string(),
                            demo.to_owned(),
                        ]
                    })
                    .collect();
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

/// As verdicts name the judge: not the record's own digest, for the media pipeline counts too.
fn judge_digest(model: &Installed) -> Digest {
    judges::digest(model, media::PIPELINE_VERSION)
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
