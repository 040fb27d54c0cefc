//! `patch`: sends the user's patch unchanged.

use quorate_api::yaml;
use serde_json::Value;

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::path::RequestPath;
use crate::resources::{SelectFlags, Target, select};
use crate::session::Session;
use crate::transport::Call;
use crate::verbs::{DryRun, PatchType};

/// Change fields of an object by a patch
#[derive(Debug, clap::Args)]
pub struct Patch {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    change: ChangeFlags,
    /// The patch, as JSON or YAML
    #[arg(short = 'p', long)]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long)]
    patch_file: Option<String>,
    /// Format of the patch
    #[arg(long = "type", value_enum, default_value = "strategic")]
    patch_type: PatchType,
    /// Patch this part of the object, such as status
    #[arg(long)]
    subresource: Option<String>,
}

impl Patch {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let patch = self.body()?;
        let targets = select(session, &self.arguments, &self.files, &SelectFlags::default()).await?;
        if targets.is_empty() || targets.iter().any(|target| target.name.is_none()) {
            return Err(CliError::usage("resource(s) were provided, but no name was specified"));
        }
        let mut errors = Vec::new();
        for target in &targets {
            if let Err(error) = self.patch(session, target, &patch).await {
                errors.push(error);
            }
        }
        CliError::collect(errors)
    }

    fn body(&self) -> Result<Value> {
        let text = match (&self.patch, &self.patch_file) {
            (Some(text), None) => text.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|source| CliError::io(format!("unable to read patch file {file}"), source))?,
            _ => {
                return Err(CliError::usage(
                    "must specify --patch or --patch-file containing the contents of the patch",
                ));
            }
        };
        yaml::value(&text).map_err(|error| CliError::usage(format!("unable to parse \"{text}\": {error}")))
    }

    async fn patch(&self, session: &mut Session, target: &Target, patch: &Value) -> Result<()> {
        let name = target.name.as_deref().unwrap_or_default();
        let (resource, namespace) = (&target.resource, target.namespace.as_deref());
        let before = session.get(resource, namespace, name).await?;
        let after = if self.change.dry_run == DryRun::Client {
            before.clone()
        } else {
            let mut path = RequestPath::object(resource, namespace, name);
            if let Some(subresource) = &self.subresource {
                path = path.subresource(subresource);
            }
            let server = (self.change.dry_run == DryRun::Server).then_some("All");
            let path = path.query("fieldManager", "qctl").maybe_query("dryRun", server);
            let call = Call::new(http::Method::PATCH, path).content_type(self.patch_type.media_type()).body(patch);
            session.transport.json(&call).await?
        };
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let changed = self.change.dry_run != DryRun::None || version(&before) != version(&after);
        self.change.report(session, resource, &after, if changed { "patched" } else { "patched (no change)" })
    }
}
