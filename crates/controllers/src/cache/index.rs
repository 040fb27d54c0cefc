//! Index from a value to the ordered set of keys that have it.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use quorate_api::ObjectKey;

/// Multimap that drops a value together with its last key, so it never grows beyond the objects it indexes.
#[derive(Debug)]
pub(super) struct Index<V>(HashMap<V, BTreeSet<Arc<ObjectKey>>>);

impl<V> Default for Index<V> {
    fn default() -> Self {
        Index(HashMap::new())
    }
}

impl<V: Clone + Eq + Hash> Index<V> {
    pub(super) fn insert(&mut self, value: &V, key: &Arc<ObjectKey>) {
        if let Some(keys) = self.0.get_mut(value) {
            keys.insert(Arc::clone(key));
        } else {
            self.0.insert(value.clone(), BTreeSet::from([Arc::clone(key)]));
        }
    }

    pub(super) fn remove(&mut self, value: &V, key: &ObjectKey) {
        if let Some(keys) = self.0.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                self.0.remove(value);
            }
        }
    }

    pub(super) fn get<Q>(&self, value: &Q) -> impl Iterator<Item = &Arc<ObjectKey>>
    where
        V: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.get(value).into_iter().flatten()
    }
}
