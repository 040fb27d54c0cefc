//! `run`: creates a pod from an image.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::path::RequestPath;
use crate::pods;
use crate::remote::TerminalFlags;
use crate::session::Session;
use crate::verbs::DryRun;
use crate::watch::{Followed, follow};

use super::generators::{environment, pairs};

/// Run an image in a pod
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The pod's name
    name: String,
    #[arg(long)]
    image: String,
    #[arg(long, default_value = "Always", value_parser = ["Always", "OnFailure", "Never"])]
    restart: String,
    #[arg(long, value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// NAME=VALUE
    #[arg(long)]
    env: Vec<String>,
    /// KEY=VALUE,…
    #[arg(short = 'l', long, value_delimiter = ',')]
    labels: Vec<String>,
    /// KEY=VALUE
    #[arg(long)]
    annotations: Vec<String>,
    /// A port of the container
    #[arg(long)]
    port: Option<u16>,
    /// Use the words after -- as the command instead of its arguments
    #[arg(long)]
    command: bool,
    /// Show the output and wait until the pod has ended; -i does so too
    #[arg(long)]
    attach: bool,
    #[command(flatten)]
    terminal: TerminalFlags,
    /// Delete the pod when it has ended (with --attach or -i)
    #[arg(long)]
    rm: bool,
    /// Maximum time to wait for the pod to start (with --attach or -i)
    #[arg(long, default_value = "1m", value_parser = crate::duration::parse)]
    pod_running_timeout: Duration,
    /// A JSON document that is merged into the pod
    #[arg(long)]
    overrides: Option<String>,
    #[command(flatten)]
    change: ChangeFlags,
    /// The arguments (or command), after --
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Run {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let is_attached = self.attach || self.terminal.stdin;
        if self.terminal.tty && !self.terminal.stdin {
            return Err(CliError::usage("-i/--stdin is required for containers with -t/--tty=true"));
        }
        if self.rm && !is_attached {
            return Err(CliError::usage("--rm should only be used for attached containers"));
        }
        let object = self.object()?;
        let resource = session.one_type("pods").await?;
        let namespace = Some(session.namespace.clone());
        let created = match self.change.dry_run {
            DryRun::Client => object,
            dry_run => session.create(&resource, namespace.as_deref(), &object, dry_run).await?,
        };
        if !is_attached || self.change.dry_run != DryRun::None {
            return self.change.report(session, &resource, &created, "created");
        }
        let followed = Followed { resource: &resource, namespace: namespace.as_deref(), name: &self.name };
        let deadline = Instant::now().checked_add(self.pod_running_timeout);
        let started = follow(&session.transport, followed, deadline, |pod| {
            let phase = pod.and_then(|pod| pod["status"]["phase"].as_str()).unwrap_or_default();
            Ok(if ["Running", "Succeeded", "Failed"].contains(&phase) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })
        .await?;
        if !started {
            return Err(CliError::usage("timed out waiting for the pod to run; `qctl describe pod` shows the reason"));
        }
        let log = RequestPath::object(&resource, namespace.as_deref(), &self.name).subresource("log");
        self.interact(session, log).await?;
        let mut code = 0;
        if self.restart != "Always" {
            follow(&session.transport, followed, None, |pod| {
                let terminated = pod.map(|pod| &pod["status"]["containerStatuses"][0]["state"]["terminated"]);
                code = terminated.and_then(|state| state["exitCode"].as_u64()).unwrap_or(0);
                Ok(match terminated {
                    Some(state) if state.is_null() => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                })
            })
            .await?;
        }
        if self.rm {
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
            session.delete(&resource, namespace.as_deref(), &self.name, &options, DryRun::None).await?;
            if !self.terminal.quiet {
                session.streams.line(format!("pod \"{}\" deleted", self.name))?;
            }
        }
        if code == 0 { Ok(()) } else { Err(CliError::Exit(u8::try_from(code).unwrap_or(1))) }
    }

    /// Attaches to the container with -i while it runs, and prints its log otherwise.
    async fn interact(&self, session: &mut Session, log: RequestPath) -> Result<()> {
        if self.terminal.stdin {
            let target = std::slice::from_ref(&self.name);
            let found = pods::find(session, target, &FileFlags::default(), self.pod_running_timeout).await?;
            if found.phase() == "Running" {
                return match super::attach::attach_or_log(session, &found, &self.name, self.terminal).await {
                    // The pod's status has the code as well.
                    Err(CliError::Exit(_)) => Ok(()),
                    done => done,
                };
            }
        }
        pods::follow_log(session, log).await
    }

    fn object(&self) -> Result<Value> {
        let mut container = json!({"name": self.name, "image": self.image});
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = policy.clone().into();
        }
        if !self.arguments.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(self.arguments);
        }
        if !self.env.is_empty() {
            container["env"] = environment(&self.env)?.into();
        }
        if self.terminal.stdin {
            // The input ends with the first client.
            container["stdin"] = true.into();
            container["stdinOnce"] = true.into();
        }
        if self.terminal.tty {
            container["tty"] = true.into();
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        let labels = if self.labels.is_empty() { json!({"run": self.name}) } else { pairs(&self.labels, "label")? };
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"containers": [container], "restartPolicy": self.restart},
        });
        if !self.annotations.is_empty() {
            pod["metadata"]["annotations"] = pairs(&self.annotations, "annotation")?;
        }
        if let Some(overrides) = &self.overrides {
            let overrides: Value = serde_json::from_str(overrides)
                .map_err(|error| CliError::usage(format!("Invalid JSON Patch in --overrides: {error}")))?;
            quorate_api::patch::merge::apply(&mut pod, &overrides);
        }
        Ok(pod)
    }
}
