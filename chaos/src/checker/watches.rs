//! Checks etcd's guarantees of a watch: ordered, unique, atomic, reliable, resumable
//! (<https://etcd.io/docs/v3.5/learning/api_guarantees/>).

use std::collections::HashSet;

use super::Check;
use super::events::EventLog;
use crate::history::{Seen, WatchLog, WatchRecord};

/// Checks each watcher against the events of all watchers. `last` is the revision that all of them must have reached.
#[must_use]
pub fn check(watches: &[WatchLog], log: &EventLog, differing: Vec<String>, last: u64) -> Check {
    let mut violations = differing;
    let mut events = 0;
    for watch in watches {
        let mut follower = Follower::new(watch, log);
        watch.records.iter().for_each(|record| follower.record(record));
        follower.finish(last);
        events += follower.events;
        violations.extend(follower.violations);
    }
    let streams = watches.iter().flat_map(|w| &w.records).filter(|r| matches!(r, WatchRecord::Opened { .. })).count();
    let extent = format!("{events} events, {} watchers, {streams} streams", watches.len());
    Check::of("watches are ordered, unique, atomic, complete and resumable", extent, violations)
}

/// State of the check of one watcher.
struct Follower<'a> {
    watch: &'a WatchLog,
    log: &'a EventLog,
    /// Last revision up to which everything was delivered.
    delivered: u64,
    /// Revision from which the watcher must see everything; a compaction moves it.
    begun: Option<u64>,
    seen: HashSet<(u64, String)>,
    events: usize,
    violations: Vec<String>,
}

impl<'a> Follower<'a> {
    fn new(watch: &'a WatchLog, log: &'a EventLog) -> Self {
        Follower { watch, log, delivered: 0, begun: None, seen: HashSet::new(), events: 0, violations: Vec::new() }
    }

    fn complain(&mut self, what: String) {
        self.violations.push(format!("{}: {what}", self.watch.watcher));
    }

    fn record(&mut self, record: &WatchRecord) {
        match record {
            WatchRecord::Opened { from, .. } => {
                if self.begun.is_none() {
                    self.begun = Some(*from);
                    self.delivered = from.saturating_sub(1);
                }
            }
            WatchRecord::Batch { at, events } => self.batch(*at, events),
            WatchRecord::Progress { revision, .. } => {
                self.expect_complete(*revision);
                self.delivered = self.delivered.max(*revision);
            }
            WatchRecord::Compacted { compacted, .. } => {
                if *compacted <= self.delivered {
                    self.complain(format!(
                        "cancelled by the compaction of {compacted}, but had reached {}",
                        self.delivered
                    ));
                }
                self.expect_complete(self.delivered);
                self.delivered = self.delivered.max(*compacted);
                self.begun = Some(self.delivered + 1);
            }
            WatchRecord::Ended { .. } => {}
        }
    }

    fn batch(&mut self, at: u64, events: &[Seen]) {
        let before = self.delivered;
        let mut newest = before;
        for event in events {
            self.events += 1;
            if event.revision <= before {
                self.complain(format!("at {at} µs {event:?}, although everything up to {before} was delivered"));
            } else if event.revision < newest {
                self.complain(format!("at {at} µs {event:?} after an event of revision {newest}"));
            }
            newest = newest.max(event.revision);
            if !self.seen.insert((event.revision, event.key.clone())) {
                self.complain(format!("at {at} µs {event:?} for the second time"));
            }
            if self.watch.with_previous {
                self.previous(event);
            }
        }
        self.delivered = newest;
        self.expect_complete(newest);
    }

    /// Reports events up to `to` that the watcher missed, also those of a revision that was delivered only in part.
    fn expect_complete(&mut self, to: u64) {
        let Some(begun) = self.begun else { return };
        let missing: Vec<String> = self
            .log
            .range(begun, to)
            .filter(|event| !self.seen.contains(&(event.revision, event.key.clone())))
            .map(|event| format!("{event:?} was missed"))
            .collect();
        missing.into_iter().for_each(|what| self.complain(what));
        self.begun = Some(begun.max(to + 1));
    }

    fn previous(&mut self, event: &Seen) {
        let held = self.log.value_at(&event.key, event.revision - 1);
        let delivered = event.previous.as_ref().map(|(value, revision)| (*revision, value.as_str()));
        // The previous value may have been compacted.
        if delivered != held && delivered.is_some() {
            self.complain(format!("{event:?}, but before it the key held {held:?}"));
        }
    }

    fn finish(&mut self, last: u64) {
        if self.watch.complete_to < last {
            self.complain(format!(
                "reached only revision {} of {last} after everything was healed",
                self.watch.complete_to
            ));
        }
        self.expect_complete(self.watch.complete_to);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::events::tests::{delete, put, watch};
    use super::*;

    fn delivered() -> Vec<Seen> {
        vec![put(2, "a", "x", 1, 2), put(4, "a", "y", 2, 2), put(4, "b", "y", 1, 4), delete(6, "a")]
    }

    /// Checks a watcher with these records together with one that has seen everything.
    fn status(records: Vec<WatchRecord>) -> Check {
        let watched = WatchLog { watcher: "w".to_owned(), with_previous: true, complete_to: 6, records };
        let all = [watch("reference", &[]), watched];
        let reference = WatchLog {
            records: vec![
                WatchRecord::Opened { at: 0, member: 0, from: 1 },
                WatchRecord::Batch { at: 1, events: delivered() },
            ],
            complete_to: 6,
            ..all[0].clone()
        };
        let all = [reference, all[1].clone()];
        let (log, differing) = EventLog::of(&all);
        check(&all, &log, differing, 6)
    }

    fn opened(from: u64) -> WatchRecord {
        WatchRecord::Opened { at: 0, member: 0, from }
    }

    fn batch(events: &[Seen]) -> WatchRecord {
        WatchRecord::Batch { at: 0, events: events.to_vec() }
    }

    fn with_previous(event: &Seen, value: &str, revision: u64) -> Seen {
        Seen { previous: Some((value.to_owned(), revision)), ..event.clone() }
    }

    #[test]
    fn a_watcher_that_resumes_sees_everything_once() {
        let e = delivered();
        let progress = WatchRecord::Progress { at: 0, revision: 5 };
        let records = vec![
            opened(1),
            batch(&e[..1]),
            opened(3),
            batch(&[with_previous(&e[1], "x", 2), e[2].clone()]),
            progress,
            batch(&[with_previous(&e[3], "y", 4)]),
        ];
        assert_eq!(status(records).status, Status::Passed);
        // A watcher that starts later does not receive earlier events, and a compaction starts it again.
        assert_eq!(status(vec![opened(3), batch(&e[1..3]), batch(&e[3..])]).status, Status::Passed);
        let cut_off = vec![opened(1), WatchRecord::Compacted { at: 0, compacted: 5 }, opened(6), batch(&e[3..])];
        assert_eq!(status(cut_off).status, Status::Passed);
    }

    #[test]
    fn planted_violations_are_found() {
        let e = delivered();
        let progress = |revision| WatchRecord::Progress { at: 0, revision };
        let violations: Vec<(&str, Vec<WatchRecord>)> = vec![
            ("a missing event", vec![opened(1), batch(&e[..1]), batch(&e[3..])]),
            ("half a revision", vec![opened(1), batch(&e[..2]), batch(&e[2..])]),
            ("an event twice", vec![opened(1), batch(&e[..1]), opened(2), batch(&e)]),
            ("the wrong order", vec![opened(1), batch(&[e[3].clone(), e[0].clone(), e[1].clone(), e[2].clone()])]),
            ("a progress that is ahead", vec![opened(1), batch(&e[..1]), progress(5), batch(&e[1..])]),
            ("a progress past a missing event", vec![opened(1), batch(&e[..3]), progress(6)]),
            ("an event that is not there", vec![opened(1), batch(&e), batch(&[put(7, "a", "z", 9, 2)])]),
            ("a wrong value before", vec![opened(1), batch(&[with_previous(&e[0], "q", 1)]), batch(&e[1..])]),
            (
                "a compaction that does not matter",
                vec![opened(1), batch(&e), WatchRecord::Compacted { at: 0, compacted: 5 }],
            ),
            ("an end too early", vec![opened(1), batch(&e[..3])]),
        ];
        for (what, records) in violations {
            assert_eq!(status(records).status, Status::Violated, "{what} was not found");
        }
    }
}
