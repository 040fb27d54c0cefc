//! Why a pod found no node, in the words that users of Kubernetes know.

use crate::event::ClusterEvents;
use crate::filter::Reason;

/// No node fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// The message of the `PodScheduled` condition and of the `FailedScheduling` event.
    pub message: String,
    /// How many nodes were rejected for each reason; a node may be counted for several.
    pub reasons: Vec<(String, usize)>,
    /// What may change the outcome.
    pub wake_on: ClusterEvents,
}

impl Unschedulable {
    pub(crate) fn no_nodes() -> Unschedulable {
        Unschedulable {
            message: "no nodes available to schedule pods".to_owned(),
            reasons: Vec::new(),
            wake_on: ClusterEvents::NODE_ADDED,
        }
    }

    pub(crate) fn gated() -> Unschedulable {
        Unschedulable {
            message: "Scheduling is blocked due to non-empty scheduling gates".to_owned(),
            reasons: Vec::new(),
            wake_on: ClusterEvents::NONE,
        }
    }

    /// A reason that lies in the pod and holds for every node.
    pub(crate) fn whole_pod(nodes: usize, why: &str) -> Unschedulable {
        Unschedulable {
            message: format!("0/{nodes} nodes are available: {why}."),
            reasons: vec![(why.to_owned(), nodes)],
            wake_on: ClusterEvents::NONE,
        }
    }
}

/// Counts reasons while nodes are filtered.
#[derive(Default)]
pub(crate) struct Tally<'a> {
    counts: Vec<(Reason<'a>, usize)>,
    pub(crate) wake_on: ClusterEvents,
}

impl<'a> Tally<'a> {
    pub(crate) fn count(&mut self, reason: Reason<'a>, nodes: usize) {
        // A handful of different reasons at most: looking through them beats hashing.
        match self.counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += nodes,
            None => self.counts.push((reason, nodes)),
        }
    }

    pub(crate) fn conclude(self, nodes: usize) -> Unschedulable {
        let reasons: Vec<(String, usize)> =
            self.counts.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
        // Sorted as text with the count in front, as kube-scheduler does: "10 …" comes before "2 …".
        let mut parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        Unschedulable {
            message: format!("0/{nodes} nodes are available: {}.", parts.join(", ")),
            reasons,
            wake_on: self.wake_on,
        }
    }
}
