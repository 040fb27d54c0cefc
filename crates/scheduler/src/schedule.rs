//! One scheduling decision: filter, score, choose.

use std::sync::Arc;

use crate::event::ClusterEvents;
use crate::filter::{AFFINITY_HELPED_BY, Candidate, FILTERS, Filter, Reason};
use crate::node::{NodeInfo, NodeSpec};
use crate::pod::PodInfo;
use crate::score::{self, Round};
use crate::snapshot::Snapshot;
use crate::unschedulable::{Prospect, Tally, Unschedulable};

/// Number of nodes up to which every feasible node is scored.
const MIN_FEASIBLE_NODES: usize = 100;
/// Minimum percentage of nodes to find feasible before the search ends, in large clusters.
const MIN_FEASIBLE_PERCENT: usize = 5;

/// Start of the search and tie breaker. Both are passed in, so that a decision can be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Index in the order of nodes at which the search starts, modulo their number. The caller advances it by
    /// [`Decision::evaluated`], so that all nodes get their turn where only a sample is evaluated.
    pub start: usize,
    /// Seed that chooses among nodes of equal score.
    pub seed: u64,
}

/// Decision about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Bind {
        node: Arc<str>,
        /// Number of evaluated nodes.
        evaluated: usize,
        /// Number of feasible nodes among them.
        feasible: usize,
    },
    Unschedulable(Unschedulable),
}

impl Decision {
    /// Returns how far to advance [`Cursor::start`].
    #[must_use]
    pub fn evaluated(&self) -> usize {
        match self {
            Decision::Bind { evaluated, .. } => *evaluated,
            Decision::Unschedulable(_) => 0,
        }
    }
}

/// Picks a node for the pod, or returns why there is none.
#[must_use]
pub fn schedule(snapshot: &Snapshot, pod: &PodInfo, cursor: Cursor) -> Decision {
    if pod.gated {
        return Decision::Unschedulable(Unschedulable::gated());
    }
    if snapshot.is_empty() {
        return Decision::Unschedulable(Unschedulable::no_nodes());
    }
    if !pod.unsupported.is_empty() {
        let why = format!("not supported by the scheduler yet: {}", pod.unsupported.join(", "));
        return Decision::Unschedulable(Unschedulable::for_every_node(snapshot.len(), &why));
    }
    let mut tally = Tally::default();
    let search = match &pod.named_nodes {
        Some(names) if names.is_empty() => {
            let why = "pod affinity terms conflict";
            return Decision::Unschedulable(Unschedulable::for_every_node(snapshot.len(), why));
        }
        Some(names) => {
            let found: Vec<_> = names.iter().filter_map(|name| snapshot.named(name)).collect();
            let others = snapshot.len() - found.len();
            if others > 0 {
                tally.count(Reason::NotNamed, others);
                tally.count_prospect(Prospect::None, others);
                tally.wake_on = AFFINITY_HELPED_BY;
            }
            find_feasible(found.into_iter(), pod, usize::MAX, &mut tally)
        }
        None => {
            let all = (0..snapshot.len()).map(|offset| snapshot.nth(cursor.start.wrapping_add(offset)));
            find_feasible(all, pod, feasible_nodes_to_find(snapshot.len()), &mut tally)
        }
    };
    let Search { feasible, evaluated } = search;
    let count = feasible.len();
    let round = Round { snapshot, pod, feasible };
    match choose(&round, cursor.seed) {
        Some(spec) => Decision::Bind { node: spec.name.clone(), evaluated, feasible: count },
        None => Decision::Unschedulable(tally.conclude(snapshot.len())),
    }
}

struct Search<'a> {
    feasible: Vec<(&'a NodeSpec, &'a NodeInfo)>,
    evaluated: usize,
}

fn find_feasible<'a>(
    nodes: impl Iterator<Item = (&'a NodeSpec, &'a NodeInfo)>,
    pod: &'a PodInfo,
    enough: usize,
    tally: &mut Tally<'a>,
) -> Search<'a> {
    let mut search = Search { feasible: Vec::new(), evaluated: 0 };
    for (spec, node) in nodes {
        search.evaluated += 1;
        if passes(Candidate { pod, spec, node }, tally) {
            search.feasible.push((spec, node));
            if search.feasible.len() >= enough {
                break;
            }
        }
    }
    search
}

fn passes<'a>(candidate: Candidate<'a>, tally: &mut Tally<'a>) -> bool {
    for filter in FILTERS {
        let mut rejected = false;
        (filter.check)(candidate, &mut |reason| {
            rejected = true;
            tally.count(reason, 1);
        });
        if rejected {
            let prospect = prospect(filter, candidate);
            tally.count_prospect(prospect, 1);
            tally.wake_on = tally.wake_on
                | match prospect {
                    // The removal of other pods does not help.
                    Prospect::None => filter.helped_by.without(ClusterEvents::POD_REMOVED),
                    Prospect::NoVictims | Prospect::Victims => filter.helped_by,
                };
            return false;
        }
    }
    true
}

/// Returns the effect that preemption could have on a node that rejected the pod.
fn prospect(filter: &Filter, candidate: Candidate<'_>) -> Prospect {
    let priority = candidate.pod.footprint.priority;
    if !(filter.may_be_vacated)(candidate) {
        Prospect::None
    } else if candidate.node.lowest_priority().is_none_or(|lowest| lowest >= priority) {
        Prospect::NoVictims
    } else {
        Prospect::Victims
    }
}

/// Chooses the node with the highest score. The seed decides among equals.
fn choose<'a>(round: &Round<'a>, seed: u64) -> Option<&'a NodeSpec> {
    if let [(only, _)] = round.feasible.as_slice() {
        return Some(only);
    }
    let totals = score::total(round);
    let best = *totals.iter().max()?;
    let winners: Vec<usize> = (0..totals.len()).filter(|&index| totals[index] == best).collect();
    let pick = usize::try_from(mix(seed) % winners.len() as u64).expect("smaller than a length");
    Some(round.feasible[winners[pick]].0)
}

/// Returns how many feasible nodes end the search, by kube-scheduler's adaptive percentage: all of 100 nodes, 42 % of
/// 1,000, 10 % of 5,000, and never fewer than 5 %.
fn feasible_nodes_to_find(nodes: usize) -> usize {
    if nodes <= MIN_FEASIBLE_NODES {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(MIN_FEASIBLE_PERCENT);
    (nodes * percent / 100).max(MIN_FEASIBLE_NODES)
}

/// Spreads consecutive seeds over all values (the finalizer of SplitMix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
