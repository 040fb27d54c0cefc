//! Transactions that take effect at most once, even when responses are lost.

use std::time::Duration;

use quorate_api::Revision;
use quorate_mvcc::{Command, Compare, CompareOperator, CompareTarget, KeyRange, Op, Txn, TxnResponse};

use crate::error::StoreError;
use crate::handle::Store;
use crate::platform::tokio::time::{Instant, sleep};
use crate::traces::{Fate, Known, Trace};

/// Interval between attempts to find out an unknown outcome.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

const MISSED: &str = "this member may have missed it";

type Answer = Result<(Revision, TxnResponse), StoreError>;

/// See [`Store::txn_once`].
pub async fn commit(store: &Store, txn: Txn, within: Duration) -> Answer {
    debug_assert!(!writes(&txn.failure), "writes of the failure branch cannot be traced");
    let deadline = Instant::now() + within;
    let trace = store.traces().follow();
    let holds_once = holds_once(&txn);
    let sending = Sending { store, command: Command::TracedTxn { trace: trace.id(), txn }, trace, holds_once };
    let mut may_have_landed = false;
    loop {
        let answer = if may_have_landed { sending.check_and_send().await } else { sending.send().await };
        let error = match (answer, sending.trace.known().fate) {
            (Ok((revision, response)), _) if response.succeeded => return Ok((revision, response)),
            // An earlier attempt may have taken effect, even if this one was refused.
            (_, Fate::Landed(revision)) => return landed(revision),
            (Ok(_) | Err(StoreError::Command(_)), Fate::OutOfSight) if may_have_landed => return Err(unknown(MISSED)),
            (answer @ (Ok(_) | Err(StoreError::Command(_))), _) => return answer,
            (Err(error), _) => error,
        };
        let is_in_time = Instant::now() < deadline;
        match error {
            StoreError::OutcomeUnknown(_) if is_in_time => may_have_landed = true,
            // This attempt did nothing, but an earlier one may have taken effect.
            StoreError::NoLeader(_) | StoreError::Overloaded | StoreError::NoSpace(_)
                if may_have_landed && is_in_time => {}
            error if may_have_landed => return Err(unknown(&error.to_string())),
            error => return Err(error),
        }
        sleep(CHECK_INTERVAL).await;
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

    /// Checks whether the transaction has taken effect, and sends it again if it has not and cannot take effect twice.
    async fn check_and_send(&self) -> Answer {
        let term = self.store.leadership().borrow().term;
        self.store.read_barrier().await?;
        let Known { fate, open_in } = self.trace.known();
        // The leader of this term or a later one has applied everything that earlier leaders committed, and after the
        // barrier so has this member. A transaction that was sent to an earlier leader and is not applied by now never
        // takes effect.
        let is_over = open_in.is_some_and(|open_in| open_in < term);
        match fate {
            Fate::Landed(revision) => landed(revision),
            Fate::NotSeen if is_over || self.holds_once => self.send().await,
            Fate::OutOfSight if self.holds_once => self.send().await,
            Fate::NotSeen => Err(unknown("it may still be on its way")),
            Fate::OutOfSight => Err(unknown(MISSED)),
        }
    }
}

fn landed(revision: Revision) -> Answer {
    Ok((revision, TxnResponse { succeeded: true, responses: Vec::new() }))
}

fn unknown(why: &str) -> StoreError {
    StoreError::OutcomeUnknown(why.to_owned())
}

/// Whether the comparisons of a transaction cannot hold a second time after it has taken effect or been refused: all of
/// them require keys at certain revisions, and the transaction changes at least one of these keys.
fn holds_once(txn: &Txn) -> bool {
    let changes = |range: &KeyRange| {
        txn.success.iter().any(|op| match op {
            Op::Put(put) => KeyRange::key(put.key.clone()) == *range,
            Op::Delete(delete) => delete.range == *range,
            Op::Range(_) | Op::Txn(_) => false,
        })
    };
    let wants_revision = |compare: &Compare| {
        let is_there = matches!(compare.target, CompareTarget::ModRevision(revision) if !revision.is_zero());
        is_there && compare.operator == CompareOperator::Equal && compare.range.single().is_some()
    };
    txn.compare.iter().all(wants_revision) && txn.compare.iter().any(|compare| changes(&compare.range))
}

fn writes(ops: &[Op]) -> bool {
    ops.iter().any(|op| match op {
        Op::Range(_) => false,
        Op::Put(_) | Op::Delete(_) => true,
        Op::Txn(txn) => writes(&txn.success) || writes(&txn.failure),
    })
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::{DeleteRequest, PutRequest, RangeRequest};

    use super::*;
    use crate::memory::Loss;
    use crate::platform::tokio;

    fn at(key: &'static str, revision: u64) -> Compare {
        Compare {
            range: KeyRange::key(key),
            target: CompareTarget::ModRevision(Revision(revision)),
            operator: CompareOperator::Equal,
        }
    }

    #[test]
    fn only_a_change_of_a_key_at_its_revision_holds_once() {
        let put = || Op::Put(PutRequest { key: "a".into(), ..PutRequest::default() });
        let delete = || Op::Delete(DeleteRequest { range: KeyRange::key("a"), prev_kv: false });
        let check =
            |compare: Vec<Compare>, op: Op| holds_once(&Txn { compare, success: vec![op], failure: Vec::new() });
        assert!(check(vec![at("a", 5)], put()) && check(vec![at("b", 5), at("a", 6)], delete()));
        assert!(!check(vec![at("a", 0), at("b", 5)], put()), "the key may be created twice");
        assert!(!check(Vec::new(), delete()) && !check(vec![at("b", 5)], put()));
        let newer = Compare { operator: CompareOperator::Less, ..at("a", 9) };
        assert!(!check(vec![newer], put()));
        assert!(!check(vec![at("a", 5), at("b", 0)], put()), "the other key may be deleted again");
    }

    fn set(key: &'static str, revision: u64, value: &'static str) -> Txn {
        Txn {
            compare: vec![at(key, revision)],
            success: vec![Op::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })],
            failure: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_lost_transaction_is_sent_again_when_it_cannot_take_effect_twice() {
        let within = Duration::from_millis(200);
        for loss in [Loss::Answer, Loss::Command, Loss::Leader] {
            // This transaction changes a key at its revision.
            let store = Store::memory_with_loss(1, loss);
            let (first, _) = store.txn(set("k", 0, "before")).await.expect("new");
            let (second, response) = store.txn_once(set("k", first.0, "after"), within).await.expect("it is found out");
            assert_eq!((second, response.succeeded), (first.next(), true), "{loss:?}");
            // This transaction creates a key.
            let store = Store::memory_with_loss(0, loss);
            let made = store.txn_once(set("k", 0, "new"), within).await;
            match (loss, made) {
                (Loss::Command, Err(StoreError::OutcomeUnknown(_))) => {}
                (Loss::Answer | Loss::Leader, Ok((revision, response))) => {
                    assert_eq!((revision, response.succeeded), (first, true), "{loss:?}");
                }
                (loss, made) => panic!("{loss:?}: {made:?}"),
            }
            let versions = store.read_local(&RangeRequest::new(KeyRange::key("k"))).expect("readable").kvs;
            assert_eq!(
                versions.iter().map(|kv| kv.version).collect::<Vec<_>>(),
                match loss {
                    Loss::Command => vec![],
                    Loss::Answer | Loss::Leader => vec![1],
                }
            );
        }
    }

    #[tokio::test]
    async fn a_refused_transaction_has_not_taken_effect() {
        for loss in [Loss::Answer, Loss::Command, Loss::Leader] {
            let store = Store::memory_with_loss(2, loss);
            let (first, _) = store.txn(set("k", 0, "0")).await.expect("new");
            let (second, _) = store.txn(set("k", first.0, "1")).await.expect("as it was");
            let (now, response) = store.txn_once(set("k", first.0, "1"), Duration::from_secs(60)).await.expect("known");
            assert_eq!((now, response.succeeded), (second, false), "{loss:?}");
        }
    }
}
