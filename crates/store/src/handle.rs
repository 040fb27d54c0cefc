//! [`Store`], the handle that everything else holds.

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

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write acknowledged before it began, on any member.
    Linearizable,
    /// This member's own applied state, at once.
    Local,
}

/// A lease, what ends with it, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    pub ttl_seconds: u64,
    /// By the leader's clock; zero when its end is due.
    pub remaining: Duration,
    /// In order.
    pub keys: Vec<Bytes>,
}

/// A hash of a member's state: equal states have equal hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// What was hashed.
    pub revision: Revision,
    pub hash: u64,
    /// How far that member has compacted, which the hash does not depend on.
    pub compacted: Revision,
}

/// What stands behind a [`Store`]: a Raft member, or the same state machine in memory for tests.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Commits a command (forwarding it to the leader) and answers after this member has applied it.
    async fn propose(&self, command: Command) -> Result<Reply, StoreError>;

    /// The transactions that are followed as this member applies them.
    fn traces(&self) -> &Arc<Traces>;

    /// Waits until this member has applied everything acknowledged before the call; returns the state that has it. Calls
    /// are coalesced.
    async fn read_barrier(&self) -> Result<Reader, StoreError>;

    /// This member's applied state as it is.
    fn reader(&self) -> Result<Reader, StoreError>;

    /// The newest applied revision.
    fn revision(&self) -> Revision;

    /// The version of commands that the quorum has agreed on, as far as this member knows.
    fn command_version(&self) -> CommandVersion;

    /// Watches `range` for everything after `after`; [`Revision::ZERO`] means after the newest applied. See
    /// [`WatchOptions`].
    fn watch(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError>;

    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership>;

    /// Asks every member; one that does not answer within a second is reported unreachable.
    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError>;

    /// Hashes this member's state at a revision; [`Revision::ZERO`] stands for the newest applied. Reads everything.
    async fn hash_at(&self, revision: Revision) -> Result<StateHash, StoreError>;

    fn identity(&self) -> Identity;

    /// How long a lease has left by the leader's clock; `None` when that has not seen it yet.
    async fn lease_remaining(&self, id: LeaseId) -> Result<Option<Duration>, StoreError>;

    /// Tells every watcher how far it has come, as soon as it has had everything up to `at_least`, rather than at the next
    /// interval.
    fn mark_watch_progress(&self, at_least: Revision);

    /// Waits until this member has deleted what was compacted before the call.
    async fn compaction_settled(&self) -> Result<(), StoreError>;

    /// Copies this member's state while it goes on; everything acknowledged before the call is in it.
    async fn backup(&self) -> Result<Backup, StoreError>;

    /// Begins to hand leadership to another voter, if this member leads.
    async fn transfer_leadership(&self, to: MemberId) -> Result<(), StoreError>;

    /// Changes the quorum, through its leader.
    async fn change(&self, _: Change) -> Result<Changed, ChangeError> {
        Err(ChangeError::Invalid("this store has no quorum".to_owned()))
    }

    /// Returns, with the reason, when this member is none any more, or can be none with what is on its disk.
    async fn removed(&self) -> String {
        std::future::pending().await
    }

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

    /// Commits a transaction; the revision is the store's after it. One that only reads is a linearizable read.
    ///
    /// # Errors
    /// As [`Store::propose`].
    pub async fn txn(&self, txn: Txn) -> Result<(Revision, TxnResponse), StoreError> {
        if let Some(read) = ReadTxn::of(&txn) {
            return self.read_barrier().await?.read_txn(&read);
        }
        self.answered(Command::Txn(txn)).await
    }

    /// Commits a transaction that writes only when its comparisons hold, once. If its answer is lost it is looked for as
    /// this member applies it, and sent again when it cannot take effect twice: because it changes a key that it wants at a
    /// revision, or because an election has settled what became of it. That may take as long as `within`, and what one more
    /// read and write take. The responses of one whose answer was lost are empty.
    ///
    /// # Errors
    /// As [`Store::propose`]; [`StoreError::OutcomeUnknown`] only when it cannot be found out.
    pub async fn txn_once(&self, txn: Txn, within: Duration) -> Result<(Revision, TxnResponse), StoreError> {
        once::commit(self, txn, within).await
    }

    /// For an engine that stands before another.
    #[must_use]
    pub fn traces(&self) -> &Arc<Traces> {
        self.engine.traces()
    }

    pub(crate) async fn answered(&self, command: Command) -> Result<(Revision, TxnResponse), StoreError> {
        let reply = self.engine.propose(command).await?;
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
        self.reader(consistency).await?.range(request)
    }

    /// The state to read from. It is as fresh as asked for whenever it is read, which two separate questions, for a barrier
    /// and for the state, would not ensure: the member may open another state in between.
    ///
    /// # Errors
    /// `NoLeader` when a linearizable read finds none.
    pub async fn reader(&self, consistency: Consistency) -> Result<Reader, StoreError> {
        match consistency {
            Consistency::Linearizable => self.engine.read_barrier().await,
            Consistency::Local => self.engine.reader(),
        }
    }

    /// Reads this member's own applied state; may touch the disk.
    ///
    /// # Errors
    /// As [`Store::range`] without `NoLeader`.
    pub fn read_local(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.engine.reader()?.range(request)
    }

    /// Reads the first page of a range, in the order of its keys, of this member's own applied state: those keys and
    /// values that reach `page_bytes` are its last. May touch the disk.
    ///
    /// # Errors
    /// As [`Store::read_local`].
    pub fn read_page(&self, request: &RangeRequest, page_bytes: usize) -> Result<RangePage, StoreError> {
        self.engine.reader()?.range_page(request, page_bytes)
    }

    /// Waits until this member has applied everything acknowledged before the call; returns the state that has it.
    ///
    /// # Errors
    /// `NoLeader` when there is none within the deadline.
    pub async fn read_barrier(&self) -> Result<Reader, StoreError> {
        self.engine.read_barrier().await
    }

    #[must_use]
    pub fn revision(&self) -> Revision {
        self.engine.revision()
    }

    /// The version of commands that all members can decode, as they have agreed and as far as this member knows.
    #[must_use]
    pub fn command_version(&self) -> CommandVersion {
        self.engine.command_version()
    }

    /// Watches `range` for everything after `after`; [`Revision::ZERO`] means after the newest applied. Of the version
    /// before a change it tells only when it was written.
    ///
    /// # Errors
    /// `Compacted` when `after` is older than what is kept.
    pub fn watch(&self, range: KeyRange, after: Revision) -> Result<Watch, WatchError> {
        self.engine.watch(range, after, WatchOptions::default())
    }

    /// As [`Store::watch`], in a way of its own.
    ///
    /// # Errors
    /// As [`Store::watch`].
    pub fn watch_with(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError> {
        self.engine.watch(range, after, options)
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

    /// Hashes this member's state at a revision; [`Revision::ZERO`] stands for the newest applied. Reads everything.
    ///
    /// # Errors
    /// `Command(Compacted | FutureRevision)`; `Fatal` when the state cannot be read.
    pub async fn hash_at(&self, revision: Revision) -> Result<StateHash, StoreError> {
        self.engine.hash_at(revision).await
    }

    #[must_use]
    pub fn identity(&self) -> Identity {
        self.engine.identity()
    }

    /// All leases, by id.
    ///
    /// # Errors
    /// As [`Store::reader`].
    pub async fn leases(&self, consistency: Consistency) -> Result<Vec<LeaseInfo>, StoreError> {
        self.reader(consistency).await?.leases()
    }

    /// A lease; the leader says how long it has left.
    ///
    /// # Errors
    /// `NoLeader` when the leader cannot be asked.
    pub async fn lease_status(&self, id: LeaseId, consistency: Consistency) -> Result<Option<LeaseStatus>, StoreError> {
        let found = self.reader(consistency).await?.lease(id)?;
        let Some((LeaseInfo { ttl_seconds, .. }, keys)) = found else { return Ok(None) };
        let remaining = self.engine.lease_remaining(id).await?.unwrap_or(Duration::from_secs(ttl_seconds));
        Ok(Some(LeaseStatus { ttl_seconds, remaining, keys }))
    }

    /// How long a lease has left by the leader's clock; `None` when that has not seen it yet.
    ///
    /// # Errors
    /// `NoLeader` when the leader cannot be asked.
    pub async fn lease_remaining(&self, id: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.engine.lease_remaining(id).await
    }

    /// Tells every watcher how far it has come, as soon as it has had everything up to `at_least`, rather than at the next
    /// interval.
    pub fn mark_watch_progress(&self, at_least: Revision) {
        self.engine.mark_watch_progress(at_least);
    }

    /// Waits until this member has deleted what was compacted before the call.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn compaction_settled(&self) -> Result<(), StoreError> {
        self.engine.compaction_settled().await
    }

    /// Copies this member's state as it is, while it goes on; everything acknowledged before the call is in it.
    ///
    /// # Errors
    /// `NoLeader` when there is none within the deadline; `Fatal` when the copy cannot be written.
    pub async fn backup(&self) -> Result<Backup, StoreError> {
        self.engine.backup().await
    }

    /// Begins to hand leadership to another voter, if this member leads. [`Store::leadership`] tells when it is done.
    ///
    /// # Errors
    /// When it cannot begin.
    pub async fn transfer_leadership(&self, to: MemberId) -> Result<(), StoreError> {
        self.engine.transfer_leadership(to).await
    }

    /// Changes the quorum, through its leader.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change(&self, change: Change) -> Result<Changed, ChangeError> {
        self.engine.change(change).await
    }

    /// Returns, with the reason, when this member was removed from the quorum, was never in it with this directory, or
    /// has found its state damaged. There is nothing left for it to do.
    pub async fn removed(&self) -> String {
        self.engine.removed().await
    }

    /// # Errors
    /// When a part of it could not be stopped in order.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.engine.shutdown().await
    }
}
