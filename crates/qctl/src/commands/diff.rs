//! `diff`: shows the changes that `apply` would make.

use serde_json::Value;
use similar::TextDiff;

use crate::error::{CliError, Result};
use crate::manifest::{FileFlags, Manifest};
use crate::output;
use crate::resources::{SelectFlags, Target, select};
use crate::session::Session;
use crate::three_way;
use crate::verbs::DryRun;

/// Show the changes that apply would make; the exit code is 1 if there are any
#[derive(Debug, clap::Args)]
pub struct Diff {
    #[command(flatten)]
    files: FileFlags,
    /// Show managedFields too
    #[arg(long)]
    show_managed_fields: bool,
}

impl Diff {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if self.files.is_empty() {
            return Err(CliError::usage("must specify -f FILE"));
        }
        let targets = select(session, &[], &self.files, &SelectFlags::default()).await?;
        let mut differs = false;
        for target in &targets {
            let Some(manifest) = &target.manifest else { continue };
            let (live, merged) = self.both(session, target, manifest).await?;
            let (before, after) = (self.text(live)?, self.text(Some(merged))?);
            if before == after {
                continue;
            }
            differs = true;
            let title = format!("{}/{}", target.resource.kind_name(), manifest.name());
            let diff = TextDiff::from_lines(&before, &after);
            let text = diff.unified_diff().header(&format!("LIVE/{title}"), &format!("MERGED/{title}")).to_string();
            session.streams.text(text)?;
        }
        if differs { Err(CliError::Exit(1)) } else { Ok(()) }
    }

    async fn both(&self, session: &Session, target: &Target, manifest: &Manifest) -> Result<(Option<Value>, Value)> {
        let (resource, namespace, name) = (&target.resource, target.namespace.as_deref(), manifest.name());
        let Some(live) = session.find(resource, namespace, name).await? else {
            let object = three_way::annotated(&manifest.object);
            return Ok((None, session.create(resource, namespace, &object, DryRun::Server).await?));
        };
        let kind = quorate_api::GroupVersionKind {
            group: resource.group.clone().into(),
            version: resource.version.clone().into(),
            kind: resource.kind.clone().into(),
        };
        let patch =
            three_way::patch(&kind, &manifest.object, &live).map_err(|error| CliError::usage(error.to_string()))?;
        let merged = match patch {
            Some((patch, patch_type)) => {
                session.patch(resource, namespace, name, &patch, patch_type, DryRun::Server).await?
            }
            None => live.clone(),
        };
        Ok((Some(live), merged))
    }

    /// Formats an object without the fields that always differ.
    fn text(&self, object: Option<Value>) -> Result<String> {
        let Some(mut object) = object else { return Ok(String::new()) };
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            if !self.show_managed_fields {
                metadata.remove("managedFields");
            }
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(three_way::LAST_APPLIED);
            }
            if metadata.get("annotations").is_some_and(|annotations| annotations == &serde_json::json!({})) {
                metadata.remove("annotations");
            }
        }
        Ok(output::yaml(&object))
    }
}
