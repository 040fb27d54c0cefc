//! What all services share: the store, what is guarded, the room for answers, and the header of each.

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

    /// What to stream out. At the shutdown it ends, with an error, for its reader shall not take it for whole.
    pub(crate) fn outgoing<T: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Outgoing<T> {
        let shutdown = self.shutdown.clone();
        let cut_off =
            futures::stream::once(async move { shutdown.is_cancelled().then(|| Err(errors::STOPPED.into())) });
        stream.take_until(self.stopped()).chain(cut_off.filter_map(std::future::ready)).boxed()
    }

    /// Returns at the shutdown.
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
    pub(crate) async fn range(&self, request: RangeRequest, consistency: Consistency) -> Result<Found, Status> {
        let source = self.source(consistency).await?;
        let mut share = self.answers.share();
        let found = source.read(request, &mut share).await?;
        Ok((found, share.held()))
    }

    /// Where to read what is as fresh as asked for.
    pub(crate) async fn source(&self, consistency: Consistency) -> Result<Source, Status> {
        let reader = self.store.reader(consistency).await.map_err(errors::status)?;
        Ok(Source { reader, answers: self.answers.clone() })
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
