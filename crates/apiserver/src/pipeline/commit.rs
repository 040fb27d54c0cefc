//! The commit stage: one transaction that takes effect only if none of the keys that it depends on has changed since.

use std::time::Duration;

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, KeyValue, Op, OpResponse, PutRequest,
    RangeRequest, Txn, TxnResponse,
};
use quorate_store::Store;

use crate::error;
use crate::pipeline::turns::Turn;

/// Time for which an unknown outcome is looked up.
const LOOK_FOR: Duration = Duration::from_secs(15);

/// A precondition: the key is still at this revision, or absent if the revision is zero.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub key: Bytes,
    pub revision: Revision,
}

/// A write of one key.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
}

/// A part of a transaction: preconditions, and the writes that take effect with the rest or not at all. Stages that
/// write more than the object return this.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub guards: Vec<Guard>,
    pub writes: Vec<Write>,
    /// A turn that ends after the commit, when the effects are dropped. It keeps writes from contending for one guard.
    pub turn: Option<Turn>,
}

impl Effects {
    /// Adds the guards and writes of another stage.
    pub fn join(&mut self, other: Effects) {
        self.guards.extend(other.guards);
        self.writes.extend(other.writes);
        self.turn = self.turn.take().or(other.turn);
    }
}

#[derive(Debug)]
pub(crate) enum Committed {
    /// The writes took effect at this revision.
    Done(Revision),
    /// A guard did not hold; the current values of the guards' keys, in the guards' order.
    Stale(Vec<Option<KeyValue>>),
}

/// Performs all writes if all guards hold, and none otherwise.
///
/// Losing the leader leaves the outcome open. The store then finds out whether the transaction took effect, even if
/// another client has since overwritten the keys or made the same write (see decision 2).
///
/// # Errors
/// Errors of the store; `Timeout` when the outcome stays unknown.
pub(crate) async fn commit(store: &Store, effects: &Effects) -> Result<Committed, Status> {
    let committed = store.txn_once(transaction(effects), LOOK_FOR).await;
    let (revision, response) = committed.map_err(|error| error::from_store(&error))?;
    Ok(if response.succeeded { Committed::Done(revision) } else { Committed::Stale(present(response)) })
}

fn transaction(Effects { guards, writes, .. }: &Effects) -> Txn {
    let op = |write: &Write| match write {
        Write::Put { key, value } => {
            Op::Put(PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() })
        }
        Write::Delete { key } => Op::Delete(DeleteRequest { range: KeyRange::key(key.clone()), prev_kv: false }),
    };
    Txn {
        compare: guards
            .iter()
            .map(|guard| Compare {
                range: KeyRange::key(guard.key.clone()),
                target: CompareTarget::ModRevision(guard.revision),
                operator: CompareOperator::Equal,
            })
            .collect(),
        success: writes.iter().map(op).collect(),
        failure: guards.iter().map(|g| Op::Range(RangeRequest::new(KeyRange::key(g.key.clone())))).collect(),
    }
}

fn present(response: TxnResponse) -> Vec<Option<KeyValue>> {
    response
        .responses
        .into_iter()
        .map(|response| match response {
            OpResponse::Range(range) => range.kvs.into_iter().next(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::Event;

    use super::*;

    const KEY: &[u8] = b"key";

    fn guard(revision: Revision) -> Guard {
        Guard { key: KEY.into(), revision }
    }

    fn put(value: &'static str) -> Write {
        Write::Put { key: KEY.into(), value: value.into() }
    }

    fn delete() -> Write {
        Write::Delete { key: KEY.into() }
    }

    fn effects(revision: Revision, write: &Write) -> Effects {
        Effects { guards: vec![guard(revision)], writes: vec![write.clone()], turn: None }
    }

    /// Changes the key again after its first change.
    fn change_after(store: &Store, write: Write) -> tokio::task::JoinHandle<()> {
        let store = store.clone();
        let mut changes = store.watch(KeyRange::key(KEY), Revision::ZERO).expect("a watch");
        tokio::spawn(async move {
            let batch = changes.next().await.expect("a change").expect("an event batch");
            let revision = match batch.events.last().expect("an event") {
                Event::Put { kv, .. } => kv.mod_revision,
                Event::Delete { .. } => Revision::ZERO,
            };
            let (_, response) = store.txn(transaction(&effects(revision, &write))).await.expect("written");
            assert!(response.succeeded);
        })
    }

    #[tokio::test]
    async fn the_outcome_of_a_lost_response_is_found_after_later_writes() {
        let later = |first: &Write| match first {
            Write::Put { .. } => [Some(put("another's")), Some(delete()), None],
            Write::Delete { .. } => [Some(put("another's")), None, None],
        };
        for (existed, write) in [(false, put("ours")), (true, put("ours")), (true, delete())] {
            for overwritten in later(&write) {
                let store = Store::memory_losing(u64::from(existed));
                let mut revision = Revision::ZERO;
                if existed {
                    let (written, _) = store.txn(transaction(&effects(revision, &put("before")))).await.expect("new");
                    revision = written;
                }
                let changing = overwritten.map(|write| change_after(&store, write));
                let committed = commit(&store, &effects(revision, &write)).await.expect("known in the end");
                let Committed::Done(at) = committed else { panic!("{write:?} is lost: {committed:?}") };
                assert_eq!(at, Revision(revision.0.max(1) + 1));
                if let Some(changing) = changing {
                    changing.await.expect("no panic");
                }
            }
        }
    }

    #[tokio::test]
    async fn one_of_two_identical_writes_takes_effect() {
        let store = Store::memory_losing(2);
        let (first, _) = store.txn(transaction(&effects(Revision::ZERO, &put("0")))).await.expect("new");
        let increment = || async { commit(&store, &effects(first, &put("1"))).await.expect("known in the end") };
        let Committed::Done(at) = increment().await else { panic!("nothing stood against it") };
        // The second response is lost. The key holds the value that this write would have stored, at the revision that
        // it would have replaced.
        let Committed::Stale(now) = increment().await else { panic!("it was another's") };
        let now = now[0].as_ref().expect("the key is there");
        assert_eq!((&now.value[..], now.mod_revision), (&b"1"[..], at));
    }

    #[tokio::test]
    async fn a_write_whose_guard_failed_is_stale() {
        let store = Store::memory_losing(1);
        let (first, _) = store.txn(transaction(&effects(Revision::ZERO, &put("before")))).await.expect("new");
        // These responses are lost as well, but the guards did not hold.
        for write in [put("ours"), delete()] {
            let committed = commit(&store, &effects(Revision(first.0 - 1), &write)).await.expect("known");
            let Committed::Stale(now) = committed else { panic!("{write:?} landed: {committed:?}") };
            assert_eq!(now[0].as_ref().map(|kv| &kv.value[..]), Some(&b"before"[..]));
        }
    }

    #[tokio::test]
    async fn several_keys_are_written_together_or_not_at_all() {
        let store = Store::memory();
        let row = |key: &'static str| Write::Put { key: key.into(), value: "row".into() };
        let free = |key: &'static str| Guard { key: key.into(), revision: Revision::ZERO };
        let both = Effects { guards: vec![free("a"), free("b")], writes: vec![row("a"), row("b")], turn: None };
        let Committed::Done(at) = commit(&store, &both).await.expect("committed") else { panic!("nothing was there") };
        let taken = Effects { guards: vec![free("c"), free("b")], writes: vec![row("c"), row("b")], turn: None };
        let Committed::Stale(now) = commit(&store, &taken).await.expect("answered") else { panic!("b is taken") };
        assert_eq!(now.iter().map(|kv| kv.as_ref().map(|kv| kv.mod_revision)).collect::<Vec<_>>(), [None, Some(at)]);
        assert_eq!(store.revision(), at, "nothing was written");
    }
}
