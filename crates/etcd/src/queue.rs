//! The queue behind locks and elections: keys `<name>/<lease in hex>`, served in the order of their creation revisions.
//! It is etcd's client-side recipe, so clients of these services and clients that run the recipe share the queues.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_api::Revision;
use quorate_mvcc::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, KeyValue, LeaseId, Op, OpResponse, PutRequest,
    RangeRequest, Sort, SortTarget, Txn,
};
use quorate_store::{Consistency, HeldBudget};
use tonic::Status;

use crate::errors;
use crate::shared::Shared;

/// TTL of the lease that a request without one gets, in seconds (etcd's default for a session).
const SESSION_TTL_SECONDS: i64 = 60;

/// The prefix of a queue.
pub(crate) fn prefix(name: &[u8]) -> Bytes {
    let mut prefix = BytesMut::from(name);
    prefix.put_u8(b'/');
    prefix.freeze()
}

/// The condition that `key` was created at `revision`. Zero means that it does not exist.
pub(crate) fn created_at(key: &Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::key(key.clone()),
        target: CompareTarget::CreateRevision(revision),
        operator: CompareOperator::Equal,
    }
}

pub(crate) fn put(key: &Bytes, value: Bytes, lease: LeaseId) -> Op {
    Op::Put(PutRequest { key: key.clone(), value, lease, ..PutRequest::default() })
}

/// A request for the newest or oldest key of a queue.
fn end_of_queue(prefix: &Bytes, newest: bool) -> RangeRequest {
    let sort = Sort { by: SortTarget::CreateRevision, descending: newest };
    RangeRequest { sort: Some(sort), limit: 1, ..RangeRequest::new(KeyRange::prefix(prefix.clone())) }
}

/// Reads the first key of a queue. Also returns the reservation for sending it to a client.
pub(crate) async fn first(
    shared: &Shared,
    name: &[u8],
) -> Result<(Revision, Option<KeyValue>, Option<HeldBudget>), Status> {
    let (found, held) = shared.range(end_of_queue(&prefix(name), false), Consistency::Linearizable).await?;
    Ok((found.revision, found.kvs.into_iter().next(), held))
}

/// A place in a queue. It is given up when it is dropped before its turn.
pub(crate) struct Place {
    shared: Shared,
    prefix: Bytes,
    pub(crate) key: Bytes,
    pub(crate) lease: LeaseId,
    pub(crate) created: Revision,
    is_kept: bool,
}

impl Place {
    /// Enters a queue with a value. A lease that is in the queue already keeps its place and gets the new value.
    pub(crate) async fn take(shared: &Shared, name: &[u8], lease: i64, value: Bytes) -> Result<Place, Status> {
        let lease = match lease {
            0 => shared.grant(0, SESSION_TTL_SECONDS).await?.id,
            lease => lease,
        };
        let prefix = prefix(name);
        let key = Bytes::from([&prefix[..], format!("{lease:x}").as_bytes()].concat());
        let lease = LeaseId(lease);
        let enter = Txn {
            compare: vec![created_at(&key, Revision::ZERO)],
            success: vec![put(&key, value.clone(), lease)],
            failure: vec![Op::Range(RangeRequest::new(KeyRange::key(key.clone())))],
        };
        let (revision, response) = shared.txn(enter).await?;
        let present = match response.responses.into_iter().next() {
            Some(OpResponse::Range(found)) => found.kvs.into_iter().next(),
            _ => None,
        };
        let created = present.as_ref().map_or(revision, |kv| kv.create_revision);
        let place = Place { shared: shared.clone(), prefix, key, lease, created, is_kept: false };
        if present.is_some_and(|kv| kv.value != value) {
            let renew = Txn {
                compare: vec![created_at(&place.key, created)],
                success: vec![put(&place.key, value, lease)],
                failure: Vec::new(),
            };
            shared.txn(renew).await?;
        }
        Ok(place)
    }

    /// Waits until this place is the first one. Returns the revision at which it was.
    pub(crate) async fn wait(mut self) -> Result<(Revision, Place), Status> {
        loop {
            let last = Revision(self.created.0.saturating_sub(1));
            let before = RangeRequest { max_create_revision: last, ..end_of_queue(&self.prefix, true) };
            let (found, _) = self.shared.range(before, Consistency::Linearizable).await?;
            let Some(predecessor) = found.kvs.into_iter().next() else { break };
            self.deleted(predecessor.key, found.revision).await?;
        }
        let own = RangeRequest::new(KeyRange::key(self.key.clone()));
        let (found, _) = self.shared.range(own, Consistency::Linearizable).await?;
        self.is_kept = true;
        match found.kvs.first() {
            Some(kv) if kv.create_revision == self.created => Ok((found.revision, self)),
            // The lease ended during the wait.
            _ => Err(errors::LEASE_NOT_FOUND.into()),
        }
    }

    /// Waits for the deletion of a key that existed at `revision`.
    async fn deleted(&self, key: Bytes, revision: Revision) -> Result<(), Status> {
        let failed = |error: quorate_store::WatchError| Status::unavailable(error.to_string());
        let mut watch = self.shared.store.watch(KeyRange::key(key), revision).map_err(failed)?;
        while let Some(batch) = watch.next().await {
            let batch = batch.map_err(failed)?;
            if batch.events.iter().any(|event| matches!(event, quorate_mvcc::Event::Delete { .. })) {
                return Ok(());
            }
        }
        Err(errors::STOPPED.into())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (shared, key, created) = (self.shared.clone(), self.key.clone(), self.created);
        tokio::spawn(async move {
            if let Err(error) = leave(&shared, &key, created).await {
                tracing::info!(%error, "a place in a queue stays until its lease ends");
            }
        });
    }
}

/// Gives up a place, if its key is still the one created at `created`.
pub(crate) async fn leave(shared: &Shared, key: &Bytes, created: Revision) -> Result<Revision, Status> {
    let range = KeyRange::key(key.clone());
    let gone = Txn {
        compare: vec![created_at(key, created)],
        success: vec![Op::Delete(DeleteRequest { range, prev_kv: false })],
        failure: Vec::new(),
    };
    shared.txn(gone).await.map(|(revision, _)| revision)
}
