//! Files of the hollow runtime's containers, which outlive their agent like the containers of an engine.
//!
//! | in the directory | holds |
//! |---|---|
//! | `pods/<uid>.json` | the sandboxes and containers of a pod, and every start of one of its containers so far |
//! | `kill/<container id>` | a request to kill the container, as `docker kill` does; any process may create the file |

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::{ContainerRecord, Exit, Observed, PodRef, RunState, Sandbox, SandboxState};

/// Exit code of a container that SIGKILL ended.
const KILLED: i32 = 137;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodFile {
    namespace: String,
    name: String,
    uid: String,
    sandboxes: Vec<SandboxFile>,
    containers: Vec<ContainerFile>,
    starts: Vec<Start>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SandboxFile {
    id: String,
    attempt: u32,
    state: SandboxPhase,
    ips: Vec<String>,
    created_at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum SandboxPhase {
    Created,
    Running,
    Stopped,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerFile {
    id: String,
    name: String,
    attempt: u32,
    sandbox_id: String,
    image: String,
    image_id: String,
    started_at: Option<String>,
    /// Absent while the container waits to be started or runs.
    exit: Option<ExitFile>,
    /// The container ends as soon as it is started.
    short_lived: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExitFile {
    at: String,
    code: i32,
    reason: String,
}

/// One start of a container. The list has an id twice if its container was started twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    container: String,
    id: String,
    attempt: u32,
    at: String,
}

/// A pod that was read from its file.
pub(super) struct KeptPod {
    pub pod: PodRef,
    pub observed: Observed,
    /// Ids of containers that end as soon as they are started.
    pub short_lived: Vec<String>,
}

/// The directory of the files.
pub(super) struct StateDir {
    dir: PathBuf,
    /// Held while a pod is changed and written, so that a file is never older than the state that the agent has seen.
    pub order: tokio::sync::Mutex<()>,
}

impl StateDir {
    /// Opens the directory, and makes it if it is missing.
    pub fn open(dir: &Path) -> io::Result<StateDir> {
        for sub in ["pods", "kill"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        Ok(StateDir { dir: dir.to_owned(), order: tokio::sync::Mutex::default() })
    }

    /// Reads all pods of which anything is left.
    pub fn load(&self) -> io::Result<Vec<KeptPod>> {
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(self.dir.join("pods"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let file: PodFile = serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)?;
            kept.extend(file.restore()?);
        }
        Ok(kept)
    }

    /// Writes the file of a pod atomically.
    pub async fn keep(&self, pod: &PodRef, observed: &Observed, short_lived: &[String]) -> io::Result<()> {
        let path = self.dir.join("pods").join(format!("{}.json", pod.uid));
        let before: Option<PodFile> = match tokio::fs::read(&path).await {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(io::Error::other)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let file = PodFile::of(pod, observed, short_lived, before.map(|file| file.starts).unwrap_or_default());
        let new = path.with_extension("new");
        tokio::fs::write(&new, serde_json::to_vec(&file).map_err(io::Error::other)?).await?;
        tokio::fs::rename(new, path).await
    }

    /// Returns the ids of the containers with a kill request.
    pub async fn kills(&self) -> io::Result<Vec<String>> {
        let mut entries = tokio::fs::read_dir(self.dir.join("kill")).await?;
        let mut ids = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            ids.push(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(ids)
    }

    /// Removes the kill request of a container that has ended or does not exist.
    pub async fn killed(&self, id: &str) -> io::Result<()> {
        match tokio::fs::remove_file(self.dir.join("kill").join(id)).await {
            // A concurrent call has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Returns the state of a container that is killed now.
pub(super) fn killed(record: &ContainerRecord) -> RunState {
    RunState::Exited(Exit {
        started_at: record.started_at(),
        finished_at: Timestamp::now(),
        code: KILLED,
        reason: "Error".to_owned(),
        message: String::new(),
    })
}

impl PodFile {
    fn of(pod: &PodRef, observed: &Observed, short_lived: &[String], mut starts: Vec<Start>) -> PodFile {
        for record in &observed.containers {
            let Some(at) = record.started_at() else { continue };
            let (container, id) = (record.name.clone(), record.id.clone());
            let start = Start { container, id, attempt: record.attempt, at: at.to_string() };
            if !starts.contains(&start) {
                starts.push(start);
            }
        }
        let sandboxes = observed.sandboxes.iter().map(|sandbox| SandboxFile {
            id: sandbox.id.clone(),
            attempt: sandbox.attempt,
            state: match sandbox.state {
                SandboxState::Created => SandboxPhase::Created,
                SandboxState::Running => SandboxPhase::Running,
                SandboxState::Stopped => SandboxPhase::Stopped,
            },
            ips: sandbox.ips.clone(),
            created_at: sandbox.created_at.to_string(),
        });
        let containers = observed.containers.iter().map(|record| ContainerFile {
            id: record.id.clone(),
            name: record.name.clone(),
            attempt: record.attempt,
            sandbox_id: record.sandbox_id.clone(),
            image: record.image.clone(),
            image_id: record.image_id.clone(),
            started_at: record.started_at().map(|at| at.to_string()),
            exit: record.exit().map(|exit| ExitFile {
                at: exit.finished_at.to_string(),
                code: exit.code,
                reason: exit.reason.clone(),
            }),
            short_lived: short_lived.contains(&record.id),
        });
        let PodRef { namespace, name, uid } = pod.clone();
        PodFile { namespace, name, uid, sandboxes: sandboxes.collect(), containers: containers.collect(), starts }
    }

    /// Restores a pod, or returns `None` if only the list of its starts is left.
    fn restore(self) -> io::Result<Option<KeptPod>> {
        if self.sandboxes.is_empty() && self.containers.is_empty() {
            return Ok(None);
        }
        let short_lived = self.containers.iter().filter(|file| file.short_lived).map(|file| file.id.clone()).collect();
        let observed = Observed {
            sandboxes: self.sandboxes.into_iter().map(SandboxFile::restore).collect::<io::Result<_>>()?,
            containers: self.containers.into_iter().map(ContainerFile::restore).collect::<io::Result<_>>()?,
            ..Observed::default()
        };
        let pod = PodRef { namespace: self.namespace, name: self.name, uid: self.uid };
        Ok(Some(KeptPod { pod, observed, short_lived }))
    }
}

impl SandboxFile {
    fn restore(self) -> io::Result<Sandbox> {
        Ok(Sandbox {
            id: self.id,
            attempt: self.attempt,
            state: match self.state {
                SandboxPhase::Created => SandboxState::Created,
                SandboxPhase::Running => SandboxState::Running,
                SandboxPhase::Stopped => SandboxState::Stopped,
            },
            ips: self.ips,
            created_at: moment(&self.created_at)?,
        })
    }
}

impl ContainerFile {
    fn restore(self) -> io::Result<ContainerRecord> {
        let started_at = self.started_at.as_deref().map(moment).transpose()?;
        let state = match (self.exit, started_at) {
            (Some(exit), started_at) => RunState::Exited(Exit {
                started_at,
                finished_at: moment(&exit.at)?,
                code: exit.code,
                reason: exit.reason,
                message: String::new(),
            }),
            (None, Some(started_at)) => RunState::Running { started_at },
            (None, None) => RunState::Created,
        };
        Ok(ContainerRecord {
            id: self.id,
            name: self.name,
            attempt: self.attempt,
            sandbox_id: self.sandbox_id,
            image: self.image,
            image_id: self.image_id,
            state,
        })
    }
}

fn moment(text: &str) -> io::Result<Timestamp> {
    text.parse().map_err(io::Error::other)
}
