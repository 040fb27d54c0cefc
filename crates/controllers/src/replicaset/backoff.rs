//! Backoff for replacing failed pods.
//!
//! A node may reject a pod as soon as it is bound, and the replacement meets the same fate. Kubernetes limits this loop
//! for Jobs and DaemonSets only; its ReplicaSets recreate such a pod as fast as their work queue allows. Here the delay
//! grows with each round of failures. It is computed from the pods alone, so it survives a change of the leader.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, Pod};

use crate::pod_state::{is_active, is_terminating, phase};
use crate::resource::name;

/// Delay after the first round of failures. It doubles with each further round.
const BASE_DELAY: Duration = Duration::from_secs(1);
/// Maximum delay, as for containers that crash in a loop.
const MAX_DELAY: Duration = Duration::from_secs(300);
/// Age at which a failed pod no longer counts. It exceeds the duration of all rounds up to the maximum delay.
const COUNTED_FOR: Duration = Duration::from_secs(3600);
/// Number of rounds after which the delay has reached its maximum. A failed pod of each of them must be kept.
const ROUNDS: usize = 10;

/// Limit on the pods that replace failed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    /// No pod failed recently, or a younger one has run, or the pods failed for the first time.
    Unlimited,
    /// At most so many pods may be created now, because the pods of so many rounds failed.
    AtMost { pods: usize, rounds: usize },
    /// No pod may be created before this time has passed.
    After(Duration),
}

/// Returns the limit for a set with these pods.
///
/// Only a pod that failed before any of its containers started counts as a failed attempt. A pod's creation dates its
/// attempt, because the masters write it; the nodes' clocks are not used. A pod that failed long after its creation is
/// therefore replaced at once.
pub(super) fn replacement(owned: &[&Arc<Pod>], now: Timestamp) -> Replacement {
    let last_success = last_success(owned);
    let failures: Vec<Timestamp> =
        failed_attempts(owned, last_success, now).into_iter().filter_map(|pod| created(pod)).collect();
    let rounds = rounds(&failures).len();
    let Some(last_failure) = failures.last().copied() else { return Replacement::Unlimited };
    let pending = owned.iter().filter(|pod| is_active(pod) && !has_run(pod)).filter_map(|pod| created(pod));
    let pending: Vec<Timestamp> =
        pending.filter(|created| counts(*created, last_success, now) && *created >= last_failure).collect();
    let last_attempt = pending.iter().copied().max().map_or(last_failure, |last| last.max(last_failure));
    let left = (seconds(delay(rounds)) - now.duration_since(last_attempt).as_secs()).max(0);
    match u64::try_from(left) {
        Ok(left) if left > 0 => Replacement::After(Duration::from_secs(left)),
        // One failure may be a coincidence, such as a node that filled up meanwhile.
        _ if rounds == 1 => Replacement::Unlimited,
        // One pod tries whether the nodes accept it. While its fate is open, the attempts double, because it may stay
        // unscheduled for other reasons.
        _ => Replacement::AtMost { pods: pending.len().max(1), rounds },
    }
}

/// Returns the failed pods beyond the `limit` newest ones. Zero keeps all. The newest pod of each round that the backoff
/// counts is kept too, because the rounds are known from the pods alone.
pub(super) fn superfluous<'a>(owned: &[&'a Arc<Pod>], limit: usize, now: Timestamp) -> Vec<&'a Arc<Pod>> {
    if limit == 0 {
        return Vec::new();
    }
    let failures = failed_attempts(owned, last_success(owned), now);
    let dates: Vec<Timestamp> = failures.iter().filter_map(|pod| created(pod)).collect();
    let evidence: Vec<&str> =
        rounds(&dates).iter().rev().take(ROUNDS).map(|newest| name(&failures[*newest].metadata)).collect();
    let is_failed = |pod: &&&Arc<Pod>| phase(pod) == "Failed" && !is_terminating(pod);
    let mut failed: Vec<&Arc<Pod>> = owned.iter().filter(is_failed).copied().collect();
    sort_by_creation(&mut failed);
    failed.truncate(failed.len().saturating_sub(limit));
    failed.retain(|pod| !evidence.contains(&name(&pod.metadata)));
    failed
}

/// Returns whether a container of the pod ever started, so that its node has accepted it.
fn has_run(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let has_started = |state: Option<&ContainerState>| {
        state.is_some_and(|state| {
            state.running.is_some() || state.terminated.as_ref().is_some_and(|ended| ended.started_at.is_some())
        })
    };
    let mut containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    phase(pod) == "Running"
        || containers.any(|container| {
            container.restart_count > 0
                || has_started(container.state.as_ref())
                || has_started(container.last_state.as_ref())
        })
}

/// Returns the creation of the youngest pod that has run. It ends the backoff, even if the pod has failed since.
fn last_success(owned: &[&Arc<Pod>]) -> Option<Timestamp> {
    owned.iter().filter(|pod| has_run(pod)).filter_map(|pod| created(pod)).max()
}

/// Returns whether an attempt of this date counts.
fn counts(created: Timestamp, last_success: Option<Timestamp>, now: Timestamp) -> bool {
    // A timestamp far in the future comes from a wrong clock and must not hold the replacement back.
    let age = now.duration_since(created).as_secs();
    (-seconds(MAX_DELAY)..seconds(COUNTED_FOR)).contains(&age) && last_success.is_none_or(|last| created > last)
}

/// Returns the failed pods that count, sorted by creation.
fn failed_attempts<'a>(owned: &[&'a Arc<Pod>], last_success: Option<Timestamp>, now: Timestamp) -> Vec<&'a Arc<Pod>> {
    let is_counted = |pod: &&&Arc<Pod>| {
        phase(pod) == "Failed"
            && !has_run(pod)
            && created(pod).is_some_and(|created| counts(created, last_success, now))
    };
    let mut failures: Vec<_> = owned.iter().filter(is_counted).copied().collect();
    sort_by_creation(&mut failures);
    failures
}

fn sort_by_creation(pods: &mut [&Arc<Pod>]) {
    pods.sort_by(|a, b| (created(a), name(&a.metadata)).cmp(&(created(b), name(&b.metadata))));
}

/// Returns the index of the newest failure of each round of attempts. Pods that were created within the delay after the
/// previous failure belong to the same round.
fn rounds(failures: &[Timestamp]) -> Vec<usize> {
    let mut newest: Vec<usize> = Vec::new();
    for (index, failure) in failures.iter().enumerate() {
        let rounds = newest.len();
        match newest.last_mut() {
            Some(last) if failure.duration_since(failures[*last]).as_secs() < seconds(delay(rounds)) => *last = index,
            _ => newest.push(index),
        }
    }
    newest
}

/// Returns the delay after so many rounds of failures.
pub(super) fn delay(rounds: usize) -> Duration {
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
            (failed(&[0, 1, 3, 7]), 15, AtMost { pods: 1, rounds: 4 }),
            (failed(&[0, 1, 3, 7, 15, 31, 63, 127, 255, 511]), 511, after(300)),
            (failed(&[0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111]), 1111, after(300)),
            // A pod that runs ends the backoff, an older one does not.
            (vec![("Failed", 0), ("Failed", 1), ("Running", 3)], 3, Unlimited),
            (vec![("Running", 0), ("Failed", 1)], 1, after(1)),
            // An attempt whose fate is open delays the next one, which may be larger.
            (vec![("Failed", 0), ("Failed", 1), ("Pending", 3)], 4, after(1)),
            (
                vec![("Failed", 0), ("Failed", 1), ("Pending", 3), ("Pending", 5), ("Pending", 5)],
                7,
                AtMost { pods: 3, rounds: 2 },
            ),
            // A pod that lived for long before it failed is replaced at once.
            (failed(&[0, 60]), 600, AtMost { pods: 1, rounds: 2 }),
            (failed(&[0, 1, 3]), 3700, Unlimited),
            // A pod that a wrong clock dates to the future.
            (failed(&[100_000]), 0, Unlimited),
            (failed(&[200]), 0, after(201)),
        ] {
            assert_eq!(limit(&owned, now), expected, "{owned:?} at {now}");
        }
    }

    #[test]
    fn a_failed_pod_that_has_run_is_a_success() {
        let state = |state: serde_json::Value| {
            let mut container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0});
            let mut pods = pods(&[("Failed", 0), ("Failed", 1), ("Failed", 3)]);
            quorate_api::patch::merge::apply(&mut container, &state);
            let status = json!({"phase": "Failed", "containerStatuses": [container]});
            Arc::make_mut(&mut pods[2]).status = Some(serde_json::from_value(status).expect("a status"));
            replacement(&pods.iter().collect::<Vec<_>>(), at(7))
        };
        let ended = |started: Option<&str>| json!({"terminated": {"exitCode": 1, "startedAt": started}});
        assert_eq!(state(json!({})), Replacement::AtMost { pods: 1, rounds: 3 });
        assert_eq!(state(json!({"state": ended(None)})), Replacement::AtMost { pods: 1, rounds: 3 });
        for has_run in [
            json!({"state": ended(Some("2026-01-01T00:00:00Z"))}),
            json!({"lastState": ended(Some("2026-01-01T00:00:00Z"))}),
            json!({"state": {"running": {}}}),
            json!({"restartCount": 1}),
        ] {
            assert_eq!(state(has_run.clone()), Replacement::Unlimited, "{has_run}");
        }
    }

    #[test]
    fn the_newest_failed_pods_and_those_of_each_round_are_kept() {
        let dates = [0, 0, 0, 1, 1, 3, 7].into_iter().chain(100..120);
        let owned: Vec<_> = dates.enumerate().map(|(index, second)| (format!("p{index:02}"), second)).collect();
        let mut owned: Vec<Arc<Pod>> = owned
            .into_iter()
            .map(|(name, second)| {
                let mut pod = pods(&[("Failed", second)]).remove(0);
                Arc::make_mut(&mut pod).metadata.name = Some(name);
                pod
            })
            .collect();
        let deleted = |owned: &[Arc<Pod>], limit, now| {
            let owned: Vec<_> = owned.iter().collect();
            superfluous(&owned, limit, at(now)).iter().map(|pod| name(&pod.metadata).to_owned()).collect::<Vec<_>>()
        };
        let limit_at = |owned: &[Arc<Pod>], now| replacement(&owned.iter().collect::<Vec<_>>(), at(now));
        // Rounds of the seconds 0, 1, 3, 7, and from 100 on.
        assert_eq!(deleted(&owned, 20, 120), ["p00", "p01", "p03"]);
        assert_eq!(deleted(&owned, 0, 120), [""; 0]);
        let before = limit_at(&owned, 120);
        let gone = deleted(&owned, 1, 120);
        assert_eq!(gone.len(), owned.len() - 5);
        owned.retain(|pod| !gone.contains(&name(&pod.metadata).to_owned()));
        assert_eq!(limit_at(&owned, 120), before, "the deletion changes the backoff");
        // The backoff has forgotten them.
        assert_eq!(deleted(&owned, 1, 10_000).len(), 4);
    }
}
