//! Finds kinds: by resource, by kind, and by group and version for discovery.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_api::{GroupVersion, GroupVersionKind, GroupVersionResource};

use crate::descriptor::Descriptor;

/// The reason why a row cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("resource {0} is already served")]
    DuplicateResource(GroupVersionResource),
    #[error("kind {0} is already served")]
    DuplicateKind(GroupVersionKind),
}

/// All served kinds. Cloning is cheap enough for copy-on-write: rows are shared.
#[derive(Clone, Default)]
pub struct Registry {
    rows: Vec<Arc<Descriptor>>,
    by_resource: HashMap<GroupVersionResource, Arc<Descriptor>>,
    by_kind: HashMap<GroupVersionKind, Arc<Descriptor>>,
}

impl Registry {
    /// Returns the built-in kinds.
    #[must_use]
    pub fn builtin() -> Self {
        let mut registry = Registry::default();
        for descriptor in crate::builtin() {
            registry.add(descriptor).expect("the built-in table names no kind twice");
        }
        registry
    }

    /// # Errors
    /// When the resource or the kind is already served.
    pub fn add(&mut self, descriptor: Descriptor) -> Result<(), RegistryError> {
        if self.by_resource.contains_key(&descriptor.resource) {
            return Err(RegistryError::DuplicateResource(descriptor.resource));
        }
        if self.by_kind.contains_key(&descriptor.kind) {
            return Err(RegistryError::DuplicateKind(descriptor.kind));
        }
        let descriptor = Arc::new(descriptor);
        self.by_resource.insert(descriptor.resource.clone(), Arc::clone(&descriptor));
        self.by_kind.insert(descriptor.kind.clone(), Arc::clone(&descriptor));
        self.rows.push(descriptor);
        Ok(())
    }

    /// Removes a row; `None` when there is none.
    pub fn remove(&mut self, resource: &GroupVersionResource) -> Option<Arc<Descriptor>> {
        let descriptor = self.by_resource.remove(resource)?;
        self.by_kind.remove(&descriptor.kind);
        self.rows.retain(|row| row.resource != *resource);
        Some(descriptor)
    }

    #[must_use]
    pub fn by_resource(&self, resource: &GroupVersionResource) -> Option<&Arc<Descriptor>> {
        self.by_resource.get(resource)
    }

    #[must_use]
    pub fn by_kind(&self, kind: &GroupVersionKind) -> Option<&Arc<Descriptor>> {
        self.by_kind.get(kind)
    }

    /// Returns all rows in the order in which they were added.
    #[must_use]
    pub fn rows(&self) -> &[Arc<Descriptor>] {
        &self.rows
    }

    /// Returns the rows of a group and version, in order.
    pub fn in_version<'a>(&'a self, version: &'a GroupVersion) -> impl Iterator<Item = &'a Arc<Descriptor>> {
        self.rows.iter().filter(|row| row.kind.group == version.group && row.kind.version == version.version)
    }

    /// Returns each group with its versions, the preferred one first, in the order of the rows.
    #[must_use]
    pub fn groups(&self) -> Vec<(String, Vec<GroupVersion>)> {
        let mut groups: Vec<(String, Vec<GroupVersion>)> = Vec::new();
        for row in &self.rows {
            let version = GroupVersion { group: row.kind.group.clone(), version: row.kind.version.clone() };
            match groups.iter_mut().find(|(group, _)| *group == row.kind.group) {
                Some((_, versions)) if versions.contains(&version) => {}
                Some((_, versions)) => versions.push(version),
                None => groups.push((row.kind.group.to_string(), vec![version])),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_added_and_removed() {
        let mut registry = Registry::builtin();
        let deployments = GroupVersionResource::from_static("apps", "v1", "deployments");
        let kind = registry.by_resource(&deployments).expect("deployments").kind.clone();
        assert_eq!(kind.to_string(), "apps/v1, Kind=Deployment");
        let row = (**registry.by_kind(&kind).expect("by kind")).clone();
        assert_eq!(registry.add(row.clone()), Err(RegistryError::DuplicateResource(deployments.clone())));
        assert!(registry.remove(&deployments).is_some() && registry.by_kind(&kind).is_none());
        assert_eq!(registry.add(row), Ok(()));
    }

    #[test]
    fn groups_keep_the_order_of_the_rows() {
        let groups: Vec<String> = Registry::builtin().groups().into_iter().map(|(group, _)| group).collect();
        assert_eq!(groups[..4], ["", "apiregistration.k8s.io", "apps", "authentication.k8s.io"]);
    }
}
