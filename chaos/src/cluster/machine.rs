//! A worker's machine and its containers, read from the machine itself and not from the agent or the API.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value as Json;

use super::engine::Engine;
use crate::history::{Container, SANDBOX, Start};
use crate::world::WorkerIndex;

#[derive(Clone, Debug)]
pub enum Machine {
    /// The directory of a hollow worker.
    Hollow { dir: PathBuf, losses: usize },
    /// The containers with a node's label on the engine.
    Docker { engine: Engine, node: String },
}

impl Machine {
    /// All containers on the machine, including ended ones and sandboxes.
    ///
    /// # Errors
    /// When the machine cannot be read.
    pub async fn containers(&self) -> anyhow::Result<Vec<Container>> {
        match self {
            Machine::Hollow { dir, .. } => Ok(pods(&dir.join("pods"))?.iter().flat_map(hollow_containers).collect()),
            Machine::Docker { engine, node } => engine.containers(node).await,
        }
    }

    /// Kills a container.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Machine::Hollow { dir, .. } => fs::write(dir.join("kill").join(id), "").context("cannot kill a container"),
            Machine::Docker { engine, .. } => engine.kill(&[id.to_owned()]).await,
        }
    }

    /// Kills all containers, as the loss of the machine does. The agent must not run.
    ///
    /// # Errors
    /// When a container cannot be killed.
    pub async fn lose(&mut self) -> anyhow::Result<()> {
        match self {
            Machine::Hollow { dir, losses } => {
                let pods = dir.join("pods");
                if pods.exists() {
                    *losses += 1;
                    // Containers that were started there are checked at the end.
                    fs::rename(&pods, dir.join(format!("lost-{losses}")))?;
                }
                let kills = dir.join("kill");
                if kills.exists() {
                    fs::remove_dir_all(kills)?;
                }
                Ok(())
            }
            Machine::Docker { engine, node } => {
                let containers = engine.containers(node).await?;
                let running: Vec<String> =
                    containers.into_iter().filter(|container| container.is_running).map(|c| c.id).collect();
                engine.kill(&running).await
            }
        }
    }

    /// Every start of a container so far. Those on Docker come from the engine's events instead.
    ///
    /// # Errors
    /// When the machine cannot be read.
    pub fn starts(&self, worker: WorkerIndex) -> anyhow::Result<Vec<Start>> {
        let Machine::Hollow { dir, losses } = self else { return Ok(Vec::new()) };
        let lost = (1..=*losses).map(|loss| format!("lost-{loss}"));
        let mut starts = BTreeSet::new();
        for place in lost.chain(["pods".to_owned()]) {
            starts.extend(pods(&dir.join(place))?.iter().flat_map(|pod| hollow_starts(worker, pod)));
        }
        Ok(starts.into_iter().collect())
    }
}

/// The files of a hollow machine's pods.
fn pods(dir: &Path) -> anyhow::Result<Vec<Json>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    let mut pods = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // A file that is still being written has a different extension.
        if path.extension().is_some_and(|extension| extension == "json") {
            pods.push(serde_json::from_slice(&fs::read(&path)?).with_context(|| path.display().to_string())?);
        }
    }
    Ok(pods)
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}

fn hollow_containers(pod: &Json) -> Vec<Container> {
    let address = |sandbox: &Json| sandbox["ips"][0].as_str().map(str::to_owned);
    let address_of = |id: &Json| list(&pod["sandboxes"]).find(|sandbox| &sandbox["id"] == id).and_then(address);
    let sandboxes = list(&pod["sandboxes"]).map(|sandbox| Container {
        uid: text(&pod["uid"]),
        name: SANDBOX.to_owned(),
        id: text(&sandbox["id"]),
        attempt: sandbox["attempt"].as_u64().unwrap_or(0),
        is_running: sandbox["state"] == "running",
        started_at: text(&sandbox["createdAt"]),
        address: address(sandbox),
    });
    let containers = list(&pod["containers"]).map(|container| Container {
        uid: text(&pod["uid"]),
        name: text(&container["name"]),
        id: text(&container["id"]),
        attempt: container["attempt"].as_u64().unwrap_or(0),
        is_running: container["startedAt"].is_string() && container["exit"].is_null(),
        started_at: text(&container["startedAt"]),
        address: address_of(&container["sandboxId"]),
    });
    sandboxes.chain(containers).collect()
}

fn hollow_starts(worker: WorkerIndex, pod: &Json) -> Vec<Start> {
    let start = |start: &Json| Start {
        worker,
        uid: text(&pod["uid"]),
        container: text(&start["container"]),
        id: text(&start["id"]),
        at: text(&start["at"]),
    };
    list(&pod["starts"]).map(start).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_lost_machine_runs_nothing_and_its_starts_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pods = dir.path().join("pods");
        let pod = |id: &str| {
            json!({
                "uid": "u",
                "sandboxes": [{"id": "s", "attempt": 0, "state": "running", "ips": ["10.1.2.3"], "createdAt": "t0"}],
                "containers": [{"id": id, "name": "main", "attempt": 0, "sandboxId": "s", "startedAt": "t1", "exit": null}],
                "starts": [{"container": "main", "id": id, "attempt": 0, "at": "t1"}],
            })
        };
        let write = |id: &str| {
            fs::create_dir_all(&pods).expect("a directory");
            fs::write(pods.join("u.json"), pod(id).to_string()).expect("a file");
        };
        write("c1");
        let mut machine = Machine::Hollow { dir: dir.path().to_owned(), losses: 0 };
        let seen = machine.containers().await.expect("it is read");
        assert_eq!(seen.iter().filter(|container| container.is_running).count(), 2);
        assert!(seen.iter().all(|container| container.address.as_deref() == Some("10.1.2.3")));
        machine.lose().await.expect("it is lost");
        assert!(machine.containers().await.expect("it is read").is_empty());
        write("c2");
        let ids: Vec<String> = machine.starts(0).expect("they are read").into_iter().map(|start| start.id).collect();
        assert_eq!(ids, ["c1", "c2"]);
    }
}
