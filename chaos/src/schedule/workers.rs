//! Faults on workers. They are drawn from a random stream of their own, so a seed's faults on members do not depend on
//! them.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::{COOL_DOWN_MS, Plan, Planned, WARM_UP_MS};
use crate::fault::{Fault, Kind, Target};
use crate::world::{MemberIndex, WorkerIndex};

/// Constant that is mixed into the seed to get the stream.
const STREAM: u64 = 0x6e6f_6465;
/// Time without faults after the start, while the first pods are created.
const SETTLE_MS: u64 = 2500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    KillOne,
    KillAll,
    PauseOne,
    EndOne,
    EndAll,
    LoseMachine,
    CutOffFromAll,
    CutOffFromSome,
    CutOffFromLeader,
    KillContainer,
    ClockForward,
    ClockBack,
    KillContainerInSecret,
}

impl Variant {
    const ALL: [Variant; 13] = [
        Variant::KillOne,
        Variant::KillAll,
        Variant::PauseOne,
        Variant::EndOne,
        Variant::EndAll,
        Variant::LoseMachine,
        Variant::CutOffFromAll,
        Variant::CutOffFromSome,
        Variant::CutOffFromLeader,
        Variant::KillContainer,
        Variant::ClockForward,
        Variant::ClockBack,
        Variant::KillContainerInSecret,
    ];

    fn kind(self) -> Kind {
        match self {
            Variant::KillOne | Variant::KillAll => Kind::AgentKill,
            Variant::PauseOne => Kind::AgentPause,
            Variant::EndOne | Variant::EndAll => Kind::AgentRestart,
            Variant::LoseMachine => Kind::MachineLoss,
            Variant::CutOffFromAll | Variant::CutOffFromSome | Variant::CutOffFromLeader => Kind::WorkerPartition,
            Variant::KillContainer => Kind::ContainerKill,
            Variant::ClockForward | Variant::ClockBack => Kind::AgentClock,
            Variant::KillContainerInSecret => Kind::SecretKill,
        }
    }

    fn draw(self, plan: &Plan, rng: &mut StdRng) -> Fault {
        let worker = rng.random_range(0..plan.workers);
        let all: Vec<WorkerIndex> = (0..plan.workers).collect();
        let mut members: Vec<MemberIndex> = (0..plan.members).collect();
        members.shuffle(rng);
        let drawn = rng.random();
        let cut_off = |from| Fault::CutOff { worker, from };
        match self {
            Variant::KillOne => Fault::KillAgents(vec![worker]),
            Variant::KillAll => Fault::KillAgents(all),
            Variant::PauseOne => Fault::PauseAgents(vec![worker]),
            Variant::EndOne => Fault::EndAgents(vec![worker]),
            Variant::EndAll => Fault::EndAgents(all),
            Variant::LoseMachine => Fault::LoseMachine(worker),
            Variant::CutOffFromAll => cut_off(Target::Members(members)),
            Variant::CutOffFromSome => {
                members.truncate(rng.random_range(1..plan.members.max(2)));
                cut_off(Target::Members(members))
            }
            Variant::CutOffFromLeader => cut_off(Target::Leader { or: members[0] }),
            Variant::KillContainer => Fault::KillContainer { worker, drawn },
            Variant::KillContainerInSecret => Fault::KillContainerInSecret { worker, drawn },
            Variant::ClockForward => Fault::AgentClock { worker, offset_s: 3600 },
            Variant::ClockBack => Fault::AgentClock { worker, offset_s: -3600 },
        }
    }
}

/// Draws the faults on workers. Every variant is drawn once before any is drawn again. Some faults outlast the node's
/// grace period, so that its pods are replaced; some overlap.
pub(super) fn draw(plan: &Plan) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(plan.seed ^ STREAM);
    let allowed: Vec<Variant> =
        Variant::ALL.into_iter().filter(|variant| plan.workers > 0 && plan.kinds.contains(&variant.kind())).collect();
    let is_short = plan.is_short();
    let end = plan.duration_ms.saturating_sub(COOL_DOWN_MS);
    let (mut at, mut bag, mut planned) = (WARM_UP_MS + SETTLE_MS, Vec::new(), Vec::new());
    loop {
        if bag.is_empty() {
            bag.clone_from(&allowed);
            bag.shuffle(&mut rng);
        }
        let Some(variant) = bag.pop() else { return planned };
        let fault = variant.draw(plan, &mut rng);
        let lasts = match rng.random_range(0..100) {
            0..25 => rng.random_range(50..1000),
            _ if is_short => rng.random_range(800..3000),
            25..60 => rng.random_range(1000..8000),
            _ => rng.random_range(8000..25_000),
        };
        if at + lasts > end {
            return planned;
        }
        planned.push(Planned { start_ms: at, end_ms: at + lasts, fault });
        at += match rng.random_range(0..100) {
            0..25 => rng.random_range(0..=lasts),
            _ if is_short => lasts + rng.random_range(100..900),
            _ => lasts + rng.random_range(500..6000),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, kinds: &[Kind], workers: usize) -> Plan {
        let kinds = kinds.to_vec();
        Plan { seed, members: 3, duration_ms: 300_000, kinds, small_disk: None, lossy_disks: false, workers }
    }

    #[test]
    fn faults_on_members_do_not_depend_on_workers() {
        let of_members = |plan: Plan| -> Vec<Planned> {
            plan.draw().into_iter().filter(|planned| !planned.fault.kind().is_of_workers()).collect()
        };
        assert_eq!(of_members(plan(7, &Kind::ALL, 5)), of_members(plan(7, &Kind::ALL, 0)));
        assert!(plan(7, &Kind::ALL, 0).draw().iter().all(|planned| !planned.fault.kind().is_of_workers()));
    }

    #[test]
    fn some_faults_outlast_a_node_s_lease_and_some_do_not() {
        for seed in 0..10 {
            let schedule = draw(&plan(seed, &Kind::ALL, 3));
            let lasts = |planned: &Planned| planned.end_ms - planned.start_ms;
            assert!(schedule.iter().any(|planned| lasts(planned) > 12_000), "seed {seed}");
            assert!(schedule.iter().any(|planned| lasts(planned) < 2000), "seed {seed}");
        }
    }

    #[test]
    fn a_secret_kill_is_drawn_only_on_request() {
        let is_secret = |planned: &Planned| planned.fault.kind() == Kind::SecretKill;
        assert!(!draw(&plan(1, &Kind::ALL, 3)).iter().any(is_secret));
        assert!(draw(&plan(1, &[Kind::SecretKill], 3)).iter().all(is_secret));
    }
}
