//! Decides what the agent may do with its fenced pods, from the time of its last renewal. Pure: times are durations
//! since the machine was booted, suspension included.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    /// The pod is new, or was taken over from an earlier agent.
    #[default]
    Unconfirmed,
    /// The masters have confirmed that the pod is this node's, and no renewal has been missed since.
    Confirmed,
    /// No renewal succeeded for as long as the fence, which was over at this time.
    Lapsed {
        at: Duration,
        /// There was a renewal before. Otherwise the ledger was lost, and the pod may have run under another one.
        is_known: bool,
    },
}

/// Whether the ledger lets a pod run, holds its start back, or has it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Run,
    Hold,
    Stop { lapsed_at: Duration },
}

/// One fenced pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FencedPod {
    pub after: Duration,
    pub grace: Duration,
    #[serde(skip)]
    standing: Standing,
    /// Number of lapses. A confirmation that was asked for before a lapse does not count after it.
    #[serde(skip)]
    lapses: u64,
}

/// The fenced pods of a node, and the last renewal of its Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// The id of the boot that the times belong to.
    pub boot_id: String,
    /// The time at which the last successful renewal was sent. `None` before the first one.
    pub renewed: Option<Duration>,
    /// The fenced pods, by uid.
    pub pods: BTreeMap<String, FencedPod>,
}

impl Ledger {
    /// Adds a pod, unless it is there already.
    pub(crate) fn add(&mut self, uid: &str, after: Duration, grace: Duration) {
        let new = || FencedPod { after, grace, standing: Standing::Unconfirmed, lapses: 0 };
        self.pods.entry(uid.to_owned()).or_insert_with(new);
    }

    /// Notes that a renewal that was sent at this time has succeeded.
    pub(crate) fn renewed(&mut self, sent: Duration) {
        self.lapse(sent);
        self.renewed = self.renewed.max(Some(sent));
    }

    /// Returns what is allowed with a pod at this time, or `None` for a pod without a fence.
    pub(crate) fn verdict(&mut self, uid: &str, now: Duration) -> Option<Verdict> {
        self.lapse(now);
        Some(match self.pods.get(uid)?.standing {
            Standing::Confirmed => Verdict::Run,
            Standing::Unconfirmed => Verdict::Hold,
            Standing::Lapsed { at, .. } => Verdict::Stop { lapsed_at: at },
        })
    }

    /// Returns when the fence of the pod has lapsed, if it has and a renewal before that is known.
    pub(crate) fn lapsed_at(&mut self, uid: &str, now: Duration) -> Option<Duration> {
        self.lapse(now);
        match self.pods.get(uid)?.standing {
            Standing::Lapsed { at, is_known: true } => Some(at),
            _ => None,
        }
    }

    /// Removes all pods but those that `keeps` returns true for, by uid. Returns whether any was removed.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&str) -> bool) -> bool {
        let before = self.pods.len();
        self.pods.retain(|uid, _| keeps(uid));
        self.pods.len() < before
    }

    /// Begins to ask the masters whether the pod is this node's. Returns the token for [`Ledger::confirm`], or `None`
    /// while no renewal is recent enough for the answer to count.
    pub(crate) fn ask(&mut self, uid: &str, now: Duration) -> Option<u64> {
        self.lapse(now);
        let pod = self.pods.get(uid)?;
        self.renewed.filter(|renewed| now.saturating_sub(*renewed) <= pod.after).map(|_| pod.lapses)
    }

    /// Notes that the masters have confirmed the pod as this node's. `asked` is the token that `ask` returned.
    pub(crate) fn confirm(&mut self, uid: &str, asked: u64, now: Duration) {
        let current = self.ask(uid, now);
        if let Some(pod) = self.pods.get_mut(uid).filter(|_| current == Some(asked)) {
            pod.standing = Standing::Confirmed;
        }
    }

    /// Returns the time at which the next fence lapses.
    pub(crate) fn next_lapse(&self) -> Option<Duration> {
        let renewed = self.renewed.unwrap_or_default();
        let pods = self.pods.values().filter(|pod| !matches!(pod.standing, Standing::Lapsed { .. }));
        pods.map(|pod| renewed.saturating_add(pod.after)).min()
    }

    /// Returns how long ago the pod's fence lapsed, or `None` while the last renewal is recent enough.
    pub(crate) fn overdue(&self, pod: &FencedPod, now: Duration) -> Option<Duration> {
        let lapses_at = self.renewed.unwrap_or_default().saturating_add(pod.after);
        now.checked_sub(lapses_at).filter(|overdue| !overdue.is_zero())
    }

    /// Marks the fences that have lapsed by this time.
    fn lapse(&mut self, until: Duration) {
        let (renewed, is_known) = (self.renewed.unwrap_or_default(), self.renewed.is_some());
        for pod in self.pods.values_mut().filter(|pod| until.saturating_sub(renewed) > pod.after) {
            if !matches!(pod.standing, Standing::Lapsed { .. }) {
                pod.standing = Standing::Lapsed { at: renewed.saturating_add(pod.after), is_known };
            }
            pod.lapses += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn stop(lapsed_at: u64) -> Option<Verdict> {
        Some(Verdict::Stop { lapsed_at: at(lapsed_at) })
    }

    /// Returns the ledger of a pod with a fence of 10 s, renewed at second 100.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.renewed(at(100));
        ledger.add("p", at(10), at(1));
        ledger
    }

    fn confirm(ledger: &mut Ledger, now: u64) {
        let asked = ledger.ask("p", at(now)).expect("an answer would count");
        ledger.confirm("p", asked, at(now));
    }

    #[test]
    fn a_confirmed_pod_runs_until_a_renewal_is_missed() {
        let mut ledger = ledger();
        assert_eq!(ledger.verdict("p", at(101)), Some(Verdict::Hold));
        confirm(&mut ledger, 101);
        assert_eq!(ledger.verdict("p", at(110)), Some(Verdict::Run));
        assert_eq!(ledger.next_lapse(), Some(at(110)));
        assert_eq!(ledger.lapsed_at("p", at(110)), None);
        assert_eq!(ledger.verdict("p", at(111)), stop(110));
        assert_eq!(ledger.lapsed_at("p", at(112)), Some(at(110)));
        // A renewal alone does not allow the pod to run again, and the grace period still counts from the lapse.
        ledger.renewed(at(112));
        assert_eq!(ledger.verdict("p", at(112)), stop(110));
        confirm(&mut ledger, 113);
        assert_eq!(ledger.verdict("p", at(113)), Some(Verdict::Run));
        assert_eq!(ledger.verdict("unfenced", at(113)), None);
    }

    #[test]
    fn a_gap_that_is_noticed_only_afterwards_lapses_the_fence() {
        let mut ledger = ledger();
        confirm(&mut ledger, 101);
        // The process was suspended, and a renewal is the first thing it does when it resumes.
        ledger.renewed(at(500));
        assert_eq!(ledger.verdict("p", at(500)), stop(110));
    }

    #[test]
    fn an_answer_from_before_a_lapse_does_not_count() {
        let mut ledger = ledger();
        let asked = ledger.ask("p", at(105)).expect("it would count now");
        ledger.renewed(at(200));
        ledger.confirm("p", asked, at(201));
        assert_eq!(ledger.verdict("p", at(201)), stop(110));
        // The answer does not count either once the renewal is too old, even if no lapse was noted before.
        let asked = ledger.ask("p", at(205)).expect("it would count now");
        ledger.confirm("p", asked, at(211));
        assert_eq!(ledger.verdict("p", at(211)), stop(110));
        assert_eq!(ledger.ask("p", at(211)), None);
    }

    #[test]
    fn a_node_that_never_reached_the_masters_runs_no_fenced_pod() {
        let mut ledger = Ledger::default();
        ledger.add("p", at(10), at(1));
        assert_eq!(ledger.verdict("p", at(1000)), stop(10));
        assert_eq!(ledger.lapsed_at("p", at(1000)), None, "an earlier ledger may have been lost");
        assert_eq!(ledger.overdue(&ledger.pods["p"], at(1000)), Some(at(990)));
        assert_eq!(ledger.overdue(&ledger.pods["p"], at(10)), None);
    }

    #[test]
    fn pods_of_an_earlier_agent_continue_until_their_fence_lapses() {
        let stored = serde_json::to_vec(&ledger()).expect("JSON");
        let mut ledger: Ledger = serde_json::from_slice(&stored).expect("a ledger");
        assert_eq!(ledger.verdict("p", at(109)), Some(Verdict::Hold));
        ledger.renewed(at(109));
        assert_eq!(ledger.verdict("p", at(119)), Some(Verdict::Hold));
        assert_eq!(ledger.verdict("p", at(120)), stop(119));
    }

    #[test]
    fn pods_that_are_not_kept_are_removed() {
        let mut ledger = ledger();
        ledger.add("gone", at(10), at(1));
        assert!(ledger.retain(|uid| uid == "p"));
        assert_eq!(ledger.pods.keys().collect::<Vec<_>>(), ["p"]);
        assert!(!ledger.retain(|uid| uid == "p"), "nothing has changed");
    }

    /// One renewal of a simulated history, in milliseconds.
    #[derive(Clone, Debug)]
    struct Renewal {
        /// Time since the previous one was sent.
        gap: u64,
        /// Time from being sent to being committed. `None` when the request is lost.
        commit: Option<u64>,
        /// Time from the commit to the arrival of the answer. `None` when the answer is lost.
        answer: Option<u64>,
        /// Time from the commit until the leader sees it.
        seen: u64,
    }

    fn renewals() -> impl Strategy<Value = Vec<Renewal>> {
        let delay = || prop_oneof![4 => 0..500_u64, 1 => 0..30_000_u64];
        let gap = prop_oneof![6 => 500..4_000_u64, 1 => 500..90_000_u64];
        let one = (gap, prop::option::weighted(0.9, delay()), prop::option::weighted(0.9, delay()), delay());
        prop::collection::vec(one.prop_map(|(gap, commit, answer, seen)| Renewal { gap, commit, answer, seen }), 1..40)
    }

    proptest! {
        /// Whichever messages are lost or late: when the masters may remove a pod, its node has stopped it at least the
        /// pod's grace period before, and does not start it again by itself.
        #[test]
        fn a_pod_is_removed_only_after_its_node_has_stopped_it(history in renewals(), fence in 10_000..60_000_u64) {
            let (fence, grace) = (Duration::from_millis(fence), Duration::from_secs(2));
            let ms = Duration::from_millis;
            // The times at which each renewal is committed, seen by the leader and counted by the agent.
            let (mut sent, mut effects) = (ms(1), Vec::new());
            for renewal in &history {
                sent += ms(renewal.gap);
                let Some(commit) = renewal.commit else { continue };
                let committed = sent + ms(commit);
                let answered = renewal.answer.map(|answer| committed + ms(answer));
                let counted = answered.filter(|at| *at - sent <= quorate_api::fence::RENEWAL_LIMIT);
                effects.push((committed, committed + ms(renewal.seen), counted.map(|at| (at, sent))));
            }
            effects.sort();
            // The leader sees commits in order.
            let mut seen = Duration::ZERO;
            for effect in &mut effects {
                seen = seen.max(effect.1);
                effect.1 = seen;
            }
            let mut answers: Vec<_> = effects.iter().filter_map(|(.., counted)| *counted).collect();
            answers.sort();

            for (index, (_, seen, _)) in effects.iter().enumerate() {
                let removed = *seen + quorate_api::fence::removable_after(fence, grace);
                if effects.get(index + 1).is_some_and(|(next, ..)| *next <= removed) {
                    // The masters' condition for the removal does not hold.
                    continue;
                }
                let mut ledger = Ledger::default();
                ledger.add("p", fence, grace);
                let mut stopped_at = None;
                for (at, sent) in answers.iter().filter(|(at, _)| *at <= removed) {
                    ledger.renewed(*sent);
                    if let Some(asked) = ledger.ask("p", *at) {
                        ledger.confirm("p", asked, *at);
                    }
                    stopped_at = ledger.next_lapse();
                }
                if let Some(stopped_at) = stopped_at {
                    prop_assert!(stopped_at + grace <= removed, "stopped at {stopped_at:?}, removed at {removed:?}");
                }
                let is_stopped = |verdict| matches!(verdict, Some(Verdict::Stop { .. }));
                prop_assert!(is_stopped(ledger.verdict("p", removed)));
                for (_, sent) in answers.iter().filter(|(at, _)| *at > removed) {
                    ledger.renewed(*sent);
                    prop_assert!(is_stopped(ledger.verdict("p", *sent)), "no confirmation has arrived");
                }
            }
        }
    }
}
