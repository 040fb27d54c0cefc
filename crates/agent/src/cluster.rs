//! The trait through which the agent talks to the masters. The API client implements it, and so do the tests.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, PodStatus, Secret, Service};

use crate::plan::PodRef;

/// Why a request to the masters failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("no master answered")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{message}")]
    Refused { code: u16, reason: String, message: String },
}

impl ClusterError {
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            ClusterError::Unreachable(_) => None,
            ClusterError::Refused { code, .. } => Some(*code),
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object exists already, or is another one than the caller meant.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

/// A change to the objects of one watch.
#[derive(Clone, Debug)]
pub enum ObjectChange<K> {
    /// The complete list, on start and after a gap in the watch.
    Synced(Vec<K>),
    Applied(Box<K>),
    Deleted(Box<K>),
}

/// A change to the pods bound to this node.
pub type PodChange = ObjectChange<Pod>;
/// A change to the Services of the cluster.
pub type ServiceChange = ObjectChange<Service>;

/// An object that a pod refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectRef {
    ConfigMap { namespace: String, name: String },
    Secret { namespace: String, name: String },
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ObjectRef::ConfigMap { name, .. } => write!(f, "configmap \"{name}\""),
            ObjectRef::Secret { name, .. } => write!(f, "secret \"{name}\""),
        }
    }
}

/// The masters, as the agent sees them. Every call has its own deadline.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Watches the pods bound to this node. The stream retries inside and never ends by itself.
    fn pods(&self) -> BoxStream<'static, PodChange>;

    /// Watches the Services of the cluster. The stream retries inside and never ends by itself.
    fn services(&self) -> BoxStream<'static, ServiceChange>;

    /// Yields whenever the object was created, changed or deleted.
    fn changes_of(&self, object: &ObjectRef) -> BoxStream<'static, ()>;

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError>;

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError>;

    /// Writes a pod's status, if the pod still has this uid.
    async fn report_pod(&self, pod: &PodRef, status: &PodStatus) -> Result<(), ClusterError>;

    /// Whether the masters say now that the pod with this uid is bound to this node.
    async fn is_assigned(&self, pod: &PodRef) -> Result<bool, ClusterError>;

    /// Deletes a pod's object for good, if the pod still has this uid.
    async fn release_pod(&self, pod: &PodRef) -> Result<(), ClusterError>;

    async fn node(&self, name: &str) -> Result<Option<Node>, ClusterError>;

    async fn create_node(&self, node: &Node) -> Result<(), ClusterError>;

    /// Merges the status into an existing Node. The rest of the object stays.
    async fn report_node(&self, node: &Node) -> Result<(), ClusterError>;

    /// Sets these labels of an existing Node; its other labels stay.
    async fn label_node(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError>;

    /// Renews the node's lease. A missing lease is a NotFound error.
    async fn renew_lease(&self, node: &str, spec: &LeaseSpec) -> Result<(), ClusterError>;

    /// Creates the lease of a node. The Node object owns it, so the lease is deleted with that object.
    async fn create_lease(&self, node: &Node, spec: &LeaseSpec) -> Result<(), ClusterError>;

    async fn create_event(&self, event: &Event) -> Result<(), ClusterError>;

    /// Updates an event that has happened again.
    async fn repeat_event(&self, event: &Event) -> Result<(), ClusterError>;
}
