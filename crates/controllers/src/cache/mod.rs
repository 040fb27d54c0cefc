//! The cluster as the controllers see it: one in-memory view at one revision. Its indexes spare every trigger and every
//! reconcile a full scan. The cache holds only stored objects and the times at which this process saw nodes alive;
//! decisions live in the controllers' own modules.

mod heartbeat;
mod index;
mod object;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quorate_api::{ObjectKey, Revision};

use heartbeat::Heartbeats;
use index::Index;
pub(crate) use object::ROOT_AUTHORITY;
pub use object::{Entry, Meta, Object};
use table::LabelIndex;
pub use table::Table;

/// Reason why stored bytes could not be decoded into the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The metadata cannot be read. The previous entry under the key stays in the cache.
    #[error("{key} at revision {revision} has no readable metadata")]
    Metadata { key: ObjectKey, revision: Revision, source: serde_json::Error },
    /// Only the metadata is readable. It is cached, so that the object does not look deleted, but no controller sees
    /// the typed object until a readable version is written.
    #[error("{key} at revision {revision} does not decode as its kind")]
    Object { key: ObjectKey, revision: Revision, source: serde_json::Error },
}

/// Change that one `upsert` or `remove` made, as input for the controllers' triggers.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: ObjectKey,
    /// `None` when the object is new.
    pub old: Option<Entry>,
    /// `None` when the object is gone.
    pub new: Option<Entry>,
}

impl Change {
    /// Returns the new entry, or the old one when the object is gone.
    #[must_use]
    pub fn latest(&self) -> Option<&Entry> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Iterates over the old and the new entry, where they exist.
    pub fn sides(&self) -> impl Iterator<Item = &Entry> {
        self.old.iter().chain(self.new.iter())
    }
}

/// Typed, indexed view of the cluster. One task of the shell owns it, applies changes in revision order, and passes it
/// to triggers and reconciles by reference.
#[derive(Debug, Default)]
pub struct Cache {
    revision: Revision,
    entries: HashMap<Arc<ObjectKey>, Entry>,
    by_uid: HashMap<String, Arc<ObjectKey>>,
    by_owner: Index<String>,
    by_namespace: Index<String>,
    pods: Table<Pod>,
    pods_by_node: BTreeMap<String, BTreeMap<(String, String), Arc<Pod>>>,
    pods_by_label: LabelIndex,
    nodes: Table<Node>,
    replica_sets: Table<ReplicaSet>,
    deployments: Table<Deployment>,
    services: Table<Service>,
    services_by_selector: LabelIndex,
    endpoints: Table<Endpoints>,
    endpoint_slices: Table<EndpointSlice>,
    namespaces: Table<Namespace>,
    leases: Table<Lease>,
    resource_quotas: Table<ResourceQuota>,
    heartbeats: Heartbeats,
}

impl Cache {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores the bytes of an object of any kind, as of `revision` (the key's `mod_revision`, which becomes the typed
    /// object's `resourceVersion`). `at` is the time when this process saw the write, by its monotonic clock
    /// ([`crate::Input::uptime`]). Heartbeats are dated by it, so wall clocks do not matter.
    ///
    /// # Errors
    /// See [`CacheError`]; the cache stays usable after each of them.
    pub fn upsert(
        &mut self,
        key: &ObjectKey,
        value: &[u8],
        revision: Revision,
        at: Duration,
    ) -> Result<Change, CacheError> {
        self.revision = self.revision.max(revision);
        let (entry, failure) = match Entry::decode(key, value, revision) {
            Ok(entry) => (entry, None),
            Err(source) => match Entry::decode_metadata(value, revision) {
                Ok(entry) => (entry, Some(CacheError::Object { key: key.clone(), revision, source })),
                Err(source) => return Err(CacheError::Metadata { key: key.clone(), revision, source }),
            },
        };
        let old = self.detach(key);
        self.attach(key, &entry);
        let change = Change { key: key.clone(), old, new: Some(entry) };
        self.heartbeats.observe(&change, at);
        failure.map_or(Ok(change), Err)
    }

    /// Removes an object; `None` when the cache did not hold it.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Change> {
        let old = self.detach(key)?;
        let change = Change { key: key.clone(), old: Some(old), new: None };
        self.heartbeats.forget(&change);
        Some(change)
    }

    /// Restarts every node's grace period. The caller does this when the process wins leadership, and whenever it may
    /// have missed heartbeats (a pause of the process, a lost quorum), so that no node is declared silent because of
    /// an outage of the masters.
    pub fn begin_observation(&mut self, at: Duration) {
        self.heartbeats.begin(at);
    }

    /// Returns when this process last saw a sign of life of the node, or when it began to observe, whichever is later;
    /// `None` before either.
    #[must_use]
    pub fn last_heartbeat(&self, node: &str) -> Option<Duration> {
        self.heartbeats.last(node)
    }

    /// Returns the highest revision applied so far.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns an object of any kind.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Returns the object with this uid, of any kind.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<(&ObjectKey, &Entry)> {
        let key = self.by_uid.get(uid)?;
        Some((key, self.entries.get(key)?))
    }

    /// Iterates over all objects of all kinds, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        self.entries.iter().map(|(key, entry)| (&**key, entry))
    }

    /// Iterates over the objects that name this uid among their owners, ordered by key.
    pub fn dependents(&self, owner_uid: &str) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        self.by_owner.get(owner_uid).filter_map(|key| Some((&**key, self.entries.get(key)?)))
    }

    /// Iterates over the objects in the namespace, ordered by key.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        self.by_namespace.get(namespace).filter_map(|key| Some((&**key, self.entries.get(key)?)))
    }

    #[must_use]
    pub fn pods(&self) -> &Table<Pod> {
        &self.pods
    }

    #[must_use]
    pub fn nodes(&self) -> &Table<Node> {
        &self.nodes
    }

    #[must_use]
    pub fn replica_sets(&self) -> &Table<ReplicaSet> {
        &self.replica_sets
    }

    #[must_use]
    pub fn deployments(&self) -> &Table<Deployment> {
        &self.deployments
    }

    #[must_use]
    pub fn services(&self) -> &Table<Service> {
        &self.services
    }

    #[must_use]
    pub fn endpoints(&self) -> &Table<Endpoints> {
        &self.endpoints
    }

    #[must_use]
    pub fn endpoint_slices(&self) -> &Table<EndpointSlice> {
        &self.endpoint_slices
    }

    #[must_use]
    pub fn namespaces(&self) -> &Table<Namespace> {
        &self.namespaces
    }

    /// Returns whether the namespace is being deleted. The API refuses to create objects in such a namespace.
    #[must_use]
    pub fn is_namespace_terminating(&self, namespace: &str) -> bool {
        self.namespaces.get("", namespace).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }

    #[must_use]
    pub fn leases(&self) -> &Table<Lease> {
        &self.leases
    }

    #[must_use]
    pub fn resource_quotas(&self) -> &Table<ResourceQuota> {
        &self.resource_quotas
    }

    /// Iterates over the pods bound to a node, ordered by namespace and name. The node need not exist.
    pub fn pods_on_node(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods_by_node.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// Iterates over the names of all nodes that have pods bound to them.
    pub fn nodes_with_pods(&self) -> impl Iterator<Item = &str> {
        self.pods_by_node.keys().map(String::as_str)
    }

    /// Returns the pods in the namespace whose labels contain every pair of `selector`, ordered by name. An empty
    /// selector matches no pod.
    #[must_use]
    pub fn pods_matching(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<&Arc<Pod>> {
        let names = self.pods_by_label.holding_all(namespace, selector);
        names.filter_map(|name| self.pods.get(namespace, name)).collect()
    }

    /// Returns the services in the namespace whose selector matches the labels.
    #[must_use]
    pub fn services_selecting(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<&Arc<Service>> {
        let candidates = labels.iter().flat_map(|pair| self.services_by_selector.holding(namespace, pair));
        candidates
            .filter_map(|name| self.services.get(namespace, name))
            .filter(|service| selector_of(service).is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v))))
            .collect()
    }

    /// Iterates over the pods whose controller is the object with this uid, ordered by name.
    pub fn controlled_pods<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.controlled(uid, "", "pods").filter_map(|(namespace, name)| self.pods.get(namespace, name))
    }

    /// Iterates over the replica sets whose controller is the object with this uid, ordered by name.
    pub fn controlled_replica_sets<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
        self.controlled(uid, "apps", "replicasets")
            .filter_map(|(namespace, name)| self.replica_sets.get(namespace, name))
    }

    fn controlled<'a>(
        &'a self,
        uid: &'a str,
        group: &'a str,
        resource: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.dependents(uid)
            .filter(move |(key, entry)| {
                key.group == group
                    && key.resource == resource
                    && entry.meta.controller().is_some_and(|owner| owner.uid == uid)
            })
            .map(|(key, _)| (key.namespace.as_deref().unwrap_or_default(), key.name.as_str()))
    }

    fn attach(&mut self, key: &ObjectKey, entry: &Entry) {
        let key = Arc::new(key.clone());
        if !entry.meta.uid.is_empty() {
            self.by_uid.insert(entry.meta.uid.clone(), Arc::clone(&key));
        }
        for owner in &entry.meta.owner_references {
            self.by_owner.insert(&owner.uid, &key);
        }
        if let Some(namespace) = &key.namespace {
            self.by_namespace.insert(namespace, &key);
        }
        match &entry.object {
            Object::Pod(pod) => self.attach_pod(&key, pod),
            Object::Node(node) => self.nodes.insert(&key, node),
            Object::ReplicaSet(set) => self.replica_sets.insert(&key, set),
            Object::Deployment(deployment) => self.deployments.insert(&key, deployment),
            Object::Service(service) => {
                self.services.insert(&key, service);
                if let Some(first) = selector_of(service).and_then(|s| s.iter().next()) {
                    self.services_by_selector.insert(&key, first);
                }
            }
            Object::Endpoints(endpoints) => self.endpoints.insert(&key, endpoints),
            Object::EndpointSlice(slice) => self.endpoint_slices.insert(&key, slice),
            Object::Namespace(namespace) => self.namespaces.insert(&key, namespace),
            Object::Lease(lease) => self.leases.insert(&key, lease),
            Object::ResourceQuota(quota) => self.resource_quotas.insert(&key, quota),
            Object::PersistentVolumeClaim(_) | Object::RootAuthority(_) | Object::Other => {}
        }
        self.entries.insert(key, entry.clone());
    }

    fn detach(&mut self, key: &ObjectKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        // Another key may hold the same uid, so the uid is removed only if it points at this key.
        if self.by_uid.get(&entry.meta.uid).is_some_and(|k| **k == *key) {
            self.by_uid.remove(&entry.meta.uid);
        }
        for owner in &entry.meta.owner_references {
            self.by_owner.remove(&owner.uid, key);
        }
        if let Some(namespace) = &key.namespace {
            self.by_namespace.remove(namespace, key);
        }
        match &entry.object {
            Object::Pod(pod) => self.detach_pod(key, pod),
            Object::Node(_) => self.nodes.remove(key),
            Object::ReplicaSet(_) => self.replica_sets.remove(key),
            Object::Deployment(_) => self.deployments.remove(key),
            Object::Service(service) => {
                self.services.remove(key);
                if let Some(first) = selector_of(service).and_then(|s| s.iter().next()) {
                    self.services_by_selector.remove(key, first);
                }
            }
            Object::Endpoints(_) => self.endpoints.remove(key),
            Object::EndpointSlice(_) => self.endpoint_slices.remove(key),
            Object::Namespace(_) => self.namespaces.remove(key),
            Object::Lease(_) => self.leases.remove(key),
            Object::ResourceQuota(_) => self.resource_quotas.remove(key),
            Object::PersistentVolumeClaim(_) | Object::RootAuthority(_) | Object::Other => {}
        }
        Some(entry)
    }

    fn attach_pod(&mut self, key: &ObjectKey, pod: &Arc<Pod>) {
        self.pods.insert(key, pod);
        for pair in pod.metadata.labels.iter().flatten() {
            self.pods_by_label.insert(key, pair);
        }
        if let Some(node) = node_of(pod) {
            let pods = self.pods_by_node.entry(node.to_owned()).or_default();
            pods.insert((key.namespace.clone().unwrap_or_default(), key.name.clone()), Arc::clone(pod));
        }
    }

    fn detach_pod(&mut self, key: &ObjectKey, pod: &Pod) {
        self.pods.remove(key);
        for pair in pod.metadata.labels.iter().flatten() {
            self.pods_by_label.remove(key, pair);
        }
        if let Some(node) = node_of(pod)
            && let Some(pods) = self.pods_by_node.get_mut(node)
        {
            pods.remove(&(key.namespace.clone().unwrap_or_default(), key.name.clone()));
            if pods.is_empty() {
                self.pods_by_node.remove(node);
            }
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

#[cfg(test)]
mod tests;
