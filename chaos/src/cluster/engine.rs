//! The engine that Docker workers run on, through the `docker` command.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::history::{Container, SANDBOX, Start};

/// Two names for one image; to a Deployment they are two versions.
pub const IMAGES: [&str; 2] = ["quorate/chaos:1", "quorate/chaos:2"];
/// Script that makes an image of a static busybox, as `scripts/prepare.sh` does.
const MAKE_IMAGE: &str = "set -e; ldd /bin/busybox >/dev/null 2>&1 && { echo 'no static /bin/busybox' >&2; exit 1; }; \
    tree=$(mktemp -d); trap 'rm -rf \"$tree\"' EXIT; mkdir -p \"$tree/bin\" \"$tree/tmp\" \"$tree/etc\" \"$tree/proc\" \
    \"$tree/sys\" \"$tree/dev\"; cp /bin/busybox \"$tree/bin/\"; ln -s busybox \"$tree/bin/sh\"; \
    ln -s busybox \"$tree/bin/sleep\"; tar -C \"$tree\" -c . | docker import --change 'ENV PATH=/bin' - \"$1\"";
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(60);
const CLUSTER: &str = "io.quorate.cluster";
const NODE: &str = "io.quorate.node";

/// One cluster's part of the engine.
#[derive(Clone, Debug)]
pub struct Engine {
    pub cluster: String,
}

impl Engine {
    /// Finds an engine that answers, and makes the images that it lacks.
    ///
    /// # Errors
    /// When no engine answers, or an image cannot be made.
    pub async fn find(cluster: String) -> anyhow::Result<Engine> {
        let answer = timeout(ANSWERS_WITHIN, docker(&["version", "--format", "{{.Server.Version}}"])).await;
        answer.context("no Docker engine answers")?.context("no Docker engine answers")?;
        for image in IMAGES {
            if docker(&["image", "inspect", image]).await.is_err() {
                output(Command::new("sh").args(["-c", MAKE_IMAGE, "sh", image])).await?;
            }
        }
        Ok(Engine { cluster })
    }

    fn labelled(&self) -> String {
        format!("label={CLUSTER}={}", self.cluster)
    }

    async fn ids(&self, node: Option<&str>) -> anyhow::Result<Vec<String>> {
        let (cluster, node) = (self.labelled(), node.map(|node| format!("label={NODE}={node}")));
        let mut args = vec!["ps", "--all", "--quiet", "--no-trunc", "--filter", &cluster];
        if let Some(node) = &node {
            args.extend(["--filter", node]);
        }
        Ok(docker(&args).await?.lines().map(str::to_owned).collect())
    }

    /// All containers of a node, including ended ones and sandboxes.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers(&self, node: &str) -> anyhow::Result<Vec<Container>> {
        let ids = self.ids(Some(node)).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<&str> = std::iter::once("inspect").chain(ids.iter().map(String::as_str)).collect();
        // A container that is gone by now is missing from the output and makes the command fail, so the exit code is
        // ignored.
        let output = run(Command::new("docker").args(&args)).await?;
        let inspected: Vec<Json> = serde_json::from_slice(&output.stdout).context("docker inspect")?;
        Ok(inspected.iter().filter_map(container).collect())
    }

    /// # Errors
    /// When the engine does not answer.
    pub async fn kill(&self, ids: &[String]) -> anyhow::Result<()> {
        if !ids.is_empty() {
            let args: Vec<&str> = std::iter::once("kill").chain(ids.iter().map(String::as_str)).collect();
            // A container that has just ended makes the command fail, so the exit code is ignored.
            run(Command::new("docker").args(&args)).await?;
        }
        Ok(())
    }

    /// Removes all containers of the cluster.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub async fn remove_all(&self) -> anyhow::Result<()> {
        let ids = self.ids(None).await?;
        if !ids.is_empty() {
            let args: Vec<&str> = ["rm", "--force"].into_iter().chain(ids.iter().map(String::as_str)).collect();
            docker(&args).await?;
        }
        Ok(())
    }
}

fn container(inspected: &Json) -> Option<Container> {
    let labels = &inspected["Config"]["Labels"];
    let label = |name: &str| labels[format!("io.kubernetes.{name}")].as_str().map(str::to_owned);
    let state = &inspected["State"];
    let networks = inspected["NetworkSettings"]["Networks"].as_object();
    let mut addresses = networks.into_iter().flatten().filter_map(|(_, network)| network["IPAddress"].as_str());
    let started_at = state["StartedAt"].as_str().filter(|at| !at.starts_with("0001-"));
    Some(Container {
        uid: label("pod.uid")?,
        name: label("container.name")?,
        id: inspected["Id"].as_str()?.to_owned(),
        attempt: label("container.restartCount")?.parse().ok()?,
        is_running: state["Running"] == true,
        started_at: started_at.unwrap_or_default().to_owned(),
        address: addresses.find(|address| !address.is_empty()).map(str::to_owned),
    })
}

/// Starts of all containers of a cluster, from the engine's events.
#[derive(Debug)]
pub struct Events {
    recorded: Arc<Mutex<Vec<Json>>>,
    /// Killed when this is dropped.
    _command: Child,
}

impl Events {
    /// # Errors
    /// When the command cannot be started.
    pub fn follow(engine: &Engine) -> anyhow::Result<Events> {
        let mut command = Command::new("docker");
        command.args(["events", "--filter", "type=container", "--filter", "event=start", "--format", "{{json .}}"]);
        command.args(["--filter", &engine.labelled()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start docker events")?;
        let stdout = child.stdout.take().context("docker events has no standard output")?;
        let recorded: Arc<Mutex<Vec<Json>>> = Arc::default();
        let events = recorded.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                events.lock().extend(serde_json::from_str::<Json>(&line).ok());
            }
        });
        Ok(Events { recorded, _command: child })
    }

    /// All starts so far, without those of sandboxes.
    #[must_use]
    pub fn starts(&self) -> Vec<Start> {
        self.recorded.lock().iter().filter_map(start).filter(|start| start.container != SANDBOX).collect()
    }
}

fn start(event: &Json) -> Option<Start> {
    let attributes = &event["Actor"]["Attributes"];
    let label = |name: &str| attributes[name].as_str().map(str::to_owned);
    Some(Start {
        worker: label(NODE)?.strip_prefix('w')?.parse::<usize>().ok()?.checked_sub(1)?,
        uid: label("io.kubernetes.pod.uid")?,
        container: label("io.kubernetes.container.name")?,
        id: event["Actor"]["ID"].as_str()?.to_owned(),
        at: event["timeNano"].to_string(),
    })
}

async fn docker(args: &[&str]) -> anyhow::Result<String> {
    output(Command::new("docker").args(args)).await
}

async fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = run(command).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}", command.as_std().get_program(), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn run(command: &mut Command) -> anyhow::Result<std::process::Output> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(timeout(DEADLINE, output).await.with_context(|| format!("{:?} takes too long", command.as_std()))??)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_and_starts_are_identified_by_their_labels() {
        let labels = json!({
            "io.quorate.node": "w4", "io.kubernetes.pod.uid": "u", "io.kubernetes.container.name": "main",
            "io.kubernetes.container.restartCount": "2",
        });
        let inspected = json!({
            "Id": "i", "Config": {"Labels": labels}, "State": {"Running": true, "StartedAt": "2026-11-30T10:00:00.5Z"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.3"}}},
        });
        let seen = container(&inspected).expect("a container of the cluster");
        assert_eq!((seen.attempt, seen.is_running, seen.address.as_deref()), (2, true, Some("172.17.0.3")));
        assert_eq!(container(&json!({"Id": "i", "Config": {"Labels": {}}})), None);
        let event = json!({"timeNano": 5, "Actor": {"ID": "i", "Attributes": labels}});
        let started = start(&event).expect("a container of the cluster");
        assert_eq!((started.worker, started.container.as_str(), started.at.as_str()), (3, "main", "5"));
    }
}
