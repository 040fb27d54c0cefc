//! Carries out the schedule: keeps processes, network, disks and clocks in the state that the active faults require.

mod workers;

pub use workers::AgentDeath;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::clients::Clock;
use crate::cluster::{Agents, Ended, Failpoints, LossyDisk, Processes, SmallDisk};
use crate::fault::Kind;
use crate::history::{Killed, MachineSeen, Micros, Start};
use crate::replacement::{Operator, Replacement};
use crate::schedule::Planned;
use crate::world::{Action, Effect, MemberIndex, Service, Surroundings, WorkerIndex, World};

const TICK: Duration = Duration::from_millis(100);
/// Delay before a member that ended by itself is started again, as by a service manager.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Time within which a process must end after SIGTERM or a refusal to start.
const END_WITHIN: Duration = Duration::from_secs(20);
/// Time within which a new member must have its vote after everything is healed.
const REPLACE_WITHIN: Duration = Duration::from_secs(60);
/// Log text of a new member that was interrupted while it joined and lost its state.
const REFUSED: &str = "the quorum does not let";
/// Log text of a new member that gave up because the others had no leader for too long.
const NOT_JOINED: &str = "could not join";
/// Log text of a member that finds a log of a different version.
const OTHER_VERSION: &str = "version 02 of the log";

/// A fault as it was injected.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Injected {
    pub from: Micros,
    pub to: Micros,
    pub effect: Effect,
    pub text: String,
    pub kind: Kind,
}

/// The level of service that the world allowed from `at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When the change was complete.
    pub at: Micros,
    pub service: ServiceLevel,
}

/// [`Service`] as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceLevel {
    Required,
    Degraded,
    Impossible,
}

impl From<Service> for ServiceLevel {
    fn from(service: Service) -> Self {
        match service {
            Service::Required => ServiceLevel::Required,
            Service::Degraded => ServiceLevel::Degraded,
            Service::Impossible => ServiceLevel::Impossible,
        }
    }
}

/// A member's process that ended without being killed, or that did not end although it had to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Death {
    pub at: Micros,
    pub member: MemberIndex,
    pub status: String,
    /// The end was expected: SIGTERM was sent, its fsync failed, its log had a different version, or a failpoint killed
    /// it.
    pub is_wanted: bool,
    pub said: String,
}

/// Record of what the nemesis did and observed of the processes.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub injected: Vec<Injected>,
    pub changes: Vec<Change>,
    pub deaths: Vec<Death>,
    pub agent_deaths: Vec<AgentDeath>,
    /// Containers that ran on a worker when its agent was started again.
    pub machines: Vec<MachineSeen>,
    pub killed: Vec<Killed>,
    /// Every start of a container.
    pub starts: Vec<Start>,
    /// Longest delay of a step of the schedule.
    pub late_ms: u64,
}

/// Tools that the nemesis injects faults with.
pub struct Means {
    pub processes: Processes,
    pub agents: Agents,
    pub small_disk: Option<(MemberIndex, SmallDisk)>,
    /// One for each member, or none.
    pub lossy_disks: Vec<LossyDisk>,
    pub failpoints: Arc<Failpoints>,
    pub operator: Operator,
    /// Decides which writes a power loss takes.
    pub rng: StdRng,
}

pub struct Nemesis {
    clock: Clock,
    means: Means,
    world: watch::Sender<World>,
    leader: watch::Receiver<Option<MemberIndex>>,
    active: BTreeMap<usize, (Micros, Effect)>,
    restarts: BTreeMap<MemberIndex, Instant>,
    agent_restarts: BTreeMap<WorkerIndex, Instant>,
    /// Deadlines of agents that were sent SIGTERM, must run again, and have not ended yet.
    agent_ends: BTreeMap<WorkerIndex, Instant>,
    replacements: BTreeMap<MemberIndex, Replacement>,
    /// Replacements that last beyond their scheduled end, until the new member has a vote.
    lingering: BTreeMap<MemberIndex, (usize, Planned)>,
    /// Outcome of each member's last failpoint or power loss.
    outcomes: BTreeMap<MemberIndex, String>,
    account: Account,
}

impl Nemesis {
    /// Creates a nemesis over members that do not run yet.
    #[must_use]
    pub fn new(
        clock: Clock,
        means: Means,
        world: watch::Sender<World>,
        leader: watch::Receiver<Option<MemberIndex>>,
    ) -> Self {
        Nemesis {
            clock,
            means,
            world,
            leader,
            active: BTreeMap::new(),
            restarts: BTreeMap::new(),
            agent_restarts: BTreeMap::new(),
            agent_ends: BTreeMap::new(),
            replacements: BTreeMap::new(),
            lingering: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            account: Account::default(),
        }
    }

    /// Restarts the clock of the schedule.
    pub fn restart_clock(&mut self) -> Clock {
        self.clock = Clock::start();
        self.note_change();
        self.clock
    }

    /// Starts all members.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        let members = self.world.borrow().members.len();
        (0..members).try_for_each(|member| self.means.processes.start(member))
    }

    /// Runs the schedule to its end; then the world is healthy and every member is started.
    ///
    /// # Errors
    /// When a fault cannot be injected or ended.
    pub async fn run(&mut self, schedule: &[Planned]) -> anyhow::Result<()> {
        let begins = schedule.iter().enumerate().map(|(i, planned)| (planned.start_ms, true, i));
        let ends = schedule.iter().enumerate().map(|(i, planned)| (planned.end_ms, false, i));
        let mut steps: Vec<(u64, bool, usize)> = begins.chain(ends).collect();
        steps.sort_unstable();
        for (at_ms, begins, index) in steps {
            self.supervise(self.clock.at_ms(at_ms)).await?;
            self.account.late_ms = self.account.late_ms.max((self.clock.now() / 1000).saturating_sub(at_ms));
            if begins {
                self.begin(index, &schedule[index]).await?;
            } else {
                self.end(index, &schedule[index]).await?;
            }
        }
        let deadline = Instant::now() + REPLACE_WITHIN;
        while !(self.lingering.is_empty() && self.agent_ends.is_empty()) && Instant::now() < deadline {
            self.supervise(Instant::now() + TICK).await?;
        }
        for (member, (index, planned)) in std::mem::take(&mut self.lingering) {
            let status =
                format!("the new member has no vote {} s after everything was healed", REPLACE_WITHIN.as_secs());
            self.note_failure(member, status);
            self.replacements.remove(&member);
            self.end(index, &planned).await?;
        }
        Ok(())
    }

    /// Supervises the processes until `until`.
    ///
    /// # Errors
    /// When a process cannot be waited for, or started again.
    pub async fn supervise(&mut self, until: Instant) -> anyhow::Result<()> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                _ = ticks.tick() => self.poll_processes().await?,
            }
        }
    }

    /// Supervises the processes while `other` runs.
    ///
    /// # Errors
    /// As [`Nemesis::supervise`].
    pub async fn alongside<T>(&mut self, other: impl Future<Output = T>) -> anyhow::Result<T> {
        let far = Instant::now() + Duration::from_secs(3600);
        tokio::select! {
            done = other => Ok(done),
            ended = self.supervise(far) => {
                ended?;
                anyhow::bail!("the run took more than an hour")
            }
        }
    }

    async fn poll_processes(&mut self) -> anyhow::Result<()> {
        self.continue_replacements().await?;
        let world = self.world.borrow().clone();
        self.supervise_agents(&world).await?;
        for ended in self.means.processes.reap()? {
            let member = ended.member;
            let around = &world.members[member];
            let is_wanted = self.note_end(ended, around)?;
            if (!is_wanted || self.replacements.contains_key(&member)) && !around.ended {
                self.restarts.insert(member, Instant::now() + RESTART_AFTER);
            }
        }
        let due: Vec<MemberIndex> =
            self.restarts.iter().filter(|(_, at)| **at <= Instant::now()).map(|(member, _)| *member).collect();
        for member in due {
            self.restarts.remove(&member);
            if !world.members[member].down && !world.members[member].ended && !self.has_no_token(member) {
                self.start(member, &world.members[member])?;
            }
        }
        if let Some((member, disk)) = &self.means.small_disk
            && world.members[*member].disk_full
        {
            disk.fill()?;
        }
        Ok(())
    }

    /// Takes every step of a replacement that is possible now.
    async fn continue_replacements(&mut self) -> anyhow::Result<()> {
        let is_due = |replacement: &Replacement| match replacement {
            Replacement::Asking(asking) => asking.is_finished(),
            Replacement::Joining(joining) => joining.is_finished(),
        };
        let due: Vec<MemberIndex> = self
            .replacements
            .iter()
            .filter(|(_, replacement)| is_due(replacement))
            .map(|(member, _)| *member)
            .collect();
        for member in due {
            match self.replacements.remove(&member) {
                Some(Replacement::Asking(asking)) => {
                    self.means.processes.set_token(member, asking.await?);
                    self.replacements.insert(member, self.means.operator.await_vote(member));
                    let around = self.world.borrow().members[member];
                    if !around.down && !around.ended {
                        self.start(member, &around)?;
                    }
                }
                Some(Replacement::Joining(joining)) => {
                    joining.await?;
                    if let Some((index, planned)) = self.lingering.remove(&member) {
                        self.end(index, &planned).await?;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Starts or restarts the replacement of a dead member.
    fn replace(&mut self, member: MemberIndex) -> anyhow::Result<()> {
        self.means.processes.lose_disk(member)?;
        self.restarts.remove(&member);
        self.replacements.insert(member, self.means.operator.ask(member));
        Ok(())
    }

    fn has_no_token(&self, member: MemberIndex) -> bool {
        matches!(self.replacements.get(&member), Some(Replacement::Asking(_)))
    }

    /// Records a process that has ended by itself. Returns whether the end was expected.
    fn note_end(&mut self, ended: Ended, around: &Surroundings) -> anyhow::Result<bool> {
        let member = ended.member;
        let killed_by = self.means.failpoints.forget_process(member).filter(|_| ended.status.code().is_none());
        let is_joining = self.replacements.contains_key(&member);
        let is_turned_away = is_joining && [REFUSED, NOT_JOINED].iter().any(|reason| ended.said.contains(reason));
        if is_joining && ended.said.contains(REFUSED) {
            self.replace(member)?;
        }
        let is_wanted = around.sync_fails
            // A process that has just started does not handle SIGTERM yet, so the signal kills it.
            || around.ended && (ended.status.success() || ended.status.signal() == Some(Signal::SIGTERM as i32))
            || around.other_log && ended.said.contains(OTHER_VERSION)
            || is_turned_away
            || killed_by.is_some();
        if killed_by == Some(Action::LosePower) {
            self.lose_power(member)?;
        }
        let (at, status, said) = (self.clock.now(), ended.status.to_string(), ended.said);
        self.account.deaths.push(Death { at, member, status, is_wanted, said });
        Ok(is_wanted)
    }

    /// Records that a member missed a deadline.
    fn note_failure(&mut self, member: MemberIndex, status: String) {
        let (at, said) = (self.clock.now(), String::new());
        self.account.deaths.push(Death { at, member, status, is_wanted: false, said });
    }

    fn start(&mut self, member: MemberIndex, around: &Surroundings) -> anyhow::Result<()> {
        self.means.processes.start(member)?;
        if let (Some(failpoint), Some(process)) = (around.failpoint, self.means.processes.id(member)) {
            self.means.failpoints.arm(member, failpoint, process);
        }
        Ok(())
    }

    /// Discards the unsynced writes of a dead member.
    fn lose_power(&mut self, member: MemberIndex) -> anyhow::Result<()> {
        if let Some(disk) = self.means.lossy_disks.get(member) {
            let loss = disk.lose(&mut self.means.rng)?;
            let outcome = format!("m{}: {} files and {} names lost", member + 1, loss.files, loss.names);
            self.outcomes.insert(member, outcome);
        }
        Ok(())
    }

    async fn begin(&mut self, index: usize, planned: &Planned) -> anyhow::Result<()> {
        let members = self.world.borrow().members.len();
        let leader = *self.leader.borrow();
        let mut effect = planned.fault.effect(members, leader);
        if let Effect::Replaced(member) = effect
            && !self.replacements.is_empty()
        {
            // A second lost disk may hold the last copy of an entry.
            effect = Effect::Down(vec![member]);
        }
        self.active.insert(index, (self.clock.now(), effect));
        self.apply_faults().await
    }

    async fn end(&mut self, index: usize, planned: &Planned) -> anyhow::Result<()> {
        if let Some((_, Effect::Replaced(member))) = self.active.get(&index)
            && self.replacements.contains_key(member)
        {
            self.lingering.insert(*member, (index, planned.clone()));
            return Ok(());
        }
        let Some((from, effect)) = self.active.remove(&index) else { return Ok(()) };
        self.apply_faults().await?;
        let (to, kind) = (self.clock.now(), planned.fault.kind());
        let mut text = effect.to_string();
        let with_outcome: Vec<MemberIndex> = match &effect {
            Effect::PowerLost(members) => members.clone(),
            Effect::Failpoint { member, .. } => vec![*member],
            _ => Vec::new(),
        };
        let outcomes: Vec<String> = with_outcome.iter().filter_map(|member| self.outcomes.remove(member)).collect();
        if !outcomes.is_empty() {
            text = format!("{text} ({})", outcomes.join("; "));
        }
        self.account.injected.push(Injected { from, to, effect, text, kind });
        Ok(())
    }

    /// Applies the active faults to the world.
    async fn apply_faults(&mut self) -> anyhow::Result<()> {
        let old = self.world.borrow().clone();
        let effects = self.active.values().map(|(_, effect)| effect);
        let new = World::under(old.members.len(), old.workers.len(), effects);
        // The network changes first, so that no client sees a dead process behind a live address.
        self.world.send_replace(new.clone());
        // All members that one fault kills die at once.
        for (member, (was, is)) in old.members.iter().zip(&new.members).enumerate() {
            if is.down && !was.down {
                self.means.processes.signal(member, Signal::SIGKILL)?;
            }
        }
        for (member, (was, is)) in old.members.iter().zip(&new.members).enumerate() {
            if was != is {
                self.change(member, was, is).await.with_context(|| format!("m{}", member + 1))?;
            }
        }
        self.note_change();
        self.change_workers(&old, &new).await
    }

    /// Changes one member's surroundings to the new state.
    async fn change(&mut self, member: MemberIndex, was: &Surroundings, is: &Surroundings) -> anyhow::Result<()> {
        self.means.processes.control(member, is.clock_offset_s, is.sync_delay_ms, is.sync_fails)?;
        if let Some(disk) = self.means.lossy_disks.get(member) {
            disk.set_delay(Duration::from_millis(is.disk_delay_ms));
        }
        if let Some((_, disk)) = self.means.small_disk.as_ref().filter(|(small, _)| *small == member) {
            if is.disk_full { disk.fill()? } else { disk.free()? }
        }
        self.change_failpoint(member, was, is);
        if was.ended && !is.ended {
            self.finish_end(member, was, "of SIGTERM").await?;
        }
        if was.other_log != is.other_log {
            if was.other_log && !was.down {
                self.finish_end(member, was, "after a start with a log of a different version").await?;
            }
            self.kill(member).await?;
            self.means.processes.set_log_version(member, is.other_log)?;
        }
        if is.down {
            self.kill(member).await?;
            if is.disk_lost {
                self.means.processes.lose_disk(member)?;
            }
            if is.power_lost && !was.power_lost {
                self.lose_power(member)?;
            }
            return Ok(());
        }
        if is.replaced && !was.replaced {
            self.kill(member).await?;
            self.replace(member)?;
        }
        if self.has_no_token(member) {
            return Ok(());
        }
        if is.ended {
            if !was.ended {
                self.means.processes.signal(member, Signal::SIGTERM)?;
            }
        } else if must_start(was, is) {
            self.start(member, is)?;
        }
        match (is.paused, was.paused && !was.down) {
            (true, false) => self.means.processes.signal(member, Signal::SIGSTOP),
            (false, true) => self.means.processes.signal(member, Signal::SIGCONT),
            _ => Ok(()),
        }
    }

    fn change_failpoint(&mut self, member: MemberIndex, was: &Surroundings, is: &Surroundings) {
        if was.failpoint == is.failpoint {
            return;
        }
        if was.failpoint.is_some() {
            let outcome = match (self.means.failpoints.disarm(member), self.outcomes.get(&member)) {
                (0, _) => "not reached".to_owned(),
                (times, Some(loss)) => format!("reached {times} times; {loss}"),
                (times, None) => format!("reached {times} times"),
            };
            self.outcomes.insert(member, outcome);
        }
        if let (Some(failpoint), Some(process)) = (is.failpoint, self.means.processes.id(member)) {
            self.means.failpoints.arm(member, failpoint, process);
        }
    }

    /// Waits for a process that must end, and records a failure if it does not.
    async fn finish_end(&mut self, member: MemberIndex, around: &Surroundings, why: &str) -> anyhow::Result<()> {
        if !self.means.processes.runs(member) {
            return Ok(());
        }
        if around.paused {
            // A stopped process cannot handle SIGTERM.
            return self.kill(member).await;
        }
        if let Some(ended) = self.means.processes.wait(member, END_WITHIN).await? {
            self.note_end(ended, around)?;
            return Ok(());
        }
        let status = format!("it has not ended within {} s {why}", END_WITHIN.as_secs());
        self.note_failure(member, status);
        self.kill(member).await
    }

    async fn kill(&mut self, member: MemberIndex) -> anyhow::Result<()> {
        self.means.failpoints.forget_process(member);
        self.means.processes.kill(member).await
    }

    fn note_change(&mut self) {
        let service = self.world.borrow().service().into();
        self.account.changes.push(Change { at: self.clock.now(), service });
    }

    /// Kills all members and agents, and returns the record.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn finish(mut self) -> anyhow::Result<Account> {
        let finished = self.means.agents.finish().await;
        self.means.processes.kill_all().await?;
        finished?;
        self.account.starts = self.means.agents.starts()?;
        self.account.injected.sort_by_key(|injected| injected.from);
        Ok(self.account)
    }
}

/// Whether the change ends a fault that may have stopped the member, so that it must be started again.
fn must_start(was: &Surroundings, is: &Surroundings) -> bool {
    was.down
        || was.ended
        || was.other_log != is.other_log
        || was.sync_fails && !is.sync_fails
        || was.failpoint.is_some() && is.failpoint.is_none()
}
