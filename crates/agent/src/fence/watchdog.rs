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
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::takeover::{self, Sight, Step};
use super::{DISK_CALLS, DISK_LIMIT, clock, marks, read};
use crate::blocking::HostCalls;
use crate::config::AgentConfig;
use crate::runtime::{DockerFence, Running, RuntimeError};

/// Interval between two checks of the fences.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);
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
    path: PathBuf,
    /// The file that a watchdog locks. It stays open, so that a check does not wait for a disk that hangs.
    lock: parking_lot::Mutex<File>,
    /// One check at a time: two would take each other's lock for a running watchdog.
    checking: tokio::sync::Mutex<()>,
    /// The locked file that shows the watchdog that the agent lives.
    _owner: File,
}

fn lock_of(file: &Path) -> PathBuf {
    file.with_extension("watchdog")
}

/// File in the data directory that an agent with a watchdog locks while it runs.
pub const AGENT_LOCK_FILE: &str = "fences.owner";

fn owner_of(file: &Path) -> PathBuf {
    file.with_file_name(AGENT_LOCK_FILE)
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

/// Whether another process holds the lock of an open file. The check needs no disk.
fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).open(path)
}

impl Watchdog {
    pub(super) fn new(command: &[OsString], file: &Path, config: &AgentConfig) -> io::Result<Self> {
        let owner = create(&owner_of(file))?;
        own(&owner)?;
        let path = lock_of(file);
        let lock = parking_lot::Mutex::new(create(&path)?);
        let mut command = command.to_vec();
        for (flag, value) in [
            ("--file", file.as_os_str()),
            ("--cluster", config.cluster_id.as_ref()),
            ("--node", config.node_name.as_ref()),
        ] {
            command.extend([OsString::from(flag), value.to_owned()]);
        }
        Ok(Watchdog { command, path, lock, checking: tokio::sync::Mutex::default(), _owner: owner })
    }

    fn is_running(&self) -> io::Result<bool> {
        is_locked(&self.lock.lock())
    }

    /// Starts the process unless it runs, and returns once it does.
    pub(super) async fn ensure_running(&self) -> io::Result<()> {
        let _checking = self.checking.lock().await;
        if self.is_running()? {
            return Ok(());
        }
        // The file may have been removed, and the watchdog would lock another one.
        let path = self.path.clone();
        let lock = tokio::task::spawn_blocking(move || create(&path)).await.map_err(io::Error::other)??;
        *self.lock.lock() = lock;
        let (program, arguments) = self.command.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let mut command = tokio::process::Command::new(program);
        // The watchdog has its own process group, so that a signal to the agent's group does not end it.
        command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(false);
        // The lock shows whether the process lives. Tokio reaps it when it ends.
        drop(command.spawn()?);
        let deadline = tokio::time::Instant::now() + STARTS_WITHIN;
        while !self.is_running()? {
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
    let lock = create(&path).map_err(at)?;
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
    let mut watch = Watch::new(file, engine);
    watch.refresh().await.and_then(|ledger| ledger).map_err(|source| WatchdogError::File { path, source })?;
    loop {
        while watch.check().await {
            tokio::time::sleep(INTERVAL).await;
        }
        if watch.own_to_end().await {
            break;
        }
    }
    // An agent takes its own lock before it looks for a watchdog, so it must not get it before this one is free.
    drop(lock);
    drop(watch);
    Ok(())
}

/// The stops of one pod that the watchdog has taken over.
#[derive(Default)]
struct Taken {
    /// Ids of the containers that this watchdog has begun to stop.
    ids: BTreeSet<String>,
    stopping: Option<JoinHandle<()>>,
}

/// The state of a watchdog. Nothing here waits longer than [`DISK_LIMIT`] for the disk.
struct Watch {
    file: PathBuf,
    data_dir: PathBuf,
    /// The file that a living agent locks. `None` if there was none so far.
    owner: Option<File>,
    engine: DockerFence,
    disk: Arc<HostCalls>,
    ledger: Ledger,
    /// The last read of the files has ended in time.
    disk_answers: bool,
    /// The overdue pods, by uid.
    pods: BTreeMap<String, Taken>,
}

impl Watch {
    fn new(file: PathBuf, engine: DockerFence) -> Self {
        let data_dir = file.parent().unwrap_or(Path::new("/")).to_owned();
        let disk = Arc::new(HostCalls::new(DISK_CALLS, DISK_LIMIT));
        Watch {
            file,
            data_dir,
            owner: None,
            engine,
            disk,
            ledger: Ledger::default(),
            disk_answers: true,
            pods: BTreeMap::new(),
        }
    }

    /// Reads the ledger again and opens the agent's lock again. What cannot be read stays as it was last read, also when
    /// the files are gone together with their directory.
    ///
    /// # Errors
    /// The outer error means that the disk does not answer.
    async fn refresh(&mut self) -> io::Result<io::Result<()>> {
        let file = self.file.clone();
        let read_both = move || (read(&file), File::options().write(true).open(owner_of(&file)));
        let (ledger, owner) = self.disk.run(&self.file, read_both).await?;
        if let Ok(owner) = owner {
            self.owner = Some(owner);
        }
        Ok(ledger.map(|ledger| self.ledger = ledger))
    }

    /// Whether the agent lives. An agent whose lock cannot be checked counts as living, so that the watchdog goes on.
    fn agent_lives(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| is_locked(owner).unwrap_or(true))
    }

    /// Takes the agent's lock, so that no agent relies on a watchdog that is about to end. Returns false if an agent was
    /// there since the last check.
    async fn own_to_end(&mut self) -> bool {
        let before = self.ledger.clone();
        // A ledger that cannot be read has not changed.
        drop(self.refresh().await);
        self.ledger == before && self.owner.as_ref().is_none_or(|owner| owner.try_lock().is_ok())
    }

    /// Acts on all overdue pods once. Returns false when the agent is gone and none of the pods can run.
    async fn check(&mut self) -> bool {
        let refreshed = self.refresh().await;
        if let Err(error) = &refreshed
            && self.disk_answers
        {
            tracing::warn!(error = %error, "cannot read the ledger of the fences; the last one counts");
        }
        self.disk_answers = refreshed.is_ok();
        let agent_lives = self.agent_lives();
        let now = clock::now();
        let overdue: Vec<String> = {
            let pods = self.ledger.pods.iter();
            pods.filter(|(_, pod)| self.ledger.overdue(pod, now).is_some()).map(|(uid, _)| uid.clone()).collect()
        };
        self.pods.retain(|uid, _| overdue.contains(uid));
        let mut is_anything_left = overdue.len() < self.ledger.pods.len();
        if overdue.is_empty() {
            return is_anything_left || agent_lives;
        }
        let (running, mut marked) = tokio::join!(self.engine.running(), self.marked(overdue.clone()));
        let mut running = match running {
            Ok(running) => running,
            Err(error) => {
                tracing::warn!(error = %error, "cannot list the running containers of fenced pods");
                return true;
            }
        };
        for uid in overdue {
            let Some(pod) = self.ledger.pods.get(&uid) else { continue };
            // The time that the list has taken counts too.
            let Some(overdue) = self.ledger.overdue(pod, clock::now()) else { continue };
            let Running { containers, sandboxes } = running.remove(&uid).unwrap_or_default();
            is_anything_left |= !containers.is_empty() || !sandboxes.is_empty();
            let taken = self.pods.get(&uid).map(|pod| pod.ids.clone()).unwrap_or_default();
            let marked = marked.remove(&uid).unwrap_or_default();
            let sight = Sight { overdue, grace: pod.grace, agent_lives, containers, sandboxes, marked, taken };
            self.act(uid, takeover::next(&sight));
        }
        is_anything_left || agent_lives
    }

    /// Returns the ids of the containers that the agent stops, by pod. Without an answer of the disk there are none, so
    /// the watchdog stops all of them.
    async fn marked(&self, uids: Vec<String>) -> BTreeMap<String, BTreeSet<String>> {
        if !self.disk_answers {
            return BTreeMap::new();
        }
        let data_dir = self.data_dir.clone();
        let read = move || uids.into_iter().map(|uid| (marks::of(&data_dir, &uid), uid)).collect::<Vec<_>>();
        let read = self.disk.run(&self.data_dir, read).await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "cannot read which containers the agent stops; stopping all of them");
            Vec::new()
        });
        let known = read.into_iter().filter_map(|(marks, uid)| match marks {
            Ok(marks) => Some((uid, marks.into_keys().collect())),
            Err(error) => {
                tracing::warn!(%uid, error = %error, "cannot read which containers the agent stops; stopping all of them");
                None
            }
        });
        known.collect()
    }

    /// Takes the step in the background, unless the pod's last one has not ended.
    fn act(&mut self, uid: String, step: Option<Step>) {
        let Some(step) = step else { return };
        let pod = self.pods.entry(uid.clone()).or_default();
        if pod.stopping.as_ref().is_some_and(|stopping| !stopping.is_finished()) {
            return;
        }
        let engine = self.engine.clone();
        pod.stopping = Some(match step {
            Step::Stop { ids, grace } => {
                tracing::warn!(%uid, "the node has not reached the masters for too long; stopping a fenced pod");
                pod.ids.extend(ids.iter().cloned());
                let (disk, data_dir) = (Arc::clone(&self.disk), self.data_dir.clone());
                tokio::spawn(async move {
                    let (path, marked, pod) = (marks::dir(&data_dir, &uid), ids.clone(), uid.clone());
                    let mark = disk.run(&path, move || marks::add(&data_dir, &pod, &marked)).await;
                    if let Err(error) = mark.and_then(|marked| marked) {
                        tracing::warn!(%uid, error = %error, "cannot mark containers as stopped by their fence");
                    }
                    engine.stop(&ids, grace).await;
                })
            }
            Step::EndSandboxes { ids } => tokio::spawn(async move { engine.stop(&ids, Duration::ZERO).await }),
        });
    }
}

#[cfg(test)]
mod tests;
