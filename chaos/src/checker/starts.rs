//! Checks that a container is started again only after it was killed or its machine was lost, and that a pod runs on
//! one node only.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::history::{Container, Killed, MAIN, Sample, Settled, Start, node_name};
use crate::world::WorkerIndex;

/// Number of losses of each machine.
pub type Losses = BTreeMap<WorkerIndex, u64>;

/// Checks all starts, and the restarts in statuses.
#[must_use]
pub fn check(starts: &[Start], killed: &[Killed], losses: &Losses, samples: &[Sample], settled: &Settled) -> Check {
    let lost = |worker: &WorkerIndex| losses.get(worker).copied().unwrap_or(0);
    let kills = |uid: &str, container: &str| {
        killed.iter().filter(|killed| killed.uid == uid && killed.container == container).count() as u64
    };
    let mut violations = Vec::new();
    let mut by_container: BTreeMap<(&str, &str), BTreeSet<&Start>> = BTreeMap::new();
    for start in starts {
        by_container.entry((&start.uid, &start.container)).or_default().insert(start);
    }
    for ((uid, container), starts) in &by_container {
        let workers: BTreeSet<WorkerIndex> = starts.iter().map(|start| start.worker).collect();
        if workers.len() > 1 {
            violations.push(format!("container {container} of pod {uid} was started on several nodes: {starts:?}"));
        }
        let excused = kills(uid, container) + workers.iter().map(lost).sum::<u64>();
        if starts.len() as u64 > 1 + excused {
            violations.push(format!(
                "container {container} of pod {uid} was started {} times, but was killed or lost only {excused} times: \
                 {starts:?}",
                starts.len()
            ));
        }
    }
    violations.extend(unrecorded(starts, settled));
    violations.extend(unexplained_restarts(&kills, &lost, samples, settled));
    let extent = format!(
        "{} starts, {} containers killed, {} machines lost",
        starts.len(),
        killed.len(),
        losses.values().sum::<u64>()
    );
    Check::of("no container is started again unless something ended it", extent, violations)
}

/// Reports containers that run without a recorded start, because then the record is incomplete.
fn unrecorded(starts: &[Start], settled: &Settled) -> Vec<String> {
    let machines = settled.machines.iter().enumerate();
    let running = machines.flat_map(|(worker, containers)| containers.iter().map(move |container| (worker, container)));
    let is_unrecorded = |(worker, container): &(WorkerIndex, &Container)| {
        let is_its = |start: &Start| start.worker == *worker && start.id == container.id;
        container.is_running && container.name == MAIN && !starts.iter().any(is_its)
    };
    let unrecorded = running.filter(is_unrecorded);
    unrecorded
        .map(|(worker, container)| format!("no start of {container:?} on {} is recorded", node_name(worker)))
        .collect()
}

/// Reports statuses with more restarts than kills and losses explain.
fn unexplained_restarts(
    kills: &impl Fn(&str, &str) -> u64,
    lost: &impl Fn(&WorkerIndex) -> u64,
    samples: &[Sample],
    settled: &Settled,
) -> BTreeSet<String> {
    let worker_of =
        |node: Option<&str>| (0..settled.machines.len()).find(|worker| Some(node_name(*worker).as_str()) == node);
    let sampled = samples.iter().flat_map(|sample| &sample.pods).flat_map(|pod| {
        pod.restarts
            .iter()
            .map(|(container, count)| (pod.uid.as_str(), pod.node.as_deref(), container.as_str(), *count))
    });
    let last = settled.api.pods.iter().flat_map(|pod| {
        let (uid, node) = (pod.uid.as_str(), pod.node.as_deref());
        pod.containers.iter().map(move |status| (uid, node, status.name.as_str(), status.restarts))
    });
    let is_too_many = |(uid, node, container, count): &(&str, Option<&str>, &str, u64)| {
        *count > kills(uid, container) + worker_of(*node).map_or(0, |worker| lost(&worker))
    };
    let too_many = sampled.chain(last).filter(is_too_many);
    too_many
        .map(|(uid, node, container, count)| {
            format!("the status of pod {uid} on {node:?} has {count} restarts of {container} without a kill or a loss")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::workload::{settled, start};
    use super::*;
    use crate::history::PodSample;

    fn again(worker: WorkerIndex) -> Start {
        Start { id: "c9".to_owned(), at: "later".to_owned(), ..start(worker) }
    }

    fn killed() -> Killed {
        let (uid, container, id) = ("u0".to_owned(), "main".to_owned(), "c0".to_owned());
        Killed { at: 5, worker: 0, uid, container, id }
    }

    fn status(starts: &[Start], killed: &[Killed], losses: &Losses) -> Status {
        let starts = [starts, &[start(0), start(1)]].concat();
        check(&starts, killed, losses, &[], &settled()).status
    }

    #[test]
    fn a_container_without_a_start_is_found() {
        let status = |starts: &[Start]| check(starts, &[], &Losses::new(), &[], &settled()).status;
        assert_eq!(status(&[start(0), start(1)]), Status::Passed);
        assert_eq!(status(&[start(0)]), Status::Violated);
    }

    #[test]
    fn a_second_start_needs_a_kill_or_a_loss() {
        let none = Losses::new();
        assert_eq!(status(&[start(0), start(1)], &[], &none), Status::Passed);
        assert_eq!(status(&[start(0), again(0)], &[], &none), Status::Violated);
        assert_eq!(status(&[start(0), again(0)], &[killed()], &none), Status::Passed);
        assert_eq!(status(&[start(0), again(0)], &[], &Losses::from([(0, 1)])), Status::Passed);
        assert_eq!(status(&[start(0), again(0)], &[], &Losses::from([(1, 1)])), Status::Violated);
        assert_eq!(status(&[start(1), again(1)], &[killed()], &none), Status::Violated);
        let same_id = Start { at: "later".to_owned(), ..start(0) };
        assert_eq!(status(&[start(0), same_id], &[], &none), Status::Violated);
    }

    #[test]
    fn a_pod_runs_on_one_node() {
        let elsewhere = Start { worker: 1, ..start(0) };
        assert_eq!(status(&[start(0), elsewhere], &[], &Losses::from([(0, 5), (1, 5)])), Status::Violated);
    }

    #[test]
    fn unexplained_restarts_are_found() {
        let mut restarted = settled();
        restarted.api.pods[0].containers[0].restarts = 1;
        let with = |killed: &[Killed], settled: &Settled, samples: &[Sample]| {
            check(&[start(0), start(1)], killed, &Losses::new(), samples, settled).status
        };
        assert_eq!(with(&[], &restarted, &[]), Status::Violated);
        assert_eq!(with(&[killed()], &restarted, &[]), Status::Passed);
        let restarts = vec![("main".to_owned(), 1)];
        let pod = PodSample { uid: "u1".to_owned(), node: Some("w2".to_owned()), restarts };
        let sample = Sample { at: 1, named: Vec::new(), pods: vec![pod] };
        assert_eq!(with(&[], &settled(), &[sample]), Status::Violated);
    }
}
