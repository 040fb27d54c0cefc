//! The workers: processes of their agents, and their machines.

use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::engine::{Engine, Events};
use super::layout::Layout;
use super::machine::Machine;
use super::mounts;
use super::process::last_lines;
use super::shim::{Control, Shim};
use crate::history::{Container, SANDBOX, Start};
use crate::world::WorkerIndex;

/// An agent that ended without being killed by the harness.
#[derive(Clone, Debug)]
pub struct AgentEnded {
    pub worker: WorkerIndex,
    pub status: ExitStatus,
    /// Last lines of its log.
    pub said: String,
}

/// All workers. Dropping this kills their agents.
pub struct Agents {
    binary: PathBuf,
    layout: Arc<Layout>,
    shim: Option<(Shim, Vec<Control>)>,
    children: Vec<Option<Child>>,
    machines: Vec<Machine>,
    engine: Option<(Engine, Events)>,
}

impl Agents {
    /// # Errors
    /// When a file cannot be written, or the engine's events cannot be followed.
    pub fn new(
        binary: PathBuf,
        layout: Arc<Layout>,
        shim: Option<Shim>,
        engine: Option<Engine>,
    ) -> anyhow::Result<Self> {
        let control = |name: &str| Control::create(layout.directory.join(format!("{name}.control")));
        let controls = layout.workers.iter().map(|place| control(&place.name)).collect::<anyhow::Result<Vec<_>>>()?;
        let machines = layout.workers.iter().map(|place| match (&place.machine, &engine) {
            (None, Some(engine)) => Ok(Machine::Docker { engine: engine.clone(), node: place.name.clone() }),
            (None, None) => anyhow::bail!("{} needs Docker, but no engine is available", place.name),
            (Some(dir), _) => Ok(Machine::Hollow { dir: dir.clone(), losses: 0 }),
        });
        let machines = machines.collect::<anyhow::Result<Vec<_>>>()?;
        let engine = engine.map(|engine| Events::follow(&engine).map(|events| (engine, events))).transpose()?;
        let children = layout.workers.iter().map(|_| None).collect();
        Ok(Agents { binary, shim: shim.map(|shim| (shim, controls)), layout, children, machines, engine })
    }

    #[must_use]
    pub fn runs(&self, worker: WorkerIndex) -> bool {
        self.children[worker].is_some()
    }

    /// Starts an agent unless it runs already.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn start(&mut self, worker: WorkerIndex) -> anyhow::Result<()> {
        if self.runs(worker) {
            return Ok(());
        }
        let place = &self.layout.workers[worker];
        let log = fs::OpenOptions::new().create(true).append(true).open(&place.log)?;
        let mut command = match place.machine {
            Some(_) => Command::new(&self.binary),
            None => mounts::outside(&self.binary)?,
        };
        command.arg("agent").arg("--config").arg(std::path::absolute(&place.config)?);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        if let Some((shim, controls)) = &self.shim {
            let apis = self.layout.places.iter().zip(&place.via);
            let via: Vec<String> = apis.map(|(member, via)| format!("{}={}", member.api.port(), via.port())).collect();
            command.env("LD_PRELOAD", shim.library()).env("CHAOS_CONTROL", controls[worker].path());
            command.env("CHAOS_VIA", via.join(","));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.children[worker] = Some(child);
        Ok(())
    }

    /// Kills an agent with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self, worker: WorkerIndex) -> anyhow::Result<()> {
        match self.children[worker].take() {
            Some(mut child) => child.kill().await.with_context(|| format!("cannot kill w{}", worker + 1)),
            None => Ok(()),
        }
    }

    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, worker: WorkerIndex, signal: Signal) -> anyhow::Result<()> {
        let Some(pid) = self.children[worker].as_ref().and_then(Child::id) else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("{signal} to w{}", worker + 1))
    }

    /// Waits up to `within` for an agent to end; `None` when it still runs.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn wait(&mut self, worker: WorkerIndex, within: Duration) -> anyhow::Result<Option<AgentEnded>> {
        let Some(child) = self.children[worker].as_mut() else { return Ok(None) };
        let Ok(status) = timeout(within, child.wait()).await else { return Ok(None) };
        self.children[worker] = None;
        Ok(Some(AgentEnded { worker, status: status?, said: last_lines(&self.layout.workers[worker].log) }))
    }

    /// The agents that have ended by themselves since the last call.
    ///
    /// # Errors
    /// When they cannot be waited for.
    pub fn reap(&mut self) -> anyhow::Result<Vec<AgentEnded>> {
        let mut ended = Vec::new();
        for (worker, slot) in self.children.iter_mut().enumerate() {
            let Some(child) = slot else { continue };
            if let Some(status) = child.try_wait()? {
                *slot = None;
                ended.push(AgentEnded { worker, status, said: last_lines(&self.layout.workers[worker].log) });
            }
        }
        Ok(ended)
    }

    /// Moves an agent's clock.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn move_clock(&self, worker: WorkerIndex, offset_s: i64) -> anyhow::Result<()> {
        match &self.shim {
            Some((_, controls)) => controls[worker].set(offset_s, 0, false),
            None => Ok(()),
        }
    }

    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Containers on a machine.
    ///
    /// # Errors
    /// When the machine cannot be read.
    pub async fn containers(&self, worker: WorkerIndex) -> anyhow::Result<Vec<Container>> {
        let containers = self.machines[worker].containers().await;
        containers.with_context(|| format!("cannot list the containers of w{}", worker + 1))
    }

    /// Kills the running container that `drawn` selects, and returns it; `None` when none runs.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill_container(&self, worker: WorkerIndex, drawn: u32) -> anyhow::Result<Option<Container>> {
        let mut running = self.containers(worker).await?;
        running.retain(|container| container.is_running && container.name != SANDBOX);
        running.sort_by(|a, b| (&a.uid, &a.id).cmp(&(&b.uid, &b.id)));
        let Some(index) = usize::try_from(drawn)?.checked_rem(running.len()) else { return Ok(None) };
        let chosen = running.swap_remove(index);
        self.machines[worker].kill(&chosen.id).await?;
        Ok(Some(chosen))
    }

    /// Loses the machine of an agent that does not run: kills its containers and empties the agent's directory.
    ///
    /// # Errors
    /// When a container cannot be killed or a file cannot be removed.
    pub async fn lose_machine(&mut self, worker: WorkerIndex) -> anyhow::Result<()> {
        self.machines[worker].lose().await?;
        let data = &self.layout.workers[worker].data;
        if data.exists() {
            fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
        }
        Ok(())
    }

    /// Every start of a container so far on all machines.
    ///
    /// # Errors
    /// When a machine cannot be read.
    pub fn starts(&self) -> anyhow::Result<Vec<Start>> {
        let mut starts = self.engine.as_ref().map_or_else(Vec::new, |(_, events)| events.starts());
        for (worker, machine) in self.machines.iter().enumerate() {
            starts.extend(machine.starts(worker)?);
        }
        Ok(starts)
    }

    /// Kills all agents at once.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn kill_all(&mut self) -> anyhow::Result<()> {
        for child in self.children.iter_mut().flatten() {
            child.start_kill()?;
        }
        for worker in 0..self.children.len() {
            self.kill(worker).await?;
        }
        Ok(())
    }

    /// Kills all agents, and removes their containers.
    ///
    /// # Errors
    /// When one cannot be killed or removed.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        self.kill_all().await?;
        match &self.engine {
            Some((engine, _)) => engine.remove_all().await,
            None => Ok(()),
        }
    }
}
