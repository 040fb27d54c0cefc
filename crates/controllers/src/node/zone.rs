//! Rate limit on the eviction from the nodes of a zone. Nodes are evicted one after the other, and more slowly or not
//! at all while most of the zone has failed. While no node of the cluster is ready, nothing is evicted, because the
//! fault is then more likely with the masters.
//!
//! The rate is a token bucket of one token. Its state is the time of the newest `NoExecute` taint in the zone, so every
//! leader sees the same bucket.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::taint::{NOT_READY, UNREACHABLE, no_execute};
use super::{Watch, health};
use crate::controller::{EvictionRate, Input};
use crate::resource::name;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Minimum number of failed nodes in a disrupted zone.
const DISRUPTED_FROM: usize = 3;

/// Time at which a failed node may begin to lose its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    In(Duration),
    /// The node has to wait for a change in the cluster.
    Never,
}

/// Returns whether any node of the cluster is healthy.
pub(super) fn is_any_healthy(input: Input<'_>) -> bool {
    input.cache.nodes().iter().any(|node| is_healthy(input, node))
}

/// Returns whether a node is ready and not silent. Nodes that fail together thus count as failed together, although
/// they become Unknown one after the other.
fn is_healthy(Input { cache, uptime, settings, .. }: Input<'_>, node: &Node) -> bool {
    health::is_ready(node) && !Watch::of(cache, node, uptime, settings).is_silent
}

/// Returns the turn of a failed node that has no eviction taint yet.
pub(super) fn turn(input: Input<'_>, node: &Node) -> Turn {
    if !is_any_healthy(input) {
        return Turn::Never;
    }
    let (now, rate) = (input.now, &input.settings.eviction_rate);
    let zone = Zone::of(input, node);
    let Some(interval) = zone.interval(rate) else { return Turn::Never };
    let free_at = zone.newest_taint.map(|newest| newest.saturating_add(signed(interval)).unwrap_or(Timestamp::MAX));
    let wait = free_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default()).unwrap_or_default();
    let before = u32::try_from(zone.waiting_before).unwrap_or(u32::MAX);
    match wait.saturating_add(interval.saturating_mul(before)) {
        Duration::ZERO => Turn::Now,
        wait => Turn::In(wait),
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// State of the zone that a node is in.
#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    failed: usize,
    newest_taint: Option<Timestamp>,
    /// Number of failed nodes without an eviction taint whose turn comes before this node's.
    waiting_before: usize,
}

impl Zone {
    fn of(input: Input<'_>, node: &Node) -> Zone {
        let mut zone = Zone::default();
        let place = place(node);
        let own_rank = rank(node);
        for other in input.cache.nodes().iter().filter(|other| self::place(other) == place) {
            match health::condition(other, "Ready") {
                // A node that has never reported has no pods to evict.
                None => {}
                Some("True") if is_healthy(input, other) => zone.ready += 1,
                Some("True") => zone.failed += 1,
                Some(_) => {
                    zone.failed += 1;
                    match tainted_at(other) {
                        Some(at) => zone.newest_taint = zone.newest_taint.max(Some(at)),
                        None => zone.waiting_before += usize::from(rank(other) < own_rank),
                    }
                }
            }
        }
        zone
    }

    /// Returns the minimum time between two nodes; `None` when nothing is evicted.
    fn interval(&self, rate: &EvictionRate) -> Option<Duration> {
        // Counts of nodes are exact as floats.
        let (ready, failed) = (self.ready as f64, self.failed as f64);
        let is_disrupted = self.ready > 0
            && self.failed >= DISRUPTED_FROM
            && failed / (failed + ready) >= rate.unhealthy_zone_threshold;
        let per_second = if !is_disrupted {
            rate.nodes_per_second
        } else if self.ready + self.failed > rate.large_zone_size {
            rate.secondary_nodes_per_second
        } else {
            0.0
        };
        Duration::try_from_secs_f64(1.0 / per_second).ok()
    }
}

/// Returns the node's region and zone. All nodes without these labels form one zone.
fn place(node: &Node) -> (&str, &str) {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map_or("", String::as_str);
    (label(REGION), label(ZONE))
}

/// Sort key of the turns: the node that failed first comes first, then by name.
fn rank(node: &Node) -> (Option<Timestamp>, &str) {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let since = ready.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0);
    (since, name(&node.metadata))
}

/// Returns when the node got its eviction taint. A taint without a time counts as infinitely old.
fn tainted_at(node: &Node) -> Option<Timestamp> {
    let managed = no_execute(node).filter(|taint| taint.key == NOT_READY || taint.key == UNREACHABLE);
    managed.map(|taint| taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(ready: usize, failed: usize) -> Zone {
        Zone { ready, failed, ..Zone::default() }
    }

    #[test]
    fn the_rate_follows_the_health_and_the_size_of_the_zone() {
        let rate = EvictionRate::default();
        let (usual, slow) = (Some(Duration::from_secs(10)), Some(Duration::from_secs(100)));
        let table = [
            // Fewer than three failed nodes never disrupt a zone.
            ((1, 1), usual),
            ((1, 2), usual),
            ((2, 1), usual),
            // Three of five are more than 55 %.
            ((2, 3), None),
            ((3, 3), usual),
            ((20, 31), slow),
            ((24, 26), usual),
            ((20, 30), None),
            // The whole zone has failed, but not the whole cluster.
            ((0, 60), usual),
        ];
        for ((ready, failed), expected) in table {
            assert_eq!(zone(ready, failed).interval(&rate), expected, "{ready} ready, {failed} failed");
        }
        let never = EvictionRate { nodes_per_second: 0.0, ..rate };
        assert_eq!(zone(1, 1).interval(&never), None);
    }
}
