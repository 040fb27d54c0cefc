//! `debug`: adds a debugging container to a pod, copies the pod with changes, or starts a pod in a node's namespaces.

mod build;
mod profile;

use std::ops::ControlFlow;
use std::path::PathBuf;

use quorate_api::yaml;
use serde_json::{Map, Value, json};

use self::build::{Copy, Wanted};
use self::profile::{Keep, Profile};
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::path::RequestPath;
use crate::pods::{self, Found};
use crate::remote::TerminalFlags;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::verbs::{DryRun, PatchType};
use crate::watch::{Followed, follow};

use super::generators::{environment, pairs};

/// Debug a pod or a node with a container of your choice
#[derive(Debug, clap::Args)]
pub struct Debug {
    /// POD or TYPE/NAME; a node gets a pod in its own namespaces
    #[arg(value_name = "POD|TYPE/NAME")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    /// The image of the debugging container
    #[arg(long)]
    image: Option<String>,
    /// Name of the debugging container, or of the one to change in a copy
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Attach to the container when it runs [default: with -i]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    attach: Option<bool>,
    #[command(flatten)]
    terminal: TerminalFlags,
    /// NAME=VALUE of the container's environment
    #[arg(long, value_delimiter = ',')]
    env: Vec<String>,
    #[arg(long, value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// Use the words after -- as the arguments instead of the command
    #[arg(long)]
    arguments_only: bool,
    /// See the processes of this container
    #[arg(long, value_name = "CONTAINER")]
    target: Option<String>,
    /// Debug a copy of the pod with this name
    #[arg(long, value_name = "NAME")]
    copy_to: Option<String>,
    /// Delete the original of the copy
    #[arg(long)]
    replace: bool,
    /// Start the copy on the original's node
    #[arg(long)]
    same_node: bool,
    /// CONTAINER=IMAGE of the copy; * means all containers
    #[arg(long, value_delimiter = ',')]
    set_image: Vec<String>,
    /// Whether the copy's containers see each other's processes [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    share_processes: Option<bool>,
    #[arg(long)]
    keep_labels: bool,
    #[arg(long)]
    keep_annotations: bool,
    #[arg(long)]
    keep_liveness: bool,
    #[arg(long)]
    keep_readiness: bool,
    #[arg(long)]
    keep_startup: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    keep_init_containers: bool,
    /// Preset of the container's privileges
    #[arg(long, value_enum, default_value = "general")]
    profile: Profile,
    /// A file with a part of a container, which is merged into the debugging one
    #[arg(long, value_name = "FILE")]
    custom: Option<PathBuf>,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

impl Debug {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        self.check()?;
        let wanted = self.wanted()?;
        if let Some(target) = self.target.as_deref().filter(|_| !self.terminal.quiet) {
            session.streams.line(format!("Targeting container \"{target}\". If you don't see processes from this container it may be because the container runtime doesn't support this feature."))?;
        }
        let mut targets = Vec::new();
        for argument in &self.arguments {
            let argument = if argument.contains('/') { argument.clone() } else { format!("pods/{argument}") };
            targets.extend(select(session, &[argument], &FileFlags::default(), &SelectFlags::default()).await?);
        }
        targets.extend(select(session, &[], &self.files, &SelectFlags::default()).await?);
        let (found, errors) = objects(session, &targets, &SelectFlags::default()).await?;
        CliError::collect(errors)?;
        for selected in found {
            let (pod, container) = if selected.resource.is("", "Node") {
                self.node(session, &selected, &wanted).await?
            } else if !selected.resource.is("", "Pod") {
                let kind = selected.resource.kind_name();
                return Err(CliError::usage(format!("{kind} is not supported by debug; name a pod or a node")));
            } else if let Some(name) = &self.copy_to {
                self.copy(session, &selected, name, &wanted).await?
            } else {
                self.ephemeral(session, &selected, &wanted).await?
            };
            if let Some(container) = container.filter(|_| self.attach.unwrap_or(self.terminal.stdin)) {
                let resource = session.one_type("pods").await?;
                self.connect(session, Found { resource, named: selected, pod }, &container).await?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let refused = |message: &str| Err(CliError::usage(message));
        if self.attach == Some(true) && self.image.is_none() && self.container.is_none() {
            return refused("you must specify --container or create a new container using --image in order to attach.");
        }
        if self.copy_to.is_some() {
            if self.image.is_none() && self.set_image.is_empty() && self.command.is_empty() {
                return refused("you must specify --image, --set-image or command arguments.");
            }
            if !self.command.is_empty() && self.container.is_none() && self.image.is_none() {
                return refused("you must specify an existing container or a new image when specifying args.");
            }
            if self.target.is_some() {
                return refused("--target is incompatible with --copy-to. Use --share-processes instead.");
            }
        } else {
            let only_copies = [
                (self.replace, "--replace"),
                (self.same_node, "--same-node"),
                (!self.set_image.is_empty(), "--set-image"),
            ];
            if let Some((_, flag)) = only_copies.iter().find(|(given, _)| *given) {
                return Err(CliError::usage(format!("{flag} may only be used with --copy-to.")));
            }
            if self.image.is_none() {
                return refused("you must specify --image when not using --copy-to.");
            }
        }
        if self.arguments.is_empty() && self.files.is_empty() {
            return refused("NAME or filename is required for debug");
        }
        if self.terminal.tty && !self.terminal.stdin {
            return refused("-i/--stdin is required for containers with -t/--tty=true");
        }
        Ok(())
    }

    fn wanted(&self) -> Result<Wanted> {
        let custom = match &self.custom {
            None => None,
            Some(path) => {
                let failed = |source| CliError::io(format!("reading the custom profile {}", path.display()), source);
                let text = std::fs::read_to_string(path).map_err(failed)?;
                let invalid =
                    |reason: String| CliError::usage(format!("{} is no container spec: {reason}", path.display()));
                let custom = yaml::value(&text).map_err(|error| invalid(error.to_string()))?;
                let fixed = ["name", "command", "image", "lifecycle", "volumeDevices"];
                if !custom.is_object() || fixed.iter().any(|field| custom.get(field).is_some()) {
                    return Err(CliError::usage(
                        "name, command, image, lifecycle and volume devices are not modifiable via custom profile",
                    ));
                }
                Some(custom)
            }
        };
        Ok(Wanted {
            image: self.image.clone(),
            command: self.command.clone(),
            arguments_only: self.arguments_only,
            env: environment(&self.env)?,
            pull_policy: self.image_pull_policy.clone(),
            stdin: self.terminal.stdin,
            tty: self.terminal.tty,
            profile: self.profile,
            keep: Keep {
                labels: self.keep_labels,
                annotations: self.keep_annotations,
                liveness: self.keep_liveness,
                readiness: self.keep_readiness,
                startup: self.keep_startup,
                init_containers: self.keep_init_containers,
            },
            custom,
        })
    }

    /// Returns the name of the debugging container, which must not be that of another one.
    fn container_name(&self, session: &mut Session, pod: &Value) -> Result<String> {
        if let Some(name) = &self.container {
            return Ok(name.clone());
        }
        let known = pods::container_names(pod);
        let name = loop {
            let name = format!("debugger-{}", suffix());
            if !known.contains(&name) {
                break name;
            }
        };
        if !self.terminal.quiet {
            session.streams.line(format!("Defaulting debug container name to {name}."))?;
        }
        Ok(name)
    }

    async fn ephemeral(
        &self,
        session: &mut Session,
        selected: &Selected,
        wanted: &Wanted,
    ) -> Result<(Value, Option<String>)> {
        let name = self.container_name(session, &selected.object)?;
        let container = wanted.ephemeral(&selected.object, &name, self.target.as_deref())?;
        let patch = json!({"spec": {"ephemeralContainers": [container]}});
        let path = RequestPath::object(&selected.resource, selected.namespace(), selected.name());
        let path = path.subresource("ephemeralcontainers");
        let patched = session.patch_at(path, &patch, PatchType::Strategic, DryRun::None).await;
        let pod = patched.map_err(|error| match error {
            // The path itself does not exist, rather than the pod.
            CliError::Server(status)
                if status.is_not_found() && status.details.as_ref().is_none_or(|details| details.name.is_empty()) =>
            {
                CliError::usage(format!(
                    "ephemeral containers are disabled for this cluster (error from server: {:?}); debug a copy of the pod with --copy-to",
                    status.message
                ))
            }
            other => other,
        })?;
        Ok((pod, Some(name)))
    }

    async fn copy(
        &self,
        session: &mut Session,
        selected: &Selected,
        name: &str,
        wanted: &Wanted,
    ) -> Result<(Value, Option<String>)> {
        let images: Map<String, Value> = pairs(&self.set_image, "--set-image")?;
        let known = pods::container_names(&selected.object);
        let container = match &self.container {
            Some(container) if known.contains(container) => Some(container.clone()),
            // Only images change.
            _ if self.image.is_none() && !images.is_empty() => None,
            _ if self.image.is_none() => {
                return Err(CliError::usage("you must specify image when creating new container"));
            }
            _ => Some(self.container_name(session, &selected.object)?),
        };
        let copy = Copy {
            name,
            container: container.as_deref(),
            images: &images,
            same_node: self.same_node,
            share_processes: self.share_processes,
        };
        let pod = wanted.copy(&selected.object, &copy)?;
        let (resource, namespace) = (&selected.resource, selected.namespace());
        let created = session.create(resource, namespace, &pod, DryRun::None).await?;
        if self.replace {
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
            session.delete(resource, namespace, selected.name(), &options, DryRun::None).await?;
        }
        Ok((created, container))
    }

    async fn node(
        &self,
        session: &mut Session,
        selected: &Selected,
        wanted: &Wanted,
    ) -> Result<(Value, Option<String>)> {
        let node = selected.name();
        let container = self.container.clone().unwrap_or_else(|| "debugger".to_owned());
        let name = format!("node-debugger-{node}-{}", suffix());
        if !self.terminal.quiet {
            session
                .streams
                .line(format!("Creating debugging pod {name} with container {container} on node {node}."))?;
        }
        let pod = wanted.node(&name, node, &container)?;
        let resource = session.one_type("pods").await?;
        let created = session.create(&resource, Some(&session.namespace), &pod, DryRun::None).await?;
        Ok((created, Some(container)))
    }

    /// Waits until the container runs, and attaches to it. A container that has ended already has only a log.
    async fn connect(&self, session: &mut Session, mut found: Found, container: &str) -> Result<()> {
        session.streams.flush()?;
        let transport = session.transport.clone();
        let (namespace, name) = (found.namespace().to_owned(), found.name().to_owned());
        let followed = Followed { resource: &found.resource, namespace: Some(&namespace), name: &name };
        let (mut latest, mut waits) = (None, String::new());
        let streams = &mut session.streams;
        follow(&transport, followed, None, |pod| {
            let Some(pod) = pod else {
                return Err(CliError::usage(format!("pod {name} was deleted before container {container} ran")));
            };
            let Some(state) = build::state(pod, container) else { return Ok(ControlFlow::Continue(())) };
            if state["running"].is_object() || state["terminated"].is_object() {
                latest = Some(pod.clone());
                return Ok(ControlFlow::Break(()));
            }
            let message = state["waiting"]["message"].as_str().unwrap_or_default();
            if !self.terminal.quiet && !message.is_empty() && message != waits {
                message.clone_into(&mut waits);
                streams.note(format!("Warning: container {container}: {message}"))?;
            }
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        if let Some(pod) = latest {
            found.pod = pod;
        }
        let runs = build::state(&found.pod, container).is_some_and(|state| state["running"].is_object());
        if runs {
            return super::attach::attach_or_log(session, &found, container, self.terminal).await;
        }
        pods::follow_log(session, found.path("log").query("container", container)).await
    }
}

/// Returns five characters for a name, without those of words.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}
