//! [`Store`], the handle that everything else holds.

use std::sync::Arc;

use async_trait::async_trait;
use quorate_api::Revision;
use quorate_mvcc::{Command, KeyRange, Outcome, RangeRequest, RangeResponse, Reply, Txn, TxnResponse};

use crate::error::StoreError;
use crate::membership::{Leadership, QuorumStatus};
use crate::watch::{Watch, WatchError};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write acknowledged before it began, on any member.
    Linearizable,
    /// This member's own applied state, at once.
    Local,
}

/// What stands behind a [`Store`]: a Raft member, or the same state machine in memory for tests.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Commits a command (forwarding it to the leader) and answers after this member has applied it.
    async fn propose(&self, command: Command) -> Result<Reply, StoreError>;

    /// Waits until this member has applied everything acknowledged before the call. Calls are coalesced.
    async fn read_barrier(&self) -> Result<(), StoreError>;

    /// Reads this member's applied state; may touch the disk.
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError>;

    /// The newest applied revision.
    fn revision(&self) -> Revision;

    /// Watches `range` for everything after `after`; [`Revision::ZERO`] means after the newest applied.
    fn watch(&self, range: KeyRange, after: Revision) -> Result<Watch, WatchError>;

    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership>;

    /// Asks every member; one that does not answer within a second is reported unreachable.
    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError>;

    /// A hash of this member's state at the revision that it stands at: equal states have equal hashes.
    async fn state_hash(&self) -> Result<(Revision, u64), StoreError>;

    /// Hands leadership over if this member leads, then stops everything it runs.
    async fn shutdown(&self) -> Result<(), StoreError>;
}

/// The replicated store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
}

impl Store {
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Store { engine }
    }

    /// Commits any command.
    ///
    /// # Errors
    /// See [`StoreError`]; after [`StoreError::OutcomeUnknown`] the caller must look before it tries again.
    pub async fn propose(&self, command: Command) -> Result<Reply, StoreError> {
        self.engine.propose(command).await
    }

    /// Commits a transaction; the revision is the store's after it.
    ///
    /// # Errors
    /// As [`Store::propose`].
    pub async fn txn(&self, txn: Txn) -> Result<(Revision, TxnResponse), StoreError> {
        let reply = self.engine.propose(Command::Txn(txn)).await?;
        match reply.outcome? {
            Outcome::Txn(response) => Ok((reply.revision, response)),
            other => Err(StoreError::Fatal(format!("a transaction was answered with {other:?}"))),
        }
    }

    /// Reads a range.
    ///
    /// # Errors
    /// `Command(Compacted | FutureRevision)` for a historical revision that is not there; `NoLeader` when a
    /// linearizable read finds none.
    pub async fn range(&self, request: &RangeRequest, consistency: Consistency) -> Result<RangeResponse, StoreError> {
        if consistency == Consistency::Linearizable {
            self.engine.read_barrier().await?;
        }
        self.engine.range(request)
    }

    /// Waits until this member has applied everything acknowledged before the call.
    ///
    /// # Errors
    /// `NoLeader` when there is none within the deadline.
    pub async fn read_barrier(&self) -> Result<(), StoreError> {
        self.engine.read_barrier().await
    }

    #[must_use]
    pub fn revision(&self) -> Revision {
        self.engine.revision()
    }

    /// Watches `range` for everything after `after`; [`Revision::ZERO`] means after the newest applied.
    ///
    /// # Errors
    /// `Compacted` when `after` is older than what is kept.
    pub fn watch(&self, range: KeyRange, after: Revision) -> Result<Watch, WatchError> {
        self.engine.watch(range, after)
    }

    #[must_use]
    pub fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership> {
        self.engine.leadership()
    }

    /// # Errors
    /// Only when this member itself is shutting down.
    pub async fn quorum_status(&self) -> Result<QuorumStatus, StoreError> {
        self.engine.quorum_status().await
    }

    /// # Errors
    /// When the state cannot be read.
    pub async fn state_hash(&self) -> Result<(Revision, u64), StoreError> {
        self.engine.state_hash().await
    }

    /// # Errors
    /// When a part of it could not be stopped in order.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.engine.shutdown().await
    }
}
