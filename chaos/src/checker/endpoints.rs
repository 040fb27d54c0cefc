//! Checks that endpoints name exactly the ready pods at the end, and no pod for long after its deletion.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::history::{Micros, Sample, Settled};
use crate::nemesis::{Change, ServiceLevel};

/// Time that endpoints may name a deleted pod while the quorum must serve.
pub const GONE_WITHIN: Micros = 20_000_000;

/// Deviations from the ready pods at the end.
#[must_use]
pub fn violations(settled: &Settled) -> Vec<String> {
    let ready = settled.api.pods.iter().filter(|pod| pod.is_ready);
    let ready: BTreeSet<(&str, &str)> =
        ready.map(|pod| (pod.uid.as_str(), pod.address.as_deref().unwrap_or_default())).collect();
    let named: Vec<(&str, &str)> =
        settled.api.endpoints.iter().map(|endpoint| (endpoint.uid.as_str(), endpoint.address.as_str())).collect();
    let mut violations = Vec::new();
    let is_named = |pod: &&(&str, &str)| named.contains(pod);
    violations.extend(ready.iter().filter(|pod| !is_named(pod)).map(|pod| format!("no endpoint names {pod:?}")));
    let is_ready = |endpoint: &&(&str, &str)| ready.contains(endpoint);
    violations
        .extend(named.iter().filter(|e| !is_ready(e)).map(|e| format!("an endpoint names {e:?}, not a ready pod")));
    let unready = settled.api.endpoints.iter().filter(|endpoint| !endpoint.is_ready);
    violations.extend(unready.map(|endpoint| format!("an endpoint that is not ready: {endpoint:?}")));
    if named.len() > ready.len() {
        violations.push(format!("{} endpoints for {} ready pods", named.len(), ready.len()));
    }
    violations
}

/// Checks the state at the end, and the samples of the schedule.
#[must_use]
pub fn check(samples: &[Sample], changes: &[Change], settled: &Settled) -> Check {
    let mut violations = violations(settled);
    violations.extend(gone_for_long(samples, changes));
    let extent = format!("{} endpoints, {} samples", settled.api.endpoints.len(), samples.len());
    Check::of("endpoints name the ready pods, and no pod that is gone", extent, violations)
}

/// Reports pods that endpoints named for too long after a sample no longer contained them.
fn gone_for_long(samples: &[Sample], changes: &[Change]) -> BTreeSet<String> {
    let mut since: BTreeMap<&str, Micros> = BTreeMap::new();
    let mut violations = BTreeSet::new();
    for sample in samples {
        let there: BTreeSet<&str> = sample.pods.iter().map(|pod| pod.uid.as_str()).collect();
        let gone: BTreeSet<&str> = sample.named.iter().map(String::as_str).filter(|uid| !there.contains(uid)).collect();
        since.retain(|uid, _| gone.contains(uid));
        for uid in gone {
            let from = *since.entry(uid).or_insert(sample.at);
            if served(changes, from, sample.at) > GONE_WITHIN {
                violations.insert(format!("endpoints still name pod {uid}, which is gone since {from} µs"));
            }
        }
    }
    violations
}

/// Time between two moments during which the quorum had to serve.
fn served(changes: &[Change], from: Micros, to: Micros) -> Micros {
    let ends = changes.iter().skip(1).map(|next| next.at).chain(std::iter::once(Micros::MAX));
    let stretches = changes.iter().zip(ends).filter(|(change, _)| change.service == ServiceLevel::Required);
    stretches.map(|(change, end)| end.min(to).saturating_sub(change.at.max(from))).sum()
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::workload::{Plant, settled};
    use super::*;

    const S: Micros = 1_000_000;

    #[test]
    fn planted_endpoints_are_found() {
        assert_eq!(check(&[], &[], &settled()).status, Status::Passed);
        let plants: [Plant; 5] = [
            ("a pod without an endpoint", |s| drop(s.api.endpoints.pop())),
            ("an endpoint of a pod that is gone", |s| s.api.endpoints[0].uid = "gone".to_owned()),
            ("an endpoint of a pod that is not ready", |s| s.api.pods[0].is_ready = false),
            ("an endpoint twice", |s| s.api.endpoints.push(s.api.endpoints[0].clone())),
            ("an old address", |s| s.api.endpoints[0].address = "10.0.0.99".to_owned()),
        ];
        for (what, plant) in plants {
            let mut settled = settled();
            plant(&mut settled);
            assert_eq!(check(&[], &[], &settled).status, Status::Violated, "{what} was not found");
        }
    }

    #[test]
    fn endpoints_may_name_a_deleted_pod_for_a_while() {
        let sample = |at: Micros| Sample { at, named: vec!["u9".to_owned()], pods: Vec::new() };
        let required = [Change { at: 0, service: ServiceLevel::Required }];
        let status = |samples: &[Sample], changes: &[Change]| check(samples, changes, &settled()).status;
        assert_eq!(status(&[sample(S), sample(15 * S)], &required), Status::Passed);
        assert_eq!(status(&[sample(S), sample(40 * S)], &required), Status::Violated);
        let without_quorum = [required[0], Change { at: 10 * S, service: ServiceLevel::Impossible }];
        assert_eq!(status(&[sample(S), sample(40 * S)], &without_quorum), Status::Passed);
        let corrected = Sample { at: 20 * S, named: Vec::new(), pods: Vec::new() };
        assert_eq!(status(&[sample(S), corrected, sample(40 * S)], &required), Status::Passed);
    }
}
