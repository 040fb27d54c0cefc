//! Checks that an informer gets a list, and then every later change once and in order.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::history::{InformerLog, InformerRecord, Operation, Outcome};

/// Objects of an informer: values and resource versions by name.
type Objects = BTreeMap<String, (String, u64)>;

/// Checks each informer by itself, against the others, and against acknowledged writes. `last` is the state at the end.
#[must_use]
pub fn check(informers: &[InformerLog], operations: &[Operation], last: &Objects, revision: u64) -> Check {
    let mut violations = Vec::new();
    let mut events = 0;
    let mut followers = Vec::new();
    for informer in informers {
        let mut follower = Follower::new(informer);
        informer.records.iter().for_each(|record| follower.record(record));
        follower.finish(last, revision);
        events += follower.changes.len();
        violations.append(&mut follower.violations);
        followers.push(follower);
    }
    // No informer may have missed a change that another one received.
    let all: BTreeSet<&Change> = followers.iter().flat_map(|follower| &follower.changes).collect();
    for follower in &followers {
        let missed =
            all.iter().filter(|change| follower.must_know(change.revision) && !follower.changes.contains(**change));
        violations.extend(missed.map(|change| format!("{}: missed {change:?}", follower.name())));
    }
    violations.extend(unseen_writes(&followers, operations));
    let lists =
        informers.iter().flat_map(|i| &i.records).filter(|r| matches!(r, InformerRecord::Listed { .. })).count();
    let extent = format!("{events} events, {} informers, {lists} lists", informers.len());
    Check::of("informers see every change once and in order", extent, violations)
}

/// Acknowledged writes over REST whose value no informer received although one had to.
fn unseen_writes(followers: &[Follower], operations: &[Operation]) -> Vec<String> {
    let delivered: BTreeSet<(&str, Option<&str>, u64)> = followers
        .iter()
        .flat_map(|follower| &follower.changes)
        .map(|change| (change.name.as_str(), change.value.as_deref(), change.revision))
        .collect();
    let is_unseen = |operation: &&Operation| {
        let Outcome::Done { succeeded: true, revision, .. } = operation.outcome else { return false };
        let [(name, Some(value))] = &operation.request.writes[..] else { return false };
        let has_witness = followers.iter().any(|follower| follower.must_know(revision));
        revision > 0 && has_witness && !delivered.contains(&(name.as_str(), Some(value.as_str()), revision))
    };
    let rest = operations.iter().filter(|operation| operation.api == crate::history::Api::Rest);
    rest.filter(is_unseen).map(|operation| format!("no informer saw {operation:?}")).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    revision: u64,
    name: String,
    /// New value; `None` for a deletion.
    value: Option<String>,
}

struct Follower<'a> {
    log: &'a InformerLog,
    objects: Objects,
    changes: BTreeSet<Change>,
    /// Last revision up to which everything was delivered.
    delivered: u64,
    /// Ranges of revisions in which every change must be delivered: from a list to the end of its watches.
    stretches: Vec<(u64, u64)>,
    violations: Vec<String>,
}

impl<'a> Follower<'a> {
    fn new(log: &'a InformerLog) -> Self {
        Follower {
            log,
            objects: Objects::new(),
            changes: BTreeSet::new(),
            delivered: 0,
            stretches: Vec::new(),
            violations: Vec::new(),
        }
    }

    fn name(&self) -> &str {
        &self.log.informer
    }

    fn complain(&mut self, what: String) {
        self.violations.push(format!("{}: {what}", self.log.informer));
    }

    fn must_know(&self, revision: u64) -> bool {
        self.stretches.iter().any(|(after, to)| *after < revision && revision <= *to)
    }

    fn record(&mut self, record: &InformerRecord) {
        match record {
            InformerRecord::Listed { revision, objects, .. } => {
                if *revision < self.delivered {
                    self.complain(format!("a list at {revision}, older than the known revision {}", self.delivered));
                }
                self.objects = objects.iter().map(|(name, value, at)| (name.clone(), (value.clone(), *at))).collect();
                self.delivered = *revision;
                self.stretches.push((*revision, *revision));
            }
            InformerRecord::Added { name, value, revision, .. } => self.change(name, Some(value), *revision, record),
            InformerRecord::Modified { name, value, revision, .. } => self.change(name, Some(value), *revision, record),
            InformerRecord::Deleted { name, revision, .. } => self.change(name, None, *revision, record),
            InformerRecord::Bookmark { revision, .. } => {
                if *revision < self.delivered {
                    self.complain(format!("a bookmark at {revision} behind {}", self.delivered));
                }
                self.advance(*revision);
            }
            InformerRecord::Watched { .. } | InformerRecord::Ended { .. } => {}
        }
    }

    fn advance(&mut self, revision: u64) {
        self.delivered = self.delivered.max(revision);
        let delivered = self.delivered;
        if let Some((_, to)) = self.stretches.last_mut() {
            *to = delivered;
        }
    }

    fn change(&mut self, name: &str, value: Option<&String>, revision: u64, record: &InformerRecord) {
        if revision <= self.delivered {
            self.complain(format!("{record:?}, although everything up to {} was delivered", self.delivered));
        }
        let known = self.objects.contains_key(name);
        let is_fitting = match record {
            InformerRecord::Added { .. } => !known,
            _ => known,
        };
        if !is_fitting {
            self.complain(format!("{record:?}, but the cache held {:?}", self.objects.get(name)));
        }
        match value {
            Some(value) => self.objects.insert(name.to_owned(), (value.clone(), revision)),
            None => self.objects.remove(name),
        };
        self.changes.insert(Change { revision, name: name.to_owned(), value: value.cloned() });
        self.advance(revision);
    }

    fn finish(&mut self, last: &Objects, revision: u64) {
        if self.log.complete_to < revision {
            self.complain(format!("reached only {} of {revision} after everything was healed", self.log.complete_to));
            return;
        }
        self.advance(self.log.complete_to);
        if self.objects != *last {
            let differ = |(name, known): &(&String, &(String, u64))| last.get(*name) != Some(*known);
            let wrong: Vec<_> = self.objects.iter().filter(differ).take(3).collect();
            let missing: Vec<_> = last.keys().filter(|name| !self.objects.contains_key(*name)).take(3).collect();
            self.complain(format!("the final cache differs from a list: {wrong:?} are wrong, {missing:?} are missing"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use crate::history::{Api, Transaction};

    fn listed(revision: u64, objects: &[(&str, &str, u64)]) -> InformerRecord {
        let objects = objects.iter().map(|(name, value, at)| ((*name).to_owned(), (*value).to_owned(), *at)).collect();
        InformerRecord::Listed { at: 0, member: 0, revision, objects }
    }

    fn added(name: &str, value: &str, revision: u64) -> InformerRecord {
        InformerRecord::Added { at: 0, name: name.to_owned(), value: value.to_owned(), revision }
    }

    fn modified(name: &str, value: &str, revision: u64) -> InformerRecord {
        InformerRecord::Modified { at: 0, name: name.to_owned(), value: value.to_owned(), revision }
    }

    fn deleted(name: &str, revision: u64) -> InformerRecord {
        InformerRecord::Deleted { at: 0, name: name.to_owned(), value: String::new(), revision }
    }

    fn truth() -> Vec<InformerRecord> {
        vec![listed(3, &[("a", "x", 2)]), modified("a", "y", 4), added("b", "z", 6), deleted("b", 8)]
    }

    fn status(records: Vec<InformerRecord>) -> Status {
        let log = |name: &str, records| InformerLog { informer: name.to_owned(), complete_to: 9, records };
        let last = Objects::from([("a".to_owned(), ("y".to_owned(), 4))]);
        let write = Operation {
            client: "c".to_owned(),
            api: Api::Rest,
            object: "b".to_owned(),
            member: 0,
            called: 0,
            returned: 1,
            request: Transaction::put("b", "z"),
            outcome: Outcome::Done { succeeded: true, observed: Vec::new(), revision: 6 },
        };
        check(&[log("reference", truth()), log("i", records)], &[write], &last, 9).status
    }

    #[test]
    fn a_correct_informer_passes() {
        assert_eq!(status(truth()), Status::Passed);
        let gone = InformerRecord::Ended { at: 0, gone: true, reason: String::new() };
        let relisted = [truth()[..2].to_vec(), vec![gone, listed(7, &[("a", "y", 4), ("b", "z", 6)]), deleted("b", 8)]];
        assert_eq!(status(relisted.concat()), Status::Passed);
        let bookmark = InformerRecord::Bookmark { at: 0, revision: 5 };
        assert_eq!(status([truth()[..2].to_vec(), vec![bookmark], truth()[2..].to_vec()].concat()), Status::Passed);
    }

    #[test]
    fn planted_violations_are_found() {
        let t = truth();
        let bookmark = InformerRecord::Bookmark { at: 0, revision: 7 };
        let violations = [
            ("a missing event", vec![t[0].clone(), t[1].clone()]),
            ("a missing last event", t[..3].to_vec()),
            ("an event twice", [t.clone(), vec![t[3].clone()]].concat()),
            ("added though known", [t.clone(), vec![added("a", "q", 9)]].concat()),
            ("modified though unknown", vec![listed(3, &[]), modified("a", "y", 4), t[2].clone(), t[3].clone()]),
            ("a bookmark that is ahead", [t[..1].to_vec(), vec![bookmark], t[1..].to_vec()].concat()),
            ("a list that is older", [t.clone(), vec![listed(5, &[("a", "y", 4)])]].concat()),
        ];
        for (what, records) in violations {
            assert_eq!(status(records), Status::Violated, "{what} was not found");
        }
    }
}
