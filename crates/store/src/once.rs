//! A transaction that takes effect once, although answers are lost.

use std::time::Duration;

use quorate_api::Revision;
use quorate_mvcc::{Command, CompareOperator, CompareTarget, KeyRange, Op, Txn, TxnResponse};

use crate::error::StoreError;
use crate::handle::Store;
use crate::platform::tokio::time::{Instant, sleep};
use crate::traces::{Fate, Trace};

/// How often an unknown outcome is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Answer = Result<(Revision, TxnResponse), StoreError>;

/// See [`Store::txn_once`].
pub async fn commit(store: &Store, txn: Txn, within: Duration) -> Answer {
    let deadline = Instant::now() + within;
    let trace = store.traces().follow();
    let holds_once = holds_once(&txn);
    let sending = Sending { store, command: Command::TracedTxn { trace: trace.id(), txn }, trace, holds_once };
    // The newest term in which it may have been proposed, with an outcome that is not known.
    let mut open = None;
    loop {
        let answer = match open {
            None => sending.send().await,
            Some(term) => sending.look_and_send(term).await,
        };
        let is_decided = match &answer {
            Ok((_, response)) if response.succeeded => return answer,
            Ok(_) | Err(StoreError::Command(_)) => true,
            Err(_) => false,
        };
        // Whether it was refused now or not: it may have taken effect before.
        match sending.trace.fate() {
            Fate::Landed(revision) => return landed(revision),
            Fate::OutOfSight if is_decided && open.is_some() => return Err(unknown("this member has not seen all")),
            Fate::NotSeen | Fate::OutOfSight if is_decided => return answer,
            Fate::NotSeen | Fate::OutOfSight => {}
        }
        let Err(error) = answer else { return answer };
        let is_in_time = Instant::now() < deadline;
        match error {
            StoreError::OutcomeUnknown(_) if is_in_time => open = Some(store.leadership().borrow().term),
            // Nothing was done this time, but it may have been before.
            StoreError::NoLeader(_) | StoreError::Overloaded | StoreError::NoSpace(_)
                if open.is_some() && is_in_time => {}
            error if open.is_some() => return Err(unknown(&error.to_string())),
            error => return Err(error),
        }
        sleep(LOOK_EVERY).await;
    }
}

struct Sending<'a> {
    store: &'a Store,
    command: Command,
    trace: Trace,
    holds_once: bool,
}

impl Sending<'_> {
    async fn send(&self) -> Answer {
        self.store.answered(self.command.clone()).await
    }

    /// Sends it again if it cannot take effect twice: where `term` is the newest in which it was sent.
    async fn look_and_send(&self, term: u64) -> Answer {
        // What was proposed in an earlier term is in the log of who leads now, or it never will be.
        let is_past = self.store.leadership().borrow().term > term;
        // All of those terms that was committed is applied then.
        self.store.read_barrier().await?;
        match self.trace.fate() {
            Fate::Landed(revision) => landed(revision),
            Fate::NotSeen if is_past => self.send().await,
            Fate::NotSeen | Fate::OutOfSight if self.holds_once => self.send().await,
            Fate::NotSeen => Err(unknown("it may still be on its way")),
            Fate::OutOfSight => Err(unknown("this member has not seen all")),
        }
    }
}

fn landed(revision: Revision) -> Answer {
    Ok((revision, TxnResponse { succeeded: true, responses: Vec::new() }))
}

fn unknown(why: &str) -> StoreError {
    StoreError::OutcomeUnknown(why.to_owned())
}

/// Whether the comparisons of a transaction never hold again when it has taken effect: it changes a key that must be at a
/// revision.
fn holds_once(txn: &Txn) -> bool {
    let changes = |range: &KeyRange| {
        txn.success.iter().any(|op| match op {
            Op::Put(put) => KeyRange::key(put.key.clone()) == *range,
            Op::Delete(delete) => delete.range == *range,
            Op::Range(_) | Op::Txn(_) => false,
        })
    };
    txn.compare.iter().any(|compare| {
        let is_there = matches!(compare.target, CompareTarget::ModRevision(revision) if !revision.is_zero());
        is_there && compare.operator == CompareOperator::Equal && changes(&compare.range)
    })
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::{Compare, DeleteRequest, PutRequest};

    use super::*;

    #[test]
    fn only_what_changes_a_key_at_its_revision_holds_once() {
        let at = |key: &'static str, revision| Compare {
            range: KeyRange::key(key),
            target: CompareTarget::ModRevision(Revision(revision)),
            operator: CompareOperator::Equal,
        };
        let put = || Op::Put(PutRequest { key: "a".into(), ..PutRequest::default() });
        let delete = || Op::Delete(DeleteRequest { range: KeyRange::key("a"), prev_kv: false });
        let check =
            |compare: Vec<Compare>, op: Op| holds_once(&Txn { compare, success: vec![op], failure: Vec::new() });
        assert!(check(vec![at("a", 5)], put()) && check(vec![at("b", 5), at("a", 6)], delete()));
        assert!(!check(vec![at("a", 0), at("b", 5)], put()), "it may be created twice");
        assert!(!check(Vec::new(), delete()) && !check(vec![at("b", 5)], put()));
        let newer = Compare { operator: CompareOperator::Less, ..at("a", 9) };
        assert!(!check(vec![newer], put()));
    }
}
