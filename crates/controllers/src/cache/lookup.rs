//! The indexes of single kinds. Each follows the objects by itself; [`Lookups::each`] names them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use quorate_api::ObjectKey;

use super::table::LabelIndex;
use super::typed::Object;

/// An index over some of the objects.
trait Indexer {
    /// Adds an object, if the index is about its kind.
    fn insert(&mut self, key: &ObjectKey, object: &Object);
    /// Removes an object that was added.
    fn remove(&mut self, key: &ObjectKey, object: &Object);
}

/// All indexes of single kinds.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pub(super) pods_by_node: PodsByNode,
    pub(super) pods_by_label: PodsByLabel,
    pub(super) services_by_selector: ServicesBySelector,
}

impl Lookups {
    fn each(&mut self) -> [&mut dyn Indexer; 3] {
        [&mut self.pods_by_node, &mut self.pods_by_label, &mut self.services_by_selector]
    }

    pub(super) fn insert(&mut self, key: &ObjectKey, object: &Object) {
        self.each().into_iter().for_each(|index| index.insert(key, object));
    }

    pub(super) fn remove(&mut self, key: &ObjectKey, object: &Object) {
        self.each().into_iter().for_each(|index| index.remove(key, object));
    }
}

/// The bound pods of each node, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct PodsByNode(BTreeMap<String, BTreeMap<(String, String), Arc<Pod>>>);

impl PodsByNode {
    pub(super) fn of(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.0.get(node).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Indexer for PodsByNode {
    fn insert(&mut self, key: &ObjectKey, object: &Object) {
        let Object::Pod(pod) = object else { return };
        if let Some(node) = node_of(pod) {
            self.0.entry(node.to_owned()).or_default().insert(place(key), Arc::clone(pod));
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &Object) {
        let Object::Pod(pod) = object else { return };
        if let Some(node) = node_of(pod)
            && let Some(pods) = self.0.get_mut(node)
        {
            pods.remove(&place(key));
            if pods.is_empty() {
                self.0.remove(node);
            }
        }
    }
}

/// The names of the pods with each label.
#[derive(Debug, Default)]
pub(super) struct PodsByLabel(pub(super) LabelIndex);

impl Indexer for PodsByLabel {
    fn insert(&mut self, key: &ObjectKey, object: &Object) {
        let Object::Pod(pod) = object else { return };
        pod.metadata.labels.iter().flatten().for_each(|pair| self.0.insert(key, pair));
    }

    fn remove(&mut self, key: &ObjectKey, object: &Object) {
        let Object::Pod(pod) = object else { return };
        pod.metadata.labels.iter().flatten().for_each(|pair| self.0.remove(key, pair));
    }
}

/// The names of the services by the first pair of their selectors.
#[derive(Debug, Default)]
pub(super) struct ServicesBySelector(pub(super) LabelIndex);

impl Indexer for ServicesBySelector {
    fn insert(&mut self, key: &ObjectKey, object: &Object) {
        let Object::Service(service) = object else { return };
        if let Some(first) = selector_of(service).and_then(|selector| selector.iter().next()) {
            self.0.insert(key, first);
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &Object) {
        let Object::Service(service) = object else { return };
        if let Some(first) = selector_of(service).and_then(|selector| selector.iter().next()) {
            self.0.remove(key, first);
        }
    }
}

fn place(key: &ObjectKey) -> (String, String) {
    (key.namespace.clone().unwrap_or_default(), key.name.clone())
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub(super) fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}
