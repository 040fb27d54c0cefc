//! What the agent needs of the masters, as a trait: the API behind it, or a test.

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

    /// The object is there already, or another one than the caller meant.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

/// A change to the pods bound to this node.
#[derive(Clone, Debug)]
pub enum PodChange {
    /// All of them, on start and after a gap.
    Synced(Vec<Pod>),
    Applied(Box<Pod>),
    Deleted(Box<Pod>),
}

/// A change to the Services of the cluster.
#[derive(Clone, Debug)]
pub enum ServiceChange {
    /// All of them, on start and after a gap.
    Synced(Vec<Service>),
    Applied(Box<Service>),
    Deleted(Box<Service>),
}

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
    /// The pods bound to this node, from now on. It retries inside and never ends by itself.
    fn pods(&self) -> BoxStream<'static, PodChange>;

    /// The Services of the cluster, from now on. It retries inside and never ends by itself.
    fn services(&self) -> BoxStream<'static, ServiceChange>;

    /// Yields whenever the object was changed, made or deleted.
    fn changes_of(&self, object: &ObjectRef) -> BoxStream<'static, ()>;

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError>;

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError>;

    /// Writes a pod's status, if it still is that very pod.
    async fn report_pod(&self, pod: &PodRef, status: &PodStatus) -> Result<(), ClusterError>;

    /// Whether the masters say at this moment that this very pod is this node's to run.
    async fn is_assigned(&self, pod: &PodRef) -> Result<bool, ClusterError>;

    /// Lets a pod's object go for good, if it still is that very pod.
    async fn release_pod(&self, pod: &PodRef) -> Result<(), ClusterError>;

    async fn node(&self, name: &str) -> Result<Option<Node>, ClusterError>;

    async fn create_node(&self, node: &Node) -> Result<(), ClusterError>;

    /// Merges the status into an existing Node; the rest of it stays.
    async fn report_node(&self, node: &Node) -> Result<(), ClusterError>;

    /// Sets these labels of an existing Node; its other labels stay.
    async fn label_node(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError>;

    /// Renews the node's lease. One that is absent is not found.
    async fn renew_lease(&self, node: &str, spec: &LeaseSpec) -> Result<(), ClusterError>;

    /// Makes the lease of a node, which belongs to that very Node object and goes with it.
    async fn create_lease(&self, node: &Node, spec: &LeaseSpec) -> Result<(), ClusterError>;

    async fn create_event(&self, event: &Event) -> Result<(), ClusterError>;

    /// The same thing happened again.
    async fn repeat_event(&self, event: &Event) -> Result<(), ClusterError>;
}
