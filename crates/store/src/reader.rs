//! [`StateReader`]: reads of one state, which a barrier was passed on.

use std::sync::Arc;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    Backend, LeaseId, LeaseInfo, RangePage, RangeRequest, RangeResponse, ReadPlan, ReadTxn, State, TxnResponse,
};

use crate::error::StoreError;

/// Reads of a member's applied state; they may touch the disk.
///
/// A reader stays with the state that it was made for: when the member opens that anew, perhaps from before what a
/// barrier had waited for, reads fail with `NoLeader`, and can be begun again with another reader.
pub trait StateReader: Send + Sync + 'static {
    /// The newest applied revision.
    ///
    /// # Errors
    /// `NoLeader` when the state was closed; so below.
    fn revision(&self) -> Result<Revision, StoreError>;

    /// Reads a range.
    ///
    /// # Errors
    /// `Command(Compacted | FutureRevision)` for a historical revision that is not there.
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError>;

    /// Reads the first page of a range, in the order of its keys: those keys and values that reach `page_bytes` are its
    /// last.
    ///
    /// # Errors
    /// As [`StateReader::range`].
    fn range_page(&self, request: &RangeRequest, page_bytes: usize) -> Result<RangePage, StoreError>;

    /// See [`State::plan`].
    ///
    /// # Errors
    /// As [`StateReader::range`].
    fn plan(&self, txn: &ReadTxn) -> Result<ReadPlan, StoreError>;

    /// Answers a transaction at one revision.
    ///
    /// # Errors
    /// As [`StateReader::range`].
    fn read_txn(&self, txn: &ReadTxn) -> Result<(Revision, TxnResponse), StoreError>;

    /// All leases, by id.
    ///
    /// # Errors
    /// When the state was closed.
    fn leases(&self) -> Result<Vec<LeaseInfo>, StoreError>;

    /// A lease and the keys that end with it, in order.
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
