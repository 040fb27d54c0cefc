//! Faults on workers: keeps agents, machines and containers in the state that the active faults require.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::Instant;

use super::{END_WITHIN, Nemesis, RESTART_AFTER};
use crate::cluster::{AgentEnded, Machine};
use crate::history::{Killed, MachineSeen, Micros};
use crate::world::{ContainerKill, WorkerIndex, WorkerSurroundings, World};

/// An agent's process that ended without being killed, or that did not end although it had to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentDeath {
    pub at: Micros,
    pub worker: WorkerIndex,
    pub status: String,
    /// SIGTERM was sent, so the end was expected.
    pub is_wanted: bool,
    pub said: String,
}

impl Nemesis {
    /// Starts all agents.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn start_agents(&mut self) -> anyhow::Result<()> {
        let workers = self.world.borrow().workers.len();
        (0..workers).try_for_each(|worker| self.means.agents.start(worker))
    }

    /// The workers' machines.
    #[must_use]
    pub fn machines(&self) -> Vec<Machine> {
        self.means.agents.machines().to_vec()
    }

    /// Kills all agents; their containers stay until the run is over.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn end_agents(&mut self) -> anyhow::Result<()> {
        self.agent_restarts.clear();
        self.means.agents.kill_all().await
    }

    pub(super) async fn supervise_agents(&mut self, world: &World) -> anyhow::Result<()> {
        for ended in self.means.agents.reap()? {
            let (worker, around) = (ended.worker, &world.workers[ended.worker]);
            let was_to_end = self.agent_ends.remove(&worker).is_some();
            let is_wanted = self.note_agent_end(ended, around.ended || was_to_end);
            if !around.ended {
                let pause = if is_wanted { Duration::ZERO } else { RESTART_AFTER };
                self.agent_restarts.insert(worker, Instant::now() + pause);
            }
        }
        self.kill_overdue_agents(world).await?;
        for worker in due(&self.agent_restarts) {
            self.agent_restarts.remove(&worker);
            if !world.workers[worker].down && !world.workers[worker].ended {
                self.start_agent_again(worker).await?;
            }
        }
        Ok(())
    }

    /// Kills agents that have not ended in time. A stopped agent gets more time, because it cannot handle SIGTERM.
    async fn kill_overdue_agents(&mut self, world: &World) -> anyhow::Result<()> {
        let now = Instant::now();
        for (worker, until) in &mut self.agent_ends {
            if world.workers[*worker].paused {
                *until = now + END_WITHIN;
            }
        }
        for worker in due(&self.agent_ends) {
            self.agent_ends.remove(&worker);
            let status = format!("it has not ended within {} s of SIGTERM", END_WITHIN.as_secs());
            let (at, said) = (self.clock.now(), String::new());
            self.account.agent_deaths.push(AgentDeath { at, worker, status, is_wanted: false, said });
            self.means.agents.kill(worker).await?;
            self.start_agent_again(worker).await?;
        }
        Ok(())
    }

    /// Changes the workers' surroundings to the new state. The proxies between workers and members follow the world by
    /// themselves.
    pub(super) async fn change_workers(&mut self, old: &World, new: &World) -> anyhow::Result<()> {
        for (worker, (was, is)) in old.workers.iter().zip(&new.workers).enumerate() {
            if is.down && !was.down {
                self.means.agents.signal(worker, Signal::SIGKILL)?;
            }
        }
        for (worker, (was, is)) in old.workers.iter().zip(&new.workers).enumerate() {
            if was != is {
                self.change_worker(worker, was, is).await.with_context(|| format!("w{}", worker + 1))?;
            }
        }
        Ok(())
    }

    async fn change_worker(
        &mut self,
        worker: WorkerIndex,
        was: &WorkerSurroundings,
        is: &WorkerSurroundings,
    ) -> anyhow::Result<()> {
        self.means.agents.move_clock(worker, is.clock_offset_s)?;
        for kill in is.kills.iter().filter(|kill| !was.kills.contains(kill)) {
            self.kill_container(worker, *kill).await?;
        }
        if is.down || is.ended {
            self.agent_ends.remove(&worker);
        }
        if is.down {
            self.means.agents.kill(worker).await?;
            if is.machine_lost && !was.machine_lost {
                self.means.agents.lose_machine(worker).await?;
            }
            return Ok(());
        }
        if is.ended {
            if !was.ended {
                self.means.agents.signal(worker, Signal::SIGTERM)?;
            }
        } else if self.means.agents.runs(worker) {
            if was.ended {
                // The schedule does not wait for the agent to end.
                self.agent_ends.insert(worker, Instant::now() + END_WITHIN);
            }
        } else if was.down || was.ended {
            self.start_agent_again(worker).await?;
        }
        match (is.paused, was.paused && !was.down) {
            (true, false) => self.means.agents.signal(worker, Signal::SIGSTOP),
            (false, true) => self.means.agents.signal(worker, Signal::SIGCONT),
            _ => Ok(()),
        }
    }

    /// Starts an agent that does not run, and records the containers that it must adopt.
    async fn start_agent_again(&mut self, worker: WorkerIndex) -> anyhow::Result<()> {
        if self.means.agents.runs(worker) {
            return Ok(());
        }
        let containers = self.means.agents.containers(worker).await?;
        self.account.machines.push(MachineSeen { at: self.clock.now(), worker, containers });
        self.means.agents.start(worker)
    }

    async fn kill_container(&mut self, worker: WorkerIndex, kill: ContainerKill) -> anyhow::Result<()> {
        let killed = self.means.agents.kill_container(worker, kill.drawn).await?;
        if let Some(container) = killed.filter(|_| !kill.is_secret) {
            let (uid, id, container) = (container.uid, container.id, container.name);
            self.account.killed.push(Killed { at: self.clock.now(), worker, uid, container, id });
        }
        Ok(())
    }

    /// Records an agent that has ended by itself. Returns whether the end was expected.
    fn note_agent_end(&mut self, ended: AgentEnded, was_told: bool) -> bool {
        let AgentEnded { worker, status, said } = ended;
        // An agent that has just started does not handle SIGTERM yet, so the signal kills it.
        let is_wanted = was_told && (status.success() || status.signal() == Some(Signal::SIGTERM as i32));
        let (at, status) = (self.clock.now(), status.to_string());
        self.account.agent_deaths.push(AgentDeath { at, worker, status, is_wanted, said });
        is_wanted
    }
}

/// Workers whose deadline has passed.
fn due(times: &BTreeMap<WorkerIndex, Instant>) -> Vec<WorkerIndex> {
    let now = Instant::now();
    times.iter().filter(|(_, at)| **at <= now).map(|(worker, _)| *worker).collect()
}
