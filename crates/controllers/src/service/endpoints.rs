//! The Endpoints object of each service, which has the service's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::backend::{self, Family, Port};
use super::{HEADLESS, key_of, labels_for, managed_selector};
use crate::cache::{Cache, CachedKind, Change, Object};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::plan::{Action, Plan};
use crate::pod_state::{is_terminating, node_name};
use crate::resource::{ENDPOINTS, delete, name, namespace, target, to_json};

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Annotation on an object that holds only part of the addresses.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Maximum number of addresses in one object. EndpointSlices hold all addresses.
const MAX_ADDRESSES: usize = 1000;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpoints",
    reads: &[CachedKind::Service, CachedKind::Endpoints, CachedKind::Pod, CachedKind::Node, CachedKind::Namespace],
    writes: Writes::Only(&[ENDPOINTS]),
    triggers,
    all_keys,
    reconcile,
    resync: None,
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    let left = cache.endpoints().iter().filter(|endpoints| is_ours(&endpoints.metadata));
    let left = left.map(|endpoints| WorkKey::namespaced(namespace(&endpoints.metadata), name(&endpoints.metadata)));
    let mut keys: Vec<WorkKey> = cache.services().iter().map(|service| key_of(service)).chain(left).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn is_ours(metadata: &ObjectMeta) -> bool {
    let (label, value) = MANAGED_BY;
    metadata.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
}

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    match change.latest().map(|entry| &entry.object) {
        Some(Object::Endpoints(_)) => {
            change.key.namespace.iter().map(|namespace| WorkKey::namespaced(namespace, &change.key.name)).collect()
        }
        _ => super::triggers(cache, change),
    }
}

fn reconcile(Input { cache, .. }: Input<'_>, key: &WorkKey) -> Plan {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let present = cache.endpoints().get(namespace, &key.name);
    let Some(service) = cache.services().get(namespace, &key.name) else {
        let left = present.filter(|endpoints| is_ours(&endpoints.metadata) && !is_deleted(endpoints));
        let removal =
            left.map(|endpoints| delete(target(ENDPOINTS, &endpoints.metadata), endpoints.metadata.uid.as_deref()));
        return Plan { actions: removal.into_iter().collect(), requeue_after: None };
    };
    let Some(selector) = managed_selector(service) else { return Plan::default() };
    let pods = cache.pods_matching(namespace, selector);
    let action = write(cache, service, present.map(|endpoints| &**endpoints), &pods);
    Plan { actions: action.into_iter().collect(), requeue_after: None }
}

fn is_deleted(endpoints: &Endpoints) -> bool {
    endpoints.metadata.deletion_timestamp.is_some()
}

fn write(cache: &Cache, service: &Service, present: Option<&Endpoints>, pods: &[&Arc<Pod>]) -> Option<Action> {
    let (subsets, is_truncated) = subsets(service, pods);
    let mut wanted = present.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.subsets = (!subsets.is_empty()).then_some(subsets);
    wanted.metadata.labels = Some(labels_for(service, &[MANAGED_BY]));
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if is_truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    wanted.metadata.annotations = wanted.metadata.annotations.filter(|annotations| !annotations.is_empty());
    match present {
        None if cache.is_namespace_terminating(namespace(&service.metadata)) => None,
        None => Some(Action::Create {
            resource: ENDPOINTS,
            namespace: service.metadata.namespace.clone(),
            object: to_json(&wanted),
        }),
        Some(present) if is_same(present, &wanted) => None,
        Some(_) => Some(Action::Update {
            target: target(ENDPOINTS, &wanted.metadata),
            subresource: None,
            object: to_json(&wanted),
        }),
    }
}

fn is_same(present: &Endpoints, wanted: &Endpoints) -> bool {
    // Admission may add the headless label itself, so that label alone is no reason to write.
    let relevant = |endpoints: &Endpoints| {
        let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        let annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
        (labels, annotations, endpoints.subsets.clone().unwrap_or_default())
    };
    relevant(present) == relevant(wanted)
}

/// Returns the addresses grouped by the ports of their pods, and whether some did not fit.
fn subsets(service: &Service, pods: &[&Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let Some(family) = Family::of_service(service).first().copied() else { return (Vec::new(), false) };
    let has_ports = service.spec.as_ref().is_some_and(|spec| spec.ports.iter().flatten().next().is_some());
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let mut total = 0;
    let candidates = pods.iter().filter(|pod| backend::is_candidate(pod)).filter(|pod| {
        // A terminating pod is left out at once, unless the service publishes addresses that are not ready.
        !is_terminating(pod) || backend::publishes_not_ready(service)
    });
    for pod in candidates {
        let Some(ip) = backend::address(pod, family) else { continue };
        let ports = backend::ports(pod, service);
        if ports.is_empty() && has_ports {
            continue;
        }
        total += 1;
        if total > MAX_ADDRESSES {
            break;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: backend::hostname(pod, service),
            node_name: Some(node_name(pod).to_owned()).filter(|node| !node.is_empty()),
            target_ref: Some(backend::target_reference(pod)),
        };
        let (ready, not_ready) = groups.entry(ports).or_default();
        if backend::takes_traffic(pod, service) { ready.push(address) } else { not_ready.push(address) }
    }
    let subsets = groups.into_iter().map(|(ports, (ready, not_ready))| EndpointSubset {
        addresses: sorted(ready),
        not_ready_addresses: sorted(not_ready),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
    });
    (subsets.collect(), total > MAX_ADDRESSES)
}

fn sorted(mut addresses: Vec<EndpointAddress>) -> Option<Vec<EndpointAddress>> {
    addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
    (!addresses.is_empty()).then_some(addresses)
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}
