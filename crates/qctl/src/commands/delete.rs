//! `delete`: deletes objects and waits until they are gone.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{Resource, SelectFlags, Target, objects, select};
use crate::session::Session;
use crate::verbs::DryRun;
use crate::watch::{Followed, follow};

/// Delete objects
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    select: SelectFlags,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// Grace period in seconds; a negative number means the object's own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Delete at once, without waiting for the confirmation that the object has ended
    #[arg(long)]
    force: bool,
    /// Use a grace period of one second
    #[arg(long)]
    now: bool,
    /// Treatment of the objects that this one owns
    #[arg(long, value_enum, default_value = "background", num_args = 0..=1, require_equals = true, default_missing_value = "background")]
    cascade: Cascade,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: bool,
    /// Maximum time to wait; 0 means no limit
    #[arg(long, default_value = "0s", value_parser = crate::duration::parse)]
    timeout: Duration,
    /// Succeed if an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Output format: `name` prints TYPE/NAME
    #[arg(short = 'o', long)]
    output: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Cascade {
    #[value(alias = "true")]
    Background,
    Foreground,
    #[value(alias = "false")]
    Orphan,
}

struct Deleted {
    target: Target,
    name: String,
    uid: Option<String>,
}

impl Delete {
    pub async fn run(mut self, session: &mut Session) -> Result<()> {
        self.check()?;
        let targets = select(session, &self.arguments, &self.files, &self.select).await?;
        if targets.is_empty() && self.files.is_empty() {
            return Err(CliError::usage("You must provide one or more resources by argument or filename."));
        }
        let lists = targets.iter().any(|target| target.name.is_none());
        if self.all && self.files.is_empty() && targets.iter().any(|target| target.name.is_some()) {
            return Err(CliError::usage("name cannot be provided when a selector is specified"));
        }
        if lists && !self.all && !self.select.selects() {
            return Err(CliError::usage(
                "resource(s) were provided, but no name was specified; give names, -l SELECTOR or --all",
            ));
        }
        if self.force && self.grace_period == 0 && self.dry_run == DryRun::None {
            session.streams.note("Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.")?;
        }
        let mut errors = Vec::new();
        let named = self.expand_names(session, targets, &mut errors).await?;
        if named.is_empty() && errors.is_empty() {
            session.streams.line("No resources found")?;
        }
        if session.namespace_given && named.iter().any(|target| !target.resource.namespaced) {
            session.streams.note("Warning: deleting cluster-scoped resources, not scoped to the provided namespace")?;
        }
        let mut deleted = Vec::new();
        for target in named {
            let source = target.manifest.as_ref().map(|manifest| manifest.source.clone());
            match self.delete(session, target).await {
                Ok(Some(done)) => deleted.push(done),
                Ok(None) => {}
                Err(error) if self.ignore_not_found && error.is_not_found() => {}
                Err(error @ CliError::Connect { .. }) => return Err(error),
                Err(error) => errors.push(match source {
                    Some(source) => error.when("deleting", &source),
                    None => error,
                }),
            }
        }
        if self.wait && self.dry_run == DryRun::None {
            let deadline = Some(self.timeout)
                .filter(|timeout| !timeout.is_zero())
                .and_then(|timeout| Instant::now().checked_add(timeout));
            self.wait_for(session, &deleted, deadline, &mut errors).await?;
        }
        CliError::collect(errors)
    }

    fn check(&mut self) -> Result<()> {
        if self.all && self.select.selector.is_some() {
            return Err(CliError::usage("cannot set --all and --selector at the same time"));
        }
        if self.now {
            if self.grace_period != -1 {
                return Err(CliError::usage("--now and --grace-period cannot be specified together"));
            }
            self.grace_period = 1;
        }
        if self.grace_period == 0 && !self.force {
            // Like kubectl without --force: the object gets the shortest graceful deletion, and is waited for.
            self.grace_period = 1;
        }
        if self.force && self.grace_period < 0 {
            self.grace_period = 0;
        }
        Ok(())
    }

    /// Replaces targets that are whole collections by the names in them.
    async fn expand_names(
        &self,
        session: &Session,
        targets: Vec<Target>,
        errors: &mut Vec<CliError>,
    ) -> Result<Vec<Target>> {
        let mut named = Vec::new();
        for target in targets {
            if target.name.is_some() {
                named.push(target);
                continue;
            }
            let (found, mut failed) = objects(session, std::slice::from_ref(&target), &self.select).await?;
            errors.append(&mut failed);
            named.extend(found.iter().map(|found| Target {
                resource: target.resource.clone(),
                namespace: found.namespace().map(str::to_owned),
                name: Some(found.name().to_owned()),
                manifest: None,
            }));
        }
        Ok(named)
    }

    async fn delete(&self, session: &mut Session, target: Target) -> Result<Option<Deleted>> {
        let Some(name) = target.name.clone() else { return Ok(None) };
        let (resource, namespace) = (&target.resource, target.namespace.as_deref());
        let answer = match self.dry_run {
            DryRun::Client => session.get(resource, namespace, &name).await?,
            dry_run => session.delete(resource, namespace, &name, &self.options(), dry_run).await?,
        };
        let uid = answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str()).map(str::to_owned);
        let verb = if self.force && self.grace_period == 0 { "force deleted" } else { "deleted" };
        match self.output.as_deref() {
            Some("name") => session.streams.line(format!("{}/{name}", resource.kind_name()))?,
            _ => {
                session.streams.line(format!("{} \"{name}\" {verb}{}", resource.kind_name(), self.dry_run.suffix()))?
            }
        }
        session.streams.flush()?;
        Ok(Some(Deleted { target, name, uid }))
    }

    fn options(&self) -> Value {
        let propagation = match self.cascade {
            Cascade::Background => "Background",
            Cascade::Foreground => "Foreground",
            Cascade::Orphan => "Orphan",
        };
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation});
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = self.grace_period.into();
        }
        options
    }

    async fn wait_for(
        &self,
        session: &Session,
        deleted: &[Deleted],
        deadline: Option<Instant>,
        errors: &mut Vec<CliError>,
    ) -> Result<()> {
        for Deleted { target, name, uid } in deleted {
            let resource = &target.resource;
            let gone =
                until_gone(session, resource, target.namespace.as_deref(), name, uid.as_deref(), deadline).await?;
            if !gone {
                errors.push(CliError::usage(format!(
                    "timed out waiting for the condition on {}/{name}",
                    resource.plural
                )));
            }
        }
        Ok(())
    }
}

/// Waits until the object is gone, or another one has its name. Returns `false` if `deadline` passed before.
///
/// # Errors
/// When the server refuses the request or stays unreachable.
pub async fn until_gone(
    session: &Session,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
    uid: Option<&str>,
    deadline: Option<Instant>,
) -> Result<bool> {
    follow(&session.transport, Followed { resource, namespace, name }, deadline, |object| {
        let same = object.is_some_and(|object| uid.is_none_or(|uid| object["metadata"]["uid"] == uid));
        Ok(if same { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
    .await
}
