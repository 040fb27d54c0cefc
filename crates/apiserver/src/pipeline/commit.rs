//! The commit stage: one transaction that holds only if nothing it was decided on has changed since.

use std::time::Duration;

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, KeyValue, Op, OpResponse, PutRequest,
    RangeRequest, Txn, TxnResponse,
};
use quorate_store::{Store, StoreError};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::error;
use crate::metadata;

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
/// A lost leader leaves the outcome open. The same transaction is then sent again: if the first took effect, the
/// guard fails and the value that stands there is the one written, so a retry is harmless and also the look.
///
/// # Errors
/// What the store says; `Timeout` when the outcome stays unknown.
pub(crate) async fn commit(store: &Store, guards: &[Guard], write: &Write) -> Result<Committed, Status> {
    let txn = transaction(guards, write);
    let deadline = Instant::now() + LOOK_FOR;
    let mut may_have_landed = false;
    loop {
        match store.txn(txn.clone()).await {
            Ok((revision, TxnResponse { succeeded: true, .. })) => return Ok(Committed::Done(revision)),
            Ok((_, response)) => {
                let now = present(response);
                if may_have_landed && let Some(revision) = landed(guards, write, now.first()) {
                    return Ok(Committed::Done(revision));
                }
                return Ok(Committed::Stale(now));
            }
            Err(StoreError::OutcomeUnknown(_)) if Instant::now() < deadline => may_have_landed = true,
            // Nothing was proposed this time, but it may have been before.
            Err(StoreError::NoLeader(_)) if may_have_landed && Instant::now() < deadline => {}
            Err(StoreError::NoLeader(why)) if may_have_landed => {
                return Err(error::from_store(&StoreError::OutcomeUnknown(why)));
            }
            Err(error) => return Err(error::from_store(&error)),
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

/// The revision at which our write took effect, judged by what stands at the key now.
fn landed(guards: &[Guard], write: &Write, now: Option<&Option<KeyValue>>) -> Option<Revision> {
    let now = now?.as_ref();
    match (write, now) {
        (Write::Put(ours), Some(now)) if now.value == *ours => Some(now.mod_revision),
        // Created by us and already changed by somebody else.
        (Write::Put(ours), Some(now)) if guards.first().is_some_and(|g| g.revision.is_zero()) => {
            (uid(ours).is_some() && uid(ours) == uid(&now.value)).then_some(now.create_revision)
        }
        (Write::Put(_), _) => None,
        (Write::Delete, None) => guards.first().map(|g| g.revision),
        (Write::Delete, Some(now)) => {
            guards.first().filter(|g| now.create_revision > g.revision).map(|_| now.create_revision)
        }
    }
}

fn uid(value: &[u8]) -> Option<String> {
    let object: Value = serde_json::from_slice(value).ok()?;
    Some(metadata::text(&object, "uid").to_owned()).filter(|uid| !uid.is_empty())
}
