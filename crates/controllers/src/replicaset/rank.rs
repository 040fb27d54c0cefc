//! Which pods go first when there are too many: those whose loss hurts least.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::cache::Cache;
use crate::ownership::controller_of;
use crate::pod_state::{is_active, is_ready, node_name, phase, ready_since};
use crate::resource::uid;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete, worst first, by Kubernetes' order: unassigned, pending, not ready, cheaper by
/// annotation, doubled up on a node, ready for less long, restarted more often, newer. Ages are compared by their
/// magnitude alone, so that a rollout's pods of nearly the same age go in an order that favours no node.
pub(super) fn to_delete<'a>(
    cache: &Cache,
    set: &ReplicaSet,
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

/// How many active pods of this set and of its siblings (the other sets of its deployment) each node holds.
fn crowding<'a>(cache: &'a Cache, set: &'a ReplicaSet) -> BTreeMap<&'a str, usize> {
    let mut uids = vec![uid(&set.metadata)];
    if let Some(owner) = controller_of(&set.metadata) {
        let siblings = cache.controlled_replica_sets(&owner.uid).map(|sibling| uid(&sibling.metadata));
        uids.extend(siblings.filter(|sibling| *sibling != uid(&set.metadata)));
    }
    let mut pods = BTreeMap::new();
    for pod in uids.into_iter().flat_map(|uid| cache.controlled_pods(uid)).filter(|pod| is_active(pod)) {
        *pods.entry(node_name(pod)).or_default() += 1;
    }
    pods
}

/// Ordered so that the pod to delete first is the least. The fields stand in the order in which they count.
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

/// An age by its binary magnitude in seconds; unknown counts as none at all.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age(Option<u32>);

impl Age {
    fn of(since: Option<Timestamp>, now: Timestamp) -> Self {
        let seconds = since.map(|since| u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0));
        Age(seconds.map(|seconds| u64::BITS - seconds.leading_zeros()))
    }
}
