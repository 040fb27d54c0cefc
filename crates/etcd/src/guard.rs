//! Refuses writes to the keys of Kubernetes objects, which must go through the admission of the Kubernetes API.

use bytes::Bytes;
use quorate_mvcc::{KeyRange, Op, Txn};
use tonic::Status;

/// Prefixes that are read-only for etcd clients.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    read_only: Vec<KeyRange>,
}

impl Guard {
    /// Guards every key that starts with one of these prefixes.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        Guard { read_only: prefixes.into_iter().map(KeyRange::prefix).collect() }
    }

    /// Refuses a transaction that may write a guarded key in either of its branches.
    pub(crate) fn check(&self, txn: &Txn) -> Result<(), Status> {
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(_) => Ok(()),
            Op::Put(put) => self.check_key(&put.key),
            Op::Delete(delete) => self.check_range(&delete.range),
            Op::Txn(txn) => self.check(txn),
        })
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), Status> {
        if self.read_only.iter().any(|range| range.contains(key)) { Err(refuse()) } else { Ok(()) }
    }

    fn check_range(&self, range: &KeyRange) -> Result<(), Status> {
        if self.read_only.iter().any(|guarded| overlap(guarded, range)) { Err(refuse()) } else { Ok(()) }
    }
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let starts_before_end_of = |a: &KeyRange, b: &KeyRange| b.end.as_ref().is_none_or(|end| a.start < *end);
    starts_before_end_of(a, b) && starts_before_end_of(b, a)
}

fn refuse() -> Status {
    Status::permission_denied(
        "etcdserver: permission denied: the keys of the Kubernetes objects are read-only here; write them through the \
         Kubernetes API, or allow it with `etcd-write-registry`",
    )
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::{DeleteRequest, PutRequest};

    use super::*;

    fn put(key: &'static str) -> Op {
        Op::Put(PutRequest { key: Bytes::from_static(key.as_bytes()), ..PutRequest::default() })
    }

    fn delete(range: KeyRange) -> Op {
        Op::Delete(DeleteRequest { range, prev_kv: false })
    }

    #[test]
    fn only_writes_to_guarded_keys_are_refused() {
        let guard = Guard::new(["/registry/"]);
        let check = |op: Op| guard.check(&Txn { success: vec![op], ..Txn::default() }).is_ok();
        assert!(check(put("/registry")));
        assert!(check(put("/registry0")));
        assert!(!check(put("/registry/core/pods/default/a")));
        assert!(!check(delete(KeyRange::prefix(""))));
        assert!(!check(delete(KeyRange::from("/a"))));
        assert!(!check(delete(KeyRange::key("/registry/core"))));
        assert!(check(delete(KeyRange::from("/registry0"))));
        let nested = Txn { failure: vec![put("/registry/x")], ..Txn::default() };
        assert!(!check(Op::Txn(Box::new(nested))));
    }
}
