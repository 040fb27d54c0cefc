//! What all services share: the store, what is guarded, and the header of every answer.

use futures::{Stream, StreamExt};
use quorate_api::Revision;
use quorate_mvcc::{Command, Outcome, RangeRequest, RangeResponse, Reply, Txn, TxnResponse};
use quorate_store::{Consistency, Identity, Leadership, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::Outgoing;
use crate::convert;
use crate::errors;
use crate::guard::Guard;
use crate::pb::etcdserverpb::ResponseHeader;

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) guard: Guard,
    leadership: watch::Receiver<Leadership>,
    identity: Identity,
    shutdown: CancellationToken,
}

impl Shared {
    pub(crate) fn new(store: Store, guard: Guard, shutdown: CancellationToken) -> Self {
        Shared { leadership: store.leadership(), identity: store.identity(), store, guard, shutdown }
    }

    /// What to stream out: it ends at the shutdown.
    pub(crate) fn outgoing<T: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Outgoing<T> {
        stream.take_until(self.shutdown.clone().cancelled_owned()).boxed()
    }

    pub(crate) async fn stopping(&self) {
        self.shutdown.cancelled().await;
    }

    pub(crate) fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            revision: convert::wire(revision.0),
            raft_term: self.leadership.borrow().term,
        }
    }

    /// The header of an answer that has no revision of its own.
    pub(crate) fn current_header(&self) -> ResponseHeader {
        self.header(self.store.revision())
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    pub(crate) fn member_id(&self) -> u64 {
        self.identity.member
    }

    /// Reads; what may be long goes where it keeps no other request waiting.
    pub(crate) async fn range(&self, request: RangeRequest, consistency: Consistency) -> Result<RangeResponse, Status> {
        let is_short = request.range.single().is_some();
        if consistency == Consistency::Linearizable {
            self.store.read_barrier().await.map_err(errors::status)?;
        }
        if is_short {
            return self.store.range(&request, Consistency::Local).await.map_err(errors::status);
        }
        self.read_here(&request)
    }

    /// Reads this member's own state where it keeps no other request waiting.
    pub(crate) fn read_here(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        tokio::task::block_in_place(|| self.store.read_local(request)).map_err(errors::status)
    }

    /// Commits a transaction that the guard lets through.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<(Revision, TxnResponse), Status> {
        self.guard.check(&txn)?;
        self.store.txn(txn).await.map_err(errors::status)
    }

    /// Commits any other command; a refusal is an error.
    pub(crate) async fn propose(&self, command: Command) -> Result<(Revision, Outcome), Status> {
        let Reply { revision, outcome } = self.store.propose(command).await.map_err(errors::status)?;
        Ok((revision, outcome.map_err(|refused| Status::from(errors::refusal(&refused)))?))
    }
}
