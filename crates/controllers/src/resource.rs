//! The resources that controllers write, and helpers to build actions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use quorate_api::{GroupVersion, GroupVersionResource, ObjectKey};
use serde_json::{Value, json};

use crate::cache::Meta;
use crate::plan::{Action, EventType, Target};

pub(crate) const PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");
pub(crate) const NODES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "nodes");
pub(crate) const CONFIG_MAPS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "configmaps");
pub(crate) const SERVICE_ACCOUNTS: GroupVersionResource =
    GroupVersionResource::from_static("", "v1", "serviceaccounts");
pub(crate) const NAMESPACES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "namespaces");
pub(crate) const RESOURCE_QUOTAS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "resourcequotas");
pub(crate) const SERVICES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "services");
pub(crate) const ENDPOINTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "endpoints");
pub(crate) const REPLICATION_CONTROLLERS: GroupVersionResource =
    GroupVersionResource::from_static("", "v1", "replicationcontrollers");
pub(crate) const REPLICA_SETS: GroupVersionResource = GroupVersionResource::from_static("apps", "v1", "replicasets");
pub(crate) const DEPLOYMENTS: GroupVersionResource = GroupVersionResource::from_static("apps", "v1", "deployments");
pub(crate) const ENDPOINT_SLICES: GroupVersionResource =
    GroupVersionResource::from_static("discovery.k8s.io", "v1", "endpointslices");

/// Returns the target of an object, from its metadata.
pub(crate) fn target(resource: GroupVersionResource, metadata: &ObjectMeta) -> Target {
    Target { resource, namespace: metadata.namespace.clone(), name: metadata.name.clone().unwrap_or_default() }
}

/// Returns the target of an object of any kind, with the version of its stored `apiVersion`.
pub(crate) fn target_of(key: &ObjectKey, meta: &Meta) -> Target {
    let version = GroupVersion::parse(&meta.api_version).version;
    Target {
        resource: GroupVersionResource {
            group: key.group.clone().into(),
            version,
            resource: key.resource.clone().into(),
        },
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// Deletes the object with exactly this uid, with the object's own grace period.
pub(crate) fn delete(target: Target, uid: Option<&str>) -> Action {
    Action::Delete {
        target,
        uid: uid.map(str::to_owned),
        resource_version: None,
        grace_period_seconds: None,
        propagation: None,
        guards: Vec::new(),
    }
}

/// Returns an event about an object.
pub(crate) fn event<K>(object: &K, event_type: EventType, reason: &'static str, message: String) -> Action
where
    K: Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = object.metadata();
    let mut regarding = json!({"apiVersion": K::API_VERSION, "kind": K::KIND});
    let fields = [
        ("namespace", &metadata.namespace),
        ("name", &metadata.name),
        ("uid", &metadata.uid),
        ("resourceVersion", &metadata.resource_version),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            regarding[field] = Value::String(value.clone());
        }
    }
    Action::Event { regarding, event_type, reason, message }
}

/// Returns a write followed by the event that reports it.
pub(crate) fn reported(write: Action, report: Option<Action>) -> Action {
    match report {
        Some(report) => Action::Sequence(vec![write, report]),
        None => write,
    }
}

/// Combines independent actions into one; `None` for an empty list.
pub(crate) fn batch(mut actions: Vec<Action>) -> Option<Action> {
    match actions.len() {
        0 => None,
        1 => actions.pop(),
        _ => Some(Action::Batch(actions)),
    }
}

/// Returns the JSON of a typed object.
pub(crate) fn to_json<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("the object model has string keys and finite numbers only")
}

pub(crate) fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}
