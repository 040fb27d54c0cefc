//! The commit stage: one transaction that holds only if nothing it was decided on has changed since.

use std::time::Duration;

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, Event, KeyRange, KeyValue, Op, OpResponse, Previous,
    PutRequest, RangeRequest, Txn, TxnResponse,
};
use quorate_store::{Store, StoreError};
use tokio::time::{Instant, sleep, timeout};

use crate::error;

/// How long an unknown outcome is looked into.
const LOOK_FOR: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
/// A lost leader leaves the outcome open. What has changed the key since tells whether it took effect, whoever has written
/// over ours; if it has not, the same transaction is sent again, and then the first can do so no more (or, where it creates
/// something, hardly: see decision 2).
///
/// # Errors
/// What the store says; `Timeout` when the outcome stays unknown.
pub(crate) async fn commit(store: &Store, guards: &[Guard], write: &Write) -> Result<Committed, Status> {
    let txn = transaction(guards, write);
    let deadline = Instant::now() + LOOK_FOR;
    if store.revision().is_zero() {
        // The state is being opened. What comes later could not be told from what is older.
        store.read_barrier().await.map_err(|error| error::from_store(&error))?;
    }
    let before = guards.iter().map(|guard| guard.revision).fold(store.revision(), Revision::max);
    let mut may_have_landed = false;
    loop {
        let landed = async |now| match may_have_landed {
            true => landed(store, guards, write, (before, now), deadline).await,
            false => Ok(None),
        };
        let attempt = async {
            if may_have_landed {
                store.read_barrier().await?;
            }
            if let Some(revision) = landed(store.revision()).await? {
                return Ok(Committed::Done(revision));
            }
            let (now, response) = store.txn(txn.clone()).await?;
            if response.succeeded {
                return Ok(Committed::Done(now));
            }
            Ok(landed(now).await?.map_or_else(|| Committed::Stale(present(response)), Committed::Done))
        };
        let error = match attempt.await {
            Ok(committed) => return Ok(committed),
            Err(error) => error,
        };
        let is_in_time = Instant::now() < deadline;
        match error {
            StoreError::OutcomeUnknown(_) if is_in_time => may_have_landed = true,
            // Nothing was done this time, but it may have been before.
            StoreError::NoLeader(_) | StoreError::Overloaded | StoreError::NoSpace(_)
                if may_have_landed && is_in_time => {}
            error if may_have_landed => {
                return Err(error::from_store(&StoreError::OutcomeUnknown(error.to_string())));
            }
            error => return Err(error::from_store(&error)),
        }
        sleep(LOOK_EVERY).await;
    }
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

/// The revision at which our write took effect, if it did, judged by what changed the key after `before`, up to `now`.
///
/// # Errors
/// `OutcomeUnknown` when that cannot be read any more, or not in time.
async fn landed(
    store: &Store,
    guards: &[Guard],
    write: &Write,
    (before, now): (Revision, Revision),
    deadline: Instant,
) -> Result<Option<Revision>, StoreError> {
    let Some(guard) = guards.first() else { return Ok(None) };
    let unknown = |why: String| StoreError::OutcomeUnknown(why);
    let mut changes =
        store.watch(KeyRange::key(guard.key.clone()), before).map_err(|error| unknown(error.to_string()))?;
    loop {
        let batch = match timeout(LOOK_EVERY, changes.next()).await {
            Ok(Some(batch)) => batch.map_err(|error| unknown(error.to_string()))?,
            Ok(None) => return Err(unknown("the watch of its key has ended".to_owned())),
            Err(_) if Instant::now() > deadline => return Err(unknown("its key cannot be read in time".to_owned())),
            Err(_) => {
                // This member may be behind whoever answered.
                store.mark_watch_progress();
                continue;
            }
        };
        for event in batch.events.iter() {
            match is_ours(event, guard, write) {
                Some(true) => return Ok(Some(event.kv().mod_revision)),
                Some(false) => {}
                None => return Err(unknown("what was there before is compacted".to_owned())),
            }
        }
        if batch.revision >= now {
            return Ok(None);
        }
    }
}

/// Whether a change is what was to be written: our content, over the version that it was based on. `None` when that cannot
/// be told any more. Of two who make the same of the same version each may call the change its own.
fn is_ours(event: &Event, guard: &Guard, write: &Write) -> Option<bool> {
    let is_alike = match (event, write) {
        (Event::Put { kv, .. }, Write::Put(ours)) => kv.value == *ours,
        (Event::Delete { .. }, Write::Delete) => true,
        _ => false,
    };
    match event {
        _ if !is_alike => Some(false),
        Event::Put { prev: Previous::None, .. } | Event::Delete { prev: Previous::None, .. } => {
            guard.revision.is_zero().then_some(true)
        }
        Event::Put { prev, .. } | Event::Delete { prev, .. } => Some(prev.revision() == guard.revision),
    }
}

#[cfg(test)]
mod tests {
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
