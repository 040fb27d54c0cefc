//! A pod as the scheduler sees it, parsed once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::node_selector::{RequiredNodes, Term, preferred_terms};
use crate::ports::HostPort;
use crate::requests::PodRequests;
use crate::resources::ParseError;
use crate::taint::Toleration;
use crate::unsupported;

/// A pod's namespace and name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl PodKey {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> PodKey {
        PodKey { namespace: Arc::from(namespace), name: Arc::from(name) }
    }

    #[must_use]
    pub fn of(pod: &Pod) -> PodKey {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        PodKey::new(namespace, pod.metadata.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Resources that a pod uses on its node, with its priority and owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub requests: PodRequests,
    /// Host ports, sorted.
    pub ports: Vec<HostPort>,
    /// Uid of the controller that owns the pod. The pods of one controller are spread.
    pub owner: Option<Arc<str>>,
    pub priority: i32,
}

impl Footprint {
    /// # Errors
    /// Fails when a request is not a quantity.
    pub fn parse(pod: &Pod) -> Result<Footprint, ParseError> {
        let owner = pod
            .metadata
            .owner_references
            .iter()
            .flatten()
            .find(|reference| reference.controller == Some(true))
            .map(|reference| Arc::from(reference.uid.as_str()));
        match &pod.spec {
            Some(spec) => Ok(Footprint {
                requests: PodRequests::of_pod(pod)?,
                ports: HostPort::of_pod(spec),
                owner,
                priority: spec.priority.unwrap_or(0),
            }),
            None => Ok(Footprint { owner, ..Footprint::default() }),
        }
    }
}

/// A pod that waits for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    pub key: PodKey,
    pub uid: Arc<str>,
    pub footprint: Footprint,
    /// Only node that the pod may be bound to (`spec.nodeName`).
    pub node_name: Option<String>,
    pub required: RequiredNodes,
    /// Only nodes that the pod's required affinity admits, if it names them.
    pub named_nodes: Option<BTreeSet<String>>,
    /// Weights and terms of the preferred node affinity.
    pub preferred: Vec<(i64, Term)>,
    pub tolerations: Vec<Toleration>,
    /// Paths of the fields that this scheduler does not honour.
    pub unsupported: Vec<String>,
    /// Whether scheduling gates hold the pod back (`spec.schedulingGates` is not empty).
    pub gated: bool,
}

impl PodInfo {
    /// # Errors
    /// Fails when a request is not a quantity.
    pub fn parse(pod: &Pod) -> Result<PodInfo, ParseError> {
        let spec = pod.spec.clone().unwrap_or_default();
        let required = RequiredNodes::parse(&spec);
        Ok(PodInfo {
            key: PodKey::of(pod),
            uid: Arc::from(pod.metadata.uid.as_deref().unwrap_or_default()),
            footprint: Footprint::parse(pod)?,
            named_nodes: required.named_nodes(),
            required,
            preferred: preferred_terms(&spec),
            tolerations: spec.tolerations.iter().flatten().filter_map(Toleration::parse).collect(),
            unsupported: unsupported::fields(&spec),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            node_name: spec.node_name.filter(|name| !name.is_empty()),
        })
    }
}
