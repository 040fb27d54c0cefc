//! [`OpenState`]: a reader that does not keep the state open.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{LeaseId, LeaseInfo, RangePage, RangeRequest, RangeResponse, ReadPlan, ReadTxn, State, TxnResponse};

use super::{StateBackend, StateStore};
use crate::error::StoreError;
use crate::reader::StateReader;

/// A reader of a state that may be closed while the reader exists.
pub struct OpenState(Weak<StateStore>);

impl OpenState {
    #[must_use]
    pub fn of(state: &Arc<StateStore>) -> Self {
        OpenState(Arc::downgrade(state))
    }

    /// Returns the state, or the one that a snapshot has replaced it by.
    fn current(&self) -> Result<Arc<State<StateBackend>>, StoreError> {
        let closed = || StoreError::NoLeader("this member has closed the state that was read".to_owned());
        Ok(self.0.upgrade().ok_or_else(closed)?.current())
    }
}

impl StateReader for OpenState {
    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.current()?.revision())
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        Ok(self.current()?.range(request)?)
    }

    fn range_page(&self, request: &RangeRequest, page_bytes: usize) -> Result<RangePage, StoreError> {
        Ok(self.current()?.range_page(request, page_bytes)?)
    }

    fn plan(&self, txn: &ReadTxn) -> Result<ReadPlan, StoreError> {
        Ok(self.current()?.plan(txn)?)
    }

    fn read_txn(&self, txn: &ReadTxn) -> Result<(Revision, TxnResponse), StoreError> {
        Ok(self.current()?.read_txn(txn)?)
    }

    fn leases(&self) -> Result<Vec<LeaseInfo>, StoreError> {
        Ok(self.current()?.leases())
    }

    fn lease(&self, id: LeaseId) -> Result<Option<(LeaseInfo, Vec<Bytes>)>, StoreError> {
        let state = self.current()?;
        Ok(state.lease(id).map(|lease| (lease, state.lease_keys(id))))
    }
}
