//! `create`: creates objects from manifests or from flags.

use serde_json::Value;

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::{FileFlags, Manifest};
use crate::resources::{SelectFlags, select};
use crate::session::Session;
use crate::three_way;
use crate::verbs::DryRun;

use super::generators;

/// Create objects
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    change: ChangeFlags,
    /// Record the manifest for a later apply
    #[arg(long)]
    save_config: bool,
    #[command(subcommand)]
    generator: Option<Generator>,
}

#[derive(Debug, clap::Subcommand)]
enum Generator {
    #[command(alias = "ns")]
    Namespace(generators::Namespace),
    #[command(alias = "cm")]
    Configmap(generators::ConfigMap),
    Secret(generators::Secret),
    #[command(alias = "deploy")]
    Deployment(generators::Deployment),
    #[command(alias = "sa")]
    Serviceaccount(generators::ServiceAccount),
}

impl Create {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if let Some(generator) = self.generator {
            // kubectl's prefix of the server's message.
            let (failure, (object, change)) = match generator {
                Generator::Namespace(flags) => (None, (flags.object(), flags.change)),
                Generator::Configmap(flags) => (Some("failed to create configmap: "), (flags.object()?, flags.change)),
                Generator::Secret(flags) => (Some("failed to create secret "), flags.object()?),
                Generator::Deployment(flags) => (Some("failed to create deployment: "), (flags.object(), flags.change)),
                Generator::Serviceaccount(flags) => {
                    (Some("failed to create serviceaccount: "), (flags.object(), flags.change))
                }
            };
            return generated(session, object, &change, failure).await;
        }
        if self.files.is_empty() {
            return Err(CliError::usage("must specify one of -f and -k"));
        }
        let targets = select(session, &[], &self.files, &SelectFlags::default()).await?;
        if targets.is_empty() {
            return Err(CliError::usage("no objects passed to create"));
        }
        let mut errors = Vec::new();
        for target in &targets {
            let Some(manifest) = &target.manifest else { continue };
            let object =
                if self.save_config { three_way::annotated(&manifest.object) } else { manifest.object.clone() };
            let created = match self.change.dry_run {
                DryRun::Client => Ok(object),
                dry_run => session.create(&target.resource, target.namespace.as_deref(), &object, dry_run).await,
            };
            match created {
                Ok(object) => self.change.report(session, &target.resource, &object, "created")?,
                Err(error @ CliError::Connect { .. }) => return Err(error),
                Err(error) => errors.push(error.when("creating", &manifest.source)),
            }
        }
        CliError::collect(errors)
    }
}

/// Creates the object that the flags describe and reports it. A client-side dry run only reports it.
async fn generated(
    session: &mut Session,
    object: Value,
    change: &ChangeFlags,
    failure: Option<&'static str>,
) -> Result<()> {
    let manifest = Manifest { object, source: "flags".to_owned() };
    let resource = session.kind(&manifest).await?;
    let namespace = session.manifest_namespace(&resource, &manifest)?;
    let mut object = manifest.object;
    if session.namespace_given && resource.namespaced {
        object["metadata"]["namespace"] = session.namespace.clone().into();
    }
    let created = match change.dry_run {
        DryRun::Client => object,
        dry_run => match (session.create(&resource, namespace.as_deref(), &object, dry_run).await, failure) {
            (Err(CliError::Server(status)), Some(failure)) => {
                return Err(CliError::usage(format!("{failure}{}", status.message)));
            }
            (created, _) => created?,
        },
    };
    change.report(session, &resource, &created, "created")
}
