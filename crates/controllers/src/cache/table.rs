//! The table of objects of one kind by namespace and name, and the label index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_api::ObjectKey;

/// All objects of one kind, ordered by namespace and name. Cluster-scoped objects are stored under the empty namespace.
#[derive(Debug)]
pub struct Table<K> {
    by_namespace: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    /// Names of the objects without a controller, by namespace. These are the candidates for adoption.
    uncontrolled: BTreeMap<String, BTreeSet<String>>,
    len: usize,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table { by_namespace: BTreeMap::new(), uncontrolled: BTreeMap::new(), len: 0 }
    }
}

impl<K> Table<K> {
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.by_namespace.get(namespace)?.get(name)
    }

    /// Iterates over the objects of one namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.by_namespace.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Iterates over the objects of one namespace that have no controller, ordered by name.
    pub fn uncontrolled(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let names = self.uncontrolled.get(namespace).into_iter().flatten();
        let namespace = self.by_namespace.get(namespace);
        names.filter_map(move |name| namespace?.get(name))
    }

    /// Iterates over all objects, ordered by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.by_namespace.values().flat_map(BTreeMap::values)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        if let Some(names) = self.by_namespace.get_mut(namespace) {
            self.len -= usize::from(names.remove(&key.name).is_some());
            if names.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
        if let Some(names) = self.uncontrolled.get_mut(namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.uncontrolled.remove(namespace);
            }
        }
    }
}

impl<K: Metadata<Ty = ObjectMeta>> Table<K> {
    pub(super) fn insert(&mut self, key: &ObjectKey, object: &Arc<K>) {
        let namespace = key.namespace.clone().unwrap_or_default();
        let owners = object.metadata().owner_references.iter().flatten();
        if !owners.into_iter().any(|owner| owner.controller == Some(true)) {
            self.uncontrolled.entry(namespace.clone()).or_default().insert(key.name.clone());
        }
        let names = self.by_namespace.entry(namespace).or_default();
        self.len += usize::from(names.insert(key.name.clone(), Arc::clone(object)).is_none());
    }
}

/// Index of object names by namespace and label (or selector) pair.
#[derive(Debug, Default)]
pub(super) struct LabelIndex(HashMap<String, HashMap<String, HashMap<String, BTreeSet<String>>>>);

impl LabelIndex {
    pub(super) fn insert(&mut self, key: &ObjectKey, (label, value): (&String, &String)) {
        let namespace = self.0.entry(key.namespace.clone().unwrap_or_default()).or_default();
        let values = namespace.entry(label.clone()).or_default();
        values.entry(value.clone()).or_default().insert(key.name.clone());
    }

    pub(super) fn remove(&mut self, key: &ObjectKey, (label, value): (&String, &String)) {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let Some(labels) = self.0.get_mut(namespace) else { return };
        let Some(values) = labels.get_mut(label) else { return };
        let Some(names) = values.get_mut(value) else { return };
        names.remove(&key.name);
        if names.is_empty() {
            values.remove(value);
        }
        if values.is_empty() {
            labels.remove(label);
        }
        if labels.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// Iterates over the names that have the pair, in order.
    pub(super) fn holding(
        &self,
        namespace: &str,
        (label, value): (&String, &String),
    ) -> impl Iterator<Item = &String> + use<'_> {
        self.names(namespace, label, value).into_iter().flatten()
    }

    /// Iterates over the names that have every pair of `selector`, in order. It walks the shortest list and looks each
    /// name up in the others.
    pub(super) fn holding_all<'a>(
        &'a self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a String> + use<'a> {
        let lists: Option<Vec<_>> = selector.iter().map(|(l, v)| self.names(namespace, l, v)).collect();
        let mut lists = lists.unwrap_or_default();
        lists.sort_by_key(|names| names.len());
        let shortest = lists.first().copied();
        shortest.into_iter().flatten().filter(move |name| lists.iter().skip(1).all(|names| names.contains(*name)))
    }

    fn names(&self, namespace: &str, label: &str, value: &str) -> Option<&BTreeSet<String>> {
        self.0.get(namespace)?.get(label)?.get(value)
    }
}
