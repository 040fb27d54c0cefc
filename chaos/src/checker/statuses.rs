//! Checks that the statuses of pods agree with the containers on their machines.

use super::Check;
use crate::history::{Container, ContainerStatus, MAIN, PodSeen, Settled, node_name};

/// Cuts a time to whole seconds, the precision of a status.
fn seconds(at: &str) -> &str {
    at.get(..19).unwrap_or(at)
}

/// Differences between statuses and machines.
#[must_use]
pub fn violations(settled: &Settled) -> Vec<String> {
    let mut violations = Vec::new();
    for pod in &settled.api.pods {
        let machine =
            (0..settled.machines.len()).find(|worker| pod.node.as_deref() == Some(node_name(*worker).as_str()));
        let Some(machine) = machine else {
            violations.push(format!("{} is on an unknown node: {:?}", pod.name, pod.node));
            continue;
        };
        let its = settled.machines[machine].iter().filter(|container| container.uid == pod.uid);
        let its: Vec<&Container> = its.collect();
        violations.extend(of_pod(pod, &its).into_iter().map(|what| format!("{}: {what}", pod.name)));
    }
    violations
}

fn of_pod(pod: &PodSeen, containers: &[&Container]) -> Vec<String> {
    let mut violations = Vec::new();
    if pod.phase != "Running" || !pod.is_ready {
        violations.push(format!("its phase is {}, ready: {}", pod.phase, pod.is_ready));
    }
    let newest = |name: &str| {
        containers.iter().filter(|container| container.name == name).max_by_key(|container| container.attempt)
    };
    let Some(status) = pod.containers.iter().find(|status| status.name == MAIN) else {
        violations.push("its status has no container".to_owned());
        return violations;
    };
    match newest(MAIN) {
        Some(container) => {
            if !agree(status, container) {
                violations.push(format!("its status has {status:?}, its machine {container:?}"));
            }
            if container.address.is_some() && container.address != pod.address {
                violations.push(format!("its status has {:?}, its machine {:?}", pod.address, container.address));
            }
        }
        None => violations.push(format!("its status has {status:?}, its machine no container")),
    }
    violations
}

fn agree(status: &ContainerStatus, container: &Container) -> bool {
    let since = container.is_running.then_some(seconds(&container.started_at));
    status.id.ends_with(&format!("://{}", container.id))
        && status.restarts == container.attempt
        && status.is_ready == container.is_running
        && status.running_since.as_deref().map(seconds) == since
}

/// Checks all statuses at the end.
#[must_use]
pub fn check(settled: &Settled) -> Check {
    Check::of(
        "statuses agree with the running containers",
        format!("{} pods", settled.api.pods.len()),
        violations(settled),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::workload::{Plant, settled};
    use super::*;

    #[test]
    fn planted_statuses_are_found() {
        assert_eq!(check(&settled()).status, Status::Passed);
        let plants: [Plant; 8] = [
            ("a phase that lags", |s| s.api.pods[0].phase = "Pending".to_owned()),
            ("the id of an earlier container", |s| s.api.pods[0].containers[0].id = "hollow://c8".to_owned()),
            ("restarts that were not counted", |s| s.machines[0][1].attempt = 1),
            ("another time of start", |s| s.machines[0][1].started_at = "2026-11-30T10:07:00Z".to_owned()),
            ("a container that has ended", |s| s.machines[0][1].is_running = false),
            ("another address", |s| s.api.pods[0].address = Some("10.0.0.77".to_owned())),
            ("nothing runs", |s| s.machines[0].clear()),
            ("no status at all", |s| s.api.pods[0].containers.clear()),
        ];
        for (what, plant) in plants {
            let mut settled = settled();
            plant(&mut settled);
            assert_eq!(check(&settled).status, Status::Violated, "{what} was not found");
        }
    }
}
