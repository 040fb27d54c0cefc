//! Read-only transactions. They do not enter the log: a state answers them at one of its revisions, as if they had been
//! applied there.

use quorate_api::Revision;

use crate::backend::{Backend, BackendError};
use crate::command::{CommandError, Compare, Op, OpResponse, RangeRequest, RangeResponse, Txn, TxnResponse};
use crate::range::check_revision;
use crate::state::{ReadError, State};
use crate::txn::compare_range;
use crate::view::View;

/// Maximum number of attempts when compactions keep overtaking the revision of the read.
const ATTEMPTS: usize = 8;

/// A transaction without puts and deletes.
#[derive(Clone, Debug)]
pub struct ReadTxn {
    compare: Vec<Compare>,
    success: Vec<ReadOp>,
    failure: Vec<ReadOp>,
}

#[derive(Clone, Debug)]
enum ReadOp {
    Range(RangeRequest),
    Txn(ReadTxn),
}

/// The ranges that a [`ReadTxn`] reads at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    /// The newest revision when the comparisons were evaluated.
    pub revision: Revision,
    /// The ranges in order. A range that asks for the newest revision is pinned to [`ReadPlan::revision`].
    pub ranges: Vec<RangeRequest>,
    /// Whether the comparisons held, for each transaction in the order in which they run.
    path: Vec<bool>,
}

impl ReadTxn {
    /// Converts a transaction that has no put and no delete, also in its nested transactions.
    #[must_use]
    pub fn of(txn: &Txn) -> Option<Self> {
        let ops = |ops: &[Op]| ops.iter().map(ReadOp::of).collect::<Option<Vec<_>>>();
        let (success, failure) = (ops(&txn.success)?, ops(&txn.failure)?);
        Some(ReadTxn { compare: txn.compare.clone(), success, failure })
    }

    /// Builds the response from the responses to the ranges of a plan.
    #[must_use]
    pub fn respond(&self, plan: &ReadPlan, found: Vec<RangeResponse>) -> TxnResponse {
        self.respond_with(&mut plan.path.iter().copied(), &mut found.into_iter(), plan.revision)
    }

    fn respond_with(
        &self,
        path: &mut impl Iterator<Item = bool>,
        found: &mut impl Iterator<Item = RangeResponse>,
        revision: Revision,
    ) -> TxnResponse {
        let succeeded = path.next().unwrap_or_default();
        let responses = self.ops(succeeded).iter().map(|op| match op {
            ReadOp::Range(_) => OpResponse::Range(RangeResponse { revision, ..found.next().unwrap_or_default() }),
            ReadOp::Txn(txn) => OpResponse::Txn(txn.respond_with(path, found, revision)),
        });
        TxnResponse { succeeded, responses: responses.collect() }
    }

    fn ops(&self, succeeded: bool) -> &[ReadOp] {
        if succeeded { &self.success } else { &self.failure }
    }
}

impl ReadOp {
    fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Range(request) => Some(ReadOp::Range(request.clone())),
            Op::Txn(txn) => ReadTxn::of(txn).map(ReadOp::Txn),
            Op::Put(_) | Op::Delete(_) => None,
        }
    }
}

impl<B: Backend> State<B> {
    /// Evaluates the comparisons of a transaction at the newest published revision and returns the ranges to read. The
    /// ranges may be read one by one and in pages: they see the same revision until a compaction overtakes it.
    ///
    /// # Errors
    /// `Refused` with `Compacted` or `FutureRevision` of a range; `Backend` when the tables cannot be read.
    pub fn plan(&self, txn: &ReadTxn) -> Result<ReadPlan, ReadError> {
        let compacted = self.compacted();
        let planned = self.read_at(Revision::ZERO, |view, at, newest| {
            let mut plan = ReadPlan { revision: at, ranges: Vec::new(), path: Vec::new() };
            let is_whole = decide(view, txn, newest, &mut plan)?;
            Ok(is_whole.then_some(plan))
        })?;
        for range in &planned.ranges {
            check_revision(range.revision, compacted, planned.revision).map_err(ReadError::Refused)?;
        }
        Ok(planned)
    }

    /// Answers a transaction at one revision. Runs concurrently with the writer.
    ///
    /// # Errors
    /// As [`State::plan`].
    pub fn read_txn(&self, txn: &ReadTxn) -> Result<(Revision, TxnResponse), ReadError> {
        let mut attempts = 0;
        loop {
            let plan = self.plan(txn)?;
            let found: Result<_, _> = plan.ranges.iter().map(|range| self.range(range)).collect();
            attempts += 1;
            match found {
                Ok(found) => return Ok((plan.revision, txn.respond(&plan, found))),
                Err(error) if attempts < ATTEMPTS && plan.is_overtaken(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl ReadPlan {
    /// Whether a range failed because a compaction has overtaken the plan's revision, so that a new plan may succeed.
    #[must_use]
    pub fn is_overtaken(&self, error: &ReadError) -> bool {
        matches!(error, ReadError::Refused(error) if self.is_overtaken_by(error))
    }

    /// Like [`ReadPlan::is_overtaken`], for the refusal itself.
    #[must_use]
    pub fn is_overtaken_by(&self, error: &CommandError) -> bool {
        matches!(error, CommandError::Compacted { requested, .. } if *requested == self.revision)
    }
}

/// Plans a transaction and its nested transactions. Returns false when a compared version has been deleted since.
fn decide<B: Backend>(
    view: &View<'_, B>,
    txn: &ReadTxn,
    newest: Revision,
    plan: &mut ReadPlan,
) -> Result<bool, BackendError> {
    let mut holds = true;
    for compare in &txn.compare {
        match compare_range(view, compare, plan.revision, newest)? {
            Some(compared) => holds = compared,
            None => return Ok(false),
        }
        if !holds {
            break;
        }
    }
    plan.path.push(holds);
    for op in txn.ops(holds) {
        match op {
            ReadOp::Range(range) if range.revision.is_zero() => plan.ranges.push(range.clone().at(plan.revision)),
            ReadOp::Range(range) => plan.ranges.push(range.clone()),
            ReadOp::Txn(txn) => {
                if !decide(view, txn, newest, plan)? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}
