//! Checks operations against the sequence of changes. Every answer names its revision, so it can be compared with the
//! state at that revision.
//!
//! This is stronger than linearizability of each object, and fast: an acknowledged write must exist at its revision
//! forever, a read must return the state at its revision, and revisions must follow real time over all keys.

use std::collections::HashSet;

use super::Check;
use super::events::EventLog;
use crate::history::{Api, Operation, Outcome, Value};

/// Checks that the sequence contains every acknowledged write at its revision with its value, and no change that no
/// client wrote.
#[must_use]
pub fn check_durability(operations: &[Operation], log: &EventLog, leased: &str) -> Check {
    let written = || operations.iter().filter(|o| o.api == Api::Etcd && o.has_written());
    let mut violations = Vec::new();
    for operation in written() {
        let Some(revision) = operation.revision() else { continue };
        for (key, value) in &operation.request.writes {
            let change = log.at(revision, key);
            let is_there = match value {
                Some(_) => change.is_some_and(|seen| seen.value == *value),
                // Deleting a missing key makes no change.
                None => change.map_or(log.value_at(key, revision).is_none(), |seen| seen.value.is_none()),
            };
            if !is_there {
                violations.push(format!("acknowledged, but the change at its revision is {change:?}: {operation:?}"));
            }
        }
    }
    violations.extend(from_nowhere(operations, log, leased));
    let extent = format!("{} acknowledged writes, {} revisions", written().count(), log.revisions());
    Check::of("no acknowledged write is missing, and clients wrote every change", extent, violations)
}

/// Reports changes without an operation that was acknowledged at their revision or was not answered.
fn from_nowhere(operations: &[Operation], log: &EventLog, leased: &str) -> Vec<String> {
    let mut explained: HashSet<(u64, &str, &Value)> = HashSet::new();
    let mut possible: HashSet<(&str, &Value)> = HashSet::new();
    for operation in operations {
        for (key, value) in &operation.request.writes {
            match (&operation.outcome, operation.revision()) {
                (Outcome::Done { succeeded: true, .. }, Some(revision)) => {
                    explained.insert((revision, key, value));
                }
                (Outcome::Unknown { .. }, _) => {
                    possible.insert((key, value));
                }
                _ => {}
            }
        }
    }
    log.iter()
        .filter(|seen| !seen.key.starts_with(leased))
        .filter(|seen| {
            !explained.contains(&(seen.revision, &seen.key, &seen.value))
                && !possible.contains(&(&seen.key, &seen.value))
        })
        .map(|seen| format!("no client wrote {seen:?}, or its write was refused"))
        .collect()
}

/// Whether the operation created its revision. A deletion of a missing key did not, and returns the store's current
/// revision.
fn has_changed(operation: &Operation, observed: &[(String, Value)], revision: u64, log: &EventLog) -> bool {
    let was_there = |key: &String| observed.iter().any(|(observed, value)| observed == key && value.is_some());
    operation.has_written()
        && operation.request.writes.iter().any(|(key, value)| match value {
            Some(_) => log.at(revision, key).is_some_and(|seen| seen.value == *value),
            None => was_there(key) && log.at(revision, key).is_some_and(|seen| seen.value.is_none()),
        })
}

/// Checks that reads, also those in transactions, return the state at their revision.
#[must_use]
pub fn check_reads(operations: &[Operation], log: &EventLog) -> Check {
    let mut violations = Vec::new();
    let mut reads = 0;
    for operation in operations.iter().filter(|operation| operation.api != Api::Rest) {
        let (Outcome::Done { observed, .. }, Some(revision)) = (&operation.outcome, operation.revision()) else {
            continue;
        };
        // A transaction reads the state before its own revision.
        let at = if has_changed(operation, observed, revision, log) { revision - 1 } else { revision };
        for (key, value) in observed {
            reads += 1;
            let held = log.value_at(key, at).map(|(_, value)| value);
            if held != value.as_deref() {
                violations.push(format!("{key} held {held:?} at revision {at}, but the answer differs: {operation:?}"));
            }
        }
    }
    Check::of("every read returns the state at its revision", format!("{reads} values read"), violations)
}

/// Checks that an operation called after another returned has no smaller revision, and a write a greater one.
#[must_use]
pub fn check_real_time(operations: &[Operation], log: &EventLog) -> Check {
    let mut timed: Vec<(&Operation, u64)> = operations
        .iter()
        .filter(|operation| operation.api == Api::Etcd)
        .filter_map(|operation| Some((operation, operation.revision()?)))
        .collect();
    let mut returns = timed.clone();
    timed.sort_by_key(|(operation, _)| operation.called);
    returns.sort_by_key(|(operation, _)| operation.returned);
    let mut returns = returns.into_iter().peekable();
    let mut newest: Option<(&Operation, u64)> = None;
    let mut violations = Vec::new();
    for (operation, revision) in &timed {
        while let Some(earlier) = returns.next_if(|(earlier, _)| earlier.returned < operation.called) {
            if newest.is_none_or(|(_, newest)| newest < earlier.1) {
                newest = Some(earlier);
            }
        }
        let Some((earlier, before)) = newest else { continue };
        let Outcome::Done { observed, .. } = &operation.outcome else { continue };
        let is_new = has_changed(operation, observed, *revision, log);
        if *revision < before || (is_new && *revision == before) {
            violations.push(format!("{operation:?} happened at a revision before that of the earlier {earlier:?}"));
        }
    }
    let extent = format!("{} operations", timed.len());
    Check::of("revisions follow real time over all keys", extent, violations)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::events::tests::{delete, put, watch};
    use super::*;
    use crate::history::Transaction;

    fn log() -> EventLog {
        let events = [put(2, "a", "x", 1, 2), put(4, "a", "y", 2, 2), delete(6, "a"), put(7, "l/1", "z", 1, 7)];
        EventLog::of(&[watch("w", &events)]).0
    }

    fn operation(called: u64, request: Transaction, observed: &[(&str, Option<&str>)], revision: u64) -> Operation {
        let observed = observed.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
        Operation {
            client: "c".to_owned(),
            api: Api::Etcd,
            object: "a".to_owned(),
            member: 0,
            called,
            returned: called + 5,
            request,
            outcome: Outcome::Done { succeeded: true, observed, revision },
        }
    }

    fn write(called: u64, value: &str, revision: u64) -> Operation {
        operation(called, Transaction::put("a", value), &[], revision)
    }

    fn history() -> Vec<Operation> {
        vec![
            write(0, "x", 2),
            operation(10, Transaction::get("a"), &[("a", Some("x"))], 3),
            operation(20, Transaction::put("a", "y"), &[("a", Some("x"))], 4),
            operation(30, Transaction::delete("a"), &[("a", Some("y"))], 6),
            operation(40, Transaction::delete("a"), &[("a", None)], 6),
            operation(50, Transaction::get("a"), &[("a", None)], 7),
        ]
    }

    fn statuses(operations: &[Operation]) -> [Status; 3] {
        let log = log();
        [check_durability(operations, &log, "l/"), check_reads(operations, &log), check_real_time(operations, &log)]
            .map(|check| check.status)
    }

    #[test]
    fn a_correct_history_passes() {
        assert_eq!(statuses(&history()), [Status::Passed; 3]);
        // An unanswered write explains a change as well.
        let mut lost = history();
        lost[2].outcome = Outcome::Unknown { reason: String::new() };
        assert_eq!(statuses(&lost), [Status::Passed; 3]);
    }

    #[test]
    fn planted_violations_are_found() {
        use Status::{Passed, Violated};
        let with = |planted: Operation| [history(), vec![planted]].concat();
        assert_eq!(statuses(&with(write(60, "lost", 8)))[0], Violated);
        assert_eq!(statuses(&history()[1..])[0], Violated);
        let mut refused = history();
        refused[2].outcome = Outcome::Refused { reason: String::new() };
        assert_eq!(statuses(&refused)[0], Violated);
        let stale = operation(60, Transaction::get("a"), &[("a", Some("x"))], 3);
        assert_eq!(statuses(&with(stale)), [Passed, Passed, Violated]);
        let wrong = operation(60, Transaction::get("a"), &[("a", Some("x"))], 7);
        assert_eq!(statuses(&with(wrong)), [Passed, Violated, Passed]);
        let old = Operation { api: Api::EtcdStale, ..operation(60, Transaction::get("a"), &[("a", Some("x"))], 3) };
        assert_eq!(statuses(&with(old)), [Passed; 3]);
        let never = Operation { api: Api::EtcdStale, ..operation(60, Transaction::get("a"), &[("a", Some("y"))], 3) };
        assert_eq!(statuses(&with(never))[1], Violated);
    }
}
