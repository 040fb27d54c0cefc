//! Every command is applied at most once, a refused one never, and each change follows from the one before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::Outcome;

use super::Facts;
use crate::StoreError;
use crate::raft::simulation::evidence::{Action, Answer};

pub fn check(facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    let mut written: BTreeMap<&Bytes, Revision> = BTreeMap::new();
    let mut revision = Revision::INITIAL;
    for (at, changes) in facts.changes.by_revision.iter().filter(|(at, _)| facts.changes.is_known(**at)) {
        if *at != revision.next() {
            problems.push(format!("there is no change between {revision} and {at}"));
        }
        revision = *at;
        for change in changes {
            let kv = &change.kv;
            let before = facts.changes.at(&kv.key, Revision(at.0 - 1));
            if change.is_delete {
                if before.is_none() {
                    problems.push(format!("{:?} was deleted at {at}, where it did not exist", kv.key));
                }
                continue;
            }
            let follows = match before {
                Some(before) => kv.version == before.version + 1 && kv.create_revision == before.create_revision,
                None => kv.version == 1 && kv.create_revision == *at,
            };
            if !follows {
                problems.push(format!("{kv:?} does not follow {before:?}"));
            }
            match written.insert(&kv.value, *at) {
                Some(first) if first != *at => {
                    problems.push(format!("the value {:?} was written at {first} and at {at}", kv.value));
                }
                _ => {}
            }
        }
    }
    for call in &facts.calls {
        let (Action::Put { value, .. } | Action::PutTwo { value, .. } | Action::Swap { value, .. }) = &call.action
        else {
            continue;
        };
        let is_refused = match call.ended.as_ref().map(|(_, answer)| answer) {
            Some(Answer::Done(reply)) => match &reply.outcome {
                Ok(Outcome::Txn(response)) => !response.succeeded,
                outcome => outcome.is_err(),
            },
            Some(Answer::Failed(error)) => !matches!(error, StoreError::OutcomeUnknown(_) | StoreError::Fatal(_)),
            _ => false,
        };
        if let Some(at) = written.get(value).filter(|_| is_refused) {
            problems.push(format!("{:?} was refused ({:?}) and took effect at {at}", call.action, call.ended));
        }
    }
    problems
}
