//! [`Store`], the handle through which other crates use the store.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    Command, CommandVersion, KeyRange, LeaseId, LeaseInfo, Outcome, RangePage, RangeRequest, RangeResponse, ReadTxn,
    Reply, Txn, TxnResponse,
};

use crate::backup::Backup;
use crate::changes::{Change, ChangeError, Changed};
use crate::error::StoreError;
use crate::membership::{Identity, Leadership, MemberId, QuorumStatus};
use crate::once;
use crate::platform::tokio;
use crate::reader::Reader;
use crate::traces::Traces;
use crate::watch::{Watch, WatchError, WatchOptions};

/// Required freshness of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The read sees every write that any member acknowledged before it began.
    Linearizable,
    /// The read sees this member's applied state, without waiting.
    Local,
}

/// Status of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    pub ttl_seconds: u64,
    /// Remaining time by the leader's clock; zero when the lease is due to expire.
    pub remaining: Duration,
    /// Keys attached to the lease, in order.
    pub keys: Vec<Bytes>,
}

/// Hash of a member's state. Equal states have equal hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The revision that was hashed.
    pub revision: Revision,
    pub hash: u64,
    /// Compacted revision of the member. The hash does not depend on it.
    pub compacted: Revision,
}

/// Implementation of a [`Store`]: a Raft member, or the same state machine in memory for tests. A [`Store`] has all of
/// these methods.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Commits any command, through the leader, and returns after this member has applied it.
    ///
    /// # Errors
    /// See [`StoreError`]. After [`StoreError::OutcomeUnknown`] the caller must find out the outcome before it retries.
    async fn propose(&self, command: Command) -> Result<Reply, StoreError>;

    /// The transactions that are traced as this member applies them.
    fn traces(&self) -> &Arc<Traces>;

    /// Waits until this member has applied everything acknowledged before the call, and returns a reader of that state.
    /// Concurrent calls are coalesced.
    ///
    /// # Errors
    /// `NoLeader` when no leader is found within the deadline.
    async fn read_barrier(&self) -> Result<Reader, StoreError>;

    /// Returns a reader of this member's applied state, which may access the disk.
    ///
    /// # Errors
    /// While no state is open.
    fn local_reader(&self) -> Result<Reader, StoreError>;

    /// The newest applied revision.
    fn revision(&self) -> Revision;

    /// The command version that the quorum has agreed on, which all members can decode, as far as this member knows.
    fn command_version(&self) -> CommandVersion;

    /// Watches `range` for every event after `after`. [`Revision::ZERO`] means after the newest applied revision. See
    /// [`WatchOptions`].
    ///
    /// # Errors
    /// `Compacted` when an event after `after` is compacted.
    fn watch_with(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError>;

    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership>;

    /// Returns the status of every member. A member that does not respond within a second is reported as unreachable.
    ///
    /// # Errors
    /// Only when this member is shutting down.
    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError>;

    /// Hashes this member's state at a revision. [`Revision::ZERO`] means the newest applied one. Reads the whole
    /// state.
    ///
    /// # Errors
    /// `Command(Compacted | FutureRevision)`; `Fatal` when the state cannot be read.
    async fn hash_at(&self, revision: Revision) -> Result<StateHash, StoreError>;

    fn identity(&self) -> Identity;

    /// Returns the remaining time of a lease by the leader's clock, or `None` when the leader has not seen it yet.
    ///
    /// # Errors
    /// `NoLeader` when the leader cannot be reached.
    async fn lease_remaining(&self, id: LeaseId) -> Result<Option<Duration>, StoreError>;

    /// Requests a progress mark for every watcher, sent as soon as everything up to `at_least` is delivered and not
    /// only at the next interval.
    fn mark_watch_progress(&self, at_least: Revision);

    /// Waits until this member has deleted all versions that were compacted before the call.
    ///
    /// # Errors
    /// When they cannot be deleted.
    async fn compaction_settled(&self) -> Result<(), StoreError>;

    /// Copies this member's state while it keeps running. The copy has everything acknowledged before the call.
    ///
    /// # Errors
    /// `NoLeader` when no leader is found within the deadline; `Fatal` when the copy cannot be written.
    async fn backup(&self) -> Result<Backup, StoreError>;

    /// Starts to transfer leadership to another voter, if this member leads. [`Engine::leadership`] shows when it is
    /// done.
    ///
    /// # Errors
    /// When the transfer cannot start.
    async fn transfer_leadership(&self, to: MemberId) -> Result<(), StoreError>;

    /// Changes the membership, through the leader.
    ///
    /// # Errors
    /// See [`ChangeError`].
    async fn change(&self, _: Change) -> Result<Changed, ChangeError> {
        Err(ChangeError::Invalid("this store has no quorum".to_owned()))
    }

    /// Waits until this member was removed from the quorum, was not accepted with its data directory, or has found its
    /// state damaged, and returns the reason. The member can do nothing more after that.
    async fn removed(&self) -> String {
        std::future::pending().await
    }

    /// Transfers leadership if this member leads, then stops all its tasks.
    ///
    /// # Errors
    /// When a part of the store could not be stopped cleanly.
    async fn shutdown(&self) -> Result<(), StoreError>;
}

/// The replicated store: an [`Engine`], and what every engine does alike. Clones are cheap.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
}

impl Deref for Store {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.engine
    }
}

impl Store {
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Store { engine }
    }

    /// Commits a transaction and returns the store's revision after it. A read-only transaction is a linearizable read.
    ///
    /// # Errors
    /// As [`Engine::propose`].
    pub async fn txn(&self, txn: Txn) -> Result<(Revision, TxnResponse), StoreError> {
        if let Some(read) = ReadTxn::of(&txn) {
            return self.read_barrier().await?.read_txn(&read);
        }
        self.answered(Command::Txn(txn)).await
    }

    /// Commits a transaction at most once. It may write only when its comparisons hold.
    ///
    /// If its response is lost, this member looks for the transaction among those that it applies, and sends it again
    /// when it cannot take effect twice: because it changes a key that it requires at a revision, or because an
    /// election has settled the outcome. This may take up to `within` and one more read and write. If the response was
    /// lost, the returned list of responses is empty.
    ///
    /// # Errors
    /// As [`Engine::propose`], and [`StoreError::OutcomeUnknown`] only when the outcome cannot be found out.
    pub async fn txn_once(&self, txn: Txn, within: Duration) -> Result<(Revision, TxnResponse), StoreError> {
        once::commit(self, txn, within).await
    }

    pub(crate) async fn answered(&self, command: Command) -> Result<(Revision, TxnResponse), StoreError> {
        let reply = self.propose(command).await?;
        match reply.outcome? {
            Outcome::Txn(response) => Ok((reply.revision, response)),
            other => Err(StoreError::Fatal(format!("a transaction was answered with {other:?}"))),
        }
    }

    /// Reads a range.
    ///
    /// # Errors
    /// `Command(Compacted | FutureRevision)` for a revision that does not exist; `NoLeader` when a linearizable read
    /// finds no leader.
    pub async fn range(&self, request: &RangeRequest, consistency: Consistency) -> Result<RangeResponse, StoreError> {
        self.reader(consistency).await?.range(request)
    }

    /// Returns a reader of a state that is as fresh as requested. Separate calls for a barrier and for a reader would
    /// not ensure that, because the member may reopen its state in between.
    ///
    /// # Errors
    /// `NoLeader` when a linearizable read finds no leader.
    pub async fn reader(&self, consistency: Consistency) -> Result<Reader, StoreError> {
        match consistency {
            Consistency::Linearizable => self.read_barrier().await,
            Consistency::Local => self.local_reader(),
        }
    }

    /// Reads a range of this member's applied state. May access the disk.
    ///
    /// # Errors
    /// As [`Store::range`] without `NoLeader`.
    pub fn read_local(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.local_reader()?.range(request)
    }

    /// Reads the first page of a range of this member's applied state, in key order. The page ends with the key at
    /// which keys and values reach `page_bytes`. May access the disk.
    ///
    /// # Errors
    /// As [`Store::read_local`].
    pub fn read_page(&self, request: &RangeRequest, page_bytes: usize) -> Result<RangePage, StoreError> {
        self.local_reader()?.range_page(request, page_bytes)
    }

    /// Watches `range` for every event after `after`. [`Revision::ZERO`] means after the newest applied revision.
    /// Events have only the revision of the previous version.
    ///
    /// # Errors
    /// As [`Engine::watch_with`].
    pub fn watch(&self, range: KeyRange, after: Revision) -> Result<Watch, WatchError> {
        self.watch_with(range, after, WatchOptions::default())
    }

    /// Returns all leases, in id order.
    ///
    /// # Errors
    /// As [`Store::reader`].
    pub async fn leases(&self, consistency: Consistency) -> Result<Vec<LeaseInfo>, StoreError> {
        self.reader(consistency).await?.leases()
    }

    /// Returns the status of a lease. The remaining time comes from the leader.
    ///
    /// # Errors
    /// `NoLeader` when the leader cannot be reached.
    pub async fn lease_status(&self, id: LeaseId, consistency: Consistency) -> Result<Option<LeaseStatus>, StoreError> {
        let found = self.reader(consistency).await?.lease(id)?;
        let Some((LeaseInfo { ttl_seconds, .. }, keys)) = found else { return Ok(None) };
        let remaining = self.lease_remaining(id).await?.unwrap_or(Duration::from_secs(ttl_seconds));
        Ok(Some(LeaseStatus { ttl_seconds, remaining, keys }))
    }
}
