//! Deletes the oldest terminated pods when the cluster holds too many of them, as Kubernetes'
//! `--terminated-pod-gc-threshold` does.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::cache::{Cache, CachedKind, Change};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::plan::Plan;
use crate::pod_state::{is_terminal, is_terminating};
use crate::resource::{PODS, batch, delete, name, namespace, target};

/// Interval of the check, as in Kubernetes. Nothing else triggers it, because counting visits every pod.
const RESYNC: Duration = Duration::from_secs(20);
/// Maximum number of pods that one pass deletes, and the pause before the next pass.
const BURST: usize = 500;
const PAUSE: Duration = Duration::from_secs(1);
/// Reason of a pod that its node evicted. Such pods are deleted first.
const EVICTED: &str = "Evicted";

/// The only key stands for all pods.
pub(crate) const CONTROLLER: Controller = Controller {
    name: "terminated-pod-collector",
    reads: &[CachedKind::Pod],
    writes: Writes::Only(&[PODS]),
    triggers,
    all_keys,
    reconcile,
    resync: Some(RESYNC),
};

fn triggers(_: &Cache, _: &Change) -> Vec<WorkKey> {
    Vec::new()
}

fn all_keys(_: &Cache) -> Vec<WorkKey> {
    vec![WorkKey::cluster("pods")]
}

fn reconcile(Input { cache, settings, .. }: Input<'_>, _: &WorkKey) -> Plan {
    if settings.terminated_pods == 0 {
        return Plan::default();
    }
    let mut terminated: Vec<&Arc<Pod>> =
        cache.pods().iter().filter(|pod| is_terminal(pod) && !is_terminating(pod)).collect();
    let surplus = terminated.len().saturating_sub(settings.terminated_pods);
    if surplus == 0 {
        return Plan::default();
    }
    terminated.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let oldest = terminated.into_iter().take(surplus.min(BURST));
    let deletions = oldest.map(|pod| delete(target(PODS, &pod.metadata), pod.metadata.uid.as_deref()));
    Plan {
        actions: batch(deletions.collect()).into_iter().collect(),
        requeue_after: (surplus > BURST).then_some(PAUSE),
    }
}

/// Returns the sort key of a pod; the first one is deleted first.
fn rank(pod: &Pod) -> impl Ord {
    let metadata = &pod.metadata;
    let created = metadata.creation_timestamp.as_ref().map(|created| created.0);
    (Reverse(is_evicted(pod)), created, namespace(metadata), name(metadata))
}

fn is_evicted(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some(EVICTED)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::simulation::Cluster;

    fn check(cluster: &mut Cluster) {
        for key in all_keys(&cluster.cache) {
            cluster.carry_out(CONTROLLER.name, &key);
        }
    }

    fn pod(cluster: &mut Cluster, name: &str, status: &serde_json::Value) {
        cluster.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": []}, "status": status}));
        cluster.advance(Duration::from_secs(1));
    }

    #[test]
    fn the_oldest_terminated_pods_above_the_threshold_are_deleted() {
        let mut cluster = Cluster::new();
        cluster.add_node("n1");
        pod(&mut cluster, "running", &json!({"phase": "Running"}));
        for name in ["old", "older-is-not-by-name", "a"] {
            pod(&mut cluster, name, &json!({"phase": "Succeeded"}));
        }
        pod(&mut cluster, "evicted", &json!({"phase": "Failed", "reason": "Evicted"}));
        pod(&mut cluster, "failed", &json!({"phase": "Failed"}));
        let all = ["a", "evicted", "failed", "old", "older-is-not-by-name", "running"];
        for (threshold, expected) in
            [(0, &all[..]), (5, &all), (3, &["a", "failed", "older-is-not-by-name", "running"])]
        {
            cluster.settings.terminated_pods = threshold;
            check(&mut cluster);
            assert_eq!(cluster.names("pods"), expected, "{threshold}");
            cluster.assert_at_rest();
        }
    }

    #[test]
    fn many_terminated_pods_are_deleted_in_bursts() {
        let mut cluster = Cluster::new();
        cluster.add_node("n1");
        for i in 0..BURST + 10 {
            cluster.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{i}"),
                "namespace": "default"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Failed"}}));
        }
        cluster.settings.terminated_pods = 2;
        let plan = cluster.plan(CONTROLLER.name, &WorkKey::cluster("pods"));
        assert_eq!(plan.requeue_after, Some(PAUSE));
        check(&mut cluster);
        assert_eq!(cluster.names("pods").len(), 10);
        check(&mut cluster);
        assert_eq!(cluster.names("pods").len(), 2);
    }
}
