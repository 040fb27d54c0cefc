//! [`LogStore`]: the log as openraft's log storage.

use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::entry::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use parking_lot::RwLock;

use super::batch::LogBatch;
use super::disk::LogDisk;
use super::reader::LogReader;
use super::view::LogView;
use super::votes::Votes;
use super::writer::{LogTask, LogWriter};
use crate::platform::threshold;
use crate::platform::tokio::sync::{mpsc, oneshot};
use crate::raft::lifecycle::closing::CloseSignal;
use crate::raft::lifecycle::identity::REJOIN;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::raft::upkeep::space::Space;

/// Maximum number of tasks that wait for the disk; openraft waits when the queue is full.
const QUEUE: usize = 4096;

/// Default size of the cache of recent entries.
const CACHE_BYTES: u64 = 8 << 20;

/// Approximate size of an entry apart from its commands.
const ENTRY_OVERHEAD_BYTES: usize = 32;

#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Size of the cache of decoded recent entries, for replication and apply.
    pub cache_bytes: usize,
    /// Whether the first segment, whose file grows with it, is replaced as soon as a prepared file exists, and not only
    /// when it is full. That pays off when the log is written for a long time.
    pub prepares_first: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        let cache_bytes = usize::try_from(threshold(CACHE_BYTES)).unwrap_or(usize::MAX);
        LogOptions { cache_bytes, prepares_first: false }
    }
}

/// The log. Clones share it; when the last one is dropped, its thread ends and its files are closed.
#[derive(Clone)]
pub struct LogStore {
    reader: LogReader,
    tasks: mpsc::Sender<LogTask>,
}

impl LogStore {
    /// Opens the log in `path`.
    ///
    /// # Errors
    /// When the log cannot be read, or is damaged elsewhere than at a torn end.
    pub fn open(path: &Path, options: LogOptions, space: Arc<Space>, closed: CloseSignal) -> io::Result<Self> {
        let (disk, recovered) = LogDisk::open(path, options.prepares_first, closed)?;
        let view = Arc::new(RwLock::new(LogView::recovered(recovered, options.cache_bytes)));
        let (tasks, queue) = mpsc::channel(QUEUE);
        let reader = LogReader { view, disk: Arc::new(disk) };
        let LogReader { view, disk } = reader.clone();
        let committed = view.read().committed;
        LogWriter { disk, view, space, tasks: queue, committed }.start()?;
        Ok(LogStore { reader, tasks })
    }

    /// Makes the log agree with the applied state, before the log is used. Entries are applied once they are committed,
    /// which can be before they are on this disk. So the state can be ahead of the log, and the log can end in entries
    /// that the applied ones have replaced. Those were never committed, and are removed.
    ///
    /// # Errors
    /// When the log cannot be read or written, or has no vote. Every applied entry comes after a vote, so a log without
    /// one is not the log of this state.
    pub fn reconcile(&self, applied: LogId) -> io::Result<()> {
        let LogReader { view, disk } = &self.reader;
        if view.read().votes.last().is_none() {
            let reason =
                format!("it has lost its vote, and with it the promises of this member to the others: {REJOIN}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let found = disk.entries(applied.index..applied.index + 1, usize::MAX)?;
        if found.first().is_none_or(|entry| entry.log_id == applied) {
            return Ok(());
        }
        tracing::warn!(%applied, "the log ends in entries that were replaced; removing them");
        let mut batch = LogBatch::default();
        batch.truncate_after(None)?;
        batch.purge(applied)?;
        disk.write(&mut batch, true).map_err(io::Error::other)?;
        view.write().restart_at(applied);
        Ok(())
    }

    /// Returns this member's vote as it is on disk. The member has not yet sent any message that depends on a later
    /// vote.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.votes().last()
    }

    /// Returns the votes of this member that are on disk.
    #[must_use]
    pub fn votes(&self) -> Votes {
        self.reader.view.read().votes
    }

    /// Returns the approximate size of the log's entries.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.reader.view.read().size_bytes()
    }

    /// Returns the last index that can be purged while at least `keep_bytes` of log stay.
    #[must_use]
    pub fn purge_point(&self, keep_bytes: u64) -> Option<u64> {
        self.reader.view.read().purge_point(keep_bytes)
    }

    /// Returns the number of writes since the log was opened.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.reader.disk.writes()
    }

    /// Returns whether the proof that the last batch is durable is not on disk yet.
    #[cfg(test)]
    pub fn needs_proof(&self) -> bool {
        self.reader.disk.needs_proof()
    }

    /// Asks the writer to sync the proof that the last batch is durable, unless it is on disk; does not wait for that.
    /// The caller decides when the log is quiet.
    pub fn sync_proof(&self) {
        let disk = &self.reader.disk;
        if disk.request_proof()
            && let Err(error) = self.tasks.try_send(LogTask::SyncProof)
        {
            disk.withdraw_request();
            tracing::debug!(%error, "the proof that the log is durable is not synced yet");
        }
    }

    async fn submit(&self, task: LogTask) -> io::Result<()> {
        self.tasks.send(task).await.map_err(|_| io::Error::other("the log's writer has ended"))
    }

    async fn submit_and_wait(&self, task: LogTask, done: oneshot::Receiver<()>) -> io::Result<()> {
        self.submit(task).await?;
        done.await.map_err(|_| io::Error::other("the log's writer has ended"))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let view = self.reader.view.read();
        Ok(LogState { last_purged_log_id: view.purged, last_log_id: view.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.submit_and_wait(LogTask::Vote { vote: *vote, done }, wait).await?;
        self.reader.view.write().votes.save(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.reader.view.write().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.reader.view.read().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut appended = Vec::new();
        let mut bytes = 0;
        let committed;
        {
            let mut view = self.reader.view.write();
            committed = view.committed;
            for entry in entries {
                let size = size_of_entry(&entry);
                bytes += size;
                view.append(entry.clone(), size);
                appended.push(entry);
            }
        }
        self.submit(LogTask::Append { entries: appended, bytes, committed, done }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        {
            let mut view = self.reader.view.write();
            if view.last <= last {
                return Ok(());
            }
            view.truncate_after(last);
        }
        self.submit(LogTask::TruncateAfter(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.reader.view.write().purge(upto);
        let (done, wait) = oneshot::channel();
        self.submit_and_wait(LogTask::Purge { upto, done }, wait).await
    }
}

fn size_of_entry(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Normal(batch) => batch.size_bytes(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}
