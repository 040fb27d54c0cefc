//! A cached object: the metadata for every kind, the whole object for the kinds that controllers read.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use quorate_api::{ObjectKey, Revision};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Metadata of an object of any kind, as garbage collection and namespace deletion need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    pub api_version: String,
    pub kind: String,
    pub uid: String,
    pub name: String,
    /// `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deletion_timestamp: Option<Timestamp>,
    /// Revision of the object's last write, which is its `resourceVersion`.
    pub resource_version: Revision,
    pub labels: BTreeMap<String, String>,
}

impl Meta {
    /// Returns the owner that controls this object, if it has one.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }

    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    #[must_use]
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    fn new(api_version: &str, kind: &str, metadata: &ObjectMeta, revision: Revision) -> Self {
        Meta {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            uid: metadata.uid.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone(),
            owner_references: metadata.owner_references.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            deletion_timestamp: metadata.deletion_timestamp.as_ref().map(|t| t.0),
            resource_version: revision,
            labels: metadata.labels.clone().unwrap_or_default(),
        }
    }
}

/// Name of the ConfigMap that publishes the cluster's certificate authority in each namespace.
pub(crate) const ROOT_AUTHORITY: &str = "kube-root-ca.crt";

/// The typed object, for the kinds that controllers read.
#[derive(Clone, Debug)]
pub enum Object {
    Pod(Arc<Pod>),
    Node(Arc<Node>),
    ReplicaSet(Arc<ReplicaSet>),
    Deployment(Arc<Deployment>),
    Service(Arc<Service>),
    Endpoints(Arc<Endpoints>),
    EndpointSlice(Arc<EndpointSlice>),
    Namespace(Arc<Namespace>),
    Lease(Arc<Lease>),
    PersistentVolumeClaim(Arc<PersistentVolumeClaim>),
    ResourceQuota(Arc<ResourceQuota>),
    /// ConfigMap that holds the cluster's certificate authority; other ConfigMaps are [`Object::Other`].
    RootAuthority(Arc<ConfigMap>),
    /// Any other kind; only its metadata is cached.
    Other,
}

/// One object as of its last write. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Entry {
    pub meta: Arc<Meta>,
    pub object: Object,
}

impl Entry {
    pub(super) fn decode(key: &ObjectKey, value: &[u8], revision: Revision) -> Result<Self, serde_json::Error> {
        match (key.group.as_str(), key.resource.as_str()) {
            ("", "pods") => typed(value, revision, Object::Pod),
            ("", "nodes") => typed(value, revision, Object::Node),
            ("apps", "replicasets") => typed(value, revision, Object::ReplicaSet),
            ("apps", "deployments") => typed(value, revision, Object::Deployment),
            ("", "services") => typed(value, revision, Object::Service),
            ("", "endpoints") => typed(value, revision, Object::Endpoints),
            ("discovery.k8s.io", "endpointslices") => typed(value, revision, Object::EndpointSlice),
            ("", "namespaces") => typed(value, revision, Object::Namespace),
            ("coordination.k8s.io", "leases") => typed(value, revision, Object::Lease),
            ("", "persistentvolumeclaims") => typed(value, revision, Object::PersistentVolumeClaim),
            ("", "resourcequotas") => typed(value, revision, Object::ResourceQuota),
            ("", "configmaps") if key.name == ROOT_AUTHORITY => typed(value, revision, Object::RootAuthority),
            _ => Self::decode_metadata(value, revision),
        }
    }

    pub(super) fn decode_metadata(value: &[u8], revision: Revision) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Partial {
            api_version: String,
            kind: String,
            metadata: ObjectMeta,
        }
        let partial: Partial = serde_json::from_slice(value)?;
        let meta = Meta::new(&partial.api_version, &partial.kind, &partial.metadata, revision);
        Ok(Entry { meta: Arc::new(meta), object: Object::Other })
    }
}

fn typed<K>(value: &[u8], revision: Revision, wrap: fn(Arc<K>) -> Object) -> Result<Entry, serde_json::Error>
where
    K: DeserializeOwned + Metadata<Ty = ObjectMeta> + Resource,
{
    let mut object: K = serde_json::from_slice(value)?;
    let metadata = object.metadata_mut();
    metadata.resource_version = Some(revision.to_string());
    // No controller reads field ownership, and it can be larger than the rest of the object.
    metadata.managed_fields = None;
    let meta = Meta::new(K::API_VERSION, K::KIND, object.metadata(), revision);
    Ok(Entry { meta: Arc::new(meta), object: wrap(Arc::new(object)) })
}
