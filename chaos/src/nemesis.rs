//! Carries out the schedule: keeps processes, network, disks and clocks as the faults that are active demand.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::clients::Clock;
use crate::cluster::{Processes, SmallDisk};
use crate::history::Micros;
use crate::schedule::Planned;
use crate::world::{Effect, MemberIndex, Service, World};

const TICK: Duration = Duration::from_millis(100);
/// A member that ended by itself is started again after this, as a service manager would.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// A fault as it came.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Injected {
    pub from: Micros,
    pub to: Micros,
    pub effect: Effect,
    pub text: String,
    pub kind: crate::schedule::Kind,
}

/// From `at` on the world allowed this much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When the change was complete.
    pub at: Micros,
    pub service: ServiceLevel,
}

/// [`Service`], for the record.
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

/// A member's process that ended without being killed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Death {
    pub at: Micros,
    pub member: MemberIndex,
    pub status: String,
    /// Its fsync failed at that time, so it had to end.
    pub is_wanted: bool,
    pub said: String,
}

/// What the nemesis did, and what it saw of the processes.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub injected: Vec<Injected>,
    pub changes: Vec<Change>,
    pub deaths: Vec<Death>,
    /// The longest time by which a step of the schedule was late.
    pub late_ms: u64,
}

pub struct Nemesis {
    clock: Clock,
    processes: Processes,
    small_disk: Option<(MemberIndex, SmallDisk)>,
    world: watch::Sender<World>,
    leader: watch::Receiver<Option<MemberIndex>>,
    active: BTreeMap<usize, (Micros, Effect)>,
    restarts: BTreeMap<MemberIndex, Instant>,
    account: Account,
}

impl Nemesis {
    /// Takes over members that do not run yet.
    #[must_use]
    pub fn new(
        clock: Clock,
        processes: Processes,
        small_disk: Option<(MemberIndex, SmallDisk)>,
        world: watch::Sender<World>,
        leader: watch::Receiver<Option<MemberIndex>>,
    ) -> Self {
        Nemesis {
            clock,
            processes,
            small_disk,
            world,
            leader,
            active: BTreeMap::new(),
            restarts: BTreeMap::new(),
            account: Account::default(),
        }
    }

    /// The schedule's time begins now.
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
        (0..members).try_for_each(|member| self.processes.start(member))
    }

    /// Runs the schedule to its end, after which the world is healthy and every member was started.
    ///
    /// # Errors
    /// When a fault cannot be brought about or taken back.
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
        Ok(())
    }

    /// Looks after the processes until then.
    ///
    /// # Errors
    /// When a process cannot be waited for, or started again.
    pub async fn supervise(&mut self, until: Instant) -> anyhow::Result<()> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                _ = ticks.tick() => self.look_after()?,
            }
        }
    }

    /// Looks after the processes while something else happens.
    ///
    /// # Errors
    /// As [`Nemesis::supervise`].
    pub async fn alongside<T>(&mut self, other: impl Future<Output = T>) -> anyhow::Result<T> {
        let far = Instant::now() + Duration::from_secs(3600);
        tokio::select! {
            done = other => Ok(done),
            ended = self.supervise(far) => {
                ended?;
                anyhow::bail!("it took more than an hour")
            }
        }
    }

    fn look_after(&mut self) -> anyhow::Result<()> {
        let world = self.world.borrow().clone();
        for ended in self.processes.reap()? {
            let is_wanted = world.members[ended.member].sync_fails;
            self.account.deaths.push(Death {
                at: self.clock.now(),
                member: ended.member,
                status: ended.status.to_string(),
                is_wanted,
                said: ended.said,
            });
            if !is_wanted {
                self.restarts.insert(ended.member, Instant::now() + RESTART_AFTER);
            }
        }
        let due: Vec<MemberIndex> =
            self.restarts.iter().filter(|(_, at)| **at <= Instant::now()).map(|(member, _)| *member).collect();
        for member in due {
            self.restarts.remove(&member);
            if !world.members[member].down {
                self.processes.start(member)?;
            }
        }
        if let Some((member, disk)) = &self.small_disk
            && world.members[*member].disk_full
        {
            disk.fill()?;
        }
        Ok(())
    }

    async fn begin(&mut self, index: usize, planned: &Planned) -> anyhow::Result<()> {
        let members = self.world.borrow().members.len();
        let leader = *self.leader.borrow();
        let effect = planned.fault.effect(members, leader);
        self.active.insert(index, (self.clock.now(), effect));
        self.bring_about().await
    }

    async fn end(&mut self, index: usize, planned: &Planned) -> anyhow::Result<()> {
        let Some((from, effect)) = self.active.remove(&index) else { return Ok(()) };
        self.bring_about().await?;
        let (to, text, kind) = (self.clock.now(), effect.to_string(), planned.fault.kind());
        self.account.injected.push(Injected { from, to, effect, text, kind });
        Ok(())
    }

    /// Makes the world what the active faults say.
    async fn bring_about(&mut self) -> anyhow::Result<()> {
        let old = self.world.borrow().clone();
        let new = World::under(old.members.len(), self.active.values().map(|(_, effect)| effect));
        // The network first when it gets worse, so that nobody sees a dead process behind a live address.
        self.world.send_replace(new.clone());
        // All that die in one fault die at once.
        for (member, (was, is)) in old.members.iter().zip(&new.members).enumerate() {
            if is.down && !was.down {
                self.processes.signal(member, Signal::SIGKILL)?;
            }
        }
        for (member, (was, is)) in old.members.iter().zip(&new.members).enumerate() {
            if was == is {
                continue;
            }
            self.processes
                .control(member, is.clock_offset_s, is.sync_delay_ms, is.sync_fails)
                .with_context(|| format!("m{}", member + 1))?;
            if let Some((_, disk)) = self.small_disk.as_ref().filter(|(small, _)| *small == member) {
                if is.disk_full { disk.fill()? } else { disk.free()? }
            }
            if is.down {
                self.processes.kill(member).await?;
                if is.disk_lost {
                    self.processes.lose_disk(member)?;
                }
                continue;
            }
            let should_run = was.down || (was.sync_fails && !is.sync_fails);
            if should_run {
                self.processes.start(member)?;
            }
            match (is.paused, was.paused && !was.down) {
                (true, false) => self.processes.signal(member, Signal::SIGSTOP)?,
                (false, true) => self.processes.signal(member, Signal::SIGCONT)?,
                _ => {}
            }
        }
        self.note_change();
        Ok(())
    }

    fn note_change(&mut self) {
        let service = self.world.borrow().service().into();
        self.account.changes.push(Change { at: self.clock.now(), service });
    }

    /// Kills all members and tells what happened.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn finish(mut self) -> anyhow::Result<Account> {
        self.processes.kill_all().await?;
        self.account.injected.sort_by_key(|injected| injected.from);
        Ok(self.account)
    }
}
