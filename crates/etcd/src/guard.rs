//! Refuses writes to the keys of Kubernetes objects, which must go through the admission of the Kubernetes API.

use bytes::Bytes;
use quorate_mvcc::{KeyRange, Op, Txn};
use tonic::Status;

/// Prefixes that are read-only for etcd clients.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    read_only: Vec<(KeyRange, Owner)>,
}

/// The owner of guarded keys, which determines the remedy that a refusal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The Kubernetes API. An option opens its keys.
    Kubernetes,
    /// Quorate itself. No option opens its keys.
    Quorate,
}

impl Guard {
    /// Guards the keys of Kubernetes objects, which start with one of these prefixes.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        Guard::default().and(prefixes, Owner::Kubernetes)
    }

    /// Also guards Quorate's own records, which start with one of these prefixes.
    #[must_use]
    pub fn with_own(self, prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        self.and(prefixes, Owner::Quorate)
    }

    fn and(mut self, prefixes: impl IntoIterator<Item = impl Into<Bytes>>, owner: Owner) -> Self {
        self.read_only.extend(prefixes.into_iter().map(|prefix| (KeyRange::prefix(prefix), owner)));
        self
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
        self.refuse_if(|range| range.contains(key))
    }

    fn check_range(&self, range: &KeyRange) -> Result<(), Status> {
        self.refuse_if(|guarded| overlap(guarded, range))
    }

    fn refuse_if(&self, is_touched: impl Fn(&KeyRange) -> bool) -> Result<(), Status> {
        let touched = || self.read_only.iter().filter(|(range, _)| is_touched(range)).map(|(_, owner)| *owner);
        // The remedy for Kubernetes' keys does not help when Quorate's own are touched too.
        match touched().find(|owner| *owner == Owner::Quorate).or_else(|| touched().next()) {
            Some(owner) => Err(refuse(owner)),
            None => Ok(()),
        }
    }
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let starts_before_end_of = |a: &KeyRange, b: &KeyRange| b.end.as_ref().is_none_or(|end| a.start < *end);
    starts_before_end_of(a, b) && starts_before_end_of(b, a)
}

fn refuse(owner: Owner) -> Status {
    Status::permission_denied(match owner {
        Owner::Kubernetes => {
            "etcdserver: permission denied: the keys of the Kubernetes objects are read-only here; write them through the \
             Kubernetes API, or allow it with `etcd-write-registry`"
        }
        Owner::Quorate => {
            "etcdserver: permission denied: Quorate's own records, such as tokens, machines and invitations, are always \
             read-only here; change them with `qctl token`, `qctl quorum` and `qctl delete node`"
        }
    })
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

    #[test]
    fn a_refusal_names_a_remedy_that_works() {
        let guard = Guard::new(["/registry/"]).with_own(["/quorate/tokens/"]);
        let refused = |op: Op| {
            let refused = guard.check(&Txn { success: vec![op], ..Txn::default() }).expect_err("guarded");
            refused.message().to_owned()
        };
        assert!(refused(put("/registry/a")).contains("etcd-write-registry"));
        for op in [put("/quorate/tokens/a"), delete(KeyRange::from("/quorate"))] {
            let message = refused(op);
            assert!(message.contains("`qctl token`") && !message.contains("etcd-write-registry"), "{message}");
        }
    }
}
