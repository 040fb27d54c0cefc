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

#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put(Bytes),
    Delete,
}

#[derive(Debug)]
pub(crate) enum Committed {
    /// At this revision.
    Done(Revision),
    /// A guard did not hold; what its keys are now, in the guards' order.
    Stale(Vec<Option<KeyValue>>),
}

/// Writes the key of the first guard if all guards hold.
///
/// A lost leader leaves the outcome open. Whether it took effect is found out, whoever has written over ours or made the same
/// (see decision 2).
///
/// # Errors
/// What the store says; `Timeout` when the outcome stays unknown.
pub(crate) async fn commit(store: &Store, guards: &[Guard], write: &Write) -> Result<Committed, Status> {
    let committed = store.txn_once(transaction(guards, write), LOOK_FOR).await;
    let (revision, response) = committed.map_err(|error| error::from_store(&error))?;
    Ok(if response.succeeded { Committed::Done(revision) } else { Committed::Stale(present(response)) })
}

fn transaction(guards: &[Guard], write: &Write) -> Txn {
    let key = guards.first().map(|guard| guard.key.clone()).unwrap_or_default();
    let success = match write {
        Write::Put(value) => Op::Put(PutRequest { key, value: value.clone(), ..PutRequest::default() }),
        Write::Delete => Op::Delete(DeleteRequest { range: KeyRange::key(key), prev_kv: false }),
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
        success: vec![success],
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
        Write::Put(value.into())
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
            let (_, response) = store.txn(transaction(&[guard(revision)], &write)).await.expect("written");
            assert!(response.succeeded);
        })
    }

    #[tokio::test]
    async fn an_answer_that_is_lost_is_found_although_others_have_written() {
        let later = |first: &Write| match first {
            Write::Put(_) => [Some(put("another's")), Some(Write::Delete), None],
            Write::Delete => [Some(put("another's")), None, None],
        };
        for (existed, write) in [(false, put("ours")), (true, put("ours")), (true, Write::Delete)] {
            for overwritten in later(&write) {
                let store = Store::memory_losing(u64::from(existed));
                let mut revision = Revision::ZERO;
                if existed {
                    let (written, _) = store.txn(transaction(&[guard(revision)], &put("before"))).await.expect("new");
                    revision = written;
                }
                let changing = overwritten.map(|write| change_after(&store, write));
                let committed = commit(&store, &[guard(revision)], &write).await.expect("known in the end");
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
        let (first, _) = store.txn(transaction(&[guard(Revision::ZERO)], &put("0"))).await.expect("new");
        let increment = || async { commit(&store, &[guard(first)], &put("1")).await.expect("known in the end") };
        let Committed::Done(at) = increment().await else { panic!("nothing stood against it") };
        // The answer to this one is lost. What is there is what it was to write, over what it was to write it over.
        let Committed::Stale(now) = increment().await else { panic!("it was another's") };
        let now = now[0].as_ref().expect("the key is there");
        assert_eq!((&now.value[..], now.mod_revision), (&b"1"[..], at));
    }

    #[tokio::test]
    async fn what_has_not_landed_is_stale() {
        let store = Store::memory_losing(1);
        let (first, _) = store.txn(transaction(&[guard(Revision::ZERO)], &put("before"))).await.expect("new");
        // Its answer is lost as well, but it was too late.
        for write in [put("ours"), Write::Delete] {
            let committed = commit(&store, &[guard(Revision(first.0 - 1))], &write).await.expect("known");
            let Committed::Stale(now) = committed else { panic!("{write:?} landed: {committed:?}") };
            assert_eq!(now[0].as_ref().map(|kv| &kv.value[..]), Some(&b"before"[..]));
        }
    }
}
