//! Acknowledged writes are never lost, whichever members crash.

use quorate_mvcc::{LeaseId, OpResponse, Outcome, Reply};

use super::Facts;
use crate::raft::simulation::evidence::{Action, Answer, Call};

pub fn check(facts: &Facts) -> Vec<String> {
    facts.calls.iter().filter_map(|call| missing(facts, call)).collect()
}

fn missing(facts: &Facts, call: &Call) -> Option<String> {
    let Some((_, Answer::Done(reply))) = &call.ended else { return None };
    if !facts.changes.is_known(reply.revision) && facts.finals.iter().any(|last| last.revision >= reply.revision) {
        // The revision was compacted before any watcher saw it.
        return None;
    }
    let here = facts.changes.by_revision.get(&reply.revision).map_or(&[][..], Vec::as_slice);
    let is_there = |key: &[u8], value: &[u8], lease: LeaseId| {
        here.iter()
            .any(|seen| !seen.is_delete && seen.kv.key == key && seen.kv.value == value && seen.kv.lease == lease)
    };
    let is_kept = match (&call.action, effect(reply)?) {
        (Action::Put { key, value, lease }, _) => is_there(key, value, *lease),
        (Action::PutTwo { keys, value }, _) => keys.iter().all(|key| is_there(key, value, LeaseId::NONE)),
        (Action::Swap { key, value, .. }, Effect::Written) => is_there(key, value, LeaseId::NONE),
        (Action::Delete { key }, Effect::Deleted) => here.iter().any(|seen| seen.is_delete && seen.kv.key == key),
        _ => true,
    };
    (!is_kept).then(|| format!("{:?} was acknowledged at {} and is not there", call.action, reply.revision))
}

enum Effect {
    Written,
    Deleted,
    Nothing,
}

/// Returns the effect of a command, or `None` when the command was refused.
fn effect(reply: &Reply) -> Option<Effect> {
    Some(match reply.outcome.as_ref().ok()? {
        Outcome::Txn(response) => match response.responses.first() {
            Some(OpResponse::Put { .. }) => Effect::Written,
            Some(OpResponse::Delete { deleted: 1.., .. }) => Effect::Deleted,
            // The response was lost, and the outcome was found out.
            None if response.succeeded => Effect::Written,
            _ => Effect::Nothing,
        },
        _ => Effect::Nothing,
    })
}
