//! Checks that every Deployment reaches its desired state after the last fault: the desired number of ready pods of its
//! newest template, and no other pods.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::history::{Answer, DeploymentSeen, PodSeen, Request, Settled, Wanted};

/// Possible desired states of each Deployment at the end; `None` means that it is deleted.
#[must_use]
pub fn possible(requests: &[Request]) -> BTreeMap<&str, BTreeSet<Option<Wanted>>> {
    let mut possible: BTreeMap<&str, BTreeSet<Option<Wanted>>> = BTreeMap::new();
    let mut ordered: Vec<&Request> = requests.iter().collect();
    ordered.sort_by_key(|request| request.called);
    for request in ordered {
        let states = possible.entry(&request.deployment).or_insert_with(|| BTreeSet::from([None]));
        match request.answer {
            Answer::Done => *states = BTreeSet::from([request.wanted.clone()]),
            Answer::Unknown { .. } => {
                states.insert(request.wanted.clone());
            }
            Answer::Refused { .. } => {}
        }
    }
    possible
}

/// Deviations from the desired state.
#[must_use]
pub fn violations(requests: &[Request], settled: &Settled) -> Vec<String> {
    let possible = possible(requests);
    let api = &settled.api;
    let seen: BTreeMap<&str, &DeploymentSeen> = api.deployments.iter().map(|d| (d.name.as_str(), d)).collect();
    let mut pods: BTreeMap<&str, Vec<&PodSeen>> = BTreeMap::new();
    for pod in &api.pods {
        pods.entry(&pod.deployment).or_default().push(pod);
    }
    let nothing = BTreeSet::from([None]);
    let names: BTreeSet<&str> = possible.keys().chain(seen.keys()).chain(pods.keys()).copied().collect();
    let mut violations = Vec::new();
    for name in names {
        let states = possible.get(name).unwrap_or(&nothing);
        let pods = pods.get(name).map_or(&[][..], Vec::as_slice);
        violations.extend(of_one(name, states, seen.get(name).copied(), pods));
    }
    for (worker, _) in settled.machines.iter().enumerate() {
        let name = crate::history::node_name(worker);
        if !api.nodes.iter().any(|(node, is_ready)| *node == name && *is_ready) {
            violations.push(format!("node {name} is not ready, or tainted: {:?}", api.nodes));
        }
    }
    violations
}

fn of_one(
    name: &str,
    states: &BTreeSet<Option<Wanted>>,
    seen: Option<&DeploymentSeen>,
    pods: &[&PodSeen],
) -> Vec<String> {
    let Some(seen) = seen else {
        let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
        let mut violations = Vec::new();
        if !states.contains(&None) {
            violations.push(format!("{name} is missing; the desired state is one of {states:?}"));
        }
        if !pods.is_empty() {
            violations.push(format!("{name} is gone, but its pods are not: {names:?}"));
        }
        return violations;
    };
    let mut violations = Vec::new();
    if !states.contains(&Some(seen.wanted.clone())) {
        violations.push(format!("{name} has the spec {:?}; the desired state is one of {states:?}", seen.wanted));
    }
    let replicas = seen.wanted.replicas;
    let counts = [seen.replicas, seen.updated, seen.ready, seen.available];
    if counts.iter().any(|count| *count != replicas) || seen.observed_generation < seen.generation {
        violations.push(format!("{name} has not reached {replicas} replicas: {seen:?}"));
    }
    let is_right = |pod: &&&PodSeen| {
        pod.is_ready && !pod.is_deleting && pod.template == seen.wanted.template && pod.node.is_some()
    };
    if pods.len() as u64 != replicas || pods.iter().filter(is_right).count() != pods.len() {
        let wrong: Vec<_> = pods.iter().filter(|pod| !is_right(pod)).take(3).collect();
        violations.push(format!(
            "{name} must have {replicas} ready pods of template {}, and has {}; wrong pods are {wrong:?}",
            seen.wanted.template,
            pods.len()
        ));
    }
    violations
}

/// Checks the state at the end.
#[must_use]
pub fn check(requests: &[Request], settled: &Settled) -> Check {
    let (deployments, pods) = (settled.api.deployments.len(), settled.api.pods.len());
    let extent = format!(
        "{} writes, {deployments} Deployments with {pods} pods after {:.1} s",
        requests.len(),
        settled.took as f64 / 1e6
    );
    Check::of("every Deployment reaches its desired state", extent, violations(requests, settled))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::workload::{Plant, request, requests, settled, unknown, wanted};
    use super::*;

    #[test]
    fn deployments_in_their_desired_state_pass() {
        assert_eq!(check(&requests(), &settled()).status, Status::Passed);
        let maybe_three = [requests(), vec![request(30, Some(wanted(3)), unknown())]].concat();
        assert_eq!(violations(&maybe_three, &settled()), Vec::<String>::new());
        let maybe_gone = [requests(), vec![request(30, None, unknown())]].concat();
        assert_eq!(violations(&maybe_gone, &settled()), Vec::<String>::new());
        let nothing = Settled { machines: Vec::new(), ..Settled::default() };
        assert_eq!(violations(&maybe_gone, &nothing), Vec::<String>::new());
        let refused = Answer::Refused { reason: "conflict".to_owned() };
        assert_eq!(
            violations(&[requests(), vec![request(30, None, refused)]].concat(), &settled()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_unknown_write_counts_until_another_is_acknowledged() {
        let requests = [
            request(10, Some(wanted(1)), unknown()),
            request(20, Some(wanted(2)), Answer::Done),
            request(30, Some(wanted(4)), unknown()),
        ];
        assert_eq!(possible(&requests)["d0-1"], BTreeSet::from([Some(wanted(2)), Some(wanted(4))]));
    }

    #[test]
    fn planted_faults_are_found() {
        let plants: [Plant; 9] = [
            ("one pod is not ready", |s| s.api.pods[0].is_ready = false),
            ("one pod is of an old template", |s| s.api.pods[1].template = "t0".to_owned()),
            ("a surplus pod", |s| s.api.pods.push(s.api.pods[0].clone())),
            ("a pod that does not end", |s| s.api.pods[0].is_deleting = true),
            ("a status that lags", |s| s.api.deployments[0].available = 1),
            ("a spec that was not seen", |s| s.api.deployments[0].observed_generation = 1),
            ("a write that was lost", |s| s.api.deployments[0].wanted.replicas = 1),
            ("a Deployment that vanished", |s| s.api.deployments.clear()),
            ("a node that does not come back", |s| s.api.nodes[1].1 = false),
        ];
        for (what, plant) in plants {
            let mut settled = settled();
            plant(&mut settled);
            assert_eq!(check(&requests(), &settled).status, Status::Violated, "{what} was not found");
        }
        let deleted = [requests(), vec![request(30, None, Answer::Done)]].concat();
        assert_eq!(check(&deleted, &settled()).status, Status::Violated);
    }
}
