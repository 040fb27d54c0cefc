//! `cordon` and `uncordon`: mark a node as unschedulable or schedulable.

use std::sync::Arc;

use serde_json::json;

use crate::error::{CliError, Result};
use crate::resources::{Resource, SelectFlags, Selected, Target, objects};
use crate::session::Session;
use crate::verbs::{DryRun, PatchType};

/// Nodes by name or selector.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeFlags {
    /// The nodes
    #[arg(value_name = "NODE")]
    names: Vec<String>,
    /// Label selector
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
}

/// Mark nodes as unschedulable, so that they get no new pods
#[derive(Debug, clap::Args)]
pub struct Cordon {
    #[command(flatten)]
    nodes: NodeFlags,
}

/// Mark nodes as schedulable again
#[derive(Debug, clap::Args)]
pub struct Uncordon {
    #[command(flatten)]
    nodes: NodeFlags,
}

impl Cordon {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        all(session, &self.nodes, true).await
    }
}

impl Uncordon {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        all(session, &self.nodes, false).await
    }
}

impl NodeFlags {
    /// Returns the nodes, and the errors for those that could not be read.
    pub async fn select(&self, session: &mut Session) -> Result<(Vec<Selected>, Vec<CliError>)> {
        let resource: Arc<Resource> = session.one_type("nodes").await?;
        if self.names.is_empty() == self.selector.is_none() {
            return Err(CliError::usage("give the names of nodes, or a selector with -l"));
        }
        let target =
            |name: Option<String>| Target { resource: resource.clone(), namespace: None, name, manifest: None };
        let targets: Vec<Target> = if self.names.is_empty() {
            vec![target(None)]
        } else {
            // `node/NAME`, which other commands print, is accepted as well.
            self.names.iter().map(|name| target(Some(name.rsplit('/').next().unwrap_or(name).to_owned()))).collect()
        };
        let flags = SelectFlags { selector: self.selector.clone(), ..SelectFlags::default() };
        objects(session, &targets, &flags).await
    }
}

async fn all(session: &mut Session, nodes: &NodeFlags, unschedulable: bool) -> Result<()> {
    let (found, mut errors) = nodes.select(session).await?;
    for node in &found {
        if let Err(error) = set(session, node, unschedulable, nodes.dry_run).await {
            errors.push(error);
        }
    }
    CliError::collect(errors)
}

/// Marks one node and reports it.
pub async fn set(session: &mut Session, node: &Selected, unschedulable: bool, dry_run: DryRun) -> Result<()> {
    let verb = if unschedulable { "cordoned" } else { "uncordoned" };
    let present = node.object["spec"]["unschedulable"].as_bool().unwrap_or(false);
    if present == unschedulable {
        return session.streams.line(format!("{} already {verb}{}", node.title(), dry_run.suffix()));
    }
    if dry_run != DryRun::Client {
        let patch = json!({"spec": {"unschedulable": if unschedulable { json!(true) } else { json!(null) }}});
        session.patch(&node.resource, None, node.name(), &patch, PatchType::Merge, dry_run).await?;
    }
    session.streams.line(format!("{} {verb}{}", node.title(), dry_run.suffix()))
}
