//! Checks that machines run exactly the pods of the API: each pod's sandbox and container once, on its own node.

use super::Check;
use crate::history::{Container, MAIN, SANDBOX, Settled, node_name};

/// Stray, missing and duplicate containers.
#[must_use]
pub fn violations(settled: &Settled) -> Vec<String> {
    let mut violations = Vec::new();
    for (worker, containers) in settled.machines.iter().enumerate() {
        let node = node_name(worker);
        let is_here =
            |uid: &str| settled.api.pods.iter().any(|pod| pod.uid == uid && pod.node.as_deref() == Some(node.as_str()));
        let strays = containers.iter().filter(|container| !is_here(&container.uid));
        violations
            .extend(strays.map(|stray| format!("{node} has {stray:?} of a pod that is not on this node in the API")));
        for pod in settled.api.pods.iter().filter(|pod| pod.node.as_deref() == Some(node.as_str())) {
            for name in [SANDBOX, MAIN] {
                let runs =
                    |container: &&Container| container.is_running && container.uid == pod.uid && container.name == name;
                let running = containers.iter().filter(runs).count();
                if running != 1 {
                    violations.push(format!("{node} runs {running} containers {name} of {} ({})", pod.name, pod.uid));
                }
            }
        }
    }
    violations
}

/// Checks the containers at the end.
#[must_use]
pub fn check(settled: &Settled) -> Check {
    let running = settled.machines.iter().flatten().filter(|container| container.is_running).count();
    let extent = format!("{running} containers on {} machines", settled.machines.len());
    Check::of("machines run exactly the pods of the API", extent, violations(settled))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::workload::{Plant, settled};
    use super::*;

    #[test]
    fn planted_strays_are_found() {
        assert_eq!(check(&settled()).status, Status::Passed);
        let plants: [Plant; 5] = [
            ("a pod that the API does not know", |s| s.machines[0][1].uid = "other".to_owned()),
            ("a pod of another node", |s| {
                let moved = s.machines[1].clone();
                s.machines[0].extend(moved);
            }),
            ("a container that runs twice", |s| {
                let twice = s.machines[0][1].clone();
                s.machines[0].push(twice);
            }),
            ("a container that does not run", |s| s.machines[0][1].is_running = false),
            ("an ended container without a pod", |s| {
                let mut left = s.machines[0][1].clone();
                (left.uid, left.is_running) = ("gone".to_owned(), false);
                s.machines[0].push(left);
            }),
        ];
        for (what, plant) in plants {
            let mut settled = settled();
            plant(&mut settled);
            assert_eq!(check(&settled).status, Status::Violated, "{what} was not found");
        }
    }
}
