//! The usage of one object.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use quorate_api::Quantity;

use super::names::{self, BY_CLASS};
use super::{Counted, Subject};
use crate::pod_resources::{Amounts, Overhead, Side, amounts, is_pod_level, total};

/// The class of a claim, by its older name.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// A quota on one of these requires every container to set the amount. Upstream regrets this rule and extends it to no
/// other resource.
const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Returns what an object uses of each of the named resources, which must be ones that the quota [tracks](names::tracks)
/// for its kind. Resources of which it uses nothing may be missing.
pub(super) fn usage(subject: Subject<'_>, tracked: &[&str], now: Timestamp) -> Amounts {
    let one = Quantity::from_value(1);
    match subject.object {
        Counted::Pod(pod) => pod_usage(pod, tracked, now),
        Counted::Service(service) => service_usage(service, tracked),
        Counted::Claim(claim) => claim_usage(claim, tracked),
        Counted::Other => tracked.iter().map(|name| ((*name).to_owned(), one)).collect(),
    }
}

fn pod_usage(pod: &Pod, tracked: &[&str], now: Timestamp) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let uses_resources = !has_ended(pod) && !is_overdue(pod, now);
    let totals =
        uses_resources.then(|| [Side::Requests, Side::Limits].map(|side| total(spec, side, Overhead::Counted)));
    let of = |name: &str| match (name, &totals) {
        ("count/pods", _) | ("pods", Some(_)) => Some(Quantity::from_value(1)),
        (_, None) => None,
        (_, Some([requests, limits])) => match name.strip_prefix("limits.") {
            Some(resource) => limits.get(resource).copied(),
            None => requests.get(name.strip_prefix("requests.").unwrap_or(name)).copied(),
        },
    };
    tracked.iter().filter_map(|name| Some(((*name).to_owned(), of(name)?))).collect()
}

/// Returns whether a pod has ended, so that it uses nothing but its place in storage.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Returns whether a pod should have been gone by now, as on a lost node. It must not keep its replacement from starting.
fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    let (Some(deleted), Some(grace)) =
        (pod.metadata.deletion_timestamp.as_ref(), pod.metadata.deletion_grace_period_seconds)
    else {
        return false;
    };
    deleted.0.saturating_add(SignedDuration::from_secs(grace)).is_ok_and(|due| now > due)
}

fn service_usage(service: &Service, tracked: &[&str]) -> Amounts {
    let Some(spec) = &service.spec else { return Amounts::new() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let kind = spec.type_.as_deref().unwrap_or_default();
    let node_ports = match kind {
        "LoadBalancer" if spec.allocate_load_balancer_node_ports == Some(false) => {
            ports.iter().filter(|port| port.node_port.is_some_and(|port| port != 0)).count()
        }
        // The ports are not allocated yet, so those that the service will get count.
        "LoadBalancer" | "NodePort" => ports.len(),
        _ => 0,
    };
    let count = |number: usize| Quantity::from_value(i64::try_from(number).unwrap_or(i64::MAX));
    let of = |name: &str| match name {
        "services.nodeports" => count(node_ports),
        "services.loadbalancers" => count(usize::from(kind == "LoadBalancer")),
        _ => count(1),
    };
    tracked.iter().map(|name| ((*name).to_owned(), of(name))).collect()
}

fn claim_usage(claim: &PersistentVolumeClaim, tracked: &[&str]) -> Amounts {
    let Some(spec) = &claim.spec else { return Amounts::new() };
    let annotated = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    let class = annotated.or(spec.storage_class_name.as_ref()).map(String::as_str).unwrap_or_default();
    let requests = amounts(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let allocated = amounts(claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()));
    let storage = requests.get("storage").map(|requested| {
        // While a volume is being resized, the greater size counts.
        allocated.get("storage").map_or(*requested, |allocated| *allocated.max(requested)).rounded_to_integer()
    });
    let of = |name: &str| {
        let own = match name.split_once(BY_CLASS) {
            Some((wanted, own)) if wanted == class && !class.is_empty() => own,
            Some(_) => return None,
            None => name,
        };
        if own == "requests.storage" { storage } else { Some(Quantity::from_value(1)) }
    };
    tracked.iter().filter_map(|name| Some(((*name).to_owned(), of(name)?))).collect()
}

/// Returns the amounts that containers leave out although a quota on `tracked` needs them.
pub(super) fn missing(subject: Subject<'_>, tracked: &[&str]) -> Option<String> {
    let Counted::Pod(pod) = subject.object else { return None };
    let spec = pod.spec.as_ref()?;
    let sets = |side: Side| side.of(spec.resources.as_ref()).keys().any(|resource| is_pod_level(resource));
    if sets(Side::Requests) || sets(Side::Limits) {
        return None;
    }
    let required: Vec<&str> = tracked.iter().copied().filter(|name| REQUIRED.contains(name)).collect();
    if required.is_empty() {
        return None;
    }
    let mut without: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let [requests, limits] = [Side::Requests, Side::Limits].map(|side| side.of(container.resources.as_ref()));
        for name in &required {
            let is_set = match name.strip_prefix("limits.") {
                Some(resource) => limits.contains_key(resource),
                None => requests.contains_key(name.strip_prefix("requests.").unwrap_or(name)),
            };
            if !is_set {
                without.entry(name).or_default().insert(&container.name);
            }
        }
    }
    let listed: Vec<String> = without
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    (!listed.is_empty()).then(|| format!("must specify {}", listed.join("; ")))
}

/// Returns the names in a quota's `hard` list that count objects of this kind.
pub(super) fn tracked<'a>(group: &str, resource: &str, hard: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    hard.map(String::as_str).filter(|name| names::tracks(group, resource, name)).collect()
}
