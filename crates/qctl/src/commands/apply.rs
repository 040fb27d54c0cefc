//! `apply`: changes objects to match manifests, by a three-way merge with the manifest that was applied before, or by the
//! server (`--server-side`).

use quorate_api::GroupVersionKind;
use serde_json::Value;

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::{FileFlags, Manifest};
use crate::resources::{SelectFlags, Target, select};
use crate::session::Session;
use crate::three_way;
use crate::verbs::{DryRun, FIELD_MANAGER, PatchType, ServerSide};

/// Create or change objects to match manifests
#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    change: ChangeFlags,
    /// Delete and recreate objects whose change the server refuses
    #[arg(long, conflicts_with = "server_side")]
    force: bool,
    /// Let the server merge the manifests, which keeps track of the fields of each manager
    #[arg(long)]
    server_side: bool,
    /// Take over the fields that other managers have (with --server-side)
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,
    /// Name of the manager of the applied fields (with --server-side)
    #[arg(long, default_value = FIELD_MANAGER, requires = "server_side")]
    field_manager: String,
}

/// Maximum number of attempts, because another writer may change the object between the read and the patch.
const CONFLICT_ATTEMPTS: u32 = 5;

impl Apply {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if self.files.is_empty() {
            return Err(CliError::usage("must specify one of -f and -k"));
        }
        let targets = select(session, &[], &self.files, &SelectFlags::default()).await?;
        if targets.is_empty() {
            return Err(CliError::usage("no objects passed to apply"));
        }
        let mut errors = Vec::new();
        for target in &targets {
            let Some(manifest) = &target.manifest else { continue };
            match self.apply(session, target, manifest).await {
                Ok((object, done)) => self.change.report(session, &target.resource, &object, done)?,
                Err(error @ CliError::Connect { .. }) => return Err(error),
                Err(error) => errors.push(error),
            }
            session.streams.flush()?;
        }
        CliError::collect(errors)
    }

    async fn apply(
        &self,
        session: &mut Session,
        target: &Target,
        manifest: &Manifest,
    ) -> Result<(Value, &'static str)> {
        let Some(name) = &target.name else {
            return Err(CliError::usage(format!(
                "error from {}: cannot use generate name with apply; give metadata.name or use `qctl create`",
                manifest.source
            )));
        };
        if self.server_side {
            return self.by_server(session, target, name, manifest).await;
        }
        let mut attempt = 1;
        loop {
            match self.once(session, target, name, manifest).await {
                Err(error) if error.is_conflict() && attempt < CONFLICT_ATTEMPTS => attempt += 1,
                Err(error) if error.is_already_exists() && attempt < CONFLICT_ATTEMPTS => attempt += 1,
                Err(CliError::Server(status)) if self.force && status.reason == "Invalid" && attempt == 1 => {
                    self.replace_by_force(session, target, name).await?;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn once(
        &self,
        session: &mut Session,
        target: &Target,
        name: &str,
        manifest: &Manifest,
    ) -> Result<(Value, &'static str)> {
        let (resource, namespace) = (&target.resource, target.namespace.as_deref());
        let mut wanted = manifest.object.clone();
        if let Some(namespace) = namespace {
            // kubectl records the namespace as well, so that both programs can apply the same object.
            wanted["metadata"]["namespace"] = namespace.into();
        }
        let Some(mut live) = session.find(resource, namespace, name).await? else {
            let object = three_way::annotated(&wanted);
            let created = match self.change.dry_run {
                DryRun::Client => object,
                dry_run => {
                    let created = session.create(resource, namespace, &object, dry_run).await;
                    created.map_err(|error| error.when("creating", &manifest.source))?
                }
            };
            return Ok((created, "created"));
        };
        let kind = GroupVersionKind {
            group: resource.group.clone().into(),
            version: resource.version.clone().into(),
            kind: resource.kind.clone().into(),
        };
        if live["metadata"]["annotations"].get(three_way::LAST_APPLIED).is_none() {
            session.streams.note(format!(
                "Warning: resource {}/{name} is missing the {} annotation which is required by qctl apply. qctl apply should only be used on resources created declaratively by either qctl create --save-config or qctl apply. The missing annotation will be patched automatically.",
                resource.plural,
                three_way::LAST_APPLIED
            ))?;
        }
        live["apiVersion"] = resource.api_version().into();
        live["kind"] = resource.kind.clone().into();
        let patch = three_way::patch(&kind, &wanted, &live).map_err(|error| CliError::usage(error.to_string()))?;
        let Some((patch, patch_type)) = patch else { return Ok((live, "unchanged")) };
        let patched = match self.change.dry_run {
            DryRun::Client => locally(&kind, live, &patch, patch_type)?,
            dry_run => {
                let patched = session.patch(resource, namespace, name, &patch, patch_type, dry_run).await;
                patched.map_err(|error| error.when("patching", &manifest.source))?
            }
        };
        Ok((patched, "configured"))
    }

    async fn by_server(
        &self,
        session: &Session,
        target: &Target,
        name: &str,
        manifest: &Manifest,
    ) -> Result<(Value, &'static str)> {
        if self.change.dry_run == DryRun::Client {
            return Err(CliError::usage(
                "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server?)",
            ));
        }
        let options = ServerSide { manager: &self.field_manager, force: self.force_conflicts };
        let (resource, namespace) = (&target.resource, target.namespace.as_deref());
        let applied = session.apply(resource, namespace, name, &manifest.object, options, self.change.dry_run).await;
        let applied = applied.map_err(|error| error.when("applying", &manifest.source))?;
        Ok((applied, "serverside-applied"))
    }

    async fn replace_by_force(&self, session: &Session, target: &Target, name: &str) -> Result<()> {
        let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        let (resource, namespace) = (&target.resource, target.namespace.as_deref());
        session.delete(resource, namespace, name, &options, self.change.dry_run).await?;
        if self.change.dry_run == DryRun::None {
            super::delete::until_gone(session, resource, namespace, name, None, None).await?;
        }
        Ok(())
    }
}

/// Returns the expected result of the patch, computed without the server.
fn locally(kind: &GroupVersionKind, mut live: Value, patch: &Value, patch_type: PatchType) -> Result<Value> {
    use quorate_api::patch::{merge, strategic};
    match patch_type {
        PatchType::Strategic => {
            strategic::apply(kind, &mut live, patch).map_err(|error| CliError::usage(error.to_string()))?;
        }
        PatchType::Merge | PatchType::Json => merge::apply(&mut live, patch),
    }
    Ok(live)
}
