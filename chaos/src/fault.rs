//! Faults, their targets, and their descriptions.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::world::{Action, Effect, Failpoint, MemberIndex, Phase, Point, Quality, WorkerIndex, split};

/// Kind of a fault, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Kill,
    PowerLoss,
    Restart,
    LogVersion,
    Failpoint,
    Pause,
    Partition,
    Network,
    SlowDisk,
    FullDisk,
    FailedSync,
    Clock,
    Replace,
    /// An agent is killed with SIGKILL.
    AgentKill,
    /// An agent is stopped with SIGSTOP.
    AgentPause,
    /// An agent is stopped with SIGTERM.
    AgentRestart,
    /// A worker is lost with its containers.
    MachineLoss,
    /// A worker is cut off from some or all masters.
    WorkerPartition,
    /// A container is killed.
    ContainerKill,
    /// The clock of an agent is moved.
    AgentClock,
    /// A container is killed and the kill is not recorded, which proves that the checks find it. Injected only on
    /// request.
    SecretKill,
    /// All disks are lost at once, which no quorum survives; this proves that the checks find it. Injected only on
    /// request.
    LostDisks,
}

impl Kind {
    /// Kinds that a cluster must survive.
    pub const ALL: [Kind; 20] = [
        Kind::Kill,
        Kind::PowerLoss,
        Kind::Restart,
        Kind::LogVersion,
        Kind::Failpoint,
        Kind::Pause,
        Kind::Partition,
        Kind::Network,
        Kind::SlowDisk,
        Kind::FullDisk,
        Kind::FailedSync,
        Kind::Clock,
        Kind::Replace,
        Kind::AgentKill,
        Kind::AgentPause,
        Kind::AgentRestart,
        Kind::MachineLoss,
        Kind::WorkerPartition,
        Kind::ContainerKill,
        Kind::AgentClock,
    ];

    /// Whether the kind affects workers.
    #[must_use]
    pub fn is_of_workers(self) -> bool {
        match self {
            Kind::AgentKill
            | Kind::AgentPause
            | Kind::AgentRestart
            | Kind::MachineLoss
            | Kind::WorkerPartition
            | Kind::ContainerKill
            | Kind::AgentClock
            | Kind::SecretKill => true,
            Kind::Kill
            | Kind::PowerLoss
            | Kind::Restart
            | Kind::LogVersion
            | Kind::Failpoint
            | Kind::Pause
            | Kind::Partition
            | Kind::Network
            | Kind::SlowDisk
            | Kind::FullDisk
            | Kind::FailedSync
            | Kind::Clock
            | Kind::Replace
            | Kind::LostDisks => false,
        }
    }
}

impl Kind {
    /// The kind's name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Target of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    Members(Vec<MemberIndex>),
    /// The member that leads when the fault begins; the member `or` when none leads.
    Leader {
        or: MemberIndex,
    },
}

impl Target {
    fn members(&self, leader: Option<MemberIndex>) -> Vec<MemberIndex> {
        match self {
            Target::Members(members) => members.clone(),
            Target::Leader { or } => vec![leader.unwrap_or(*or)],
        }
    }

    fn one(&self, leader: Option<MemberIndex>) -> MemberIndex {
        self.members(leader).first().copied().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    Kill(Target),
    LosePower(Target),
    /// A clean shutdown with SIGTERM.
    End(Target),
    /// A start with a log of a different version.
    OtherLog(Target),
    Failpoint {
        target: Target,
        failpoint: Failpoint,
    },
    LoseDisks(Target),
    /// The machine is lost, and a new member replaces it.
    Replace(Target),
    Pause(Target),
    /// All traffic between the target and the other members is blocked.
    Split(Target),
    /// Everything that the target sends is blocked.
    Mute(Target),
    /// Everything that is sent to the target is blocked.
    Deaf(Target),
    /// Only traffic from the first member to the second is blocked.
    OneWay(MemberIndex, MemberIndex),
    /// All traffic between the two sides is blocked. Both sides can reach the member in the middle.
    Bridge {
        middle: MemberIndex,
        side: Vec<MemberIndex>,
    },
    Network(Quality),
    SlowDisk {
        target: Target,
        sync_delay_ms: u64,
        delay_ms: u64,
    },
    FullDisk(MemberIndex),
    FailedSync(Target),
    Clock {
        target: Target,
        offset_s: i64,
    },
    KillAgents(Vec<WorkerIndex>),
    PauseAgents(Vec<WorkerIndex>),
    EndAgents(Vec<WorkerIndex>),
    LoseMachine(WorkerIndex),
    CutOff {
        worker: WorkerIndex,
        from: Target,
    },
    KillContainer {
        worker: WorkerIndex,
        drawn: u32,
    },
    KillContainerInSecret {
        worker: WorkerIndex,
        drawn: u32,
    },
    AgentClock {
        worker: WorkerIndex,
        offset_s: i64,
    },
}

impl Fault {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Kill(_) => Kind::Kill,
            Fault::LosePower(_) => Kind::PowerLoss,
            Fault::End(_) => Kind::Restart,
            Fault::OtherLog(_) => Kind::LogVersion,
            Fault::Failpoint { .. } => Kind::Failpoint,
            Fault::LoseDisks(_) => Kind::LostDisks,
            Fault::Replace(_) => Kind::Replace,
            Fault::Pause(_) => Kind::Pause,
            Fault::Split(_) | Fault::Mute(_) | Fault::Deaf(_) | Fault::OneWay(..) | Fault::Bridge { .. } => {
                Kind::Partition
            }
            Fault::Network(_) => Kind::Network,
            Fault::SlowDisk { .. } => Kind::SlowDisk,
            Fault::FullDisk(_) => Kind::FullDisk,
            Fault::FailedSync(_) => Kind::FailedSync,
            Fault::Clock { .. } => Kind::Clock,
            Fault::KillAgents(_) => Kind::AgentKill,
            Fault::PauseAgents(_) => Kind::AgentPause,
            Fault::EndAgents(_) => Kind::AgentRestart,
            Fault::LoseMachine(_) => Kind::MachineLoss,
            Fault::CutOff { .. } => Kind::WorkerPartition,
            Fault::KillContainer { .. } => Kind::ContainerKill,
            Fault::KillContainerInSecret { .. } => Kind::SecretKill,
            Fault::AgentClock { .. } => Kind::AgentClock,
        }
    }

    /// Effect on a quorum of `members` members that is led by `leader`.
    #[must_use]
    pub fn effect(&self, members: usize, leader: Option<MemberIndex>) -> Effect {
        let others = |one: MemberIndex| (0..members).filter(move |i| *i != one);
        match self {
            Fault::Kill(target) => Effect::Down(target.members(leader)),
            Fault::LosePower(target) => Effect::PowerLost(target.members(leader)),
            Fault::End(target) => Effect::Ended(target.members(leader)),
            Fault::OtherLog(target) => Effect::OtherLog(target.one(leader)),
            Fault::Failpoint { target, failpoint } => {
                Effect::Failpoint { member: target.one(leader), failpoint: *failpoint }
            }
            Fault::LoseDisks(target) => Effect::Lost(target.members(leader)),
            Fault::Replace(target) => Effect::Replaced(target.one(leader)),
            Fault::Pause(target) => Effect::Paused(target.members(leader)),
            Fault::Split(target) => Effect::Cut(split(members, &target.members(leader))),
            Fault::Mute(target) => {
                let mute = target.one(leader);
                Effect::Cut(others(mute).map(|other| (mute, other)).collect())
            }
            Fault::Deaf(target) => {
                let deaf = target.one(leader);
                Effect::Cut(others(deaf).map(|other| (other, deaf)).collect())
            }
            Fault::OneWay(from, to) => Effect::Cut(vec![(*from, *to)]),
            Fault::Bridge { middle, side } => {
                let crosses = |pair: &(usize, usize)| pair.0 != *middle && pair.1 != *middle;
                Effect::Cut(split(members, side).into_iter().filter(crosses).collect())
            }
            Fault::Network(quality) => Effect::Poor(*quality),
            Fault::SlowDisk { target, sync_delay_ms, delay_ms } => {
                let member = target.one(leader);
                Effect::SlowDisk { member, sync_delay_ms: *sync_delay_ms, delay_ms: *delay_ms }
            }
            Fault::FullDisk(member) => Effect::FullDisk(*member),
            Fault::FailedSync(target) => Effect::FailingSync(target.one(leader)),
            Fault::Clock { target, offset_s } => Effect::Clock { member: target.one(leader), offset_s: *offset_s },
            Fault::KillAgents(workers) => Effect::AgentsDown(workers.clone()),
            Fault::PauseAgents(workers) => Effect::AgentsPaused(workers.clone()),
            Fault::EndAgents(workers) => Effect::AgentsEnded(workers.clone()),
            Fault::LoseMachine(worker) => Effect::MachineLost(*worker),
            Fault::CutOff { worker, from } => Effect::CutOff { worker: *worker, members: from.members(leader) },
            Fault::KillContainer { worker, drawn } => Effect::ContainerKilled { worker: *worker, drawn: *drawn },
            Fault::KillContainerInSecret { worker, drawn } => {
                Effect::ContainerKilledInSecret { worker: *worker, drawn: *drawn }
            }
            Fault::AgentClock { worker, offset_s } => Effect::AgentClock { worker: *worker, offset_s: *offset_s },
        }
    }
}

/// Describes the effect; members are numbered from 1, as in their names.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |members: &[usize]| members.iter().map(|i| format!("m{}", i + 1)).collect::<Vec<_>>().join(", ");
        let workers = |workers: &[usize]| workers.iter().map(|i| format!("w{}", i + 1)).collect::<Vec<_>>().join(", ");
        match self {
            Effect::Down(members) => write!(f, "kill -9 {}", names(members)),
            Effect::Lost(members) => write!(f, "kill -9 {}, and their disks are lost", names(members)),
            Effect::Replaced(member) => write!(f, "m{} is lost with its disk, and replaced", member + 1),
            Effect::PowerLost(members) => write!(f, "power loss of {}", names(members)),
            Effect::Ended(members) => write!(f, "SIGTERM to {}", names(members)),
            Effect::OtherLog(member) => write!(f, "restart of m{} with a log of a different version", member + 1),
            Effect::Failpoint { member, failpoint } => write!(f, "m{} {failpoint}", member + 1),
            Effect::Paused(members) => write!(f, "stop {}", names(members)),
            Effect::Cut(pairs) => {
                let is_both = |(a, b): &&(usize, usize)| a < b && pairs.contains(&(*b, *a));
                let is_one = |(a, b): &&(usize, usize)| !pairs.contains(&(*b, *a));
                let both = pairs.iter().filter(is_both).map(|(a, b)| format!("m{}–m{}", a + 1, b + 1));
                let one = pairs.iter().filter(is_one).map(|(a, b)| format!("m{}→m{}", a + 1, b + 1));
                write!(f, "cut {}", both.chain(one).collect::<Vec<_>>().join(", "))
            }
            Effect::Poor(q) => write!(
                f,
                "network: delay {}±{} ms, loss {} %, resets {}/10,000",
                q.delay_ms, q.jitter_ms, q.loss_percent, q.reset_per_10_000
            ),
            Effect::SlowDisk { member, sync_delay_ms, delay_ms } => {
                write!(f, "slow disk of m{}: fsync +{sync_delay_ms} ms, other +{delay_ms} ms", member + 1)
            }
            Effect::FullDisk(member) => write!(f, "full disk of m{}", member + 1),
            Effect::FailingSync(member) => write!(f, "fsync of m{} fails", member + 1),
            Effect::Clock { member, offset_s } => write!(f, "clock of m{} off by {offset_s} s", member + 1),
            Effect::AgentsDown(met) => write!(f, "kill -9 the agent of {}", workers(met)),
            Effect::AgentsEnded(met) => write!(f, "SIGTERM to the agent of {}", workers(met)),
            Effect::AgentsPaused(met) => write!(f, "stop the agent of {}", workers(met)),
            Effect::MachineLost(worker) => write!(f, "w{} is lost with its containers", worker + 1),
            Effect::CutOff { worker, members } => write!(f, "cut w{} off from {}", worker + 1, names(members)),
            Effect::ContainerKilled { worker, .. } => write!(f, "kill a container of w{}", worker + 1),
            Effect::ContainerKilledInSecret { worker, .. } => {
                write!(f, "kill a container of w{}, without a record for the checks", worker + 1)
            }
            Effect::AgentClock { worker, offset_s } => {
                write!(f, "clock of the agent of w{} off by {offset_s} s", worker + 1)
            }
        }
    }
}

/// Describes the failpoint, as in "dies before a sync of its log".
impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Die => write!(f, "dies ")?,
            Action::LosePower => write!(f, "loses power ")?,
            Action::Sleep { ms } => write!(f, "sleeps {ms} ms ")?,
        }
        let phase = match self.phase {
            Phase::Before => "before",
            Phase::After => "after",
        };
        let what = match self.point {
            Point::LogWrite => "a write to its log",
            Point::LogSync => "a sync of its log",
            Point::StateWrite => "a write to its state",
            Point::StateSync => "a sync of its state",
            Point::SnapshotReceive => "a part of a snapshot that it receives",
            Point::SnapshotInstall => "a step of a snapshot's installation",
            Point::Send => "it sends to another member",
        };
        write!(f, "{phase} {what}")
    }
}
