//! Checks of a transaction before it changes anything: its validation, and the choice of its branches.
//!
//! As in etcd, all comparisons, including those of nested transactions, see the state before the transaction. Every
//! refusal therefore happens here, and running a transaction cannot fail.

use std::collections::BTreeSet;
use std::ops::Bound;

use quorate_api::Revision;

use crate::backend::{Backend, BackendError};
use crate::command::{CommandError, Compare, CompareOperator, CompareTarget, Op, PutRequest, RangeRequest, Txn};
use crate::kv::{KeyRange, KeyValue, LeaseId};
use crate::range::check_revision;
use crate::view::View;

/// The result of the comparisons of each transaction, nested ones included, in the order in which they run.
pub(crate) type Path = Vec<bool>;

/// Refuses a transaction that is invalid in every state.
pub(crate) fn check(txn: &Txn) -> Result<(), CommandError> {
    let branches = [&txn.success, &txn.failure];
    for branch in branches {
        check_ops(branch)?;
    }
    for branch in branches.into_iter().filter(|branch| branch.len() > 1 || matches!(branch[..], [Op::Txn(_)])) {
        Writes::of(branch)?;
    }
    Ok(())
}

fn check_ops(ops: &[Op]) -> Result<(), CommandError> {
    for op in ops {
        match op {
            Op::Put(put) => check_put(put)?,
            Op::Txn(txn) => {
                check_ops(&txn.success)?;
                check_ops(&txn.failure)?;
            }
            Op::Range(_) | Op::Delete(_) => {}
        }
    }
    Ok(())
}

fn check_put(put: &PutRequest) -> Result<(), CommandError> {
    if put.key.is_empty() {
        return Err(CommandError::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() || put.ignore_lease && put.lease != LeaseId::NONE {
        return Err(CommandError::ValueProvided);
    }
    Ok(())
}

/// The keys that a list of operations may write.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Fails when two operations that may both run write the same key. Deletes may overlap each other.
    fn of(ops: &'a [Op]) -> Result<Self, CommandError> {
        let mut all = Writes::default();
        for op in ops {
            match op {
                Op::Range(_) => {}
                Op::Put(put) => all.add_put(&put.key)?,
                Op::Delete(delete) => all.add_delete(&delete.range)?,
                Op::Txn(txn) => {
                    // Only one of the two branches runs, so they may write the same keys.
                    let either = Writes::of(&txn.success)?.or(Writes::of(&txn.failure)?);
                    if either.deletes.iter().any(|range| all.puts_in(range)) {
                        return Err(CommandError::DuplicateKey);
                    }
                    for key in either.puts {
                        all.add_put(key)?;
                    }
                    all.deletes.extend(either.deletes);
                }
            }
        }
        Ok(all)
    }

    fn or(mut self, other: Self) -> Self {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        self
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<(), CommandError> {
        if self.deletes.iter().any(|range| range.contains(key)) || !self.puts.insert(key) {
            return Err(CommandError::DuplicateKey);
        }
        Ok(())
    }

    fn add_delete(&mut self, range: &'a KeyRange) -> Result<(), CommandError> {
        if self.puts_in(range) {
            return Err(CommandError::DuplicateKey);
        }
        self.deletes.push(range);
        Ok(())
    }

    fn puts_in(&self, range: &KeyRange) -> bool {
        let from: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&range.start), Bound::Unbounded);
        self.puts.range::<[u8], _>(from).next().is_some_and(|key| range.contains(key))
    }
}

/// The revisions of the state before a transaction.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
}

/// Evaluates the comparisons, and refuses operations that are impossible in this state.
pub(crate) fn decide<B: Backend>(
    view: &View<'_, B>,
    position: Position,
    txn: &Txn,
    path: &mut Path,
) -> Result<Result<(), CommandError>, BackendError> {
    let mut holds = true;
    for compare in &txn.compare {
        holds = compare_holds(view, position.revision, compare)?;
        if !holds {
            break;
        }
    }
    path.push(holds);
    for op in if holds { &txn.success } else { &txn.failure } {
        let allowed = match op {
            Op::Range(range) => check_revision(range.revision, position.compacted, position.revision),
            Op::Put(put) => put_is_possible(view, put),
            Op::Delete(_) => Ok(()),
            Op::Txn(txn) => decide(view, position, txn, path)?,
        };
        if allowed.is_err() {
            return Ok(allowed);
        }
    }
    Ok(Ok(()))
}

fn put_is_possible<B>(view: &View<'_, B>, put: &PutRequest) -> Result<(), CommandError> {
    let shared = view.state.shared.read();
    if put.lease != LeaseId::NONE && shared.leases.get(put.lease).is_none() {
        return Err(CommandError::LeaseNotFound(put.lease));
    }
    let must_exist = put.ignore_value || put.ignore_lease;
    if must_exist && !shared.index.get(&put.key).is_some_and(|(_, head)| head.is_live()) {
        return Err(CommandError::KeyNotFound);
    }
    Ok(())
}

/// Whether the comparison holds for every key of the range. In a range without keys, revisions, versions and leases
/// compare as 0, and a comparison of values fails.
fn compare_holds<B: Backend>(view: &View<'_, B>, at: Revision, compare: &Compare) -> Result<bool, BackendError> {
    if let (Some(key), false) = (compare.range.single(), matches!(compare.target, CompareTarget::Value(_))) {
        let shared = view.state.shared.read();
        let head = shared.index.get(key).map(|(key, head)| head.to_kv(key)).filter(|kv| kv.version > 0);
        return Ok(holds_for(compare, &head.unwrap_or_default()));
    }
    compare_range(view, compare, at, at)?.ok_or_else(|| view.state.missing())
}

/// Evaluates a comparison at `at`, which is at most `newest`. Returns `None` when a value has been deleted since.
pub(crate) fn compare_range<B: Backend>(
    view: &View<'_, B>,
    compare: &Compare,
    at: Revision,
    newest: Revision,
) -> Result<Option<bool>, BackendError> {
    let keys_only = !matches!(compare.target, CompareTarget::Value(_));
    let request = RangeRequest { keys_only, ..RangeRequest::new(compare.range.clone()) };
    Ok(view.range(&request, at, newest)?.map(|found| match &found.kvs[..] {
        [] => keys_only && holds_for(compare, &KeyValue::default()),
        kvs => kvs.iter().all(|kv| holds_for(compare, kv)),
    }))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::CreateRevision(revision) => kv.create_revision.cmp(revision),
        CompareTarget::ModRevision(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.operator {
        CompareOperator::Equal => ordering.is_eq(),
        CompareOperator::NotEqual => ordering.is_ne(),
        CompareOperator::Greater => ordering.is_gt(),
        CompareOperator::Less => ordering.is_lt(),
    }
}
