//! The watchdog: a separate process that stops fenced pods when the agent cannot, because it was killed, hangs, or is
//! stopped.
//!
//! The agent starts the watchdog before the first fenced container and whenever it is not running, which a lock on a
//! file shows. The watchdog reads the ledger that the agent writes, and stops the containers of every pod whose fence has
//! lapsed if the agent does not. It ends when the agent is gone and nothing of these pods can run any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::takeover::{self, Sight, Step};
use super::{clock, marks, read};
use crate::config::AgentConfig;
use crate::runtime::{DockerFence, Running, RuntimeError};

/// Interval between two checks of the fences.
const INTERVAL: Duration = Duration::from_millis(500);
/// Number of attempts to take the lock, after which another watchdog is assumed to hold it.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Maximum time that a watchdog may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(5);

/// Why the watchdog ended early.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    #[error("{} cannot be used", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the container engine cannot be used")]
    Runtime(#[source] RuntimeError),
}

/// The cluster and node whose containers a watchdog stops.
#[derive(Clone, Debug)]
pub struct Containers {
    pub cluster: String,
    pub node: String,
}

/// The agent's side of the watchdog: starts the process and checks that it runs.
pub(super) struct Watchdog {
    command: Vec<OsString>,
    lock: PathBuf,
    /// One check at a time: two would take each other's lock for a running watchdog.
    checking: tokio::sync::Mutex<()>,
    /// The locked file that shows the watchdog that the agent lives.
    _owner: File,
}

fn lock_of(file: &Path) -> PathBuf {
    file.with_extension("watchdog")
}

fn owner_of(file: &Path) -> PathBuf {
    file.with_extension("owner")
}

/// Takes the agent's lock, and retries because a watchdog briefly takes it to see whether the agent lives.
fn own(file: &File) -> io::Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another agent uses this directory"))
}

/// Whether another process holds the lock.
fn is_locked(path: &Path) -> io::Result<bool> {
    match File::create(path)?.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Watchdog {
    pub(super) fn new(command: &[OsString], file: &Path, config: &AgentConfig) -> io::Result<Self> {
        let owner = File::create(owner_of(file))?;
        own(&owner)?;
        let mut command = command.to_vec();
        for (flag, value) in [
            ("--file", file.as_os_str()),
            ("--cluster", config.cluster_id.as_ref()),
            ("--node", config.node_name.as_ref()),
        ] {
            command.extend([OsString::from(flag), value.to_owned()]);
        }
        Ok(Watchdog { command, lock: lock_of(file), checking: tokio::sync::Mutex::default(), _owner: owner })
    }

    async fn is_running(&self) -> io::Result<bool> {
        let lock = self.lock.clone();
        tokio::task::spawn_blocking(move || is_locked(&lock)).await.map_err(io::Error::other)?
    }

    /// Starts the process unless it runs, and returns once it does.
    pub(super) async fn ensure_running(&self) -> io::Result<()> {
        let _checking = self.checking.lock().await;
        if self.is_running().await? {
            return Ok(());
        }
        let (program, arguments) = self.command.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let mut command = tokio::process::Command::new(program);
        // The watchdog has its own process group, so that a signal to the agent's group does not end it.
        command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(false);
        // The lock shows whether the process lives. Tokio reaps it when it ends.
        drop(command.spawn()?);
        let deadline = tokio::time::Instant::now() + STARTS_WITHIN;
        while !self.is_running().await? {
            if tokio::time::Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Runs the watchdog: stops the containers of lapsed pods, until the agent is gone and none of these pods can run.
///
/// # Errors
/// See [`WatchdogError`]. Later failures are retried.
pub async fn watch_containers(file: PathBuf, containers: Containers) -> Result<(), WatchdogError> {
    let path = lock_of(&file);
    let at = |source| WatchdogError::File { path: path.clone(), source };
    let lock = File::create(&path).map_err(at)?;
    let mut attempts = LOCK_ATTEMPTS;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if attempts == 0 => return Ok(()),
            // The agent briefly takes the lock to see whether a watchdog holds it.
            Err(TryLockError::WouldBlock) => attempts -= 1,
            Err(TryLockError::Error(source)) => return Err(at(source)),
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
    let engine = DockerFence::new(&containers.cluster, &containers.node).map_err(WatchdogError::Runtime)?;
    let ledger = read(&file).map_err(|source| WatchdogError::File { path: file.clone(), source })?;
    let data_dir = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut watch = Watch { file, data_dir, engine, ledger, pods: BTreeMap::new() };
    while watch.check().await {
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

/// What the watchdog does for one pod.
#[derive(Default)]
struct Taken {
    /// Ids of the containers that this watchdog has begun to stop.
    ids: BTreeSet<String>,
    stopping: Option<JoinHandle<()>>,
}

/// The state of a watchdog.
struct Watch {
    file: PathBuf,
    data_dir: PathBuf,
    engine: DockerFence,
    ledger: Ledger,
    /// The overdue pods, by uid.
    pods: BTreeMap<String, Taken>,
}

impl Watch {
    /// Acts on all overdue pods once. Returns false when the agent is gone and none of the pods can run.
    async fn check(&mut self) -> bool {
        // The last ledger that was read counts when the file is gone together with its directory.
        if let Ok(ledger) = read(&self.file) {
            self.ledger = ledger;
        }
        // An agent whose lock cannot be checked counts as living, so that the watchdog goes on.
        let agent_lives = is_locked(&owner_of(&self.file)).unwrap_or(self.data_dir.exists());
        let overdue: Vec<(String, Duration, Duration)> = {
            let pods = self.ledger.pods.iter();
            let overdue = |pod| self.ledger.overdue(pod, clock::now());
            pods.filter_map(|(uid, pod)| Some((uid.clone(), overdue(pod)?, pod.grace))).collect()
        };
        self.pods.retain(|uid, _| overdue.iter().any(|(other, ..)| other == uid));
        let mut is_anything_left = overdue.len() < self.ledger.pods.len();
        for (uid, overdue, grace) in overdue {
            match self.sight(&uid, Sight { overdue, grace, agent_lives, ..Sight::default() }).await {
                Ok(sight) => {
                    is_anything_left |= !sight.containers.is_empty() || !sight.sandboxes.is_empty();
                    self.act(uid, takeover::next(&sight));
                }
                Err(error) => {
                    is_anything_left = true;
                    tracing::warn!(%uid, error = %error, "cannot list the running containers of a fenced pod");
                }
            }
        }
        is_anything_left || agent_lives
    }

    async fn sight(&self, uid: &str, sight: Sight) -> Result<Sight, RuntimeError> {
        let Running { containers, sandboxes } = self.engine.running(uid).await?;
        let marked = marks::of(&self.data_dir, uid).await.unwrap_or_else(|error| {
            tracing::warn!(%uid, error = %error, "cannot read which containers the agent stops; stopping all of them");
            BTreeSet::new()
        });
        let taken = self.pods.get(uid).map(|pod| pod.ids.clone()).unwrap_or_default();
        Ok(Sight { containers, sandboxes, marked, taken, ..sight })
    }

    /// Takes the step in the background, unless the pod's last one has not ended.
    fn act(&mut self, uid: String, step: Option<Step>) {
        let Some(step) = step else { return };
        let pod = self.pods.entry(uid.clone()).or_default();
        if pod.stopping.as_ref().is_some_and(|stopping| !stopping.is_finished()) {
            return;
        }
        let (engine, data_dir) = (self.engine.clone(), self.data_dir.clone());
        pod.stopping = Some(match step {
            Step::Stop { ids, grace } => {
                tracing::warn!(%uid, "the node has not reached the masters for too long; stopping a fenced pod");
                pod.ids.extend(ids.iter().cloned());
                tokio::spawn(async move {
                    for id in &ids {
                        if let Err(error) = marks::add(&data_dir, &uid, id).await {
                            tracing::warn!(%uid, %id, error = %error, "cannot mark a container as stopped by its fence");
                        }
                    }
                    engine.stop(&ids, grace).await;
                })
            }
            Step::EndSandboxes { ids } => tokio::spawn(async move { engine.stop(&ids, Duration::ZERO).await }),
        });
    }
}
