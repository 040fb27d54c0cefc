//! The EndpointSlices of a service: at most 100 endpoints each, all of one IP family and with the same ports.
//!
//! Slices change as little as possible, because every node watches all of them. Endpoints stay in their slice, new
//! endpoints fill slices that change anyway, and a slice that would be deleted is reused instead of creating one.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::backend::{self, Family, Port};
use super::{labels_for, managed_selector};
use crate::cache::{Cache, CachedKind, Change, Object};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::naming::suffixed;
use crate::ownership::controller_reference;
use crate::plan::{Action, Plan};
use crate::pod_state::{is_ready, is_terminating, node_name};
use crate::resource::{ENDPOINT_SLICES, batch, delete, name, namespace, target, to_json, uid};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io");
const ZONE: &str = "topology.kubernetes.io/zone";

const MAX_ENDPOINTS: usize = 100;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpointslice",
    reads: &[CachedKind::Service, CachedKind::EndpointSlice, CachedKind::Pod, CachedKind::Node, CachedKind::Namespace],
    writes: Writes::Only(&[ENDPOINT_SLICES]),
    triggers,
    all_keys: super::all_keys,
    reconcile,
    resync: None,
};

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    let Some(Object::EndpointSlice(_)) = change.latest().map(|entry| &entry.object) else {
        return super::triggers(cache, change);
    };
    let mut keys: Vec<WorkKey> = change
        .sides()
        .filter_map(|side| {
            let service = side.meta.labels.get(SERVICE_NAME)?;
            Some(WorkKey::namespaced(side.meta.namespace.as_deref()?, service))
        })
        .collect();
    keys.dedup();
    keys
}

fn reconcile(Input { cache, .. }: Input<'_>, key: &WorkKey) -> Plan {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    // Garbage collection deletes the slices of a deleted service.
    let Some(service) = cache.services().get(namespace, &key.name) else { return Plan::default() };
    let Some(selector) = managed_selector(service) else { return Plan::default() };
    let pods = cache.pods_matching(namespace, selector);
    let families = Family::of_service(service);
    let mut actions = Vec::new();
    let present = slices_of(cache, service);
    for slice in present.iter().filter(|slice| !families.iter().any(|f| f.address_type() == slice.address_type)) {
        actions.push(delete_slice(slice));
    }
    for family in families {
        let of_family = present.iter().copied().filter(|slice| slice.address_type == family.address_type());
        let mut layout = Layout::of(of_family);
        for (ports, endpoints) in groups(cache, service, family, &pods) {
            layout.place(ports, endpoints);
        }
        actions.extend(layout.into_actions(cache, service, family));
    }
    Plan { actions: batch(actions).into_iter().collect(), requeue_after: None }
}

/// Returns the slices that this controller manages for the service, ordered by name.
fn slices_of<'a>(cache: &'a Cache, service: &'a Service) -> Vec<&'a Arc<EndpointSlice>> {
    let dependents = cache.dependents(uid(&service.metadata));
    dependents
        .filter(|(key, entry)| {
            let (label, value) = MANAGED_BY;
            key.resource == "endpointslices"
                && !entry.meta.is_terminating()
                && entry.meta.labels.get(label).is_some_and(|found| found == value)
        })
        .filter_map(|(key, _)| cache.endpoint_slices().get(key.namespace.as_deref()?, &key.name))
        .collect()
}

/// Returns the endpoints grouped by the ports of their pods. Without any endpoint there is one group without ports, so
/// that an empty slice shows that the service has been processed.
fn groups(cache: &Cache, service: &Service, family: Family, pods: &[&Arc<Pod>]) -> BTreeMap<Vec<Port>, Vec<Endpoint>> {
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| backend::is_candidate(pod)) {
        if let Some(address) = backend::address(pod, family) {
            let endpoint = endpoint(cache, service, pod, address);
            groups.entry(backend::ports(pod, service)).or_default().push(endpoint);
        }
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    groups
}

fn endpoint(cache: &Cache, service: &Service, pod: &Pod, address: &str) -> Endpoint {
    let node = Some(node_name(pod)).filter(|node| !node.is_empty());
    let labels = node.and_then(|node| cache.nodes().get("", node)?.metadata.labels.as_ref());
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(backend::takes_traffic(pod, service)),
            serving: Some(is_ready(pod)),
            terminating: Some(is_terminating(pod)),
        }),
        hostname: backend::hostname(pod, service),
        node_name: node.map(str::to_owned),
        target_ref: Some(backend::target_reference(pod)),
        zone: labels.and_then(|labels| labels.get(ZONE)).cloned(),
        ..Endpoint::default()
    }
}

/// Desired state of a slice.
struct Planned {
    present: Option<Arc<EndpointSlice>>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

impl Planned {
    fn room(&self) -> usize {
        MAX_ENDPOINTS.saturating_sub(self.endpoints.len())
    }

    fn has_other_endpoints(&self) -> bool {
        self.present.as_ref().is_none_or(|slice| slice.endpoints.as_deref().unwrap_or_default() != self.endpoints)
    }
}

/// Layout of the endpoints of one family over slices.
struct Layout {
    /// Slices that no group of ports has used yet.
    unclaimed: Vec<Arc<EndpointSlice>>,
    planned: Vec<Planned>,
}

impl Layout {
    fn of<'a>(slices: impl Iterator<Item = &'a Arc<EndpointSlice>>) -> Self {
        Layout { unclaimed: slices.cloned().collect(), planned: Vec::new() }
    }

    /// Lays out the endpoints that share `ports`. Endpoints that are already in a slice stay there.
    fn place(&mut self, ports: Vec<Port>, endpoints: Vec<Endpoint>) {
        let ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
        let mut missing: BTreeMap<Identity, Endpoint> =
            endpoints.into_iter().map(|endpoint| (Identity::of(&endpoint), endpoint)).collect();
        let is_of_group = |slice: &mut Arc<EndpointSlice>| slice.ports.as_deref().unwrap_or_default() == ports;
        let mut group: Vec<Planned> = Vec::new();
        for slice in self.unclaimed.extract_if(.., is_of_group) {
            let stored = slice.endpoints.iter().flatten().take(MAX_ENDPOINTS);
            let kept = stored.filter_map(|endpoint| missing.remove(&Identity::of(endpoint))).collect();
            group.push(Planned { present: Some(slice), ports: ports.clone(), endpoints: kept });
        }
        let mut missing: Vec<Endpoint> = missing.into_values().collect();
        fill(&mut group, &mut missing, Planned::has_other_endpoints);
        // The fullest slice that can take all remaining endpoints takes them; otherwise a new slice is created.
        if !missing.is_empty() {
            let fitting = group.iter().enumerate().filter(|(_, slice)| slice.room() >= missing.len());
            if let Some((index, _)) = fitting.min_by_key(|(_, slice)| slice.room()) {
                group[index].endpoints.append(&mut missing);
            }
        }
        while !missing.is_empty() || group.is_empty() {
            let rest = missing.split_off(missing.len().min(MAX_ENDPOINTS));
            group.push(Planned { present: None, ports: ports.clone(), endpoints: missing });
            missing = rest;
        }
        // An empty slice stays only if it is the last one with these ports.
        while group.len() > 1
            && let Some(index) = group.iter().position(|slice| slice.endpoints.is_empty())
        {
            self.unclaimed.extend(group.remove(index).present);
        }
        self.planned.append(&mut group);
    }

    fn into_actions(mut self, cache: &Cache, service: &Service, family: Family) -> Vec<Action> {
        for slice in self.planned.iter_mut().filter(|slice| slice.present.is_none()) {
            slice.present = self.unclaimed.pop();
        }
        let namespace = namespace(&service.metadata);
        let labels = labels_for(service, &[MANAGED_BY, (SERVICE_NAME, name(&service.metadata))]);
        let mut names: Vec<String> = Vec::new();
        let mut actions = Vec::new();
        let is_closed = cache.is_namespace_terminating(namespace);
        for planned in self.planned {
            if is_closed && planned.present.is_none() {
                continue;
            }
            let mut slice = match &planned.present {
                Some(present) => EndpointSlice::clone(present),
                None => {
                    let base = format!("{}-", name(&service.metadata));
                    let seed = [uid(&service.metadata).as_bytes(), family.address_type().as_bytes()];
                    let is_taken = |name: &str| {
                        names.iter().any(|n| n == name) || cache.endpoint_slices().get(namespace, name).is_some()
                    };
                    let slice_name = suffixed(&base, &seed, is_taken);
                    names.push(slice_name.clone());
                    new_slice(service, family, slice_name, base)
                }
            };
            slice.metadata.labels = Some(labels.clone());
            slice.ports = Some(planned.ports);
            slice.endpoints = Some(planned.endpoints);
            actions.extend(write(planned.present.as_deref(), &slice));
        }
        actions.extend(self.unclaimed.iter().map(|slice| delete_slice(slice)));
        actions
    }
}

/// Moves endpoints into the slices that `may_take` accepts, as far as there is room.
fn fill(group: &mut [Planned], missing: &mut Vec<Endpoint>, may_take: impl Fn(&Planned) -> bool) {
    for slice in group.iter_mut() {
        if may_take(slice) {
            let count = missing.len().min(slice.room());
            slice.endpoints.extend(missing.drain(..count));
        }
    }
}

/// Identity of an endpoint, independent of its state.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Identity(Option<String>, Option<String>, Vec<String>);

impl Identity {
    fn of(endpoint: &Endpoint) -> Self {
        let target = endpoint.target_ref.as_ref();
        let name = target.and_then(|target| target.name.clone());
        Identity(name, target.and_then(|target| target.uid.clone()), endpoint.addresses.clone())
    }
}

fn new_slice(service: &Service, family: Family, name: String, generate_name: String) -> EndpointSlice {
    EndpointSlice {
        address_type: family.address_type().to_owned(),
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(generate_name),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        ..EndpointSlice::default()
    }
}

fn write(present: Option<&EndpointSlice>, slice: &EndpointSlice) -> Option<Action> {
    let Some(present) = present else {
        return Some(Action::Create {
            resource: ENDPOINT_SLICES,
            namespace: slice.metadata.namespace.clone(),
            object: to_json(slice),
        });
    };
    let relevant = |slice: &EndpointSlice| {
        let ports = slice.ports.clone().unwrap_or_default();
        (slice.metadata.labels.clone(), ports, slice.endpoints.clone().unwrap_or_default())
    };
    (relevant(present) != relevant(slice)).then(|| Action::Update {
        target: target(ENDPOINT_SLICES, &slice.metadata),
        subresource: None,
        object: to_json(slice),
    })
}

fn delete_slice(slice: &EndpointSlice) -> Action {
    delete(target(ENDPOINT_SLICES, &slice.metadata), slice.metadata.uid.as_deref())
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        // A slice names every port; an unnamed port has the empty name.
        name: Some(port.name),
        port: Some(port.port),
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}
