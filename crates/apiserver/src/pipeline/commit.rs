//! The commit stage: one transaction that holds only if nothing it was decided on has changed since.

use std::time::Duration;

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, KeyValue, Op, OpResponse, PutRequest,
    RangeRequest, Txn, TxnResponse,
};
use quorate_store::Store;

use crate::error;

/// How long an unknown outcome is looked into.
const LOOK_FOR: Duration = Duration::from_secs(15);

/// A key must still be at this revision; zero: must not exist.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub key: Bytes,
    pub revision: Revision,
}

/// What becomes of one key.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
}

/// A part of a transaction: what must not have changed, and what is written with the rest or not at all. A stage of the
/// pipeline that has to write more than the object returns this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    pub guards: Vec<Guard>,
    pub writes: Vec<Write>,
}

impl Effects {
    /// Adds what another stage wants in the same transaction.
    pub fn join(&mut self, other: Effects) {
        self.guards.extend(other.guards);
        self.writes.extend(other.writes);
    }
}

#[derive(Debug)]
pub(crate) enum Committed {
    /// At this revision.
    Done(Revision),
    /// A guard did not hold; what its keys are now, in the guards' order.
    Stale(Vec<Option<KeyValue>>),
}

/// Makes all writes if all guards hold, and none otherwise.
///
/// A lost leader leaves the outcome open. Whether it took effect is found out, whoever has written over ours or made the same
/// (see decision 2).
///
/// # Errors
/// What the store says; `Timeout` when the outcome stays unknown.
pub(crate) async fn commit(store: &Store, effects: &Effects) -> Result<Committed, Status> {
    let committed = store.txn_once(transaction(effects), LOOK_FOR).await;
    let (revision, response) = committed.map_err(|error| error::from_store(&error))?;
    Ok(if response.succeeded { Committed::Done(revision) } else { Committed::Stale(present(response)) })
}

fn transaction(Effects { guards, writes }: &Effects) -> Txn {
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
        Effects { guards: vec![guard(revision)], writes: vec![write.clone()] }
    }

    /// Changes the key again as soon as somebody has.
    fn change_after(store: &Store, write: Write) -> tokio::task::JoinHandle<()> {
        let store = store.clone();
        let mut changes = store.watch(KeyRange::key(KEY), Revision::ZERO).expect("a watch");
        tokio::spawn(async move {
            let batch = changes.next().await.expect("a change").expect("it is told");
            let revision = match batch.events.last().expect("an event") {
                Event::Put { kv, .. } => kv.mod_revision,
                Event::Delete { .. } => Revision::ZERO,
            };
            let (_, response) = store.txn(transaction(&effects(revision, &write))).await.expect("written");
            assert!(response.succeeded);
        })
    }

    #[tokio::test]
    async fn an_answer_that_is_lost_is_found_although_others_have_written() {
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
    async fn of_two_who_write_the_same_one_has_written_it() {
        let store = Store::memory_losing(2);
        let (first, _) = store.txn(transaction(&effects(Revision::ZERO, &put("0")))).await.expect("new");
        let increment = || async { commit(&store, &effects(first, &put("1"))).await.expect("known in the end") };
        let Committed::Done(at) = increment().await else { panic!("nothing stood against it") };
        // The answer to this one is lost. What is there is what it was to write, over what it was to write it over.
        let Committed::Stale(now) = increment().await else { panic!("it was another's") };
        let now = now[0].as_ref().expect("the key is there");
        assert_eq!((&now.value[..], now.mod_revision), (&b"1"[..], at));
    }

    #[tokio::test]
    async fn what_has_not_landed_is_stale() {
        let store = Store::memory_losing(1);
        let (first, _) = store.txn(transaction(&effects(Revision::ZERO, &put("before")))).await.expect("new");
        // Its answer is lost as well, but it was too late.
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
        let both = Effects { guards: vec![free("a"), free("b")], writes: vec![row("a"), row("b")] };
        let Committed::Done(at) = commit(&store, &both).await.expect("committed") else { panic!("nothing was there") };
        let taken = Effects { guards: vec![free("c"), free("b")], writes: vec![row("c"), row("b")] };
        let Committed::Stale(now) = commit(&store, &taken).await.expect("answered") else { panic!("b is taken") };
        assert_eq!(now.iter().map(|kv| kv.as_ref().map(|kv| kv.mod_revision)).collect::<Vec<_>>(), [None, Some(at)]);
        assert_eq!(store.revision(), at, "nothing was written");
    }
}
