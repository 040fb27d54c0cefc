//! [`StateReader`]: reads of one state of a member.

use std::sync::Arc;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    Backend, LeaseId, LeaseInfo, RangePage, RangeRequest, RangeResponse, ReadPlan, ReadTxn, State, TxnResponse,
};

use crate::error::StoreError;

/// Reads of a member's applied state, which may access the disk.
///
/// A reader is bound to the state that it was created for. When the member reopens its state, possibly at a point
/// before the one that a barrier had waited for, reads fail with `NoLeader`, and the caller may retry with another
/// reader.
pub trait StateReader: Send + Sync + 'static {
    /// The newest applied revision.
    ///
    /// # Errors
    /// `NoLeader` when the state was closed. The same holds for all other reads.
    fn revision(&self) -> Result<Revision, StoreError>;

    /// Reads a range.
    ///
    /// # Errors
    /// `Command(Compacted | FutureRevision)` for a revision that does not exist.
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError>;

    /// Reads the first page of a range, in key order. The page ends with the key at which keys and values reach
    /// `page_bytes`.
    ///
    /// # Errors
    /// As [`StateReader::range`].
    fn range_page(&self, request: &RangeRequest, page_bytes: usize) -> Result<RangePage, StoreError>;

    /// Evaluates the comparisons of a transaction; see [`State::plan`].
    ///
    /// # Errors
    /// As [`StateReader::range`].
    fn plan(&self, txn: &ReadTxn) -> Result<ReadPlan, StoreError>;

    /// Answers a transaction at one revision.
    ///
    /// # Errors
    /// As [`StateReader::range`].
    fn read_txn(&self, txn: &ReadTxn) -> Result<(Revision, TxnResponse), StoreError>;

    /// Returns all leases, in id order.
    ///
    /// # Errors
    /// When the state was closed.
    fn leases(&self) -> Result<Vec<LeaseInfo>, StoreError>;

    /// Returns a lease and the keys attached to it, in order.
    ///
    /// # Errors
    /// When the state was closed.
    fn lease(&self, id: LeaseId) -> Result<Option<(LeaseInfo, Vec<Bytes>)>, StoreError>;
}

/// A shared [`StateReader`].
pub type Reader = Arc<dyn StateReader>;

impl<B: Backend> StateReader for State<B> {
    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(State::revision(self))
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        Ok(State::range(self, request)?)
    }

    fn range_page(&self, request: &RangeRequest, page_bytes: usize) -> Result<RangePage, StoreError> {
        Ok(State::range_page(self, request, page_bytes)?)
    }

    fn plan(&self, txn: &ReadTxn) -> Result<ReadPlan, StoreError> {
        Ok(State::plan(self, txn)?)
    }

    fn read_txn(&self, txn: &ReadTxn) -> Result<(Revision, TxnResponse), StoreError> {
        Ok(State::read_txn(self, txn)?)
    }

    fn leases(&self) -> Result<Vec<LeaseInfo>, StoreError> {
        Ok(State::leases(self))
    }

    fn lease(&self, id: LeaseId) -> Result<Option<(LeaseInfo, Vec<Bytes>)>, StoreError> {
        Ok(State::lease(self, id).map(|lease| (lease, self.lease_keys(id))))
    }
}
