//! The table of scorers, which each rate a node from 0 to 100, and their weights.

use crate::node::{NodeInfo, NodeSpec};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::spread;
use crate::taint::is_tolerated;

/// Highest score of a scorer.
pub const MAX_SCORE: i64 = 100;

/// A pod and its feasible nodes.
pub struct Round<'a> {
    pub snapshot: &'a Snapshot,
    pub pod: &'a PodInfo,
    pub feasible: Vec<(&'a NodeSpec, &'a NodeInfo)>,
}

/// A row of the table.
pub struct Scorer {
    /// Name of kube-scheduler's plugin.
    pub name: &'static str,
    pub weight: i64,
    /// Fills in a score from 0 to [`MAX_SCORE`] for each feasible node, in order. It leaves the scores unchanged when
    /// it does not apply to the pod.
    pub score: fn(&Round<'_>, &mut [i64]),
}

/// All scorers, with the weights of kube-scheduler's default profile.
pub const SCORERS: &[Scorer] = &[
    Scorer { name: "TaintToleration", weight: 3, score: taint_toleration },
    Scorer { name: "NodeAffinity", weight: 2, score: node_affinity },
    Scorer { name: "PodTopologySpread", weight: 2, score: spread::score },
    Scorer { name: "NodeResourcesFit", weight: 1, score: least_allocated },
    Scorer { name: "NodeResourcesBalancedAllocation", weight: 1, score: balanced_allocation },
];

/// Returns the weighted sums over all scorers, in the order of `round.feasible`.
#[must_use]
pub fn total(round: &Round<'_>) -> Vec<i64> {
    let mut totals = vec![0; round.feasible.len()];
    let mut scores = vec![0; round.feasible.len()];
    for scorer in SCORERS {
        scores.fill(0);
        (scorer.score)(round, &mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += scorer.weight * score;
        }
    }
    totals
}

/// Prefers nodes with fewer `PreferNoSchedule` taints that the pod does not tolerate.
fn taint_toleration(round: &Round<'_>, scores: &mut [i64]) {
    for (score, (spec, _)) in scores.iter_mut().zip(&round.feasible) {
        let soft = spec.taints.iter().filter(|taint| !taint.repels());
        let repelled = soft.filter(|taint| !is_tolerated(taint, &round.pod.tolerations)).count();
        *score = i64::try_from(repelled).unwrap_or(i64::MAX);
    }
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores.iter_mut() {
        *score = if most == 0 { MAX_SCORE } else { MAX_SCORE - MAX_SCORE * *score / most };
    }
}

/// Prefers nodes that match preferred terms of more weight.
fn node_affinity(round: &Round<'_>, scores: &mut [i64]) {
    if round.pod.preferred.is_empty() {
        return;
    }
    for (score, (spec, _)) in scores.iter_mut().zip(&round.feasible) {
        let matching = round.pod.preferred.iter().filter(|(_, term)| term.matches(&spec.name, &spec.labels));
        *score = matching.map(|(weight, _)| weight).sum();
    }
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores.iter_mut().filter(|_| most != 0) {
        *score = MAX_SCORE * *score / most;
    }
}

/// Prefers nodes on which more cpu and memory would stay free.
fn least_allocated(round: &Round<'_>, scores: &mut [i64]) {
    let pod = &round.pod.footprint.requests;
    for (score, (spec, node)) in scores.iter_mut().zip(&round.feasible) {
        let cpu = free_share(spec.allocatable.milli_cpu, node.non_zero_milli_cpu + pod.non_zero_milli_cpu);
        let memory = free_share(spec.allocatable.memory_bytes, node.non_zero_memory_bytes + pod.non_zero_memory_bytes);
        *score = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu + memory) / 2,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => 0,
        };
    }
}

/// Returns the free share as a score; `None` for a node without the resource.
fn free_share(allocatable: i64, requested: i64) -> Option<i64> {
    match allocatable {
        0 => None,
        _ if requested > allocatable => Some(0),
        // The product uses 128 bits, because hostile amounts times 100 could overflow 64 bits.
        _ => i64::try_from(i128::from(allocatable - requested) * i128::from(MAX_SCORE) / i128::from(allocatable)).ok(),
    }
}

/// Prefers nodes whose used shares of cpu and memory are close to each other. It does not apply to pods that request
/// neither, because all of them would go to the most balanced node.
fn balanced_allocation(round: &Round<'_>, scores: &mut [i64]) {
    let pod = &round.pod.footprint.requests.requested;
    if pod.milli_cpu == 0 && pod.memory_bytes == 0 {
        return;
    }
    for (score, (spec, node)) in scores.iter_mut().zip(&round.feasible) {
        let cpu = used_share(spec.allocatable.milli_cpu, node.requested.milli_cpu.saturating_add(pod.milli_cpu));
        let memory =
            used_share(spec.allocatable.memory_bytes, node.requested.memory_bytes.saturating_add(pod.memory_bytes));
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        *score = ((1.0 - deviation) * MAX_SCORE as f64) as i64;
    }
}

fn used_share(allocatable: i64, requested: i64) -> Option<f64> {
    (allocatable != 0).then(|| (requested as f64 / allocatable as f64).min(1.0))
}
