//! Every call takes effect at one moment between its beginning and its end.
//!
//! The store reports the revision of that moment, so no order needs to be searched: revisions must agree with the
//! real-time order of calls, and every read must match the log of changes at its revision.

use std::collections::BTreeMap;

use quorate_api::Revision;
use quorate_mvcc::Outcome;

use super::Facts;
use crate::raft::simulation::evidence::{Action, Answer, Call};

pub fn check(facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    // The beginnings (true) and ends (false) of calls, by step.
    let mut steps: BTreeMap<u64, (usize, bool)> = BTreeMap::new();
    for (i, call) in facts.calls.iter().enumerate() {
        steps.insert(call.began.step, (i, true));
        if let Some((ended, _)) = &call.ended {
            steps.insert(ended.step, (i, false));
        }
    }
    let mut newest = Revision::ZERO;
    let mut newest_before = vec![Revision::ZERO; facts.calls.len()];
    for (i, begins) in steps.into_values() {
        let call = &facts.calls[i];
        if begins {
            newest_before[i] = newest;
            continue;
        }
        let Some((revision, has_written)) = moment(call) else { continue };
        let least = if has_written { newest_before[i].next() } else { newest_before[i] };
        if revision < least {
            let what = format!("{:?} on m{} took effect at {revision}", call.action, call.member);
            problems.push(format!("{what}, though {} was known before it began", newest_before[i]));
        }
        newest = newest.max(revision);
        problems.extend(contradiction(facts, call));
    }
    problems
}

/// Returns the revision at which a call took effect, and whether the call created that revision.
fn moment(call: &Call) -> Option<(Revision, bool)> {
    match &call.ended.as_ref()?.1 {
        Answer::Read(response) => Some((response.revision, false)),
        Answer::Done(reply) => {
            let has_written = match (&call.action, &reply.outcome) {
                (Action::Put { .. } | Action::PutTwo { .. }, Ok(_)) => true,
                (Action::Swap { .. }, Ok(Outcome::Txn(response))) => response.succeeded,
                _ => false,
            };
            Some((reply.revision, has_written))
        }
        Answer::Failed(_) | Answer::Lost => None,
    }
}

/// Returns how the response of a call contradicts the log of changes at its revision, if it does.
fn contradiction(facts: &Facts, call: &Call) -> Option<String> {
    match (&call.action, &call.ended.as_ref()?.1) {
        (Action::Read { key }, Answer::Read(response)) if facts.changes.is_known(response.revision) => {
            let (there, read) = (facts.changes.at(key, response.revision), response.kvs.first());
            (there != read).then(|| {
                let found = format!("{read:?} at {} on m{}", response.revision, call.member);
                format!("a read of {key:?} found {found}, where {there:?} is")
            })
        }
        (Action::Swap { key, expected, .. }, Answer::Done(reply)) if facts.changes.is_known(reply.revision) => {
            let Ok(Outcome::Txn(response)) = &reply.outcome else { return None };
            let before = Revision(if response.succeeded { reply.revision.0 - 1 } else { reply.revision.0 });
            let written = facts.changes.at(key, before).map_or(Revision::ZERO, |kv| kv.mod_revision);
            ((written == *expected) != response.succeeded).then(|| {
                let result = if response.succeeded { "succeeded" } else { "was refused" };
                format!("a swap of {key:?} at {expected} {result}, though the key was at {written} at {before}")
            })
        }
        _ => None,
    }
}
