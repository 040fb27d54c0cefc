//! Checks that a restarted agent adopts the containers that ran meanwhile: the same container, with the same start
//! time, keeps running.

use super::Check;
use crate::history::{Container, Killed, MachineSeen, Micros, SANDBOX, Settled, Start, node_name};
use crate::world::WorkerIndex;

/// Worker whose machine was lost, and when.
pub type Loss = (WorkerIndex, Micros);

/// Compares the containers that ran while agents were down with later starts and with the containers at the end.
#[must_use]
pub fn check(
    machines: &[MachineSeen],
    starts: &[Start],
    killed: &[Killed],
    losses: &[Loss],
    settled: &Settled,
) -> Check {
    let mut violations = Vec::new();
    let mut adopted = 0;
    for machine in machines {
        for container in machine.containers.iter().filter(|container| container.is_running && container.name != SANDBOX)
        {
            let was_killed =
                killed.iter().any(|killed| killed.uid == container.uid && killed.container == container.name);
            let mut its_losses = losses.iter().filter(|(worker, _)| *worker == machine.worker);
            if was_killed || its_losses.clone().any(|(_, at)| *at >= machine.at) {
                continue;
            }
            adopted += 1;
            // Clocks are moved, so starts before a loss of the machine cannot be distinguished from starts after it.
            if its_losses.next().is_none() {
                violations.extend(started_again(machine, container, starts));
            }
            violations.extend(replaced(machine, container, settled));
        }
    }
    violations.sort();
    violations.dedup();
    let extent = format!("{adopted} containers over {} restarts of agents", machines.len());
    Check::of("a restarted agent adopts its running containers", extent, violations)
}

/// Reports a container that was started again, or whose pod got another one in its place.
fn started_again(machine: &MachineSeen, container: &Container, starts: &[Start]) -> Vec<String> {
    let is_of_it = |start: &&Start| start.uid == container.uid && start.container == container.name;
    let its: Vec<&Start> = starts.iter().filter(is_of_it).collect();
    let others = its.iter().filter(|start| start.id != container.id).count();
    let same = its.len() - others;
    let is_first = container.attempt == 0;
    (is_first && (others > 0 || same > 1))
        .then(|| {
            format!(
                "{} ran {container:?} while its agent did not, and started it again: {its:?}",
                node_name(machine.worker)
            )
        })
        .into_iter()
        .collect()
}

/// Reports a container that is gone or restarted although its pod still exists.
fn replaced(machine: &MachineSeen, container: &Container, settled: &Settled) -> Vec<String> {
    let is_there = settled.api.pods.iter().any(|pod| pod.uid == container.uid && !pod.is_deleting);
    let now = settled.machines.get(machine.worker).into_iter().flatten().find(|now| now.id == container.id);
    let is_same = now.is_some_and(|now| now.is_running && now.started_at == container.started_at);
    (is_there && !is_same)
        .then(|| {
            format!("{} ran {container:?} while its agent did not, and now has {now:?}", node_name(machine.worker))
        })
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::workload::{settled, start};
    use super::*;

    fn seen() -> Vec<MachineSeen> {
        vec![MachineSeen { at: 5, worker: 0, containers: settled().machines.swap_remove(0) }]
    }

    #[test]
    fn an_adopted_container_keeps_running() {
        let none = (&[][..], &[][..]);
        assert_eq!(check(&seen(), &[start(0)], none.0, none.1, &settled()).status, Status::Passed);
        let again = Start { id: "c9".to_owned(), at: "later".to_owned(), ..start(0) };
        let started_again = [start(0), again];
        assert_eq!(check(&seen(), &started_again, none.0, none.1, &settled()).status, Status::Violated);
        let same_again = [start(0), Start { at: "later".to_owned(), ..start(0) }];
        assert_eq!(check(&seen(), &same_again, none.0, none.1, &settled()).status, Status::Violated);
        let mut restarted = settled();
        restarted.machines[0][1].started_at = "2026-11-30T10:00:09Z".to_owned();
        assert_eq!(check(&seen(), &[start(0)], none.0, none.1, &restarted).status, Status::Violated);
        let mut replaced = settled();
        replaced.machines[0][1].id = "c9".to_owned();
        assert_eq!(check(&seen(), &[start(0)], none.0, none.1, &replaced).status, Status::Violated);
    }

    #[test]
    fn a_killed_or_lost_container_need_not_be_adopted() {
        let mut replaced = settled();
        replaced.machines[0][1].id = "c9".to_owned();
        let (uid, container, id) = ("u0".to_owned(), "main".to_owned(), "c0".to_owned());
        let killed = Killed { at: 9, worker: 0, uid, container, id };
        assert_eq!(check(&seen(), &[start(0)], &[killed], &[], &replaced).status, Status::Passed);
        assert_eq!(check(&seen(), &[start(0)], &[], &[(0, 9)], &replaced).status, Status::Passed);
        assert_eq!(check(&seen(), &[start(0)], &[], &[(0, 1)], &replaced).status, Status::Violated);
        assert_eq!(check(&seen(), &[start(0)], &[], &[(1, 9)], &replaced).status, Status::Violated);
        let mut deleted = settled();
        deleted.api.pods.clear();
        deleted.machines[0].clear();
        assert_eq!(check(&seen(), &[start(0)], &[], &[], &deleted).status, Status::Passed);
    }
}
