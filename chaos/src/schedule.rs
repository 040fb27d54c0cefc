//! The schedule of faults, drawn from a seed: the same seed gives the same schedule.

mod workers;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Kind, Target};
use crate::world::{Action, Failpoint, MemberIndex, Phase, Point, Quality};

/// A fault with its start and end, in milliseconds from the start of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    pub start_ms: u64,
    pub end_ms: u64,
    pub fault: Fault,
}

/// Parameters of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub members: usize,
    pub duration_ms: u64,
    /// Kinds that may be drawn.
    pub kinds: Vec<Kind>,
    /// The only member whose disk can be filled, if there is one.
    pub small_disk: Option<MemberIndex>,
    /// Whether disks can lose unsynced writes and report operations to failpoints.
    pub lossy_disks: bool,
    pub workers: usize,
}

/// A run shorter than this has many small faults and no long scenes.
const SHORT_MS: u64 = 90_000;
/// Time before the first fault.
const WARM_UP_MS: u64 = 1500;
/// Time after the last fault.
const COOL_DOWN_MS: u64 = 1500;

impl Plan {
    /// Draws the schedule: faults on members and, independently, faults on workers.
    #[must_use]
    pub fn draw(&self) -> Vec<Planned> {
        let mut planned = self.draw_for_members();
        planned.extend(workers::draw(self));
        planned.sort_by_key(|planned| (planned.start_ms, planned.end_ms));
        planned
    }

    /// Draws the faults on members. Every variant is drawn once before any is drawn again. Most faults follow each
    /// other after a pause; some overlap.
    fn draw_for_members(&self) -> Vec<Planned> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut bag: Vec<Variant> = Vec::new();
        let mut planned = Vec::new();
        let is_short = self.is_short();
        let mut at = WARM_UP_MS;
        let end = self.duration_ms.saturating_sub(COOL_DOWN_MS);
        while let Some(variant) = self.next_variant(&mut bag, &mut rng) {
            let scene = variant.draw(self, &mut rng);
            let drawn = match rng.random_range(0..100) {
                0..20 => rng.random_range(50..800),
                _ if is_short => rng.random_range(800..3000),
                20..75 => rng.random_range(800..5000),
                _ => rng.random_range(5000..14_000),
            };
            let scene = staged(scene, drawn);
            let lasts = scene.iter().map(|planned| planned.end_ms).max().unwrap_or(0);
            if at + lasts > end {
                break;
            }
            planned.extend(scene.into_iter().map(|planned| Planned {
                start_ms: at + planned.start_ms,
                end_ms: at + planned.end_ms,
                ..planned
            }));
            at += match rng.random_range(0..100) {
                // The next fault overlaps.
                0..25 => rng.random_range(0..=lasts),
                _ if is_short => lasts + rng.random_range(300..1800),
                25..75 => lasts + rng.random_range(500..4000),
                // Long enough to see that the cluster stays healthy.
                _ => lasts + rng.random_range(11_000..14_000),
            };
        }
        planned
    }

    fn is_short(&self) -> bool {
        self.duration_ms < SHORT_MS
    }

    fn next_variant(&self, bag: &mut Vec<Variant>, rng: &mut StdRng) -> Option<Variant> {
        if bag.is_empty() {
            bag.extend(Variant::ALL.iter().filter(|variant| self.allows(**variant)));
            bag.shuffle(rng);
        }
        bag.pop()
    }

    fn allows(&self, variant: Variant) -> bool {
        let enough = match variant {
            Variant::KillMinority => self.members >= 5,
            Variant::Bridge
            | Variant::Halves
            | Variant::OneWay
            | Variant::Mute
            | Variant::Deaf
            | Variant::ReplaceOne
            | Variant::ReplaceLeader => self.members >= 3,
            Variant::FullDisk => self.small_disk.is_some(),
            Variant::PowerLossOne
            | Variant::PowerLossLeader
            | Variant::PowerLossAll
            | Variant::CrashOnDisk
            | Variant::SleepOnDisk => self.lossy_disks,
            Variant::CrashInSnapshot => self.lossy_disks && !self.is_short(),
            Variant::EndOneAfterTheOther => !self.is_short(),
            _ => true,
        };
        enough && self.kinds.contains(&variant.kind())
    }
}

/// Variants of faults in the bag that the schedule draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    KillOne,
    KillLeader,
    KillMinority,
    KillMajority,
    KillAll,
    PowerLossOne,
    PowerLossLeader,
    PowerLossAll,
    EndOne,
    EndLeader,
    EndOneAfterTheOther,
    OtherLog,
    CrashOnDisk,
    CrashInSnapshot,
    CrashInSending,
    SleepOnDisk,
    SleepInSending,
    PauseOne,
    PauseLeader,
    Halves,
    IsolateLeader,
    OneWay,
    Mute,
    Deaf,
    Bridge,
    Delay,
    Loss,
    SlowDisk,
    FullDisk,
    FailedSync,
    ClockForward,
    ClockBack,
    ReplaceOne,
    ReplaceLeader,
    LostDisks,
}

impl Variant {
    const ALL: [Variant; 35] = [
        Variant::KillOne,
        Variant::KillLeader,
        Variant::KillMinority,
        Variant::KillMajority,
        Variant::KillAll,
        Variant::PowerLossOne,
        Variant::PowerLossLeader,
        Variant::PowerLossAll,
        Variant::EndOne,
        Variant::EndLeader,
        Variant::EndOneAfterTheOther,
        Variant::OtherLog,
        Variant::CrashOnDisk,
        Variant::CrashInSnapshot,
        Variant::CrashInSending,
        Variant::SleepOnDisk,
        Variant::SleepInSending,
        Variant::PauseOne,
        Variant::PauseLeader,
        Variant::Halves,
        Variant::IsolateLeader,
        Variant::OneWay,
        Variant::Mute,
        Variant::Deaf,
        Variant::Bridge,
        Variant::Delay,
        Variant::Loss,
        Variant::SlowDisk,
        Variant::FullDisk,
        Variant::FailedSync,
        Variant::ClockForward,
        Variant::ClockBack,
        Variant::ReplaceOne,
        Variant::ReplaceLeader,
        Variant::LostDisks,
    ];

    fn kind(self) -> Kind {
        match self {
            Variant::KillOne
            | Variant::KillLeader
            | Variant::KillMinority
            | Variant::KillMajority
            | Variant::KillAll => Kind::Kill,
            Variant::PowerLossOne | Variant::PowerLossLeader | Variant::PowerLossAll => Kind::PowerLoss,
            Variant::EndOne | Variant::EndLeader | Variant::EndOneAfterTheOther => Kind::Restart,
            Variant::OtherLog => Kind::LogVersion,
            Variant::CrashOnDisk
            | Variant::CrashInSnapshot
            | Variant::CrashInSending
            | Variant::SleepOnDisk
            | Variant::SleepInSending => Kind::Failpoint,
            Variant::PauseOne | Variant::PauseLeader => Kind::Pause,
            Variant::Halves
            | Variant::IsolateLeader
            | Variant::OneWay
            | Variant::Mute
            | Variant::Deaf
            | Variant::Bridge => Kind::Partition,
            Variant::Delay | Variant::Loss => Kind::Network,
            Variant::SlowDisk => Kind::SlowDisk,
            Variant::FullDisk => Kind::FullDisk,
            Variant::FailedSync => Kind::FailedSync,
            Variant::ClockForward | Variant::ClockBack => Kind::Clock,
            Variant::ReplaceOne | Variant::ReplaceLeader => Kind::Replace,
            Variant::LostDisks => Kind::LostDisks,
        }
    }

    /// One fault, or several that belong together.
    fn draw(self, plan: &Plan, rng: &mut StdRng) -> Scene {
        let mut order: Vec<MemberIndex> = (0..plan.members).collect();
        order.shuffle(rng);
        let one = order[0];
        let leader = Target::Leader { or: one };
        let either = if rng.random_bool(0.5) { leader.clone() } else { Target::Members(vec![one]) };
        let first = |count: usize| Target::Members(order.iter().copied().take(count).collect());
        let minority = (plan.members - 1) / 2;
        let fault = match self {
            Variant::KillOne => Fault::Kill(first(1)),
            Variant::KillLeader => Fault::Kill(leader),
            Variant::KillMinority => Fault::Kill(first(minority)),
            Variant::KillMajority => Fault::Kill(first(minority + 1)),
            Variant::KillAll => Fault::Kill(first(plan.members)),
            Variant::PowerLossOne => Fault::LosePower(first(1)),
            Variant::PowerLossLeader => Fault::LosePower(leader),
            Variant::PowerLossAll => Fault::LosePower(first(plan.members)),
            Variant::EndOne => Fault::End(first(1)),
            Variant::EndLeader => Fault::End(leader),
            Variant::EndOneAfterTheOther => {
                return Scene::OneAfterTheOther(
                    order.into_iter().map(|i| Fault::End(Target::Members(vec![i]))).collect(),
                );
            }
            Variant::OtherLog => Fault::OtherLog(either),
            Variant::CrashOnDisk => Fault::Failpoint { target: either, failpoint: crash(&ON_DISK, plan, rng) },
            Variant::CrashInSending => Fault::Failpoint { target: either, failpoint: crash(&[Point::Send], plan, rng) },
            Variant::CrashInSnapshot => {
                let failpoint = crash(&IN_SNAPSHOT, plan, rng);
                return Scene::InCatchingUp(first(1), Fault::Failpoint { target: first(1), failpoint });
            }
            Variant::SleepOnDisk => Fault::Failpoint { target: either, failpoint: sleep(&ON_DISK, rng) },
            Variant::SleepInSending => Fault::Failpoint { target: either, failpoint: sleep(&[Point::Send], rng) },
            Variant::PauseOne => Fault::Pause(first(1)),
            Variant::PauseLeader => Fault::Pause(leader),
            Variant::Halves => Fault::Split(first(minority)),
            Variant::IsolateLeader => Fault::Split(leader),
            Variant::OneWay => Fault::OneWay(one, order[1]),
            Variant::Mute => Fault::Mute(either),
            Variant::Deaf => Fault::Deaf(either),
            Variant::Bridge => Fault::Bridge { middle: one, side: order[1..=minority].to_vec() },
            Variant::Delay => Fault::Network(Quality { delay_ms: 75, jitter_ms: 50, ..Quality::default() }),
            Variant::Loss => Fault::Network(Quality {
                delay_ms: rng.random_range(0..10),
                loss_percent: [5, 20, 50].choose(rng).copied().unwrap_or(5),
                reset_per_10_000: [0, 20, 100].choose(rng).copied().unwrap_or(0),
                ..Quality::default()
            }),
            Variant::SlowDisk => Fault::SlowDisk {
                target: either,
                sync_delay_ms: rng.random_range(20..400),
                delay_ms: if plan.lossy_disks { rng.random_range(0..10) } else { 0 },
            },
            Variant::FullDisk => Fault::FullDisk(plan.small_disk.unwrap_or(one)),
            Variant::FailedSync => Fault::FailedSync(either),
            Variant::ClockForward => Fault::Clock { target: either, offset_s: 3600 },
            Variant::ClockBack => Fault::Clock { target: either, offset_s: -3600 },
            Variant::ReplaceOne => Fault::Replace(first(1)),
            Variant::ReplaceLeader => Fault::Replace(leader),
            Variant::LostDisks => Fault::LoseDisks(first(plan.members)),
        };
        Scene::One(fault)
    }
}

const ON_DISK: [Point; 4] = [Point::LogWrite, Point::LogSync, Point::StateWrite, Point::StateSync];
const IN_SNAPSHOT: [Point; 2] = [Point::SnapshotReceive, Point::SnapshotInstall];

fn crash(points: &[Point], plan: &Plan, rng: &mut StdRng) -> Failpoint {
    // Only a power loss shows whether acknowledged writes were on disk.
    let action = if plan.lossy_disks && rng.random_bool(0.7) { Action::LosePower } else { Action::Die };
    at(points, action, rng)
}

fn sleep(points: &[Point], rng: &mut StdRng) -> Failpoint {
    let action = Action::Sleep { ms: rng.random_range(5..300) };
    at(points, action, rng)
}

fn at(points: &[Point], action: Action, rng: &mut StdRng) -> Failpoint {
    let phase = if rng.random_bool(0.5) { Phase::Before } else { Phase::After };
    Failpoint { point: points.choose(rng).copied().unwrap_or(Point::Send), phase, action }
}

/// Faults that belong together.
enum Scene {
    One(Fault),
    OneAfterTheOther(Vec<Fault>),
    /// The fault begins when the target was down for so long that it needs a snapshot.
    InCatchingUp(Target, Fault),
}

/// How long each member of the scene is down, and how long all members run in between.
const END_MS: u64 = 1500;
const BETWEEN_ENDS_MS: u64 = 1500;
/// Downtime of the target that is long enough for the others to purge their logs.
const FALL_BEHIND_MS: u64 = 8000;
const CATCH_UP_MS: u64 = 5000;

/// Times of a scene's faults from its start; a single fault lasts `drawn` milliseconds.
fn staged(scene: Scene, drawn: u64) -> Vec<Planned> {
    match scene {
        Scene::One(fault) => vec![Planned { start_ms: 0, end_ms: drawn, fault }],
        Scene::OneAfterTheOther(faults) => (0..)
            .map(|i| i * (END_MS + BETWEEN_ENDS_MS))
            .zip(faults)
            .map(|(start_ms, fault)| Planned { start_ms, end_ms: start_ms + END_MS, fault })
            .collect(),
        Scene::InCatchingUp(behind, fault) => {
            let start_ms = FALL_BEHIND_MS - 1;
            vec![
                Planned { start_ms: 0, end_ms: FALL_BEHIND_MS, fault: Fault::Kill(behind) },
                Planned { start_ms, end_ms: FALL_BEHIND_MS + CATCH_UP_MS, fault },
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::world::{Effect, World};

    fn plan(seed: u64, members: usize, minutes: u64) -> Plan {
        Plan {
            seed,
            members,
            duration_ms: minutes * 60_000,
            kinds: Kind::ALL.to_vec(),
            small_disk: Some(0),
            lossy_disks: true,
            workers: 3,
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_schedule() {
        assert_eq!(plan(7, 3, 5).draw(), plan(7, 3, 5).draw());
        assert_ne!(plan(7, 3, 5).draw(), plan(8, 3, 5).draw());
    }

    #[test]
    fn every_kind_is_drawn_and_ends_in_time() {
        for members in [3, 5] {
            for seed in 0..20 {
                let schedule = plan(seed, members, 10).draw();
                let kinds: BTreeSet<Kind> = schedule.iter().map(|planned| planned.fault.kind()).collect();
                assert_eq!(kinds.len(), Kind::ALL.len(), "seed {seed}");
                assert!(schedule.iter().all(|p| p.start_ms < p.end_ms && p.end_ms <= 600_000 - COOL_DOWN_MS));
            }
        }
    }

    #[test]
    fn only_allowed_kinds_are_drawn() {
        let only = Plan { kinds: vec![Kind::Kill, Kind::FullDisk], small_disk: None, ..plan(1, 3, 5) };
        assert!(only.draw().iter().all(|planned| planned.fault.kind() == Kind::Kill));
        assert!(Plan { kinds: Vec::new(), ..only }.draw().is_empty());
    }

    #[test]
    fn a_majority_serves_most_of_the_time_but_not_always() {
        for seed in 0..10 {
            let schedule = plan(seed, 3, 30).draw();
            let served = (0..1800).filter(|second| {
                let now = second * 1000;
                let active = schedule.iter().filter(|p| p.start_ms <= now && now < p.end_ms);
                let effects: Vec<Effect> = active.map(|p| p.fault.effect(3, Some(0))).collect();
                World::under(3, 3, &effects).service() != crate::world::Service::Impossible
            });
            let served = served.count();
            assert!((1300..1799).contains(&served), "seed {seed}: {served} of 1800 seconds");
        }
    }

    #[test]
    fn effects_are_described_in_words() {
        let text = |fault: Fault| fault.effect(3, Some(2)).to_string();
        assert_eq!(text(Fault::Kill(Target::Leader { or: 0 })), "kill -9 m3");
        assert_eq!(text(Fault::Split(Target::Members(vec![0]))), "cut m1–m2, m1–m3");
        assert_eq!(text(Fault::Mute(Target::Leader { or: 0 })), "cut m3→m1, m3→m2");
        assert_eq!(text(Fault::Bridge { middle: 1, side: vec![0] }), "cut m1–m3");
        let failpoint = Failpoint { point: Point::LogSync, phase: Phase::Before, action: Action::LosePower };
        let target = Target::Leader { or: 0 };
        assert_eq!(text(Fault::Failpoint { target, failpoint }), "m3 loses power before a sync of its log");
        assert_eq!(text(Fault::CutOff { worker: 1, from: Target::Leader { or: 0 } }), "cut w2 off from m3");
    }
}
