//! The queue of keys that a controller has to reconcile. A key is queued at most once and reconciled by one worker at a
//! time. It is held until the cache has seen the writes of its last plan. A failed key waits longer each time.
//!
//! The queue is pure: times are durations since any fixed moment, and the caller adds jitter.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use quorate_api::Revision;
use quorate_controllers::{Failure, WorkKey};

/// Result of a key's turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finish {
    /// Revision that the cache must reach before the key's next turn.
    pub(crate) hold_until: Revision,
    /// Time of the next turn if nothing triggers the key earlier.
    pub(crate) again_at: Option<Duration>,
    pub(crate) failed: bool,
    /// Failure to pass to the key's next turn.
    pub(crate) failure: Option<Failure>,
}

/// Turn of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) key: WorkKey,
    /// Number of consecutive failures.
    pub(crate) failures: u32,
    /// Failure of the last turn.
    pub(crate) failure: Option<Failure>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whether the key was triggered since its last turn began.
    wanted: bool,
    queued: bool,
    running: bool,
    held_until: Revision,
    again_at: Option<Duration>,
    failures: u32,
    failure: Option<Failure>,
}

#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    entries: HashMap<WorkKey, Entry>,
    ready: VecDeque<WorkKey>,
    held: BTreeSet<(Revision, WorkKey)>,
    delayed: BTreeSet<(Duration, WorkKey)>,
    reached: Revision,
}

impl WorkQueue {
    pub(crate) fn add(&mut self, key: WorkKey) {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.wanted = true;
        if entry.queued || entry.running || entry.held_until > self.reached {
            return;
        }
        entry.queued = true;
        self.ready.push_back(key);
    }

    /// Takes the next key. The caller must call [`WorkQueue::finish`].
    pub(crate) fn take(&mut self, now: Duration) -> Option<Turn> {
        while self.delayed.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, key)) = self.delayed.pop_first() {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.again_at = None;
                }
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        let entry = self.entries.get_mut(&key)?;
        entry.queued = false;
        entry.wanted = false;
        entry.running = true;
        Some(Turn { failures: entry.failures, failure: entry.failure.take(), key })
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns the time at which the next delayed key becomes due.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.delayed.first().map(|(due, _)| *due)
    }

    pub(crate) fn finish(&mut self, key: &WorkKey, finish: Finish) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        entry.failures = if finish.failed { entry.failures.saturating_add(1) } else { 0 };
        entry.failure = finish.failure;
        if let Some(due) = entry.again_at.take() {
            self.delayed.remove(&(due, key.clone()));
        }
        if let Some(due) = finish.again_at {
            entry.again_at = Some(due);
            self.delayed.insert((due, key.clone()));
        }
        if finish.hold_until > self.reached {
            entry.held_until = finish.hold_until;
            self.held.insert((finish.hold_until, key.clone()));
        } else {
            self.settle(key);
        }
    }

    /// Records that the cache has reached this revision, and releases the keys that waited for it.
    pub(crate) fn advance(&mut self, reached: Revision) {
        self.reached = self.reached.max(reached);
        while self.held.first().is_some_and(|(until, _)| *until <= self.reached) {
            if let Some((_, key)) = self.held.pop_first() {
                self.settle(&key);
            }
        }
    }

    /// Queues the key if it was triggered in the meantime; drops it if it has neither a deadline nor failures.
    fn settle(&mut self, key: &WorkKey) {
        let Some(entry) = self.entries.get(key) else { return };
        if entry.wanted {
            self.add(key.clone());
        } else if entry.again_at.is_none() && entry.failures == 0 {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_api::GroupVersionResource;
    use quorate_controllers::{Target, Verb};

    use super::*;

    fn key(name: &str) -> WorkKey {
        WorkKey::namespaced("default", name)
    }

    fn done() -> Finish {
        Finish::default()
    }

    fn taken(queue: &mut WorkQueue, now: u64) -> Option<String> {
        queue.take(Duration::from_secs(now)).map(|turn| turn.key.name)
    }

    #[test]
    fn a_key_is_queued_once_and_reconciled_by_one_worker_at_a_time() {
        let mut queue = WorkQueue::default();
        for name in ["a", "b", "a"] {
            queue.add(key(name));
        }
        assert_eq!(taken(&mut queue, 0).as_deref(), Some("a"));
        queue.add(key("a"));
        assert_eq!(taken(&mut queue, 0).as_deref(), Some("b"));
        assert_eq!(taken(&mut queue, 0), None, "a is still being reconciled");
        queue.finish(&key("a"), done());
        assert_eq!(taken(&mut queue, 0).as_deref(), Some("a"), "it was triggered meanwhile");
        queue.finish(&key("a"), done());
        queue.finish(&key("b"), done());
        assert!(queue.entries.is_empty(), "finished keys are dropped");
    }

    #[test]
    fn a_key_waits_until_the_cache_has_seen_its_writes() {
        let mut queue = WorkQueue::default();
        queue.advance(Revision(5));
        queue.add(key("a"));
        assert!(taken(&mut queue, 0).is_some());
        queue.finish(&key("a"), Finish { hold_until: Revision(8), ..done() });
        queue.add(key("a"));
        queue.advance(Revision(7));
        assert_eq!(taken(&mut queue, 0), None);
        queue.advance(Revision(8));
        assert_eq!(taken(&mut queue, 0).as_deref(), Some("a"));
        queue.finish(&key("a"), Finish { hold_until: Revision(8), ..done() });
        assert!(queue.entries.is_empty());
    }

    #[test]
    fn a_held_key_without_new_triggers_is_dropped() {
        let mut queue = WorkQueue::default();
        queue.add(key("a"));
        assert!(taken(&mut queue, 0).is_some());
        queue.finish(&key("a"), Finish { hold_until: Revision(3), ..done() });
        queue.advance(Revision(3));
        assert_eq!(taken(&mut queue, 0), None);
        assert!(queue.entries.is_empty() && queue.held.is_empty());
    }

    #[test]
    fn the_latest_plan_sets_the_requeue_time() {
        let mut queue = WorkQueue::default();
        queue.add(key("a"));
        assert!(taken(&mut queue, 0).is_some());
        queue.finish(&key("a"), Finish { again_at: Some(Duration::from_secs(10)), ..done() });
        assert_eq!(queue.next_deadline(), Some(Duration::from_secs(10)));
        queue.add(key("a"));
        assert!(taken(&mut queue, 1).is_some(), "a trigger does not wait for the deadline");
        queue.finish(&key("a"), Finish { again_at: Some(Duration::from_secs(20)), ..done() });
        assert_eq!(taken(&mut queue, 19), None);
        assert_eq!(taken(&mut queue, 20).as_deref(), Some("a"));
        queue.finish(&key("a"), done());
        assert_eq!(queue.next_deadline(), None);
        assert!(queue.entries.is_empty());
    }

    #[test]
    fn failures_are_counted_until_the_first_success() {
        let mut queue = WorkQueue::default();
        let mut now = Duration::ZERO;
        queue.add(key("a"));
        for expected in 0..3 {
            let turn = queue.take(now).expect("it is due");
            assert_eq!(turn.failures, expected);
            now += Duration::from_secs(1);
            queue.finish(&turn.key, Finish { again_at: Some(now), failed: true, ..done() });
        }
        let turn = queue.take(now).expect("it is due");
        assert_eq!(turn.failures, 3);
        queue.finish(&turn.key, done());
        assert!(queue.entries.is_empty());
    }

    #[test]
    fn each_failure_is_passed_to_the_next_turn_only() {
        let target = Target {
            resource: GroupVersionResource::from_static("", "v1", "pods"),
            namespace: None,
            name: "p".to_owned(),
        };
        let refused = Some(Failure { verb: Verb::Create, target, message: "no".to_owned() });
        let mut queue = WorkQueue::default();
        queue.add(key("a"));
        assert_eq!(queue.take(Duration::ZERO).expect("it is due").failure, None);
        let again_at = Some(Duration::from_secs(1));
        queue.finish(&key("a"), Finish { again_at, failed: true, failure: refused.clone(), ..done() });
        assert_eq!(queue.take(Duration::from_secs(1)).expect("it is due").failure, refused);
        queue.finish(&key("a"), Finish { again_at, failed: true, ..done() });
        assert_eq!(queue.take(Duration::from_secs(1)).expect("it is due").failure, None);
    }
}
