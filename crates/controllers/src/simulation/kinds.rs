//! The kinds of the simulated API.

use std::collections::BTreeSet;

use quorate_api::{GroupVersion, GroupVersionResource};

use crate::kinds::{KindInfo, Kinds};

/// Served kinds: `apiVersion`, kind, resource, and whether the kind is namespaced.
const SERVED: [(&str, &str, &str, bool); 9] = [
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "Pod", "pods", true),
    ("v1", "Node", "nodes", false),
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Service", "services", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("v1", "ReplicationController", "replicationcontrollers", true),
    ("apps/v1", "ReplicaSet", "replicasets", true),
];

/// The served kinds except the named ones.
#[derive(Debug)]
pub(super) struct SimulatedKinds<'a>(pub &'a BTreeSet<String>);

impl Kinds for SimulatedKinds<'_> {
    fn find(&self, api_version: &str, kind: &str) -> Option<KindInfo> {
        let (_, _, resource, is_namespaced) =
            SERVED.iter().find(|row| (row.0, row.1) == (api_version, kind) && !self.0.contains(kind))?;
        let GroupVersion { group, version } = GroupVersion::parse(api_version);
        let resource = GroupVersionResource { group, version, resource: (*resource).into() };
        Some(KindInfo { resource, is_namespaced: *is_namespaced })
    }
}
