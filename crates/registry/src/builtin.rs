//! The rows of the built-in kinds, in discovery's order.

use std::borrow::Cow;
use std::sync::Arc;

use quorate_api::{GroupVersionKind, GroupVersionResource};

use crate::descriptor::{Descriptor, Scope, Verb};
use crate::kind::{Builtin, Kind};
use crate::kinds::{
    ConfigMap, Deployment, EndpointSlice, Endpoints, Event, Lease, Namespace, Node, Pod, ReplicaSet, Secret, Service,
    ServiceAccount,
};
use crate::schema::Schema;
use crate::subresource::Subresource;
use crate::versions::EVENTS_V1;

const ALL: &[&str] = &["all"];
const SCALABLE: &[Subresource] = &[Subresource::Scale, Subresource::Status];
const NAMESPACE_VERBS: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// The groups in discovery's order. kubectl resolves a name that several groups have to the first of them.
const GROUPS: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// The kinds that every cluster has.
#[must_use]
pub fn builtin() -> Vec<Descriptor> {
    let mut namespaces = row::<Namespace>("", "Namespace", "namespaces", &["ns"]);
    namespaces.scope = Scope::Cluster;
    namespaces.verbs = NAMESPACE_VERBS;
    namespaces.subresources = &[Subresource::Finalize, Subresource::Status];

    let mut nodes = row::<Node>("", "Node", "nodes", &["no"]);
    nodes.scope = Scope::Cluster;
    nodes.subresources = &[Subresource::NodeProxy, Subresource::Status];

    let mut pods = row::<Pod>("", "Pod", "pods", &["po"]);
    pods.categories = Cow::Borrowed(ALL);
    pods.returns_deleted = true;
    pods.subresources = &[
        Subresource::Attach,
        Subresource::Binding,
        Subresource::EphemeralContainers,
        Subresource::Eviction,
        Subresource::Exec,
        Subresource::Log,
        Subresource::PortForward,
        Subresource::PodProxy,
        Subresource::Resize,
        Subresource::Status,
    ];

    let mut services = row::<Service>("", "Service", "services", &["svc"]);
    services.categories = Cow::Borrowed(ALL);
    services.subresources = &[Subresource::ServiceProxy, Subresource::Status];
    services.creates_on_update = true;
    services.returns_deleted = true;

    let mut deployments = row::<Deployment>("apps", "Deployment", "deployments", &["deploy"]);
    deployments.categories = Cow::Borrowed(ALL);
    deployments.subresources = SCALABLE;

    let mut replicasets = row::<ReplicaSet>("apps", "ReplicaSet", "replicasets", &["rs"]);
    replicasets.categories = Cow::Borrowed(ALL);
    replicasets.subresources = SCALABLE;

    let mut endpoints = row::<Endpoints>("", "Endpoints", "endpoints", &["ep"]);
    endpoints.creates_on_update = true;

    let mut events = row::<Event>("", "Event", "events", &["ev"]);
    events.creates_on_update = true;
    events.versions = EVENTS_V1;

    let mut serviceaccounts = row::<ServiceAccount>("", "ServiceAccount", "serviceaccounts", &["sa"]);
    serviceaccounts.returns_deleted = true;

    let mut leases = row::<Lease>("coordination.k8s.io", "Lease", "leases", &[]);
    leases.creates_on_update = true;

    let typed = vec![
        row::<ConfigMap>("", "ConfigMap", "configmaps", &["cm"]),
        endpoints,
        events,
        namespaces,
        nodes,
        pods,
        row::<Secret>("", "Secret", "secrets", &[]),
        serviceaccounts,
        services,
        deployments,
        replicasets,
        leases,
        row::<EndpointSlice>("discovery.k8s.io", "EndpointSlice", "endpointslices", &[]),
    ];
    let mut all: Vec<Descriptor> = typed.into_iter().chain(crate::rows::rows()).collect();
    all.sort_by_key(|row| (group_rank(&row.kind.group), row.resource.resource.clone()));
    all
}

/// Returns a group's place in discovery. Groups that are not built in come last.
#[must_use]
pub fn group_rank(group: &str) -> usize {
    GROUPS.iter().position(|known| *known == group).unwrap_or(GROUPS.len())
}

/// A namespaced `v1` kind with all verbs and no subresources.
fn row<K: Kind>(
    group: &'static str,
    kind: &'static str,
    resource: &'static str,
    short_names: &'static [&'static str],
) -> Descriptor {
    let gvk = GroupVersionKind::from_static(group, "v1", kind);
    Descriptor {
        schema: Schema::of(&gvk).expect("the schema has the types of all built-in kinds, which a test checks"),
        kind: gvk,
        list_kind: Cow::Owned(format!("{kind}List")),
        resource: GroupVersionResource::from_static(group, "v1", resource),
        singular: Cow::Owned(kind.to_ascii_lowercase()),
        short_names: Cow::Borrowed(short_names),
        categories: Cow::Borrowed(&[]),
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        versions: &[],
        answer: None,
        creates_on_update: false,
        returns_deleted: false,
        columns: K::columns(),
        strategy: Arc::new(Builtin::<K>::default()),
    }
}

#[cfg(test)]
mod tests;
