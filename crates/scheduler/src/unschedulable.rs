//! The reasons why a pod found no node, in kube-scheduler's wording.

use crate::event::ClusterEvents;
use crate::filter::Reason;

/// Result of an attempt that found no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// Message of the `PodScheduled` condition and of the `FailedScheduling` event.
    pub message: String,
    /// Number of nodes rejected for each reason. A node may count for several reasons.
    pub reasons: Vec<(String, usize)>,
    /// Events that may change the outcome.
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

    /// Returns a result whose reason lies in the pod and holds for every node.
    pub(crate) fn for_every_node(nodes: usize, why: &str) -> Unschedulable {
        let mut prospects = Prospects::default();
        prospects.count(Prospect::None, nodes);
        Unschedulable {
            message: format!("0/{nodes} nodes are available: {why}.{}", prospects.sentence(nodes)),
            reasons: vec![(why.to_owned(), nodes)],
            wake_on: ClusterEvents::NONE,
        }
    }
}

/// Effect that preemption could have on a node that rejected the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// The node would reject the pod even if it were empty.
    None,
    /// No pod on the node has a lower priority.
    NoVictims,
    /// The node has pods of lower priority.
    Victims,
}

#[derive(Default)]
struct Prospects {
    none: usize,
    no_victims: usize,
    victims: usize,
}

impl Prospects {
    fn count(&mut self, prospect: Prospect, nodes: usize) {
        match prospect {
            Prospect::None => self.none += nodes,
            Prospect::NoVictims => self.no_victims += nodes,
            Prospect::Victims => self.victims += nodes,
        }
    }

    /// Returns kube-scheduler's sentence for the case that preemption helps on no node. If it might help on one, the
    /// sentence is empty: this scheduler does not preempt, and it would be wrong to say that there are no victims.
    fn sentence(&self, nodes: usize) -> String {
        if self.victims > 0 {
            return String::new();
        }
        let counts = [
            (self.no_victims, "No preemption victims found for incoming pod"),
            (self.none, "Preemption is not helpful for scheduling"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        format!(
            " preemption: 0/{nodes} nodes are available: {}.",
            joined(counts.map(|(count, why)| format!("{count} {why}")))
        )
    }
}

/// Joins the parts, sorted as text including the count, as kube-scheduler does: "10 …" comes before "2 …".
fn joined(parts: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = parts.collect();
    parts.sort();
    parts.join(", ")
}

/// Counts reasons while nodes are filtered.
#[derive(Default)]
pub(crate) struct Tally<'a> {
    counts: Vec<(Reason<'a>, usize)>,
    prospects: Prospects,
    pub(crate) wake_on: ClusterEvents,
}

impl<'a> Tally<'a> {
    pub(crate) fn count(&mut self, reason: Reason<'a>, nodes: usize) {
        // There are only a handful of different reasons, so a linear search is faster than hashing.
        match self.counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += nodes,
            None => self.counts.push((reason, nodes)),
        }
    }

    pub(crate) fn count_prospect(&mut self, prospect: Prospect, nodes: usize) {
        self.prospects.count(prospect, nodes);
    }

    pub(crate) fn conclude(self, nodes: usize) -> Unschedulable {
        let reasons: Vec<(String, usize)> =
            self.counts.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
        let why = joined(reasons.iter().map(|(reason, count)| format!("{count} {reason}")));
        Unschedulable {
            message: format!("0/{nodes} nodes are available: {why}.{}", self.prospects.sentence(nodes)),
            reasons,
            wake_on: self.wake_on,
        }
    }
}
