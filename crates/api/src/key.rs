//! Storage keys of objects: `/registry/<group>/<resource>[/<namespace>]/<name>`.
//!
//! The core group is written `core`. No part may contain a `/`, which name validation guarantees before a key is built.

use std::fmt;

/// The prefix of all Kubernetes objects in the key space.
pub const REGISTRY_ROOT: &str = "/registry/";

/// The collection of a resource, over all namespaces or in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePrefix {
    pub group: String,
    pub resource: String,
    pub namespace: Option<String>,
}

impl ResourcePrefix {
    /// Returns the key prefix of all objects of the collection, with a trailing slash.
    #[must_use]
    pub fn storage_prefix(&self) -> String {
        let mut prefix = format!("{REGISTRY_ROOT}{}/{}/", group_segment(&self.group), self.resource);
        if let Some(namespace) = &self.namespace {
            prefix.push_str(namespace);
            prefix.push('/');
        }
        prefix
    }
}

/// The identity of one object, without its version: the store keeps one encoding of each object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub group: String,
    pub resource: String,
    /// `None` for a cluster-scoped resource.
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectKey {
    #[must_use]
    pub fn storage_key(&self) -> String {
        let namespace = self.namespace.as_deref().map(|n| format!("{n}/")).unwrap_or_default();
        format!("{REGISTRY_ROOT}{}/{}/{namespace}{}", group_segment(&self.group), self.resource, self.name)
    }

    /// Parses a storage key, the inverse of [`ObjectKey::storage_key`]; `None` for a key of another shape.
    #[must_use]
    pub fn parse(storage_key: &str) -> Option<ObjectKey> {
        let mut parts = storage_key.strip_prefix(REGISTRY_ROOT)?.split('/');
        let group = match parts.next()? {
            "core" => String::new(),
            group => group.to_owned(),
        };
        let resource = parts.next()?.to_owned();
        let third = parts.next()?.to_owned();
        let (namespace, name) = match parts.next() {
            Some(name) => (Some(third), name.to_owned()),
            None => (None, third),
        };
        parts.next().is_none().then_some(ObjectKey { group, resource, namespace, name })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " {namespace}/{}", self.name),
            None => write!(f, " {}", self.name),
        }
    }
}

fn group_segment(group: &str) -> &str {
    if group.is_empty() { "core" } else { group }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        for (group, resource, namespace, name) in [
            ("", "pods", Some("default"), "web-1"),
            ("apps", "deployments", Some("kube-system"), "dns"),
            ("", "nodes", None, "worker-1"),
            ("coordination.k8s.io", "leases", Some("kube-node-lease"), "worker-1"),
        ] {
            let key = ObjectKey {
                group: group.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
            };
            assert_eq!(ObjectKey::parse(&key.storage_key()), Some(key));
        }
    }

    #[test]
    fn foreign_keys_do_not_parse() {
        for key in ["", "/registry/", "/registry/core/pods", "/other/core/pods/a/b", "/registry/core/pods/a/b/c"] {
            assert_eq!(ObjectKey::parse(key), None, "{key}");
        }
    }
}
