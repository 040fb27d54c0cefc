//! The total requests of a pod, from its containers, init containers, sidecars, overhead and pod-level resources.
//!
//! The rule is that of `k8s.io/component-helpers/resource.PodRequests`. Regular containers and sidecars run together.
//! An ordinary init container runs beside the sidecars started before it. The pod requests the greater of the two, plus
//! its overhead.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use crate::resources::{ParseError, Resources};

/// CPU counted in scores (not in filters) for a container that requests none.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// Upper bound of each amount that a pod counts for. It is more than any node has, and small enough that the sums over
/// a node's pods cannot overflow.
const MAX_AMOUNT: i64 = 1 << 50;

/// Memory counted in scores (not in filters) for a container that requests none.
pub const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Requests of a pod, with and without the defaults for containers that request nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequests {
    pub requested: Resources,
    /// CPU including the defaults, so that pods without requests still count in a node's score.
    pub non_zero_milli_cpu: i64,
    pub non_zero_memory_bytes: i64,
}

impl PodRequests {
    /// # Errors
    /// Fails when an amount is not a quantity.
    pub fn parse(spec: &PodSpec) -> Result<PodRequests, ParseError> {
        PodRequests::of(spec, None)
    }

    /// Returns the requests of a pod on its node. While a resize is pending or in progress, a container counts with the
    /// greatest of the requests of its spec, those that its node has given to it, and those that it has. The requests of
    /// a spec that can never fit on the node do not count.
    ///
    /// # Errors
    /// Fails when an amount is not a quantity.
    pub fn of_pod(pod: &Pod) -> Result<PodRequests, ParseError> {
        match &pod.spec {
            Some(spec) => PodRequests::of(spec, pod.status.as_ref()),
            None => Ok(PodRequests::default()),
        }
    }

    fn of(spec: &PodSpec, status: Option<&PodStatus>) -> Result<PodRequests, ParseError> {
        let pod_level = Resources::parse(spec.resources.as_ref().and_then(|r| r.requests.as_ref()))?;
        let requested = aggregate(spec, status, &pod_level, |_| {})?;
        let non_zero = aggregate(spec, status, &pod_level, |container| {
            if container.milli_cpu == 0 && pod_level.milli_cpu == 0 {
                container.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if container.memory_bytes == 0 && pod_level.memory_bytes == 0 {
                container.memory_bytes = DEFAULT_MEMORY_BYTES;
            }
        })?;
        Ok(PodRequests {
            requested,
            non_zero_milli_cpu: non_zero.milli_cpu,
            non_zero_memory_bytes: non_zero.memory_bytes,
        })
    }
}

/// Returns whether an init container is a sidecar, which keeps running beside the regular containers.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Returns the requests of a container, of which `status` tells what its node has given to it.
fn of_container(container: &Container, status: Option<&PodStatus>) -> Result<Resources, ParseError> {
    let wanted = || Resources::parse(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let lists = [
        status.and_then(|status| status.container_statuses.as_ref()),
        status.and_then(|status| status.init_container_statuses.as_ref()),
    ];
    let Some(own) = lists.into_iter().flatten().flatten().find(|own| own.name == container.name) else {
        return wanted();
    };
    let mut requests = Resources::parse(own.allocated_resources.as_ref())?;
    requests.raise_to(&Resources::parse(own.resources.as_ref().and_then(|r| r.requests.as_ref()))?);
    let is_infeasible = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
        let pending = conditions.iter().find(|condition| condition.type_ == "PodResizePending");
        pending.is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"))
    });
    if !is_infeasible {
        requests.raise_to(&wanted()?);
    }
    Ok(requests)
}

fn aggregate(
    spec: &PodSpec,
    status: Option<&PodStatus>,
    pod_level: &Resources,
    fill: impl Fn(&mut Resources),
) -> Result<Resources, ParseError> {
    let of = |container: &Container| -> Result<Resources, ParseError> {
        let mut requests = of_container(container, status)?;
        fill(&mut requests);
        Ok(requests)
    };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container)?);
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container)?;
        if is_sidecar(container) {
            running.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        starting.raise_to(&needed);
    }
    running.raise_to(&starting);
    override_with(&mut running, pod_level);
    running.add(&Resources::parse(spec.overhead.as_ref())?);
    running.cap(MAX_AMOUNT);
    Ok(running)
}

/// Replaces the sums over the containers by the pod-level requests, for the resources that these may name.
fn override_with(total: &mut Resources, pod_level: &Resources) {
    if pod_level.milli_cpu > 0 {
        total.milli_cpu = pod_level.milli_cpu;
    }
    if pod_level.memory_bytes > 0 {
        total.memory_bytes = pod_level.memory_bytes;
    }
    for (name, amount) in pod_level.extended_amounts().filter(|(name, _)| name.starts_with("hugepages-")) {
        total.set_extended(name, amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn requests(spec: Value) -> PodRequests {
        let spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
        PodRequests::parse(&spec).expect("valid quantities")
    }

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}})
    }

    #[test]
    fn cpu_requests_follow_the_lifecycle_of_the_containers() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "300m"}}});
        for (name, spec, milli_cpu) in [
            ("the sum of the containers", json!({"containers": [container("100m"), container("250m")]}), 350),
            (
                "a greater init container wins",
                json!({"containers": [container("100m")], "initContainers": [container("500m"), container("200m")]}),
                500,
            ),
            (
                "a smaller init container does not count",
                json!({"containers": [container("100m")], "initContainers": [container("50m")]}),
                100,
            ),
            (
                "a sidecar runs beside the containers",
                json!({"containers": [container("100m")], "initContainers": [sidecar]}),
                400,
            ),
            (
                "an init container after a sidecar runs beside it",
                json!({"containers": [container("100m")], "initContainers": [sidecar, container("200m")]}),
                500,
            ),
            (
                "an init container before a sidecar runs alone",
                json!({"containers": [container("100m")], "initContainers": [container("350m"), sidecar]}),
                400,
            ),
            (
                "overhead comes on top of everything",
                json!({"containers": [container("100m")], "initContainers": [container("500m")],
                    "overhead": {"cpu": "10m"}}),
                510,
            ),
            (
                "pod-level requests replace the sum",
                json!({"containers": [container("100m")], "resources": {"requests": {"cpu": "2"}}}),
                2000,
            ),
        ] {
            assert_eq!(requests(spec).requested.milli_cpu, milli_cpu, "{name}");
        }
    }

    #[test]
    fn a_resize_counts_with_the_greatest_of_spec_allocation_and_actual_requests() {
        let milli_cpu = |wanted: &str, allocated: &str, actual: &str, reason: &str| {
            let requests = |cpu: &str| json!({"cpu": cpu, "memory": "64Mi"});
            let status = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": requests(allocated), "resources": {"requests": requests(actual)}});
            let conditions = json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"containers": [container(wanted)]},
                "status": {"containerStatuses": [status], "conditions": conditions},
            }))
            .expect("a pod");
            PodRequests::of_pod(&pod).expect("valid quantities").requested.milli_cpu
        };
        for (wanted, allocated, actual, reason, expected) in [
            ("100m", "100m", "100m", "Deferred", 100),
            ("300m", "100m", "100m", "Deferred", 300),
            ("100m", "100m", "300m", "Deferred", 300),
            ("100m", "300m", "200m", "Deferred", 300),
            ("900m", "100m", "200m", "Infeasible", 200),
        ] {
            assert_eq!(
                milli_cpu(wanted, allocated, actual, reason),
                expected,
                "{wanted} {allocated} {actual} {reason}"
            );
        }
    }

    #[test]
    fn huge_requests_do_not_overflow() {
        let greedy = container("9223372036854775807");
        let parsed = requests(json!({"containers": [greedy, greedy], "overhead": {"cpu": "9223372036854775807"}}));
        assert_eq!((parsed.requested.milli_cpu, parsed.non_zero_milli_cpu), (MAX_AMOUNT, MAX_AMOUNT));
        assert_eq!(parsed.requested.memory_bytes, 128 << 20);
        // A thousand such pods can be added to one node and removed again.
        let mut total = Resources::default();
        (0..1000).for_each(|_| total.add(&parsed.requested));
        (0..1000).for_each(|_| total.subtract(&parsed.requested));
        assert!(total.is_zero());
    }

    #[test]
    fn containers_without_requests_count_only_in_scores() {
        let parsed = requests(json!({"containers": [{"name": "a"}, container("1")]}));
        assert_eq!(parsed.requested.milli_cpu, 1000);
        assert_eq!(parsed.non_zero_milli_cpu, 1100);
        assert_eq!(parsed.non_zero_memory_bytes, DEFAULT_MEMORY_BYTES + (64 << 20));
    }
}
