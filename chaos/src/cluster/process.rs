//! The members' processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::layout::Layout;
use super::log_version;
use super::shim::{Control, Shim};
use crate::world::MemberIndex;

/// A process that ended without being killed by the harness.
#[derive(Clone, Debug)]
pub struct Ended {
    pub member: MemberIndex,
    pub status: ExitStatus,
    /// Last lines of its log.
    pub said: String,
}

/// Processes of all members. Dropping this kills them.
pub struct Processes {
    binary: PathBuf,
    layout: Arc<Layout>,
    shim: Option<(Shim, Vec<Control>)>,
    children: Vec<Option<Child>>,
    /// Tokens of members that have joined or are to join.
    tokens: Vec<Option<String>>,
}

impl Processes {
    /// # Errors
    /// When a file cannot be written.
    pub fn new(binary: PathBuf, layout: Arc<Layout>, shim: Option<Shim>) -> anyhow::Result<Self> {
        let control = |name: &str| Control::create(layout.directory.join(format!("{name}.control")));
        let controls = layout.places.iter().map(|place| control(&place.name)).collect::<anyhow::Result<Vec<_>>>()?;
        let children = layout.places.iter().map(|_| None).collect();
        let tokens = vec![None; layout.places.len()];
        Ok(Processes { binary, shim: shim.map(|shim| (shim, controls)), layout, children, tokens })
    }

    #[must_use]
    pub fn has_shim(&self) -> bool {
        self.shim.is_some()
    }

    #[must_use]
    pub fn runs(&self, member: MemberIndex) -> bool {
        self.children[member].is_some()
    }

    /// Starts a member unless it runs already.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn start(&mut self, member: MemberIndex) -> anyhow::Result<()> {
        if self.runs(member) {
            return Ok(());
        }
        let place = &self.layout.places[member];
        let log = fs::OpenOptions::new().create(true).append(true).open(&place.log)?;
        let mut command = Command::new(&self.binary);
        command.arg("server").arg("--config").arg(&place.config);
        if let Some(token) = &self.tokens[member] {
            command.arg("--join").arg(token);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        if let Some((shim, controls)) = &self.shim {
            command.env("LD_PRELOAD", shim.library()).env("CHAOS_CONTROL", controls[member].path());
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.children[member] = Some(child);
        Ok(())
    }

    /// Makes the member join with this token from its next start on.
    pub fn set_token(&mut self, member: MemberIndex, token: String) {
        self.tokens[member] = Some(token);
    }

    /// Kills a member with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self, member: MemberIndex) -> anyhow::Result<()> {
        match self.children[member].take() {
            Some(mut child) => child.kill().await.with_context(|| format!("cannot kill m{}", member + 1)),
            None => Ok(()),
        }
    }

    /// Process id of a member, if it runs.
    #[must_use]
    pub fn id(&self, member: MemberIndex) -> Option<u32> {
        self.children[member].as_ref().and_then(Child::id)
    }

    /// Waits up to `within` for a member's process to end; `None` when it still runs.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn wait(&mut self, member: MemberIndex, within: Duration) -> anyhow::Result<Option<Ended>> {
        let Some(child) = self.children[member].as_mut() else { return Ok(None) };
        let Ok(status) = timeout(within, child.wait()).await else { return Ok(None) };
        self.children[member] = None;
        Ok(Some(Ended { member, status: status?, said: last_lines(&self.layout.places[member].log) }))
    }

    /// Changes the log of a member that does not run to a different version, or back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_log_version(&self, member: MemberIndex, is_other: bool) -> anyhow::Result<()> {
        log_version::set(&self.layout.places[member].data, is_other)
    }

    /// Empties the disk of a member that does not run.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn lose_disk(&self, member: MemberIndex) -> anyhow::Result<()> {
        empty(&self.layout.places[member].data)
    }

    /// Kills all members at once.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn kill_all(&mut self) -> anyhow::Result<()> {
        for child in self.children.iter_mut().flatten() {
            child.start_kill()?;
        }
        for member in 0..self.children.len() {
            self.kill(member).await?;
        }
        Ok(())
    }

    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, member: MemberIndex, signal: Signal) -> anyhow::Result<()> {
        let Some(pid) = self.children[member].as_ref().and_then(Child::id) else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("{signal} to m{}", member + 1))
    }

    /// Sets the offset of a member's clock, and the delay or failure of its fsync.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn control(&self, member: MemberIndex, offset_s: i64, sync_ms: u64, sync_fails: bool) -> anyhow::Result<()> {
        match &self.shim {
            Some((_, controls)) => controls[member].set(offset_s, sync_ms, sync_fails),
            None => Ok(()),
        }
    }

    /// The processes that have ended by themselves since the last call.
    ///
    /// # Errors
    /// When they cannot be waited for.
    pub fn reap(&mut self) -> anyhow::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        for (member, slot) in self.children.iter_mut().enumerate() {
            let Some(child) = slot else { continue };
            if let Some(status) = child.try_wait()? {
                *slot = None;
                ended.push(Ended { member, status, said: last_lines(&self.layout.places[member].log) });
            }
        }
        Ok(ended)
    }
}

/// Removes everything in a directory and syncs it, so that a later power loss brings nothing back.
pub(super) fn empty(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("cannot sync {}", directory.display()))
}

pub(super) fn last_lines(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
