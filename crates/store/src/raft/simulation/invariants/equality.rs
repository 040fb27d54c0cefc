//! All members have the same state at equal revisions, and have applied the same entries at equal indexes.

use std::collections::BTreeMap;

use quorate_api::Revision;

use super::Facts;
use crate::raft::simulation::evidence::Seen;

pub fn check(facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    for watched in facts.watched.iter().filter(|watched| watched.is_of_everything()) {
        let mut of_watcher: BTreeMap<Revision, Vec<&Seen>> = BTreeMap::new();
        for seen in &watched.events {
            of_watcher.entry(seen.kv.mod_revision).or_default().push(seen);
        }
        for (revision, seen) in of_watcher {
            let known = &facts.changes.by_revision[&revision];
            let is_same = known.len() == seen.len() && known.iter().zip(&seen).all(|(known, seen)| known.is_same(seen));
            if !is_same {
                problems.push(format!("m{} has {seen:?} where others have {known:?}", watched.member));
            }
        }
    }
    let mut applied = BTreeMap::new();
    for (member, log_id) in &facts.applied {
        let (first, known) = *applied.entry(log_id.index).or_insert((*member, *log_id));
        if known != *log_id {
            problems.push(format!("m{member} has applied {log_id} where m{first} has applied {known}"));
        }
    }
    for pair in facts.finals.windows(2) {
        let same =
            pair[0].revision == pair[1].revision && pair[0].hash == pair[1].hash && pair[0].leases == pair[1].leases;
        if !same {
            problems.push(format!("in the end there are {:?} and {:?}", pair[0], pair[1]));
        }
    }
    for last in facts.finals.iter().filter(|last| facts.changes.is_known(last.revision)) {
        let expected: Vec<_> =
            facts.changes.keys().filter_map(|key| facts.changes.at(key, last.revision)).cloned().collect();
        if expected != last.keys {
            problems.push(format!("m{} holds {:?}, and {expected:?} was written", last.member, last.keys));
        }
    }
    problems
}
