//! The table of filters that a node must pass. The filters run in order, and the first that rejects a node decides the
//! reason.

use std::fmt;

use crate::event::ClusterEvents;
use crate::node::{NodeInfo, NodeSpec};
use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::taint::{Taint, is_tolerated};

/// Reason why a node was rejected. It borrows its strings, because thousands of nodes may be rejected for each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    Unschedulable,
    OtherNodeName,
    UntoleratedTaint {
        key: &'a str,
        value: &'a str,
    },
    NodeAffinity,
    PortsTaken,
    TooManyPods,
    Insufficient {
        resource: &'a str,
    },
    /// The pod's required affinity names its nodes, and this is not one of them.
    NotNamed,
}

impl fmt::Display for Reason<'_> {
    /// Writes the reason in kube-scheduler's wording.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unschedulable => f.write_str("node(s) were unschedulable"),
            Reason::OtherNodeName => f.write_str("node(s) didn't match the requested node name"),
            Reason::UntoleratedTaint { key, value } => write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Reason::NodeAffinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Reason::PortsTaken => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Reason::TooManyPods => f.write_str("Too many pods"),
            Reason::Insufficient { resource } => write!(f, "Insufficient {resource}"),
            Reason::NotNamed => f.write_str("node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        }
    }
}

/// A node and the pod that a filter checks it for.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub pod: &'a PodInfo,
    pub spec: &'a NodeSpec,
    pub node: &'a NodeInfo,
}

/// A row of the table.
pub struct Filter {
    /// Name of kube-scheduler's plugin.
    pub name: &'static str,
    /// Calls back with each reason to reject the node. Without a call, the node passes.
    pub check: for<'a> fn(Candidate<'a>, &mut dyn FnMut(Reason<'a>)),
    /// Events that may help a pod that this filter rejected.
    pub helped_by: ClusterEvents,
    /// Returns whether a node that this filter rejected might pass if other pods left it.
    pub may_be_vacated: fn(Candidate<'_>) -> bool,
}

/// All filters, in kube-scheduler's order.
pub const FILTERS: &[Filter] = &[
    Filter {
        name: "NodeUnschedulable",
        check: node_unschedulable,
        helped_by: ClusterEvents::NODE_ADDED.union(ClusterEvents::NODE_UNCORDONED),
        may_be_vacated: never,
    },
    Filter { name: "NodeName", check: node_name, helped_by: ClusterEvents::NODE_ADDED, may_be_vacated: never },
    Filter {
        name: "TaintToleration",
        check: taint_toleration,
        helped_by: ClusterEvents::NODE_ADDED.union(ClusterEvents::NODE_TAINTS),
        may_be_vacated: never,
    },
    Filter { name: "NodeAffinity", check: node_affinity, helped_by: AFFINITY_HELPED_BY, may_be_vacated: never },
    Filter {
        name: "NodePorts",
        check: node_ports,
        helped_by: ClusterEvents::NODE_ADDED.union(ClusterEvents::POD_REMOVED),
        may_be_vacated: |_| true,
    },
    Filter {
        name: "NodeResourcesFit",
        check: node_resources_fit,
        helped_by: ClusterEvents::NODE_ADDED.union(ClusterEvents::NODE_ALLOCATABLE).union(ClusterEvents::POD_REMOVED),
        may_be_vacated: fits_when_empty,
    },
];

pub(crate) const AFFINITY_HELPED_BY: ClusterEvents = ClusterEvents::NODE_ADDED.union(ClusterEvents::NODE_LABELS);

fn never(_: Candidate<'_>) -> bool {
    false
}

fn node_unschedulable<'a>(candidate: Candidate<'a>, reject: &mut dyn FnMut(Reason<'a>)) {
    if candidate.spec.unschedulable && !is_tolerated(&Taint::of_cordon(), &candidate.pod.tolerations) {
        reject(Reason::Unschedulable);
    }
}

fn node_name<'a>(candidate: Candidate<'a>, reject: &mut dyn FnMut(Reason<'a>)) {
    if candidate.pod.node_name.as_deref().is_some_and(|name| name != candidate.spec.name.as_ref()) {
        reject(Reason::OtherNodeName);
    }
}

fn taint_toleration<'a>(candidate: Candidate<'a>, reject: &mut dyn FnMut(Reason<'a>)) {
    let repelling = candidate.spec.taints.iter().filter(|taint| taint.repels());
    if let Some(taint) = repelling.into_iter().find(|taint| !is_tolerated(taint, &candidate.pod.tolerations)) {
        reject(Reason::UntoleratedTaint { key: &taint.key, value: &taint.value });
    }
}

fn node_affinity<'a>(candidate: Candidate<'a>, reject: &mut dyn FnMut(Reason<'a>)) {
    if !candidate.pod.required.matches(&candidate.spec.name, &candidate.spec.labels) {
        reject(Reason::NodeAffinity);
    }
}

fn node_ports<'a>(candidate: Candidate<'a>, reject: &mut dyn FnMut(Reason<'a>)) {
    let wanted = &candidate.pod.footprint.ports;
    if wanted.iter().any(|port| candidate.node.ports.iter().any(|taken| taken.conflicts_with(port))) {
        reject(Reason::PortsTaken);
    }
}

fn node_resources_fit<'a>(candidate: Candidate<'a>, reject: &mut dyn FnMut(Reason<'a>)) {
    let Candidate { pod, spec, node } = candidate;
    if i64::try_from(node.pods.len()).is_ok_and(|pods| pods + 1 > spec.allowed_pods) {
        reject(Reason::TooManyPods);
    }
    insufficient(&pod.footprint.requests.requested, &spec.allocatable, &node.requested, |resource| {
        reject(Reason::Insufficient { resource });
    });
}

fn fits_when_empty(candidate: Candidate<'_>) -> bool {
    let Candidate { pod, spec, .. } = candidate;
    let mut fits = true;
    insufficient(&pod.footprint.requests.requested, &spec.allocatable, &Resources::default(), |_| fits = false);
    fits
}

/// Calls back with each resource of which less is left than requested.
fn insufficient<'a>(
    wanted: &'a Resources,
    allocatable: &Resources,
    requested: &Resources,
    mut lacking: impl FnMut(&'a str),
) {
    let lacks =
        |wanted: i64, allocatable: i64, requested: i64| wanted > 0 && wanted > allocatable.saturating_sub(requested);
    if lacks(wanted.milli_cpu, allocatable.milli_cpu, requested.milli_cpu) {
        lacking("cpu");
    }
    if lacks(wanted.memory_bytes, allocatable.memory_bytes, requested.memory_bytes) {
        lacking("memory");
    }
    if lacks(wanted.ephemeral_storage_bytes, allocatable.ephemeral_storage_bytes, requested.ephemeral_storage_bytes) {
        lacking("ephemeral-storage");
    }
    for (name, amount) in wanted.extended_amounts() {
        if lacks(amount, allocatable.extended(name), requested.extended(name)) {
            lacking(name);
        }
    }
}
