//! The one thread that writes the log.

use std::io;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use super::disk::{LogBatch, LogDisk};
use super::view::LogView;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// Writes that wait for one fsync are taken together up to this size.
const MAX_WRITE_BYTES: usize = 16 << 20;

/// What is to be done, in the order in which it was asked for.
pub enum Task {
    Append {
        entries: Vec<Entry>,
        bytes: usize,
        done: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<()>,
    },
    TruncateFrom(u64),
    Purge {
        upto: LogId,
        done: oneshot::Sender<()>,
    },
    /// The newest committed id is in the view. Losing it costs a restarted member only the time to hear it again, so
    /// it waits for no fsync.
    Committed,
}

/// Runs until all senders are gone.
pub fn run(disk: &LogDisk, view: &Arc<RwLock<LogView>>, mut tasks: mpsc::Receiver<Task>) {
    let mut truncations = 0;
    while let Some(first) = tasks.blocking_recv() {
        let mut waiting = vec![first];
        let mut bytes = 0;
        while bytes < MAX_WRITE_BYTES
            && let Ok(task) = tasks.try_recv()
        {
            if let Task::Append { bytes: more, .. } = &task {
                bytes += more;
            }
            waiting.push(task);
        }
        if let Err(error) = write(disk, view, waiting, &mut truncations) {
            // After a failed fsync nobody knows what is on disk, and the kernel may have dropped the pages: only a
            // fresh start from what is really there can be trusted.
            tracing::error!(%error, "the log cannot be written; this process ends");
            std::process::exit(74);
        }
    }
}

fn write(disk: &LogDisk, view: &Arc<RwLock<LogView>>, tasks: Vec<Task>, truncations: &mut u64) -> io::Result<()> {
    let mut batch = LogBatch::new(disk);
    let mut sync = false;
    let mut written = None;
    let mut purged = None;
    for task in &tasks {
        match task {
            Task::Append { entries, .. } => {
                for entry in entries {
                    batch.append(entry)?;
                }
                written = entries.last().map(|entry| entry.log_id.index + 1).or(written);
                sync = true;
            }
            Task::Vote { vote, .. } => {
                batch.vote(vote)?;
                sync = true;
            }
            Task::TruncateFrom(first) => {
                batch.truncate_from(*first);
                *truncations += 1;
                written = written.map(|end| end.min(*first));
            }
            Task::Purge { upto, .. } => {
                batch.purge(*upto)?;
                purged = Some(upto.index);
            }
            Task::Committed => batch.committed(&view.read().committed)?,
        }
    }
    disk.write(batch, sync)?;
    if let Some(end) = written {
        view.write().written_before(end, *truncations);
    }
    if let Some(upto) = purged {
        disk.drop_files_before(upto)?;
    }
    for task in tasks {
        match task {
            Task::Append { done, .. } => done.io_completed(Ok(())),
            // Who asked may be gone by now; what he asked for is done all the same.
            Task::Vote { done, .. } | Task::Purge { done, .. } => drop(done.send(())),
            Task::TruncateFrom(_) | Task::Committed => {}
        }
    }
    Ok(())
}
