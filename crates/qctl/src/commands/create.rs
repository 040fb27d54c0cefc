//! `create`: objects from manifests, or from a few flags.

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
            let (object, change) = match generator {
                Generator::Namespace(flags) => (flags.object(), flags.change),
                Generator::Configmap(flags) => (flags.object()?, flags.change),
                Generator::Secret(flags) => flags.object()?,
                Generator::Deployment(flags) => (flags.object(), flags.change),
                Generator::Serviceaccount(flags) => (flags.object(), flags.change),
            };
            return generated(session, object, &change).await;
        }
        if self.files.is_empty() {
            return Err(CliError::usage(
                "must specify one of -f FILE and a kind: namespace, configmap, secret, deployment, serviceaccount",
            ));
        }
        let targets = select(session, &[], &self.files, &SelectFlags::default()).await?;
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

/// Creates what flags describe and says so; on a client-side dry run only says so.
pub async fn generated(session: &mut Session, object: Value, change: &ChangeFlags) -> Result<()> {
    let manifest = Manifest { object, source: "flags".to_owned() };
    let resource = session.kind(&manifest).await?;
    let namespace = session.manifest_namespace(&resource, &manifest)?;
    let mut object = manifest.object;
    if session.namespace_given && resource.namespaced {
        object["metadata"]["namespace"] = session.namespace.clone().into();
    }
    let created = match change.dry_run {
        DryRun::Client => object,
        dry_run => session.create(&resource, namespace.as_deref(), &object, dry_run).await.map_err(failed_to_create)?,
    };
    change.report(session, &resource, &created, "created")
}

fn failed_to_create(error: CliError) -> CliError {
    match error {
        CliError::Server(status) if status.is_already_exists() => {
            CliError::usage(format!("failed to create: {}", status.message))
        }
        other => other,
    }
}
