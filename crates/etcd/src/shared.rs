//! State that all services share: the store, the guard, the response budget, and the source of response headers.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use quorate_api::Revision;
use quorate_mvcc::{Command, Outcome, RangeRequest, Reply, Txn, TxnResponse};
use quorate_store::{Consistency, Identity, Leadership, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::Outgoing;
use crate::answers::Answers;
use crate::convert;
use crate::errors;
use crate::guard::Guard;
use crate::pages::{Found, Source};
use crate::pb::etcdserverpb::ResponseHeader;

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) guard: Guard,
    pub(crate) answers: Arc<Answers>,
    leadership: watch::Receiver<Leadership>,
    identity: Identity,
    shutdown: CancellationToken,
}

impl Shared {
    pub(crate) fn new(store: Store, guard: Guard, answers: Answers, shutdown: CancellationToken) -> Self {
        let (leadership, identity) = (store.leadership(), store.identity());
        Shared { store, guard, answers: Arc::new(answers), leadership, identity, shutdown }
    }

    /// Wraps a response stream so that it ends with an error at shutdown. Without the error, its client would take the
    /// stream for complete.
    pub(crate) fn outgoing<T: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Outgoing<T> {
        let shutdown = self.shutdown.clone();
        let cut_off =
            futures::stream::once(async move { shutdown.is_cancelled().then(|| Err(errors::STOPPED.into())) });
        stream.take_until(self.stopped()).chain(cut_off.filter_map(std::future::ready)).boxed()
    }

    /// Completes at shutdown.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shutdown.clone().cancelled_owned()
    }

    pub(crate) fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            revision: convert::wire(revision.0),
            raft_term: self.leadership.borrow().term,
        }
    }

    /// The header of a response that has no revision of its own.
    pub(crate) fn current_header(&self) -> ResponseHeader {
        self.header(self.store.revision())
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    pub(crate) fn member_id(&self) -> u64 {
        self.identity.member
    }

    /// Reads a range and reserves budget for the response.
    pub(crate) async fn range(&self, request: RangeRequest, consistency: Consistency) -> Result<Found, Status> {
        let source = self.source(consistency).await?;
        let mut reservation = self.answers.reservation();
        let found = source.read(request, &mut reservation).await?;
        Ok((found, reservation.into_held()))
    }

    /// Returns a source of reads with the requested consistency.
    pub(crate) async fn source(&self, consistency: Consistency) -> Result<Source, Status> {
        let reader = self.store.reader(consistency).await.map_err(errors::status)?;
        Ok(Source { reader, answers: self.answers.clone() })
    }

    /// Commits a transaction, unless the guard refuses it.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<(Revision, TxnResponse), Status> {
        self.guard.check(&txn)?;
        self.store.txn(txn).await.map_err(errors::status)
    }

    /// Commits any other command. A refused command is an error.
    pub(crate) async fn propose(&self, command: Command) -> Result<(Revision, Outcome), Status> {
        let Reply { revision, outcome } = self.store.propose(command).await.map_err(errors::status)?;
        Ok((revision, outcome.map_err(|refused| Status::from(errors::refusal(&refused)))?))
    }
}
