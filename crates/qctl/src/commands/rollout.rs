//! `rollout`: watches, pauses, restarts and undoes the rollouts of workloads.

mod history;
mod status;

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::verbs::{DryRun, PatchType};

/// Watch, pause, restart and undo rollouts
#[derive(Debug, clap::Args)]
pub struct Rollout {
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RolloutCommand {
    /// Wait until the rollout is complete
    Status {
        #[command(flatten)]
        targets: Targets,
        /// Wait for completion instead of showing only the current state
        #[arg(short = 'w', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        watch: bool,
        /// Maximum time to wait; 0 means no limit
        #[arg(long, default_value = "0s", value_parser = crate::duration::parse)]
        timeout: Duration,
        /// Fail if the current revision is another one
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// List the revisions
    History {
        #[command(flatten)]
        targets: Targets,
        /// Show the pod template of this revision
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Go back to a revision
    Undo {
        #[command(flatten)]
        targets: Targets,
        /// The revision; 0 means the previous one
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
        #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
        dry_run: DryRun,
    },
    /// Replace all pods with new ones
    Restart {
        #[command(flatten)]
        targets: Targets,
    },
    /// Pause rollouts of template changes
    Pause {
        #[command(flatten)]
        targets: Targets,
    },
    /// Resume paused rollouts
    Resume {
        #[command(flatten)]
        targets: Targets,
    },
}

#[derive(Debug, clap::Args)]
struct Targets {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    /// Label selector
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

impl Targets {
    async fn read(&self, session: &mut Session) -> Result<Vec<Selected>> {
        let flags = SelectFlags { selector: self.selector.clone(), ..SelectFlags::default() };
        let targets = select(session, &self.arguments, &self.files, &flags).await?;
        if targets.is_empty() {
            return Err(CliError::usage(
                "required resource not specified: TYPE NAME or TYPE/NAME, such as deployment/web",
            ));
        }
        let (found, errors) = objects(session, &targets, &flags).await?;
        CliError::collect(errors)?;
        Ok(found)
    }
}

impl Rollout {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        match self.command {
            RolloutCommand::Status { targets, watch, timeout, revision } => {
                for selected in targets.read(session).await? {
                    status::run(session, &selected, watch, timeout, revision).await?;
                }
                Ok(())
            }
            RolloutCommand::History { targets, revision } => {
                for selected in targets.read(session).await? {
                    history::show(session, &selected, revision).await?;
                }
                Ok(())
            }
            RolloutCommand::Undo { targets, to_revision, dry_run } => {
                for selected in targets.read(session).await? {
                    history::undo(session, &selected, to_revision, dry_run).await?;
                }
                Ok(())
            }
            RolloutCommand::Restart { targets } => {
                for selected in targets.read(session).await? {
                    restart(session, &selected).await?;
                }
                Ok(())
            }
            RolloutCommand::Pause { targets } => {
                for selected in targets.read(session).await? {
                    pause(session, &selected, true).await?;
                }
                Ok(())
            }
            RolloutCommand::Resume { targets } => {
                for selected in targets.read(session).await? {
                    pause(session, &selected, false).await?;
                }
                Ok(())
            }
        }
    }
}

async fn restart(session: &mut Session, selected: &Selected) -> Result<()> {
    let restartable = ["Deployment", "DaemonSet", "StatefulSet"].iter().any(|kind| selected.resource.is("apps", kind));
    if !restartable {
        return Err(CliError::usage(format!(
            "{} \"{}\" restarting is not supported",
            selected.resource.group_resource(),
            selected.name()
        )));
    }
    if selected.object["spec"]["paused"] == true {
        return Err(CliError::usage(format!(
            "{} \"{}\" can't restart paused deployment (run rollout resume first)",
            selected.resource.group_resource(),
            selected.name()
        )));
    }
    // kubectl writes whole seconds.
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    send(session, selected, &patch).await?;
    session.streams.line(format!("{} restarted", selected.title()))
}

async fn pause(session: &mut Session, selected: &Selected, paused: bool) -> Result<()> {
    if !selected.resource.is("apps", "Deployment") {
        let verb = if paused { "pausing" } else { "resuming" };
        return Err(CliError::usage(format!(
            "{} \"{}\" {verb} is not supported",
            selected.resource.group_resource(),
            selected.name()
        )));
    }
    let present = selected.object["spec"]["paused"].as_bool().unwrap_or(false);
    if present == paused {
        let state = if paused { "is already paused" } else { "is not paused" };
        return Err(CliError::usage(format!("{} \"{}\" {state}", selected.resource.group_resource(), selected.name())));
    }
    let patch = json!({"spec": {"paused": if paused { json!(true) } else { Value::Null }}});
    send(session, selected, &patch).await?;
    session.streams.line(format!("{} {}", selected.title(), if paused { "paused" } else { "resumed" }))
}

async fn send(session: &Session, selected: &Selected, patch: &Value) -> Result<Value> {
    session
        .patch(&selected.resource, selected.namespace(), selected.name(), patch, PatchType::Strategic, DryRun::None)
        .await
}
