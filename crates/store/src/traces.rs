//! Transactions whose effect is told from everybody else's.
//!
//! Who loses the answer to a transaction, because a leader died, cannot tell from the keys whether it took effect: another may
//! have written over it, or the same. So a traced one carries a number of its own, and whoever sent it follows it to where
//! everything passes: as this member applies it. Nothing of that is kept in the state.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{Command, Outcome, Reply, TraceId};

use crate::platform;

/// What became of a transaction, each time that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This member has applied none with which its comparisons held.
    NotSeen,
    /// As [`Fate::NotSeen`], but this member may have missed it: its state was opened anew, or came from another.
    OutOfSight,
    /// It took effect at this revision.
    Landed(Revision),
}

/// A traced transaction that has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landing {
    trace: TraceId,
    revision: Revision,
}

impl Landing {
    /// What was applied, if it is one.
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

/// The transactions that somebody follows.
pub struct Traces {
    next: AtomicU64,
    followed: Mutex<HashMap<TraceId, Fate>>,
}

impl Default for Traces {
    fn default() -> Self {
        // Nobody else counts from there.
        Traces { next: AtomicU64::new(platform::random()), followed: Mutex::default() }
    }
}

impl Traces {
    /// Begins to follow a new transaction.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Trace {
        let id = TraceId(self.next.fetch_add(1, Ordering::Relaxed));
        self.followed.lock().insert(id, Fate::NotSeen);
        Trace { id, traces: self.clone() }
    }

    /// Takes note of what has taken effect.
    pub fn landed(&self, landings: &[Landing]) {
        if landings.is_empty() {
            return;
        }
        let mut followed = self.followed.lock();
        for Landing { trace, revision } in landings {
            if let Some(fate) = followed.get_mut(trace) {
                *fate = Fate::Landed(*revision);
            }
        }
    }

    /// Takes note that the state is another one, to which something may have been applied that was not told here.
    pub fn lose_sight(&self) {
        for fate in self.followed.lock().values_mut().filter(|fate| **fate == Fate::NotSeen) {
            *fate = Fate::OutOfSight;
        }
    }
}

/// A transaction that is followed until this is dropped.
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
    pub fn fate(&self) -> Fate {
        self.traces.followed.lock().get(&self.id).copied().unwrap_or(Fate::OutOfSight)
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
    fn what_lands_is_known_and_what_was_overlooked_is_not_denied() {
        let traces = Arc::new(Traces::default());
        let (one, another) = (traces.follow(), traces.follow());
        assert_ne!(one.id(), another.id());
        apply(&traces, one.id(), 5, false);
        assert_eq!((one.fate(), another.fate()), (Fate::NotSeen, Fate::NotSeen));
        apply(&traces, one.id(), 6, true);
        assert_eq!((one.fate(), another.fate()), (Fate::Landed(Revision(6)), Fate::NotSeen));
        traces.lose_sight();
        assert_eq!((one.fate(), another.fate()), (Fate::Landed(Revision(6)), Fate::OutOfSight));
        apply(&traces, another.id(), 7, false);
        assert_eq!(another.fate(), Fate::OutOfSight);
        apply(&traces, another.id(), 8, true);
        assert_eq!(another.fate(), Fate::Landed(Revision(8)));
        assert_eq!(traces.follow().fate(), Fate::NotSeen);
        let id = one.id();
        drop((one, another));
        apply(&traces, id, 9, true);
        assert!(traces.followed.lock().is_empty(), "nobody follows it any more");
    }
}
