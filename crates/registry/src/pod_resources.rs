//! The requests and limits of a whole pod, as limit ranges and quotas count them.
//!
//! The rule is that of `k8s.io/component-helpers/resource`. Regular containers and sidecars run together. An ordinary
//! init container runs beside the sidecars that were started before it. The pod counts for the greater of the two.
//! Resources that the pod itself names replace the sums over its containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use quorate_api::Quantity;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// The two lists of a container's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Requests,
    Limits,
}

/// Whether a total includes the pod's overhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overhead {
    Counted,
    Ignored,
}

/// Parses a list of amounts. Validated objects hold nothing but quantities.
#[must_use]
pub fn amounts(list: Option<&BTreeMap<String, Amount>>) -> Amounts {
    let parsed = |(name, amount): (&String, &Amount)| Some((name.clone(), Quantity::try_from(amount).ok()?));
    list.into_iter().flatten().filter_map(parsed).collect()
}

impl Side {
    /// Returns this side of a container's or a pod's resources.
    #[must_use]
    pub fn of(self, resources: Option<&ResourceRequirements>) -> Amounts {
        amounts(resources.and_then(|resources| match self {
            Side::Requests => resources.requests.as_ref(),
            Side::Limits => resources.limits.as_ref(),
        }))
    }
}

/// Returns whether the pod itself may request and limit this resource.
#[must_use]
pub fn is_pod_level(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

/// Returns the total of a pod.
#[must_use]
pub fn total(spec: &PodSpec, side: Side, overhead: Overhead) -> Amounts {
    let of = |container: &Container| side.of(container.resources.as_ref());
    let mut running = Amounts::new();
    spec.containers.iter().for_each(|container| add(&mut running, of(container)));
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut running, needed.clone());
            add(&mut sidecars, needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, sidecars.clone());
        }
        raise(&mut starting, needed);
    }
    raise(&mut running, starting);
    running.extend(side.of(spec.resources.as_ref()).into_iter().filter(|(resource, _)| is_pod_level(resource)));
    if overhead == Overhead::Counted {
        let mut extra = amounts(spec.overhead.as_ref());
        if side == Side::Limits {
            // A resource without a limit stays unlimited.
            extra.retain(|resource, _| running.contains_key(resource));
        }
        add(&mut running, extra);
    }
    running
}

/// Adds amounts to a total.
pub fn add(total: &mut Amounts, amounts: Amounts) {
    for (resource, amount) in amounts {
        *total.entry(resource).or_default() += amount;
    }
}

fn raise(total: &mut Amounts, amounts: Amounts) {
    for (resource, amount) in amounts {
        let slot = total.entry(resource).or_insert(amount);
        *slot = (*slot).max(amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn totals_follow_the_life_of_the_containers() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"limits": {"cpu": cpu}}});
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"limits": {"cpu": "3"}}});
        let cases: [(Value, &str); 6] = [
            (json!({"containers": [container("1"), container("2")]}), "3"),
            (json!({"containers": [container("1")], "initContainers": [container("5"), container("2")]}), "5"),
            (json!({"containers": [container("1")], "initContainers": [sidecar, container("2")]}), "5"),
            (json!({"containers": [container("1")], "initContainers": [container("2"), sidecar]}), "4"),
            (json!({"containers": [container("1")], "resources": {"limits": {"cpu": "7"}}}), "7"),
            (json!({"containers": [container("1")], "overhead": {"cpu": "500m", "memory": "1Gi"}}), "1500m"),
        ];
        for (spec, expected) in cases {
            let typed: PodSpec = serde_json::from_value(spec.clone()).expect("a pod spec");
            let total = total(&typed, Side::Limits, Overhead::Counted);
            assert_eq!(total.get("cpu").map(ToString::to_string).as_deref(), Some(expected), "{spec}");
            assert_eq!(total.get("memory"), None, "a resource without a limit stays unlimited");
        }
    }
}
