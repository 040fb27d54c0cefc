//! The invariants of every simulation, with one file for each [`Invariant`], and their [`Violation`]s.
//!
//! All of them use the log of changes, which is the union of the events of all watchers of the whole key space.

mod durability;
mod elections;
mod equality;
mod leases;
mod linearizability;
mod once_in_order;
pub mod progress;
mod restarts;
mod watches;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::KeyValue;

use super::evidence::{Call, Evidence, Final, Restart, Seen, Watched};
use crate::membership::MemberId;
use crate::raft::types::LogId;

/// An invariant of every simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    Durability,
    Linearizability,
    OnceInOrder,
    Equality,
    Watches,
    Leases,
    Elections,
    Restarts,
    Progress,
    /// Nothing panics, neither a member nor the simulation itself.
    Soundness,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invariant::Durability => "durability",
            Invariant::Linearizability => "linearizability",
            Invariant::OnceInOrder => "once, in order",
            Invariant::Equality => "equality",
            Invariant::Watches => "watches",
            Invariant::Leases => "leases",
            Invariant::Elections => "elections",
            Invariant::Restarts => "restarts",
            Invariant::Progress => "progress",
            Invariant::Soundness => "soundness",
        })
    }
}

/// A violation of an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Observations of a simulation.
pub struct Facts {
    pub calls: Vec<Call>,
    pub watched: Vec<Watched>,
    pub leaders: Vec<(u64, MemberId)>,
    pub applied: Vec<(MemberId, LogId)>,
    pub restarts: Vec<Restart>,
    pub finals: Vec<Final>,
    pub changes: Changes,
}

/// All changes, by revision and by key.
#[derive(Default)]
pub struct Changes {
    pub by_revision: BTreeMap<Revision, Vec<Seen>>,
    by_key: BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>,
    /// Every revision up to this one was seen by a watcher.
    pub known_upto: Revision,
}

impl Watched {
    fn is_of_everything(&self) -> bool {
        self.range.start.is_empty() && self.range.end.is_none()
    }

    fn covers(&self, revision: Revision) -> bool {
        self.after < revision && revision <= self.upto
    }
}

impl Changes {
    fn of(watched: &[Watched]) -> Self {
        let all: Vec<_> = watched.iter().filter(|watched| watched.is_of_everything()).collect();
        let mut known_upto = Revision::INITIAL;
        while let Some(further) = all.iter().find(|watched| watched.covers(known_upto.next())) {
            known_upto = further.upto;
        }
        let mut changes = Changes { known_upto, ..Changes::default() };
        for watched in all {
            let mut of_watcher: BTreeMap<Revision, Vec<Seen>> = BTreeMap::new();
            for seen in &watched.events {
                of_watcher.entry(seen.kv.mod_revision).or_default().push(seen.clone());
            }
            for (revision, seen) in of_watcher {
                let known = changes.by_revision.entry(revision).or_insert_with(|| seen.clone());
                // The time of an event is the first time that any watcher saw it.
                for (known, seen) in known.iter_mut().zip(&seen) {
                    known.at = known.at.min(seen.at);
                }
            }
        }
        for (revision, seen) in &changes.by_revision {
            for seen in seen {
                let kv = (!seen.is_delete).then(|| seen.kv.clone());
                changes.by_key.entry(seen.kv.key.clone()).or_default().push((*revision, kv));
            }
        }
        changes
    }

    /// Returns a key as it was at a revision.
    pub fn at(&self, key: &Bytes, revision: Revision) -> Option<&KeyValue> {
        let versions = self.by_key.get(key)?;
        let next = versions.partition_point(|(written, _)| *written <= revision);
        versions[..next].last()?.1.as_ref()
    }

    pub fn is_known(&self, revision: Revision) -> bool {
        revision <= self.known_upto
    }

    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.by_key.keys()
    }
}

/// A check that returns the violations of an invariant.
type Check = fn(&Facts) -> Vec<String>;

/// The checks that run after a simulation. [Progress](progress), and parts of the other invariants, are checked during
/// it.
const CHECKS: [(Invariant, Check); 8] = [
    (Invariant::Durability, durability::check),
    (Invariant::Linearizability, linearizability::check),
    (Invariant::OnceInOrder, once_in_order::check),
    (Invariant::Equality, equality::check),
    (Invariant::Watches, watches::check),
    (Invariant::Leases, leases::check),
    (Invariant::Elections, elections::check),
    (Invariant::Restarts, restarts::check),
];

/// Returns all violations.
pub fn violations(evidence: &Evidence) -> Vec<Violation> {
    let watched = evidence.watched.lock().clone();
    let facts = Facts {
        calls: evidence.calls.lock().clone(),
        changes: Changes::of(&watched),
        watched,
        leaders: evidence.leaders.lock().clone(),
        applied: evidence.applied.lock().clone(),
        restarts: evidence.restarts.lock().clone(),
        finals: evidence.finals.lock().clone(),
    };
    let found = CHECKS.iter().flat_map(|(invariant, check)| {
        check(&facts).into_iter().map(move |what| Violation { invariant: *invariant, what })
    });
    let immediate = evidence.problems.lock().clone();
    let panicked = |panic: &String| Violation { invariant: Invariant::Soundness, what: format!("a panic in {panic}") };
    let panics: Vec<_> = evidence.panics.lock().iter().map(panicked).collect();
    found.chain(immediate).chain(panics).collect()
}
