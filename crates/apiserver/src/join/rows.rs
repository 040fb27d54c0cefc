//! Rows of this module in the store, which change only by compare-and-swap.

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::{
    Compare, CompareOperator, CompareTarget, KeyRange, KeyValue, LeaseId, Op, PutRequest, RangeRequest, Txn,
};
use quorate_store::{Consistency, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error;
use crate::pipeline::read;

/// A row as it was read; `value` is `None` when the row does not exist.
#[derive(Clone, Debug)]
pub(super) struct Row<T> {
    key: String,
    revision: Revision,
    /// Its lease; zero when it has none.
    pub lease: LeaseId,
    pub value: Option<T>,
}

/// Reads a row linearizably.
pub(super) async fn read<T: DeserializeOwned>(store: &Store, key: String) -> Result<Row<T>, Status> {
    let found = read::key(store, &key, Consistency::Linearizable).await?;
    let revision = found.as_ref().map_or(Revision::ZERO, |found| found.mod_revision);
    let lease = found.as_ref().map_or(LeaseId(0), |found| found.lease);
    let value = found.map(|found| decode(&found)).transpose()?;
    Ok(Row { key, revision, lease, value })
}

/// Reads all rows whose keys begin with `prefix`.
pub(super) async fn read_all<T: DeserializeOwned>(store: &Store, prefix: &'static str) -> Result<Vec<Row<T>>, Status> {
    let request = RangeRequest::new(KeyRange::prefix(prefix));
    let found = store.range(&request, Consistency::Linearizable).await.map_err(|e| error::from_store(&e))?;
    let row = |found: KeyValue| {
        let key = String::from_utf8_lossy(&found.key).into_owned();
        Ok(Row { key, revision: found.mod_revision, lease: found.lease, value: Some(decode(&found)?) })
    };
    found.kvs.into_iter().map(row).collect()
}

fn decode<T: DeserializeOwned>(found: &KeyValue) -> Result<T, Status> {
    let unreadable = |error| Status::internal(format!("{}: {error}", String::from_utf8_lossy(&found.key)));
    serde_json::from_slice(&found.value).map_err(unreadable)
}

impl<T: Serialize> Row<T> {
    /// Returns a row that must not exist yet when it is written.
    pub(super) fn new(key: String) -> Self {
        Row { key, revision: Revision::ZERO, lease: LeaseId(0), value: None }
    }

    pub(super) fn unchanged(&self) -> Compare {
        Compare {
            range: KeyRange::key(self.key.clone()),
            target: CompareTarget::ModRevision(self.revision),
            operator: CompareOperator::Equal,
        }
    }

    /// Replaces the value; an existing row keeps its lease.
    pub(super) fn put(&self, value: &T) -> Result<Op, Status> {
        let ignore_lease = self.revision != Revision::ZERO;
        Ok(Op::Put(PutRequest { ignore_lease, ..self.request(value)? }))
    }

    pub(super) fn put_leased(&self, value: &T, lease: LeaseId) -> Result<Op, Status> {
        Ok(Op::Put(PutRequest { lease, ..self.request(value)? }))
    }

    pub(super) fn delete(&self) -> Op {
        Op::Delete(quorate_mvcc::DeleteRequest { range: KeyRange::key(self.key.clone()), prev_kv: false })
    }

    fn request(&self, value: &T) -> Result<PutRequest, Status> {
        let value: Bytes = serde_json::to_vec(value).map_err(Status::internal)?.into();
        Ok(PutRequest { key: self.key.clone().into(), value, ..PutRequest::default() })
    }
}

/// Commits all writes or none. Returns false when a row has changed since it was read.
pub(super) async fn commit(store: &Store, compare: Vec<Compare>, success: Vec<Op>) -> Result<bool, Status> {
    let txn = Txn { compare, success, failure: Vec::new() };
    let (_, response) = store.txn(txn).await.map_err(|e| error::from_store(&e))?;
    Ok(response.succeeded)
}
