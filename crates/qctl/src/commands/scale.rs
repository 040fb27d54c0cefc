//! `scale`: sets the number of replicas.

use serde_json::json;

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::path::RequestPath;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::transport::Call;
use crate::verbs::{DryRun, PatchType};

/// Set the number of replicas
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    select: SelectFlags,
    #[command(flatten)]
    change: ChangeFlags,
    /// The new number of replicas
    #[arg(long, allow_negative_numbers = true)]
    replicas: Option<i32>,
    /// Fail unless this is the current number of replicas
    #[arg(long)]
    current_replicas: Option<u32>,
    /// Fail unless the object has this resource version
    #[arg(long)]
    resource_version: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
}

impl Scale {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let replicas = self.replicas.filter(|replicas| *replicas >= 0).ok_or_else(|| {
            CliError::usage("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0")
        })?;
        let targets = select(session, &self.arguments, &self.files, &self.select).await?;
        if targets.is_empty() && self.files.is_empty() {
            return Err(CliError::usage("You must provide one or more resources by argument or filename."));
        }
        if targets.iter().any(|target| target.name.is_none()) && !self.all && !self.select.selects() {
            return Err(CliError::usage("resource(s) were provided, but no name was specified"));
        }
        let (found, mut errors) = objects(session, &targets, &self.select).await?;
        if found.is_empty() {
            let reasons: Vec<String> = errors.iter().map(|error| format!(" {error}")).collect();
            return Err(CliError::usage(format!("no objects passed to scale{}", reasons.join(","))));
        }
        for selected in &found {
            if let Err(error) = self.scale(session, selected, replicas).await {
                errors.push(error);
            }
        }
        CliError::collect(errors)
    }

    async fn scale(&self, session: &mut Session, selected: &Selected, replicas: i32) -> Result<()> {
        let resource = &selected.resource;
        if !resource.subresources.iter().any(|subresource| subresource == "scale") {
            return Err(CliError::usage(format!(
                "cannot scale {}: {} has no scale subresource",
                selected.title(),
                resource.group_resource()
            )));
        }
        let path = RequestPath::object(resource, selected.namespace(), selected.name()).subresource("scale");
        let mut patch = json!({"spec": {"replicas": replicas}});
        if let Some(expected) = self.current_replicas {
            let scale = session.transport.json(&Call::get(path.clone())).await?;
            let present = scale["spec"]["replicas"].as_u64().unwrap_or(0);
            if present != u64::from(expected) {
                return Err(CliError::usage(format!("Expected replicas to be {expected}, was {present}")));
            }
            // The version makes the patch fail if another writer has changed the scale since it was checked.
            patch["metadata"] = json!({"resourceVersion": scale["metadata"]["resourceVersion"]});
        }
        if let Some(version) = &self.resource_version {
            patch["metadata"] = json!({"resourceVersion": version});
        }
        if self.change.dry_run != DryRun::Client {
            let path = path
                .query("fieldManager", "qctl")
                .maybe_query("dryRun", (self.change.dry_run == DryRun::Server).then_some("All"));
            let call = Call::new(http::Method::PATCH, path).content_type(PatchType::Merge.media_type()).body(&patch);
            session.transport.json(&call).await?;
        }
        self.change.report(session, resource, &selected.object, "scaled")
    }
}
