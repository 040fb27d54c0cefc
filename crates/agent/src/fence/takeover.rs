//! Decides what the watchdog does with a pod whose fence has lapsed. Pure.
//!
//! A living agent stops the pod itself, with hooks and the pod's grace period, and marks each container before it stops
//! it. The watchdog takes over the containers that the agent has not marked in time, and kills those that it has marked
//! but not stopped in time. Without an agent the watchdog does not wait.

use std::collections::BTreeSet;
use std::time::Duration;

/// Time after the lapse in which a living agent marks the containers that it stops. Both times here are less than what
/// masters allow beyond the grace period ([`quorate_api::fence::removable_after`]).
const HEAD_START: Duration = Duration::from_secs(2);
/// Time beyond the grace period in which the agent's stop ends, including that of a hook which took the whole period.
const AGENT_TAKES: Duration = Duration::from_secs(4);

/// A pod whose fence has lapsed, as the watchdog sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    /// Time since the lapse.
    pub overdue: Duration,
    pub grace: Duration,
    pub agent_lives: bool,
    /// Ids of the running containers.
    pub containers: Vec<String>,
    /// Ids of the running sandboxes.
    pub sandboxes: Vec<String>,
    /// Ids of the containers that the agent or a watchdog has begun to stop.
    pub marked: BTreeSet<String>,
    /// Ids of the containers that this watchdog has begun to stop.
    pub taken: BTreeSet<String>,
}

/// A step of the watchdog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Stop these containers with what is left of the grace period. Zero kills them.
    Stop { ids: Vec<String>, grace: Duration },
    /// Kill the sandboxes, of which no container runs any more.
    EndSandboxes { ids: Vec<String> },
}

/// Returns the next step, or `None` if the agent acts, or nothing of the pod runs.
pub(super) fn next(sight: &Sight) -> Option<Step> {
    if sight.containers.is_empty() {
        // The agent keeps the sandbox of a pod that it has stopped itself, and may start the pod in it again.
        let is_ours = !sight.agent_lives || !sight.taken.is_empty();
        return (is_ours && !sight.sandboxes.is_empty()).then(|| Step::EndSandboxes { ids: sight.sandboxes.clone() });
    }
    let waits_for_agent = |id: &String| {
        let limit = if sight.marked.contains(id) { sight.grace + AGENT_TAKES } else { HEAD_START };
        sight.agent_lives && !sight.taken.contains(id) && sight.overdue <= limit
    };
    let ids: Vec<String> = sight.containers.iter().filter(|id| !waits_for_agent(id)).cloned().collect();
    let grace = sight.grace.min((sight.grace + HEAD_START).saturating_sub(sight.overdue));
    (!ids.is_empty()).then_some(Step::Stop { ids, grace })
}

#[cfg(test)]
mod tests {
    use super::super::DISK_LIMIT;
    use super::super::watchdog::INTERVAL;
    use super::*;
    use crate::runtime::STOP_TAKES;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn sight(overdue: u64, agent_lives: bool) -> Sight {
        Sight {
            overdue: Duration::from_secs(overdue),
            grace: Duration::from_secs(10),
            agent_lives,
            containers: ids(&["main", "side"]),
            sandboxes: ids(&["sandbox"]),
            ..Sight::default()
        }
    }

    fn stop(containers: &[&str], grace: u64) -> Option<Step> {
        Some(Step::Stop { ids: ids(containers), grace: Duration::from_secs(grace) })
    }

    #[test]
    fn without_an_agent_the_containers_are_stopped_first_and_then_the_sandbox() {
        let mut sight = sight(0, false);
        assert_eq!(next(&sight), stop(&["main", "side"], 10));
        sight.containers.pop();
        assert_eq!(next(&sight), stop(&["main"], 10), "one of them still runs");
        sight.containers.clear();
        assert_eq!(next(&sight), Some(Step::EndSandboxes { ids: ids(&["sandbox"]) }));
        sight.sandboxes.clear();
        assert_eq!(next(&sight), None);
    }

    #[test]
    fn a_living_agent_has_a_head_start_and_keeps_its_sandbox() {
        let mut sight = sight(2, true);
        assert_eq!(next(&sight), None);
        sight.marked = ids(&["main", "side"]).into_iter().collect();
        sight.overdue = Duration::from_secs(14);
        assert_eq!(next(&sight), None, "the agent's stop may take that long");
        sight.containers.clear();
        assert_eq!(next(&sight), None, "the agent has stopped the containers");
    }

    #[test]
    fn containers_that_a_living_agent_has_not_stopped_in_time_are_taken_over() {
        let mut sight = sight(3, true);
        sight.marked = ids(&["side"]).into_iter().collect();
        assert_eq!(next(&sight), stop(&["main"], 9), "the agent has not begun to stop it");
        sight.taken = ids(&["main"]).into_iter().collect();
        sight.overdue = Duration::from_secs(15);
        assert_eq!(next(&sight), stop(&["main", "side"], 0), "the agent's stop has not ended");
        sight.containers.clear();
        assert_eq!(next(&sight), Some(Step::EndSandboxes { ids: ids(&["sandbox"]) }), "the agent hangs");
    }

    #[test]
    fn a_late_watchdog_leaves_no_more_grace_than_the_fence_does() {
        for (overdue, grace) in [(0, 10), (2, 10), (5, 7), (12, 0), (1000, 0)] {
            assert_eq!(next(&sight(overdue, false)), stop(&["main", "side"], grace), "{overdue} s late");
        }
    }

    #[test]
    fn every_stop_ends_before_the_masters_remove_the_pod() {
        let fence = quorate_api::fence::MIN;
        // The engine answers a list of the containers within this time.
        let lists_within = Duration::from_secs(2);
        // The lapse falls right after a check. The next one reads the ledger, lists, and marks before it stops.
        let late = INTERVAL + DISK_LIMIT + lists_within.max(DISK_LIMIT) + DISK_LIMIT;
        // The engine counts whole seconds.
        let rounding = Duration::from_secs(1);
        for grace in [0, 1, 30, 600].map(Duration::from_secs) {
            let allowed = quorate_api::fence::removable_after(fence, grace) - fence;
            let latest = grace + AGENT_TAKES.max(HEAD_START + STOP_TAKES + rounding) + late;
            assert!(latest <= allowed, "{grace:?}: killed at {latest:?} of {allowed:?}");
        }
    }
}
