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
        let mut prospects = Prospects::default();
        prospects.count(Prospect::None, nodes);
        Unschedulable {
            message: format!("0/{nodes} nodes are available: {why}.{}", prospects.sentence(nodes)),
            reasons: vec![(why.to_owned(), nodes)],
            wake_on: ClusterEvents::NONE,
        }
    }
}

/// What preemption could do about a node that rejected the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// The node would not do if it were empty.
    None,
    /// No pod on it has a lower priority.
    NoVictims,
    /// There are pods of lower priority.
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

    /// What kube-scheduler says when preemption helps on no node. Nothing where it might: pods are not preempted here,
    /// and it would be wrong to say that there are no victims.
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

/// Sorted as text with the count in front, as kube-scheduler does: "10 …" comes before "2 …".
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
        // A handful of different reasons at most: looking through them beats hashing.
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
