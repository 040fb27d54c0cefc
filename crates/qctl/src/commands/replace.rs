//! `replace`: replaces objects by manifests as a whole.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::changes::{ChangeFlags, SaveConfig};
use crate::error::{CliError, Result};
use crate::manifest::{self, FileFlags};
use crate::path::RequestPath;
use crate::resources::{SelectFlags, Target, select};
use crate::session::Session;
use crate::transport::Call;
use crate::verbs::DryRun;

/// Replace objects by manifests
#[derive(Debug, clap::Args)]
pub struct Replace {
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    change: ChangeFlags,
    #[command(flatten)]
    save: SaveConfig,
    /// Delete and recreate the objects
    #[arg(long)]
    force: bool,
    /// Grace period of --force in seconds; a negative number means the object's own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Maximum time of --force to wait until the objects are gone [default: 5m]
    #[arg(long, value_parser = crate::duration::parse)]
    timeout: Option<Duration>,
    /// Replace this part of the object, such as status
    #[arg(long)]
    subresource: Option<String>,
    /// Send the file as it is by PUT to this path
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
}

const GONE_WITHIN: Duration = Duration::from_secs(300);

impl Replace {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        self.check()?;
        if let Some(path) = &self.raw {
            let [manifest] = manifest::read(&self.files, &mut session.streams)?
                .try_into()
                .map_err(|_| CliError::usage("--raw can only use a single local file or stdin with one object"))?;
            let call = Call::new(Method::PUT, RequestPath::raw(path)).body(&manifest.object);
            let answer = session.transport.bytes(&call).await?;
            return session.streams.text(answer);
        }
        let targets = select(session, &[], &self.files, &SelectFlags::default()).await?;
        if targets.is_empty() {
            return Err(CliError::usage("no objects passed to replace"));
        }
        if self.force {
            self.delete(session, &targets).await?;
        }
        let mut errors = Vec::new();
        for target in &targets {
            match self.replace(session, target).await {
                Ok(()) => {}
                Err(error @ CliError::Connect { .. }) => return Err(error),
                Err(error) => errors.push(error),
            }
        }
        CliError::collect(errors)
    }

    fn check(&self) -> Result<()> {
        let refused = |message: &str| Err(CliError::usage(message));
        if self.files.is_empty() {
            return refused("must specify --filename to replace");
        }
        if self.grace_period >= 0 && !self.force {
            return refused("--grace-period must have --force specified");
        }
        if self.timeout.is_some_and(|timeout| !timeout.is_zero()) && !self.force {
            return refused("--timeout must have --force specified");
        }
        if self.force && self.change.dry_run != DryRun::None {
            return refused("--dry-run can not be used when --force is set");
        }
        if self.raw.is_some() && (self.files.filenames.len() != 1 || self.files.recursive) {
            return refused("--raw can only use a single local file or stdin");
        }
        if self.raw.is_some() && self.change.output.is_some() {
            return refused("--raw and --output are mutually exclusive");
        }
        Ok(())
    }

    async fn replace(&self, session: &mut Session, target: &Target) -> Result<()> {
        let Some(manifest) = &target.manifest else { return Ok(()) };
        let (resource, namespace) = (&target.resource, target.namespace.as_deref());
        let mut object = self.save.annotate(manifest.object.clone());
        let replaced = if self.change.dry_run == DryRun::Client {
            Ok(object)
        } else if self.force {
            session.create(resource, namespace, &object, DryRun::None).await
        } else {
            let Some(name) = &target.name else {
                return Err(CliError::usage(format!("error from {}: the object has no name", manifest.source)));
            };
            let version = &object["metadata"]["resourceVersion"];
            if version.as_str().is_none_or(str::is_empty) {
                // Some kinds have no update without a version. A missing object is reported by the update.
                if let Some(live) = session.find(resource, namespace, name).await? {
                    object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
                }
            }
            let subresource = self.subresource.as_deref();
            session.update(resource, namespace, name, subresource, &object, self.change.dry_run).await
        };
        let replaced = replaced.map_err(|error| error.when("replacing", &manifest.source))?;
        self.change.report(session, resource, &replaced, "replaced")
    }

    async fn delete(&self, session: &mut Session, targets: &[Target]) -> Result<()> {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        if self.grace_period >= 0 {
            // A grace period of 0 would not wait for the containers to end.
            options["gracePeriodSeconds"] = self.grace_period.max(1).into();
        }
        let timeout = self.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(GONE_WITHIN);
        let deadline = Instant::now().checked_add(timeout);
        for target in targets {
            let Some(name) = &target.name else { continue };
            let (resource, namespace) = (&target.resource, target.namespace.as_deref());
            match session.delete(resource, namespace, name, &options, DryRun::None).await {
                Ok(_) => session.streams.line(format!("{} \"{name}\" deleted", resource.kind_name()))?,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            }
            if !super::delete::until_gone(session, resource, namespace, name, None, deadline).await? {
                let title = format!("{}/{name}", resource.kind_name());
                return Err(CliError::usage(format!(
                    "timed out waiting for {title} to be gone; it is not recreated (see `qctl get {title}`)"
                )));
            }
        }
        Ok(())
    }
}
