//! Backoff for replacing failed pods.
//!
//! A node may reject a pod as soon as it is bound, and the replacement meets the same fate. Kubernetes limits this loop
//! for Jobs and DaemonSets only; its ReplicaSets recreate such a pod as fast as their work queue allows. Here the delay
//! grows with each round of failures. It is computed from the pods alone, so it survives a change of the leader.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pod_state::{is_active, is_terminating, phase};
use crate::resource::name;

/// Delay after the first round of failures. It doubles with each further round.
const BASE_DELAY: Duration = Duration::from_secs(1);
/// Maximum delay, as for containers that crash in a loop.
const MAX_DELAY: Duration = Duration::from_secs(300);
/// Age at which a failed pod no longer counts. It exceeds the duration of all rounds up to the maximum delay.
const COUNTED_FOR: Duration = Duration::from_secs(3600);
/// Number of rounds after which the delay has reached its maximum. So many failed pods must be kept.
const ROUNDS: usize = 10;

/// Limit on the pods that replace failed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    /// No pod failed recently, or a younger one runs, or the pods failed for the first time.
    Unlimited,
    /// At most so many pods may be created now.
    AtMost(usize),
    /// No pod may be created before this time has passed.
    After(Duration),
}

/// Returns the limit for a set with these pods.
///
/// A pod's creation dates its attempt, because the masters write it; the nodes' clocks are not used. A pod that failed
/// long after its creation is therefore replaced at once.
pub(super) fn replacement(owned: &[&Arc<Pod>], now: Timestamp) -> Replacement {
    let runs = |pod: &Pod| is_active(pod) && phase(pod) == "Running";
    let last_success = owned.iter().filter(|pod| runs(pod)).filter_map(|pod| created(pod)).max();
    let counts = |created: &Timestamp| {
        // A timestamp far in the future comes from a wrong clock and must not hold the replacement back.
        let age = now.duration_since(*created).as_secs();
        (-seconds(MAX_DELAY)..seconds(COUNTED_FOR)).contains(&age) && last_success.is_none_or(|last| *created > last)
    };
    let failures = owned.iter().filter(|pod| phase(pod) == "Failed").filter_map(|pod| created(pod));
    let mut failures: Vec<Timestamp> = failures.filter(counts).collect();
    failures.sort_unstable();
    let (Some(last_failure), rounds) = (failures.last().copied(), rounds(&failures)) else {
        return Replacement::Unlimited;
    };
    let pending = owned.iter().filter(|pod| is_active(pod) && !runs(pod)).filter_map(|pod| created(pod));
    let pending: Vec<Timestamp> = pending.filter(|created| counts(created) && *created >= last_failure).collect();
    let last_attempt = pending.iter().copied().max().map_or(last_failure, |last| last.max(last_failure));
    let left = (seconds(delay(rounds)) - now.duration_since(last_attempt).as_secs()).max(0);
    match u64::try_from(left) {
        Ok(left) if left > 0 => Replacement::After(Duration::from_secs(left)),
        // One failure may be a coincidence, such as a node that filled up meanwhile.
        _ if rounds == 1 => Replacement::Unlimited,
        // One pod tries whether the nodes accept it. While its fate is open, the attempts double, because it may stay
        // unscheduled for other reasons.
        _ => Replacement::AtMost(pending.len().max(1)),
    }
}

/// Returns the failed pods beyond the `limit` newest ones. Zero keeps all; the pods that the backoff counts are kept.
pub(super) fn superfluous<'a>(owned: &[&'a Arc<Pod>], limit: usize) -> Vec<&'a Arc<Pod>> {
    if limit == 0 {
        return Vec::new();
    }
    let is_failed = |pod: &&&Arc<Pod>| phase(pod) == "Failed" && !is_terminating(pod);
    let mut failed: Vec<&Arc<Pod>> = owned.iter().filter(is_failed).copied().collect();
    failed.sort_by(|a, b| (created(a), name(&a.metadata)).cmp(&(created(b), name(&b.metadata))));
    failed.truncate(failed.len().saturating_sub(limit.max(ROUNDS)));
    failed
}

/// Returns the number of rounds of attempts that failed. Pods that were created within the delay after the previous
/// failure belong to the same round.
fn rounds(failures: &[Timestamp]) -> usize {
    let mut rounds = 0;
    let mut previous: Option<Timestamp> = None;
    for failure in failures {
        let is_next = previous.is_none_or(|last| failure.duration_since(last).as_secs() >= seconds(delay(rounds)));
        rounds += usize::from(is_next);
        previous = Some(*failure);
    }
    rounds
}

fn delay(rounds: usize) -> Duration {
    let doublings = u32::try_from(rounds.saturating_sub(1).min(ROUNDS)).unwrap_or(u32::MAX);
    BASE_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|created| created.0)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn pods(pods: &[(&str, i64)]) -> Vec<Arc<Pod>> {
        let pod = |(phase, second): &(&str, i64)| {
            let created = at(*second).to_string();
            let metadata = json!({"name": format!("{phase}-{second}"), "creationTimestamp": created});
            let pod = json!({"metadata": metadata, "status": {"phase": phase}});
            Arc::new(serde_json::from_value(pod).expect("a pod"))
        };
        pods.iter().map(pod).collect()
    }

    fn limit(owned: &[(&str, i64)], now: i64) -> Replacement {
        let owned = pods(owned);
        replacement(&owned.iter().collect::<Vec<_>>(), at(now))
    }

    #[test]
    fn the_delay_doubles_with_each_round_of_failures() {
        use Replacement::{After, AtMost, Unlimited};
        let after = |seconds| After(Duration::from_secs(seconds));
        let failed = |seconds: &[i64]| seconds.iter().map(|second| ("Failed", *second)).collect::<Vec<_>>();
        for (owned, now, expected) in [
            (vec![], 0, Unlimited),
            (vec![("Running", 0), ("Pending", 0)], 0, Unlimited),
            (failed(&[0]), 0, after(1)),
            (failed(&[0, 0, 0]), 1, Unlimited),
            // Pods of one burst failed in one round.
            (failed(&[0, 0, 0, 1, 1]), 1, after(2)),
            (failed(&[0, 1]), 2, after(1)),
            (failed(&[0, 1, 3, 7]), 7, after(8)),
            (failed(&[0, 1, 3, 7]), 15, AtMost(1)),
            (failed(&[0, 1, 3, 7, 15, 31, 63, 127, 255, 511]), 511, after(300)),
            (failed(&[0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111]), 1111, after(300)),
            // A pod that runs ends the backoff, an older one does not.
            (vec![("Failed", 0), ("Failed", 1), ("Running", 3)], 3, Unlimited),
            (vec![("Running", 0), ("Failed", 1)], 1, after(1)),
            // An attempt whose fate is open delays the next one, which may be larger.
            (vec![("Failed", 0), ("Failed", 1), ("Pending", 3)], 4, after(1)),
            (vec![("Failed", 0), ("Failed", 1), ("Pending", 3), ("Pending", 5), ("Pending", 5)], 7, AtMost(3)),
            // A pod that lived for long before it failed is replaced at once.
            (failed(&[0, 60]), 600, AtMost(1)),
            (failed(&[0, 1, 3]), 3700, Unlimited),
            // A pod that a wrong clock dates to the future.
            (failed(&[100_000]), 0, Unlimited),
            (failed(&[200]), 0, after(201)),
        ] {
            assert_eq!(limit(&owned, now), expected, "{owned:?} at {now}");
        }
    }

    #[test]
    fn the_newest_failed_pods_are_kept() {
        let owned = pods(&(0..30).map(|second| ("Failed", second)).chain([("Running", 0)]).collect::<Vec<_>>());
        let owned: Vec<&Arc<Pod>> = owned.iter().collect();
        let oldest = |limit| superfluous(&owned, limit).iter().map(|pod| name(&pod.metadata)).collect::<Vec<_>>();
        assert_eq!(oldest(28), ["Failed-0", "Failed-1"]);
        assert_eq!((oldest(0).len(), oldest(1).len(), oldest(30).len()), (0, 30 - ROUNDS, 0));
    }
}
