//! Every watcher receives every change of its range, once and in order, across restarts of its member and gaps in its
//! own watching. The order within a batch is checked on receipt.

use super::Facts;
use crate::raft::simulation::evidence::{Seen, Watched};

pub fn check(facts: &Facts) -> Vec<String> {
    facts
        .watched
        .iter()
        .filter(|watched| facts.changes.is_known(watched.upto))
        .filter_map(|w| differs(facts, w))
        .collect()
}

fn differs(facts: &Facts, watched: &Watched) -> Option<String> {
    let after = watched.after.next();
    let changes = if after > watched.upto { None } else { Some(facts.changes.by_revision.range(after..=watched.upto)) };
    let changes = changes.into_iter().flatten().flat_map(|(_, changes)| changes);
    let expected: Vec<&Seen> = changes.filter(|change| watched.range.contains(&change.kv.key)).collect();
    let place = expected.iter().zip(&watched.events).position(|(one, other)| !one.is_same(other));
    let is_same = place.is_none() && expected.len() == watched.events.len();
    (!is_same).then(|| {
        let place = place.unwrap_or(expected.len().min(watched.events.len()));
        let (wanted, given) = (expected.get(place), watched.events.get(place));
        format!("a watcher of {:?} on m{} was given {given:?} instead of {wanted:?}", watched.range, watched.member)
    })
}
