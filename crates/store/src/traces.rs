//! Traced transactions, whose outcome can be found out after their response was lost.
//!
//! A client that loses the response to a transaction, because a leader died, cannot tell from the keys whether it took
//! effect: another client may have overwritten its value, or written the same one. A traced transaction therefore
//! carries a unique id, and its sender learns of it when this member applies it. The state does not store the ids.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{Command, Outcome, Reply, TraceId};

use crate::platform;

/// Outcome of a traced transaction, over all times that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This member has not applied it with comparisons that held.
    NotSeen,
    /// As [`Fate::NotSeen`], but this member may have missed it, because its state was reopened or came from another
    /// member.
    OutOfSight,
    /// The transaction took effect at this revision.
    Landed(Revision),
}

/// A traced transaction that has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landing {
    trace: TraceId,
    revision: Revision,
}

impl Landing {
    /// Returns the landing of an applied command, if it is a traced transaction that succeeded.
    #[must_use]
    pub fn of(command: &Command, reply: &Reply) -> Option<Self> {
        match (command, &reply.outcome) {
            (Command::TracedTxn { trace, .. }, Ok(Outcome::Txn(response))) if response.succeeded => {
                Some(Landing { trace: *trace, revision: reply.revision })
            }
            _ => None,
        }
    }
}

/// Knowledge about a traced transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub fate: Fate,
    /// The newest term to whose leader it was sent with an unknown outcome. No leader of another term accepts it.
    pub open_in: Option<u64>,
}

/// The transactions that are being followed.
pub struct Traces {
    next: AtomicU64,
    followed: Mutex<HashMap<TraceId, Known>>,
}

impl Default for Traces {
    fn default() -> Self {
        // A random start makes the ids unique among all senders.
        Traces { next: AtomicU64::new(platform::random()), followed: Mutex::default() }
    }
}

impl Traces {
    /// Starts following a new transaction.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Trace {
        let id = TraceId(self.next.fetch_add(1, Ordering::Relaxed));
        self.followed.lock().insert(id, Known { fate: Fate::NotSeen, open_in: None });
        Trace { id, traces: self.clone() }
    }

    /// Records transactions that have taken effect.
    pub fn landed(&self, landings: &[Landing]) {
        if landings.is_empty() {
            return;
        }
        let mut followed = self.followed.lock();
        for Landing { trace, revision } in landings {
            if let Some(known) = followed.get_mut(trace) {
                known.fate = Fate::Landed(*revision);
            }
        }
    }

    /// Records that a command was sent to the leader of a term and that its outcome is unknown.
    pub fn left_open(&self, command: &Command, term: u64) {
        let Command::TracedTxn { trace, .. } = command else { return };
        if let Some(known) = self.followed.lock().get_mut(trace) {
            known.open_in = known.open_in.max(Some(term));
        }
    }

    /// Records that the state was replaced by another one, to which followed transactions may have been applied unseen.
    pub fn lose_sight(&self) {
        for known in self.followed.lock().values_mut().filter(|known| known.fate == Fate::NotSeen) {
            known.fate = Fate::OutOfSight;
        }
    }
}

/// A followed transaction. Dropping it ends the following.
pub struct Trace {
    id: TraceId,
    traces: Arc<Traces>,
}

impl Trace {
    #[must_use]
    pub fn id(&self) -> TraceId {
        self.id
    }

    #[must_use]
    pub fn known(&self) -> Known {
        let known = self.traces.followed.lock().get(&self.id).copied();
        known.unwrap_or(Known { fate: Fate::OutOfSight, open_in: None })
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.traces.followed.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::{Txn, TxnResponse};

    use super::*;

    fn apply(traces: &Traces, trace: TraceId, revision: u64, succeeded: bool) {
        let outcome = Ok(Outcome::Txn(TxnResponse { succeeded, responses: Vec::new() }));
        let command = Command::TracedTxn { trace, txn: Txn::default() };
        traces.landed(Landing::of(&command, &Reply { revision: Revision(revision), outcome }).as_slice());
    }

    #[test]
    fn landings_are_recorded_and_possibly_missed_ones_stay_open() {
        let traces = Arc::new(Traces::default());
        let (one, another) = (traces.follow(), traces.follow());
        let fates = |traces: [&Trace; 2]| traces.map(|trace| trace.known().fate);
        assert_ne!(one.id(), another.id());
        apply(&traces, one.id(), 5, false);
        assert_eq!(fates([&one, &another]), [Fate::NotSeen, Fate::NotSeen]);
        apply(&traces, one.id(), 6, true);
        assert_eq!(fates([&one, &another]), [Fate::Landed(Revision(6)), Fate::NotSeen]);
        traces.lose_sight();
        assert_eq!(fates([&one, &another]), [Fate::Landed(Revision(6)), Fate::OutOfSight]);
        apply(&traces, another.id(), 7, false);
        assert_eq!(another.known().fate, Fate::OutOfSight);
        apply(&traces, another.id(), 8, true);
        assert_eq!(another.known().fate, Fate::Landed(Revision(8)));
        assert_eq!(traces.follow().known().fate, Fate::NotSeen);
        let id = one.id();
        drop((one, another));
        apply(&traces, id, 9, true);
        assert!(traces.followed.lock().is_empty(), "dropped traces are no longer followed");
    }

    #[test]
    fn only_the_newest_open_term_is_kept() {
        let traces = Arc::new(Traces::default());
        let trace = traces.follow();
        let command = Command::TracedTxn { trace: trace.id(), txn: Txn::default() };
        assert_eq!(trace.known().open_in, None);
        for term in [4, 6, 5] {
            traces.left_open(&command, term);
        }
        traces.left_open(&Command::Txn(Txn::default()), 9);
        assert_eq!(trace.known().open_in, Some(6));
    }
}
