//! The order in which surplus pods are deleted: the least useful first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::cache::Cache;
use crate::ownership::controller_of;
use crate::pod_state::{is_active, is_ready, node_name, phase, ready_since};
use crate::resource::uid;

use super::pod_set::PodSet;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Returns the `count` pods to delete, in Kubernetes' order: unassigned, pending, not ready, lower deletion cost, more
/// pods of the set on the node, ready for less long, more restarts, newer. Ages are compared by order of magnitude, so
/// pods of nearly the same age are deleted in an order that favours no node.
pub(super) fn to_delete<'a, S: PodSet>(
    cache: &Cache,
    set: &S,
    active: &[&'a Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<&'a Arc<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let crowding = crowding(cache, set);
    let mut ranked: Vec<(Rank, &Arc<Pod>)> =
        active.iter().map(|pod| (Rank::of(pod, crowding.get(node_name(pod)).copied(), now), *pod)).collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}

/// Returns the number of active pods per node, counting this set and its siblings (the other sets of its deployment).
fn crowding<'a, S: PodSet>(cache: &'a Cache, set: &'a S) -> BTreeMap<&'a str, usize> {
    let mut uids = vec![uid(set.metadata())];
    if let Some(owner) = controller_of(set.metadata()) {
        let siblings = S::siblings(cache, &owner.uid).into_iter().map(|sibling| uid(sibling.metadata()));
        uids.extend(siblings.filter(|sibling| *sibling != uid(set.metadata())));
    }
    let mut pods = BTreeMap::new();
    for pod in uids.into_iter().flat_map(|uid| cache.controlled_pods(uid)).filter(|pod| is_active(pod)) {
        *pods.entry(node_name(pod)).or_default() += 1;
    }
    pods
}

/// Sort key of a pod; the pod to delete first has the lowest rank. The fields are compared in their order of
/// declaration.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    crowding: Reverse<usize>,
    ready_for: Age,
    restarts: Reverse<i32>,
    sidecar_restarts: Reverse<i32>,
    created: Age,
    uid: String,
}

impl Rank {
    fn of(pod: &Pod, crowding: Option<usize>, now: Timestamp) -> Self {
        let status = pod.status.as_ref();
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Rank {
            assigned: !node_name(pod).is_empty(),
            phase: match phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready: is_ready(pod),
            deletion_cost: deletion_cost(pod),
            crowding: Reverse(crowding.unwrap_or(0)),
            ready_for: Age::of(if is_ready(pod) { ready_since(pod) } else { None }, now),
            restarts: Reverse(restarts(status.and_then(|s| s.container_statuses.as_ref()))),
            sidecar_restarts: Reverse(restarts(status.and_then(|s| s.init_container_statuses.as_ref()))),
            created: Age::of(created, now),
            uid: uid(&pod.metadata).to_owned(),
        }
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    annotation.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(statuses: Option<&Vec<ContainerStatus>>) -> i32 {
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

/// Binary order of magnitude of an age in seconds. An unknown age sorts first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age(Option<u32>);

impl Age {
    fn of(since: Option<Timestamp>, now: Timestamp) -> Self {
        let seconds = since.map(|since| u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0));
        Age(seconds.map(|seconds| u64::BITS - seconds.leading_zeros()))
    }
}
