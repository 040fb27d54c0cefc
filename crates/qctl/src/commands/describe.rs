//! `describe`: shows objects in detail, with related objects and events.

use crate::describe::{Related, describe};
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, Selected, Target, objects, select};
use crate::session::Session;

/// Show objects in detail, with related objects and events
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// TYPE, TYPE NAME… (or prefixes of names) or TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    select: SelectFlags,
    /// Show events
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    show_events: bool,
}

impl Describe {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let targets = select(session, &self.arguments, &self.files, &self.select).await?;
        if targets.is_empty() {
            return Err(CliError::usage(
                "You must specify the type of resource to describe; `qctl api-resources` lists them all",
            ));
        }
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for target in &targets {
            let (mut objects, mut failed) = objects(session, std::slice::from_ref(target), &self.select).await?;
            if failed.iter().any(CliError::is_not_found) {
                objects = beginning_with(session, target).await?;
                if !objects.is_empty() {
                    failed.clear();
                }
            }
            found.append(&mut objects);
            errors.append(&mut failed);
        }
        if found.is_empty() && errors.is_empty() {
            session.streams.note(format!("No resources found in {} namespace.", session.namespace))?;
        }
        for (index, selected) in found.iter().enumerate() {
            if index > 0 {
                session.streams.text("\n\n")?;
            }
            let related = self.related(session, selected).await?;
            session.streams.text(describe(&selected.object, &related, jiff::Timestamp::now()))?;
        }
        CliError::collect(errors)
    }

    /// Reads the related objects that a description of this kind shows.
    async fn related(&self, session: &mut Session, selected: &Selected) -> Result<Related> {
        let mut related = Related { show_events: self.show_events, ..Related::default() };
        if self.show_events {
            related.events = session.events_of(&selected.object).await?;
        }
        let resource = &selected.resource;
        let by_labels = SelectFlags { selector: crate::pods::selector_of(&selected.object), ..SelectFlags::default() };
        if resource.is("", "Node") {
            let pods = session.one_type("pods").await?;
            let on_node = SelectFlags {
                field_selector: Some(format!("spec.nodeName={}", selected.name())),
                ..SelectFlags::default()
            };
            related.pods = session.list(&pods, None, &on_node).await?;
            let leases = session.one_type("leases.coordination.k8s.io").await?;
            related.lease = session.find(&leases, Some("kube-node-lease"), selected.name()).await?;
        } else if resource.is("apps", "Deployment") {
            let sets = session.one_type("replicasets.apps").await?;
            related.replica_sets = session.list(&sets, selected.namespace(), &by_labels).await?;
        } else if resource.is("apps", "ReplicaSet") {
            let pods = session.one_type("pods").await?;
            related.pods = session.list(&pods, selected.namespace(), &by_labels).await?;
        } else if resource.is("", "Service") {
            let slices = session.one_type("endpointslices.discovery.k8s.io").await?;
            let of_service = SelectFlags {
                selector: Some(format!("kubernetes.io/service-name={}", selected.name())),
                ..SelectFlags::default()
            };
            related.endpoint_slices = session.list(&slices, selected.namespace(), &of_service).await?;
        }
        Ok(related)
    }
}

/// Returns the objects whose name begins with the target's name, for a name that no object has.
async fn beginning_with(session: &Session, target: &Target) -> Result<Vec<Selected>> {
    let Some(prefix) = &target.name else { return Ok(Vec::new()) };
    let all = session.list(&target.resource, target.namespace.as_deref(), &SelectFlags::default()).await?;
    Ok(all
        .into_iter()
        .filter(|object| object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(prefix.as_str())))
        .map(|object| Selected { resource: target.resource.clone(), object })
        .collect())
}
