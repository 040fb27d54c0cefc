//! A node and the resources used on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::event::ClusterEvents;
use crate::pod::{Footprint, PodKey};
use crate::ports::HostPort;
use crate::resources::{ParseError, Resources, pod_capacity};
use crate::taint::Taint;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The part of a Node object that scheduling reads, parsed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSpec {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Whether the node is cordoned (`spec.unschedulable`).
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub allowed_pods: i64,
}

impl NodeSpec {
    /// # Errors
    /// Fails when an amount of `status.allocatable` is not a quantity.
    pub fn parse(node: &Node) -> Result<NodeSpec, ParseError> {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|s| s.taints.as_ref()).into_iter().flatten();
        let unschedulable = spec.and_then(|s| s.unschedulable).unwrap_or(false);
        Ok(NodeSpec {
            name: Arc::from(node.metadata.name.as_deref().unwrap_or_default()),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            // The taint of a cordon is ignored once the cordon is lifted. A controller removes it a moment later, and
            // waiting pods need not fail once more in between.
            taints: taints.filter_map(Taint::parse).filter(|taint| unschedulable || !taint.is_of_cordon()).collect(),
            unschedulable,
            allocatable: Resources::parse(allocatable)?,
            allowed_pods: pod_capacity(allocatable)?,
        })
    }

    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE_LABEL).map(String::as_str)
    }

    /// Returns the events by which this version of a node may help waiting pods.
    #[must_use]
    pub fn improvements_over(&self, before: &NodeSpec) -> ClusterEvents {
        let mut events = ClusterEvents::NONE;
        if self.allocatable != before.allocatable || self.allowed_pods > before.allowed_pods {
            events = events | ClusterEvents::NODE_ALLOCATABLE;
        }
        if self.labels != before.labels {
            events = events | ClusterEvents::NODE_LABELS;
        }
        if self.taints != before.taints {
            events = events | ClusterEvents::NODE_TAINTS;
        }
        if before.unschedulable && !self.unschedulable {
            events = events | ClusterEvents::NODE_UNCORDONED;
        }
        events
    }
}

/// A node with the sums over its pods. `spec` is `None` while pods are bound to the node but no Node object exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    pub spec: Option<NodeSpec>,
    pub pods: BTreeSet<PodKey>,
    pub requested: Resources,
    /// CPU requests, with a default for containers that request none. Used for scores.
    pub non_zero_milli_cpu: i64,
    pub non_zero_memory_bytes: i64,
    /// Used host ports, sorted. A port appears twice when two pods that use it were bound to the node without the
    /// scheduler.
    pub ports: Vec<HostPort>,
    /// Number of pods for each priority.
    priorities: BTreeMap<i32, usize>,
}

impl NodeInfo {
    /// Returns the lowest priority of a pod on the node; `None` without pods.
    #[must_use]
    pub fn lowest_priority(&self) -> Option<i32> {
        self.priorities.keys().next().copied()
    }

    pub(crate) fn add(&mut self, key: &PodKey, footprint: &Footprint) {
        self.pods.insert(key.clone());
        self.requested.add(&footprint.requests.requested);
        self.non_zero_milli_cpu += footprint.requests.non_zero_milli_cpu;
        self.non_zero_memory_bytes += footprint.requests.non_zero_memory_bytes;
        *self.priorities.entry(footprint.priority).or_default() += 1;
        for port in &footprint.ports {
            let index = self.ports.partition_point(|taken| taken <= port);
            self.ports.insert(index, port.clone());
        }
    }

    pub(crate) fn remove(&mut self, key: &PodKey, footprint: &Footprint) {
        self.pods.remove(key);
        self.requested.subtract(&footprint.requests.requested);
        self.non_zero_milli_cpu -= footprint.requests.non_zero_milli_cpu;
        self.non_zero_memory_bytes -= footprint.requests.non_zero_memory_bytes;
        if let Some(count) = self.priorities.get_mut(&footprint.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&footprint.priority);
            }
        }
        for port in &footprint.ports {
            if let Ok(index) = self.ports.binary_search(port) {
                self.ports.remove(index);
            }
        }
    }
}
