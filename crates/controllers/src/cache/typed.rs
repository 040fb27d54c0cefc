//! The kinds that controllers read whole, one line each. Of every other kind only the metadata is cached.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quorate_api::{ObjectKey, Revision};

use super::Cache;
use super::object::{Entry, typed};
use super::table::Table;

/// Name of the ConfigMap that publishes the cluster's certificate authority in each namespace.
pub(crate) const ROOT_AUTHORITY: &str = "kube-root-ca.crt";

/// Declares the kinds: type, name of the table, group, resource, and which objects are cached whole.
macro_rules! kinds {
    ($($kind:ident, $table:ident, $group:literal, $resource:literal, $is_read:expr;)*) => {
        /// The typed object, for the kinds that controllers read.
        #[derive(Clone, Debug)]
        pub enum Object {
            $($kind(Arc<$kind>),)*
            /// Any other object; only its metadata is cached.
            Other,
        }

        /// A kind that controllers read whole.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CachedKind {
            $($kind,)*
        }

        /// The tables of all kinds.
        #[derive(Debug, Default)]
        pub(super) struct Tables {
            $($table: Table<$kind>,)*
        }

        impl Tables {
            pub(super) fn insert(&mut self, key: &ObjectKey, object: &Object) {
                match object {
                    $(Object::$kind(object) => self.$table.insert(key, object),)*
                    Object::Other => {}
                }
            }

            pub(super) fn remove(&mut self, key: &ObjectKey, object: &Object) {
                match object {
                    $(Object::$kind(_) => self.$table.remove(key),)*
                    Object::Other => {}
                }
            }
        }

        impl Cache {
            $(
                #[must_use]
                pub fn $table(&self) -> &Table<$kind> {
                    self.note_read(CachedKind::$kind);
                    &self.tables.$table
                }
            )*
        }

        impl Object {
            /// Returns the object's kind, if it is cached whole.
            #[must_use]
            pub fn kind(&self) -> Option<CachedKind> {
                match self {
                    $(Object::$kind(_) => Some(CachedKind::$kind),)*
                    Object::Other => None,
                }
            }
        }

        impl Entry {
            pub(super) fn decode(key: &ObjectKey, value: &[u8], revision: Revision) -> Result<Self, serde_json::Error> {
                match (key.group.as_str(), key.resource.as_str()) {
                    $(($group, $resource) if $is_read(key) => typed(value, revision, Object::$kind),)*
                    _ => Self::decode_metadata(value, revision),
                }
            }
        }
    };
}

kinds! {
    Pod, pods, "", "pods", all;
    Node, nodes, "", "nodes", all;
    ReplicaSet, replica_sets, "apps", "replicasets", all;
    ReplicationController, replication_controllers, "", "replicationcontrollers", all;
    Deployment, deployments, "apps", "deployments", all;
    Service, services, "", "services", all;
    Endpoints, endpoints, "", "endpoints", all;
    EndpointSlice, endpoint_slices, "discovery.k8s.io", "endpointslices", all;
    Namespace, namespaces, "", "namespaces", all;
    Lease, leases, "coordination.k8s.io", "leases", all;
    PersistentVolumeClaim, persistent_volume_claims, "", "persistentvolumeclaims", all;
    ResourceQuota, resource_quotas, "", "resourcequotas", all;
    ConfigMap, root_authorities, "", "configmaps", is_root_authority;
}

fn all(_: &ObjectKey) -> bool {
    true
}

fn is_root_authority(key: &ObjectKey) -> bool {
    key.name == ROOT_AUTHORITY
}
