//! No lease expires early. [Progress](super::progress) checks that every lease expires in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_api::Revision;
use quorate_mvcc::{LeaseId, Outcome};

use super::Facts;
use crate::platform::tokio::time::Instant;
use crate::raft::simulation::clients::LEASED;
use crate::raft::simulation::evidence::{Action, Answer};

pub fn check(facts: &Facts) -> Vec<String> {
    // The earliest time at which each lease may expire.
    let mut promised: BTreeMap<LeaseId, Instant> = BTreeMap::new();
    for call in &facts.calls {
        let Some((_, Answer::Done(reply))) = &call.ended else { continue };
        let Ok(Outcome::LeaseGrant { id, ttl_seconds } | Outcome::LeaseKeepAlive { id, ttl_seconds }) = &reply.outcome
        else {
            continue;
        };
        if !matches!(call.action, Action::Grant { .. } | Action::KeepAlive { .. }) {
            continue;
        }
        let until = call.began.at + Duration::from_secs(*ttl_seconds);
        let last = promised.entry(*id).or_insert(until);
        *last = until.max(*last);
    }
    let mut problems = Vec::new();
    for (revision, changes) in &facts.changes.by_revision {
        for change in changes.iter().filter(|change| change.is_delete && change.kv.key.starts_with(LEASED.as_bytes())) {
            let Some(before) = facts.changes.at(&change.kv.key, Revision(revision.0 - 1)) else { continue };
            if let Some(until) = promised.get(&before.lease)
                && change.at < *until
            {
                let early = *until - change.at;
                problems.push(format!("the lease {} ended at {revision}, {early:?} before its time", before.lease.0));
            }
        }
    }
    problems
}
