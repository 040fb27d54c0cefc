//! The state of the cluster's surroundings: which processes run, which network paths work, how disks and clocks behave,
//! for the members of the quorum and for the workers. Several faults can affect it at a time; the nemesis acts on the
//! combined state.

use serde::{Deserialize, Serialize};

/// Index of a member in the list, from 0.
pub type MemberIndex = usize;

/// Index of a worker in the list, from 0.
pub type WorkerIndex = usize;

/// One end of a network path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Member(MemberIndex),
    Worker(WorkerIndex),
}

/// Effect of one fault while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Killed with SIGKILL; started again at the end.
    Down(Vec<MemberIndex>),
    /// Killed, and their disks are empty when they are started again. No quorum survives this on a majority; it proves
    /// that the checks find the loss.
    Lost(Vec<MemberIndex>),
    /// Killed, its disk is emptied, and a new member joins under its name and addresses. The fault lasts until the new
    /// member has a vote.
    Replaced(MemberIndex),
    /// Killed, and the power fails: unsynced writes are lost.
    PowerLost(Vec<MemberIndex>),
    /// Stopped with SIGTERM; started again at the end.
    Ended(Vec<MemberIndex>),
    /// Killed, and started again with a log of a different version.
    OtherLog(MemberIndex),
    /// An action is triggered at a certain point of the member's work.
    Failpoint { member: MemberIndex, failpoint: Failpoint },
    /// Stopped with SIGSTOP.
    Paused(Vec<MemberIndex>),
    /// Everything that the first member of a pair sends to the second is blocked.
    Cut(Vec<(MemberIndex, MemberIndex)>),
    /// Traffic between members is delayed, or lost and retransmitted.
    Poor(Quality),
    /// Each fsync takes `sync_delay_ms` longer, and each read and write `delay_ms`.
    SlowDisk { member: MemberIndex, sync_delay_ms: u64, delay_ms: u64 },
    /// No byte is free on the file system with the member's data.
    FullDisk(MemberIndex),
    /// The next fsync and all later ones fail with EIO.
    FailingSync(MemberIndex),
    /// The wall clock is off by this much.
    Clock { member: MemberIndex, offset_s: i64 },
    /// Agents are killed with SIGKILL, and started again at the end. Their containers keep running.
    AgentsDown(Vec<WorkerIndex>),
    /// Agents are stopped with SIGTERM, and started again at the end. Their containers keep running.
    AgentsEnded(Vec<WorkerIndex>),
    /// Agents are stopped with SIGSTOP.
    AgentsPaused(Vec<WorkerIndex>),
    /// A worker's machine is lost: the agent and its containers are killed, and the agent's disk is empty when it is started
    /// again.
    MachineLost(WorkerIndex),
    /// All traffic between a worker and these members is blocked.
    CutOff { worker: WorkerIndex, members: Vec<MemberIndex> },
    /// One container of the worker is killed when the fault begins; `drawn` selects it.
    ContainerKilled { worker: WorkerIndex, drawn: u32 },
    /// The same, but not recorded; it proves that the checks find an unexplained restart.
    ContainerKilledInSecret { worker: WorkerIndex, drawn: u32 },
    /// The agent's wall clock is off by this much.
    AgentClock { worker: WorkerIndex, offset_s: i64 },
}

/// Quality of a network path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quality {
    pub delay_ms: u64,
    /// Random deviation from the delay.
    pub jitter_ms: u64,
    /// Percentage of chunks that are lost. TCP retransmits them, so they arrive late.
    pub loss_percent: u32,
    /// Number of chunks in ten thousand that reset the connection.
    pub reset_per_10_000: u32,
}

/// Point in a member's work that can be observed from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Point {
    LogWrite,
    LogSync,
    /// The flush of applied entries.
    StateWrite,
    StateSync,
    SnapshotReceive,
    /// A received snapshot becomes the state.
    SnapshotInstall,
    /// A message to another member: a leader's entries, a follower's answers, votes.
    Send,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The process is killed.
    Die,
    /// The process is killed, and unsynced writes are lost.
    LosePower,
    /// The process waits for this long each time.
    Sleep { ms: u64 },
}

/// A point, and the action that is triggered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failpoint {
    pub point: Point,
    pub phase: Phase,
    pub action: Action,
}

/// One direction between two members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    pub cut: bool,
    pub quality: Quality,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    pub down: bool,
    pub paused: bool,
    pub disk_full: bool,
    pub disk_lost: bool,
    pub power_lost: bool,
    /// A new member is to replace it.
    pub replaced: bool,
    /// It was sent SIGTERM.
    pub ended: bool,
    pub other_log: bool,
    pub failpoint: Option<Failpoint>,
    pub sync_fails: bool,
    pub sync_delay_ms: u64,
    /// Extra delay of a read or a write.
    pub disk_delay_ms: u64,
    pub clock_offset_s: i64,
}

/// A worker's agent and machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSurroundings {
    pub down: bool,
    pub paused: bool,
    /// It was sent SIGTERM.
    pub ended: bool,
    pub machine_lost: bool,
    pub clock_offset_s: i64,
    /// Members that the worker cannot reach.
    pub cut_off: Vec<MemberIndex>,
    /// Containers to kill, each once.
    pub kills: Vec<ContainerKill>,
}

/// The killing of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerKill {
    pub drawn: u32,
    pub is_secret: bool,
}

impl Failpoint {
    #[must_use]
    pub fn kills(&self) -> bool {
        self.action == Action::Die || self.action == Action::LosePower
    }
}

impl Surroundings {
    /// Whether the member runs and can be relied on.
    fn runs(&self) -> bool {
        let may_die = self.failpoint.is_some_and(|failpoint| failpoint.kills());
        !(self.down || self.replaced || self.paused || self.ended || self.other_log || may_die)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub members: Vec<Surroundings>,
    /// Paths by sender, then receiver.
    pub paths: Vec<Vec<Path>>,
    pub workers: Vec<WorkerSurroundings>,
}

/// Whether the quorum must accept writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A majority runs, and all its members can reach each other.
    Required,
    /// A majority could accept writes, but the conditions allow no bound on when.
    Degraded,
    Impossible,
}

impl World {
    #[must_use]
    pub fn healthy(members: usize, workers: usize) -> Self {
        World {
            members: vec![Surroundings::default(); members],
            paths: vec![vec![Path::default(); members]; members],
            workers: vec![WorkerSurroundings::default(); workers],
        }
    }

    /// The healthy world with all these effects applied.
    #[must_use]
    pub fn under<'a>(members: usize, workers: usize, effects: impl IntoIterator<Item = &'a Effect>) -> Self {
        let mut world = World::healthy(members, workers);
        effects.into_iter().for_each(|effect| world.add(effect));
        world
    }

    /// The path between two ends, in this direction.
    #[must_use]
    pub fn path(&self, from: End, to: End) -> Path {
        match (from, to) {
            (End::Member(from), End::Member(to)) => self.paths[from][to],
            (End::Worker(worker), End::Member(member)) | (End::Member(member), End::Worker(worker)) => {
                Path { cut: self.workers[worker].cut_off.contains(&member), quality: Quality::default() }
            }
            (End::Worker(_), End::Worker(_)) => Path::default(),
        }
    }

    fn add(&mut self, effect: &Effect) {
        match effect {
            Effect::Down(members) => members.iter().for_each(|i| self.members[*i].down = true),
            Effect::Lost(members) => members.iter().for_each(|i| {
                self.members[*i].down = true;
                self.members[*i].disk_lost = true;
            }),
            Effect::Replaced(member) => self.members[*member].replaced = true,
            Effect::PowerLost(members) => members.iter().for_each(|i| {
                self.members[*i].down = true;
                self.members[*i].power_lost = true;
            }),
            Effect::Ended(members) => members.iter().for_each(|i| self.members[*i].ended = true),
            Effect::OtherLog(member) => self.members[*member].other_log = true,
            Effect::Failpoint { member, failpoint } => self.members[*member].failpoint = Some(*failpoint),
            Effect::Paused(members) => members.iter().for_each(|i| self.members[*i].paused = true),
            Effect::Cut(pairs) => pairs.iter().for_each(|(from, to)| self.paths[*from][*to].cut = true),
            Effect::Poor(quality) => self.paths.iter_mut().flatten().for_each(|path| path.quality = *quality),
            Effect::SlowDisk { member, sync_delay_ms, delay_ms } => {
                self.members[*member].sync_delay_ms = *sync_delay_ms;
                self.members[*member].disk_delay_ms = *delay_ms;
            }
            Effect::FullDisk(member) => self.members[*member].disk_full = true,
            Effect::FailingSync(member) => self.members[*member].sync_fails = true,
            Effect::Clock { member, offset_s } => self.members[*member].clock_offset_s = *offset_s,
            Effect::AgentsDown(workers) => workers.iter().for_each(|i| self.workers[*i].down = true),
            Effect::AgentsEnded(workers) => workers.iter().for_each(|i| self.workers[*i].ended = true),
            Effect::AgentsPaused(workers) => workers.iter().for_each(|i| self.workers[*i].paused = true),
            Effect::MachineLost(worker) => {
                self.workers[*worker].down = true;
                self.workers[*worker].machine_lost = true;
            }
            Effect::CutOff { worker, members } => self.workers[*worker].cut_off.extend(members),
            Effect::ContainerKilled { worker, drawn } => {
                self.workers[*worker].kills.push(ContainerKill { drawn: *drawn, is_secret: false });
            }
            Effect::ContainerKilledInSecret { worker, drawn } => {
                self.workers[*worker].kills.push(ContainerKill { drawn: *drawn, is_secret: true });
            }
            Effect::AgentClock { worker, offset_s } => self.workers[*worker].clock_offset_s = *offset_s,
        }
    }

    #[must_use]
    pub fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The service that clients may expect of the quorum in this world.
    #[must_use]
    pub fn service(&self) -> Service {
        let is_poor = self.paths.iter().flatten().any(|path| path.quality != Quality::default());
        let sleeps = |s: &Surroundings| s.failpoint.is_some_and(|failpoint| !failpoint.kills());
        let hampered =
            |s: &Surroundings| s.disk_full || s.sync_fails || s.sync_delay_ms > 0 || s.disk_delay_ms > 0 || sleeps(s);
        if !self.has_connected_majority() {
            Service::Impossible
        } else if is_poor || self.members.iter().any(hampered) {
            Service::Degraded
        } else {
            Service::Required
        }
    }

    /// Whether a majority runs whose members can all reach each other.
    fn has_connected_majority(&self) -> bool {
        let running: Vec<usize> = (0..self.members.len()).filter(|i| self.members[*i].runs()).collect();
        let hear = |a: usize, b: usize| !self.paths[a][b].cut && !self.paths[b][a].cut;
        // With at most seven members there are few subsets.
        (0u32..1 << running.len()).any(|subset| {
            let chosen: Vec<usize> =
                running.iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0).map(|(_, i)| *i).collect();
            let all_hear = chosen.iter().all(|a| chosen.iter().all(|b| a == b || hear(*a, *b)));
            chosen.len() >= self.quorum() && all_hear
        })
    }
}

/// Both directions between every member of `side` and every member outside it.
#[must_use]
pub fn split(members: usize, side: &[MemberIndex]) -> Vec<(MemberIndex, MemberIndex)> {
    let other = |i: &usize| !side.contains(i);
    side.iter().flat_map(|a| (0..members).filter(other).flat_map(move |b| [(*a, b), (b, *a)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(members: usize, effects: &[Effect]) -> Service {
        World::under(members, 2, effects).service()
    }

    #[test]
    fn faults_on_workers_do_not_affect_members() {
        let effects = [
            Effect::MachineLost(0),
            Effect::AgentsPaused(vec![0, 1]),
            Effect::CutOff { worker: 1, members: vec![0, 2] },
            Effect::ContainerKilled { worker: 1, drawn: 7 },
        ];
        assert_eq!(service(3, &effects), Service::Required);
        let world = World::under(3, 2, &effects);
        assert!(world.workers[0].down && world.workers[0].machine_lost && !world.workers[1].down);
        let is_cut = |member| {
            let there = world.path(End::Worker(1), End::Member(member)).cut;
            assert_eq!(there, world.path(End::Member(member), End::Worker(1)).cut);
            there
        };
        assert_eq!([0, 1, 2].map(is_cut), [true, false, true]);
        assert_eq!(world.workers[1].kills, [ContainerKill { drawn: 7, is_secret: false }]);
    }

    #[test]
    fn a_connected_majority_serves() {
        use Service::{Degraded, Impossible, Required};
        assert_eq!(service(3, &[]), Required);
        assert_eq!(service(3, &[Effect::Down(vec![1])]), Required);
        assert_eq!(service(3, &[Effect::Down(vec![1]), Effect::Paused(vec![1])]), Required);
        assert_eq!(service(3, &[Effect::Down(vec![1]), Effect::Paused(vec![2])]), Impossible);
        assert_eq!(service(3, &[Effect::Cut(split(3, &[0]))]), Required);
        assert_eq!(service(3, &[Effect::Cut(split(3, &[0])), Effect::Down(vec![1])]), Impossible);
        // A cut in one direction counts like a cut in both, but another majority is connected.
        assert_eq!(service(3, &[Effect::Cut(vec![(0, 1)])]), Required);
        assert_eq!(service(3, &[Effect::Cut(vec![(0, 1), (1, 2), (2, 0)])]), Impossible);
        // A bridge: the two sides reach only the member in the middle, not each other.
        let bridge: Vec<_> = [0, 1].iter().flat_map(|a| [3, 4].map(|b| [(*a, b), (b, *a)])).flatten().collect();
        assert_eq!(service(5, &[Effect::Cut(bridge)]), Required);
        assert_eq!(service(5, &[Effect::Cut(split(5, &[0, 1])), Effect::Down(vec![4])]), Impossible);
        let poor = Quality { delay_ms: 75, jitter_ms: 50, ..Quality::default() };
        assert_eq!(service(3, &[Effect::Poor(poor)]), Degraded);
        assert_eq!(service(3, &[Effect::FullDisk(0)]), Degraded);
        assert_eq!(service(3, &[Effect::Ended(vec![0])]), Required);
        assert_eq!(service(3, &[Effect::PowerLost(vec![0, 1, 2])]), Impossible);
        assert_eq!(service(3, &[Effect::Replaced(0)]), Required);
        assert_eq!(service(3, &[Effect::Replaced(0), Effect::Down(vec![1])]), Impossible);
        assert_eq!(service(3, &[Effect::OtherLog(0), Effect::Ended(vec![1])]), Impossible);
        let at = |action| Failpoint { point: Point::LogSync, phase: Phase::Before, action };
        let failpoint = |action| Effect::Failpoint { member: 2, failpoint: at(action) };
        assert_eq!(service(3, &[failpoint(Action::Sleep { ms: 5 })]), Degraded);
        assert_eq!(service(3, &[failpoint(Action::Die)]), Required);
        assert_eq!(service(3, &[failpoint(Action::LosePower), Effect::Down(vec![0])]), Impossible);
        assert_eq!(service(3, &[Effect::Clock { member: 0, offset_s: 3600 }]), Required);
    }
}
