//! Spreads the pods of one controller over zones and nodes, as kube-scheduler's default constraints do: as a
//! preference, with a maximum skew of 3 between zones and 5 between nodes. A pod's own `topologySpreadConstraints` are
//! not considered.

use std::collections::{HashMap, HashSet};

use crate::score::{MAX_SCORE, Round};

const ZONE_MAX_SKEW: f64 = 3.0;
const NODE_MAX_SKEW: f64 = 5.0;

pub(crate) fn score(round: &Round<'_>, scores: &mut [i64]) {
    let Some(owner) = &round.pod.footprint.owner else { return };
    let mut in_zone: HashMap<&str, u32> = HashMap::new();
    let mut on_node: HashMap<&str, u32> = HashMap::new();
    for (spec, count) in round.snapshot.pods_of_owner(owner) {
        on_node.insert(&spec.name, count);
        if let Some(zone) = spec.zone() {
            *in_zone.entry(zone).or_default() += count;
        }
    }
    let zones: HashSet<Option<&str>> = round.feasible.iter().map(|(spec, _)| spec.zone()).collect();
    let zone_weight = domain_weight(zones.len());
    let node_weight = domain_weight(round.feasible.len());
    for (score, (spec, _)) in scores.iter_mut().zip(&round.feasible) {
        let here = on_node.get(spec.name.as_ref()).copied().unwrap_or(0);
        let mut crowd = crowding(here, NODE_MAX_SKEW, node_weight);
        if let Some(zone) = spec.zone() {
            crowd += crowding(in_zone.get(zone).copied().unwrap_or(0), ZONE_MAX_SKEW, zone_weight);
        }
        *score = crowd.round() as i64;
    }
    let most = scores.iter().copied().max().unwrap_or(0);
    let least = scores.iter().copied().min().unwrap_or(0);
    for score in scores.iter_mut() {
        *score = if most == 0 { MAX_SCORE } else { MAX_SCORE * (most + least - *score) / most };
    }
}

/// Returns the weight of a topology. Topologies with more domains weigh more, so that a few zones do not outweigh many
/// nodes.
fn domain_weight(domains: usize) -> f64 {
    ((domains + 2) as f64).ln()
}

/// Returns the crowding of a domain. The allowed skew adds a constant, which reduces relative differences.
fn crowding(pods: u32, max_skew: f64, weight: f64) -> f64 {
    f64::from(pods) * weight + (max_skew - 1.0)
}
