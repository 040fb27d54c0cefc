//! The thread that writes the log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::IOFlushed;
use parking_lot::RwLock;

use super::batch::LogBatch;
use super::disk::{LogDisk, WriteError};
use super::view::LogView;
use crate::platform::tokio::sync::{mpsc, oneshot};
use crate::platform::{ThreadBuilder, exit};
use crate::raft::lifecycle::exit_codes::EX_IOERR;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::raft::upkeep::space::Space;

/// Maximum size of the entries that are written together with one fsync; the last task may exceed it.
const MAX_WRITE_BYTES: usize = 16 << 20;
/// Pause between two attempts to write to a full disk.
const SPACE_PAUSE: Duration = Duration::from_millis(100);

/// A task of the writer. Tasks are done in the order in which they were submitted.
pub enum LogTask {
    Append {
        entries: Vec<Entry>,
        bytes: usize,
        /// The committed id known at that time, which is before these entries. It is written along with them, so a
        /// killed member may not know the last committed entries; its leader will tell it again.
        committed: Option<LogId>,
        done: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<()>,
    },
    TruncateAfter(Option<LogId>),
    Purge {
        upto: LogId,
        done: oneshot::Sender<()>,
    },
    /// Syncs the proof that the log is durable, if no sync has followed it.
    SyncProof,
}

/// Writes the tasks of its queue to disk.
pub struct LogWriter {
    pub disk: Arc<LogDisk>,
    pub view: Arc<RwLock<LogView>>,
    pub space: Arc<Space>,
    pub tasks: mpsc::Receiver<LogTask>,
    /// The committed id on disk.
    pub committed: Option<LogId>,
}

impl LogWriter {
    /// Starts the writer on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(self) -> io::Result<()> {
        #[cfg(test)]
        if crate::raft::simulation::process::is_simulated() {
            crate::raft::simulation::disk::start_writer(self.run_in_simulated_time());
            return Ok(());
        }
        ThreadBuilder::new().name("raft-log".to_owned()).spawn(move || self.run()).map(drop)
    }

    /// Runs until all senders are gone.
    fn run(mut self) {
        let mut batch = LogBatch::default();
        let mut truncations = 0;
        while let Some(first) = self.tasks.blocking_recv() {
            if !self.write_with(first, &mut batch, &mut truncations) {
                return;
            }
            self.rest(&mut batch);
        }
        self.end(&mut batch);
    }

    /// Does the same as `run` in a simulation, where no thread may block.
    #[cfg(test)]
    async fn run_in_simulated_time(mut self) {
        let mut batch = LogBatch::default();
        let mut truncations = 0;
        while let Some(first) = self.tasks.recv().await {
            crate::raft::simulation::disk::delay().await;
            if !self.write_with(first, &mut batch, &mut truncations) {
                return;
            }
            self.rest(&mut batch);
        }
        self.end(&mut batch);
    }

    /// Writes the proof that the log is durable, if no task waits. Nobody waits for it.
    fn rest(&self, batch: &mut LogBatch) {
        if !self.tasks.is_empty() {
            return;
        }
        if let Err(error) = self.disk.prove_durable(batch) {
            tracing::debug!(%error, "the proof that the log is durable is not written yet");
        }
    }

    /// Writes a task and those that wait behind it. Returns false when the log was closed meanwhile.
    fn write_with(&mut self, first: LogTask, batch: &mut LogBatch, truncations: &mut u64) -> bool {
        let mut waiting = vec![first];
        let mut bytes = 0;
        while bytes < MAX_WRITE_BYTES
            && let Ok(task) = self.tasks.try_recv()
        {
            if let LogTask::Append { bytes: more, .. } = &task {
                bytes += more;
            }
            waiting.push(task);
        }
        self.write(waiting, batch, truncations).unwrap_or_else(|error| {
            // After a failed fsync the contents of the disk are unknown, and the kernel may have dropped the pages, so
            // only a new process that reads the disk again can be trusted.
            tracing::error!(%error, "the log cannot be written; this process ends");
            exit(EX_IOERR)
        })
    }

    fn end(&self, batch: &mut LogBatch) {
        // All tasks are done, so all committed entries are on disk.
        let committed = self.view.read().committed;
        batch.clear();
        let written = batch.committed(committed).and_then(|()| self.disk.write(batch, false).map_err(io::Error::other));
        if let Err(error) = written {
            tracing::debug!(%error, "the committed id was not written; the leader will send it again");
        }
    }

    /// Writes tasks as one batch. Returns false when the log was closed meanwhile.
    fn write(&mut self, tasks: Vec<LogTask>, batch: &mut LogBatch, truncations: &mut u64) -> io::Result<bool> {
        let mut sync = false;
        let mut sync_proof = false;
        let mut written = None;
        let mut purged = None;
        let mut known = self.committed;
        batch.clear();
        for task in &tasks {
            match task {
                LogTask::Append { entries, committed, .. } => {
                    known = *committed;
                    for entry in entries {
                        batch.append(entry)?;
                    }
                    written = entries.last().map(|entry| entry.log_id.index + 1).or(written);
                    sync = true;
                }
                LogTask::Vote { vote, .. } => {
                    batch.vote(vote)?;
                    sync = true;
                }
                LogTask::TruncateAfter(last) => {
                    batch.truncate_after(*last)?;
                    *truncations += 1;
                    written = written.map(|end| end.min(last.map_or(0, |last| last.index + 1)));
                }
                LogTask::Purge { upto, .. } => {
                    batch.purge(*upto)?;
                    purged = Some(upto.index);
                    // The files are removed right after this. Without the sync, a power cut could lose the record of
                    // the purge, and the log would begin in the middle.
                    sync = true;
                }
                LogTask::SyncProof => sync_proof = true,
            }
        }
        if known != self.committed {
            batch.committed(known)?;
        }
        if !batch.is_empty() && !self.write_when_there_is_space(batch, sync)? {
            return Ok(false);
        }
        if sync_proof {
            self.disk.sync_proof(batch)?;
        }
        self.committed = known;
        if let Some(end) = written {
            self.view.write().written_before(end, *truncations);
        }
        for task in tasks {
            match task {
                LogTask::Append { done, .. } => done.io_completed(Ok(())),
                // The caller may have given up; the task is done all the same.
                LogTask::Vote { done, .. } | LogTask::Purge { done, .. } => drop(done.send(())),
                LogTask::TruncateAfter(_) | LogTask::SyncProof => {}
            }
        }
        if let Some(upto) = purged {
            self.disk.drop_files_before(upto + 1)?;
        }
        Ok(true)
    }

    /// Writes a batch, and retries while the disk is full. Returns false when the log was closed meanwhile.
    fn write_when_there_is_space(&self, batch: &mut LogBatch, sync: bool) -> io::Result<bool> {
        loop {
            let written = self.space.check().map_err(WriteError::NoSpace).and_then(|()| self.disk.write(batch, sync));
            match written {
                Ok(()) => return Ok(true),
                Err(WriteError::Failed(error)) => return Err(error),
                Err(WriteError::NoSpace(error)) => self.space.report_full(&error),
            }
            if self.tasks.is_closed() || self.space.is_closing() {
                return Ok(false);
            }
            std::thread::sleep(SPACE_PAUSE);
        }
    }
}
