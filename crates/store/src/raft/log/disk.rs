//! The log on disk: a sequence of segments.
//!
//! Records are only appended, never changed; truncations, votes and purges are records like entries. A segment begins
//! with the head of the log at that time, so earlier segments can be removed once their entries are purged.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::batch::{LogBatch, LogHead};
use super::index::EntryIndex;
use super::record::{self, RecordKind};
use super::recovery::LogRecovery;
use super::segment::{self, CreateError, Segment, SpareFile};
use crate::platform::fs::FileExt;
use crate::platform::{ThreadBuilder, fs, threshold};
use crate::raft::codec;
use crate::raft::lifecycle::closing::CloseSignal;
use crate::raft::types::{Entry, LogId, Vote};

/// Size at which a segment is full; the next batch then goes to a new segment.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Size of a segment at which a file is prepared for the next one.
const PREPARE_FROM_BYTES: u64 = SEGMENT_BYTES / 4;

/// The open log. It is closed when its last owner drops it, and `closed` with it.
pub struct LogDisk {
    directory: PathBuf,
    index: RwLock<EntryIndex>,
    writer: Mutex<WriteState>,
    spare: Arc<Mutex<Spare>>,
    /// See [`LogOptions`](super::LogOptions).
    prepares_first: bool,
    /// Number of writes so far.
    writes: AtomicU64,
    /// Whether no record on disk says that the last synced batch was synced.
    needs_proof: AtomicBool,
    /// Whether the writer has been asked to sync the proof.
    is_proof_requested: AtomicBool,
    /// Dropped last. A thread that prepares a file has a clone.
    closed: CloseSignal,
}

/// The log as it was found on disk.
#[derive(Debug, Default)]
pub struct Recovered {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// Size of the entries.
    pub size_bytes: u64,
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no space. The log is unchanged; the write can be retried.
    #[error("no space for the log: {0}")]
    NoSpace(io::Error),
    /// The contents of the disk are unknown now.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// The file for the next segment.
#[derive(Debug, Default)]
enum Spare {
    #[default]
    None,
    /// It is being prepared.
    Expected,
    Ready(SpareFile),
    /// It could not be prepared. The next segment is created without one, and the one after that tries again.
    Failed,
}

/// The newest segment, and the state of writing to it.
struct WriteState {
    segment: Segment,
    /// Place of the next record.
    end: u64,
    /// Place before which everything in the segment is on disk.
    durable: u64,
    /// Whether the segment uses a prepared file, which need not grow.
    is_prepared: bool,
    /// Place up to which failed writes may have left bytes behind `end`. The next write overwrites them.
    torn_until: u64,
    /// Whether a later record says that all acknowledged records in the segment were synced.
    is_proven: bool,
    head: LogHead,
}

impl WriteState {
    fn is_torn(&self) -> bool {
        self.torn_until > self.end
    }
}

impl LogDisk {
    /// Opens or creates the log in `directory`, checks all of it, and indexes its entries.
    ///
    /// # Errors
    /// When the log cannot be read, or is damaged elsewhere than at a torn end.
    pub fn open(directory: &Path, prepares_first: bool, closed: CloseSignal) -> io::Result<(Self, Recovered)> {
        fs::create_dir_all(directory)?;
        segment::clear_spares(directory)?;
        let mut recovery = LogRecovery::new(directory);
        let found = recovery.run()?;
        let is_new = found.is_none();
        let (segment, end) = match found {
            Some(newest) => newest,
            None => {
                let (segment, end) =
                    begin_segment(directory, 1, None, &recovery.head).map_err(|error| match error {
                        WriteError::NoSpace(error) | WriteError::Failed(error) => error,
                    })?;
                recovery.index.begin_segment(segment.clone());
                (segment, end)
            }
        };
        let LogRecovery { index, head, .. } = recovery;
        let recovered = Recovered {
            vote: head.vote,
            committed: head.committed,
            purged: head.purged,
            last: head.last,
            size_bytes: index.size_bytes(),
        };
        let disk = LogDisk {
            directory: directory.to_owned(),
            index: RwLock::new(index),
            writer: Mutex::new(WriteState {
                segment,
                end,
                durable: end,
                is_prepared: false,
                torn_until: 0,
                is_proven: is_new,
                head,
            }),
            spare: Arc::default(),
            prepares_first,
            writes: AtomicU64::new(0),
            needs_proof: AtomicBool::new(!is_new),
            is_proof_requested: AtomicBool::new(false),
            closed,
        };
        if let Err(error) = disk.prove_durable(&mut LogBatch::default()) {
            tracing::debug!(%error, "the proof that the log is durable is not written yet");
        }
        Ok((disk, recovered))
    }

    /// Reads the entries of `range` that exist; stops when `limit_bytes` of encoded entries are reached.
    ///
    /// # Errors
    /// When they cannot be read or are damaged.
    pub fn entries(&self, range: Range<u64>, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut found: Vec<Entry> = Vec::new();
        let mut left = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
        while left > 0 {
            let from = found.last().map_or(range.start, |entry| entry.log_id.index + 1);
            let Some(part) = self.index.read().part(from..range.end, left) else { break };
            left = left.saturating_sub(part.read(&self.directory, &mut found)?);
        }
        let is_whole = found.windows(2).all(|pair| pair[0].log_id.index + 1 == pair[1].log_id.index);
        if is_whole {
            Ok(found)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "entries are missing in the log"))
        }
    }

    /// Writes a batch; with `sync`, returns when this batch and all earlier ones are durable.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&self, batch: &mut LogBatch, sync: bool) -> Result<(), WriteError> {
        let mut writer = self.writer.lock();
        // The first segment after a start is never in a prepared file.
        let is_provisional = self.prepares_first && !writer.is_prepared;
        if !writer.is_torn() && (writer.end >= threshold(SEGMENT_BYTES) || is_provisional && self.has_spare()) {
            self.begin_next(&mut writer)?;
        } else if writer.end >= threshold(PREPARE_FROM_BYTES) || is_provisional {
            self.prepare_spare();
        }
        self.put(&mut writer, batch, sync)
    }

    /// Writes a record, without a sync, that says that everything in the log was synced, if no record says so yet.
    /// Until it is on disk, damage of the last batch looks like a torn write, and recovery cuts off entries that this
    /// member has acknowledged. The record repeats the committed id, so it changes nothing. The next sync makes it
    /// durable: that of the next batch, or [`LogDisk::sync_proof`].
    ///
    /// # Errors
    /// When the record cannot be written; the log is then unchanged, and a later call tries again.
    pub fn prove_durable(&self, batch: &mut LogBatch) -> Result<(), WriteError> {
        let mut writer = self.writer.lock();
        if writer.is_proven || writer.durable < writer.end {
            return Ok(());
        }
        batch.clear();
        batch.committed(writer.head.committed)?;
        self.put(&mut writer, batch, false)
    }

    /// Writes the proof if it is missing, and syncs it. Nothing that was acknowledged depends on it, so a proof that
    /// cannot be written is tried again later.
    ///
    /// # Errors
    /// When the sync fails; the contents of the disk are unknown then.
    pub fn sync_proof(&self, batch: &mut LogBatch) -> io::Result<()> {
        self.is_proof_requested.store(false, Ordering::Release);
        if let Err(error) = self.prove_durable(batch) {
            tracing::debug!(%error, "the proof that the log is durable is not written yet");
        }
        let mut writer = self.writer.lock();
        if !self.needs_proof() || !writer.is_proven || writer.is_torn() {
            return Ok(());
        }
        writer.segment.file.sync_data()?;
        writer.durable = writer.end;
        self.needs_proof.store(false, Ordering::Release);
        Ok(())
    }

    /// Returns whether no record on disk says that the last synced batch was synced.
    pub fn needs_proof(&self) -> bool {
        self.needs_proof.load(Ordering::Acquire)
    }

    /// Returns whether the caller shall ask the writer to sync the proof. One request at a time is enough.
    pub fn request_proof(&self) -> bool {
        self.needs_proof() && !self.is_proof_requested.swap(true, Ordering::AcqRel)
    }

    /// Withdraws a request that could not be handed to the writer.
    pub fn withdraw_request(&self) {
        self.is_proof_requested.store(false, Ordering::Release);
    }

    /// Returns the number of writes since the log was opened.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Writes a batch behind the last record.
    fn put(&self, writer: &mut WriteState, batch: &mut LogBatch, sync: bool) -> Result<(), WriteError> {
        let durable = place(writer.durable)?;
        for record in &batch.records {
            record::seal(&mut batch.buffer, record.start, durable, writer.segment.salt);
        }
        let end = writer.end + batch.buffer.len() as u64;
        place(end)?;
        let torn_until = writer.torn_until;
        writer.torn_until = end.max(torn_until);
        #[cfg(test)]
        super::tests::fill_disk_if_asked(&self.directory, &writer.segment.file, &batch.buffer, writer.end)
            .map_err(write_failed)?;
        writer.segment.file.write_all_at(&batch.buffer, writer.end).map_err(write_failed)?;
        if torn_until > end {
            let zeros = vec![0; usize::try_from(torn_until - end).map_err(io::Error::other)?];
            writer.segment.file.write_all_at(&zeros, end).map_err(write_failed)?;
        }
        writer.torn_until = 0;
        writer.is_proven = true;
        if sync {
            #[cfg(test)]
            super::tests::fail_if_asked(&self.directory)?;
            writer.segment.file.sync_data()?;
            writer.durable = end;
            writer.is_proven = false;
            self.needs_proof.store(true, Ordering::Release);
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        let begin = writer.end;
        writer.end = end;
        let mut index = self.index.write();
        for (i, record) in batch.records.iter().enumerate() {
            let next = batch.records.get(i + 1).map_or(batch.buffer.len(), |next| next.start);
            let place = place(begin + record.start as u64)?..place(begin + next as u64)?;
            record.change.apply(&mut writer.head, &mut index, place);
        }
        Ok(())
    }

    /// Begins the next segment. The current one is synced first; the existence of its successor proves that.
    ///
    /// Nothing may follow the last record of the current segment: once it is no longer the last one, recovery takes
    /// such bytes for damage. So after a failed write, a successful one must overwrite its bytes before this is called.
    fn begin_next(&self, writer: &mut WriteState) -> Result<(), WriteError> {
        if writer.durable < writer.end {
            writer.segment.file.sync_data()?;
            writer.durable = writer.end;
        }
        let spare = {
            let mut spare = self.spare.lock();
            match std::mem::take(&mut *spare) {
                Spare::Ready(file) => Some(file),
                Spare::Expected => {
                    *spare = Spare::Expected;
                    None
                }
                Spare::None | Spare::Failed => None,
            }
        };
        let is_prepared = spare.is_some();
        let (segment, end) = begin_segment(&self.directory, writer.segment.number + 1, spare, &writer.head)?;
        self.index.write().begin_segment(segment.clone());
        (writer.segment, writer.end, writer.durable, writer.is_prepared) = (segment, end, end, is_prepared);
        writer.is_proven = true;
        self.needs_proof.store(false, Ordering::Release);
        Ok(())
    }

    fn has_spare(&self) -> bool {
        matches!(*self.spare.lock(), Spare::Ready(_))
    }

    /// Starts a thread that prepares a file for the next segment, unless there is one already.
    fn prepare_spare(&self) {
        {
            let mut spare = self.spare.lock();
            if !matches!(*spare, Spare::None) {
                return;
            }
            *spare = Spare::Expected;
        }
        let (spare, directory, closed) = (self.spare.clone(), self.directory.clone(), self.closed.clone());
        let prepare = move || {
            let is_wanted = || Arc::strong_count(&spare) > 1;
            match SpareFile::of_zeros(&directory, threshold(SEGMENT_BYTES), is_wanted) {
                Ok(file) => *spare.lock() = Spare::Ready(file),
                Err(error) => {
                    *spare.lock() = Spare::Failed;
                    tracing::debug!(%error, "no file is prepared for the next segment");
                }
            }
            // This thread no longer uses the directory.
            drop(closed);
        };
        let prepared = ThreadBuilder::new().name("raft-log-spare".to_owned()).spawn(prepare);
        if let Err(error) = prepared {
            *self.spare.lock() = Spare::Failed;
            tracing::debug!(%error, "no file is prepared for the next segment");
        }
    }

    /// Removes the files that hold only purged entries. The purge must be durable.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn drop_files_before(&self, first_kept: u64) -> io::Result<()> {
        let gone = self.index.write().purge_before(first_kept);
        gone.into_iter().try_for_each(|number| Segment::remove(&self.directory, number))
    }
}

/// Creates a segment that begins with `head`, durably; returns it with the place of its next record.
fn begin_segment(
    directory: &Path,
    number: u64,
    spare: Option<SpareFile>,
    head: &LogHead,
) -> Result<(Segment, u64), WriteError> {
    let mut record = Vec::new();
    record::append(&mut record, RecordKind::Head, |buffer| codec::encode_into(head, buffer).map_err(io::Error::other))?;
    let end = Segment::first_record() + record.len() as u64;
    let seal = |salt| {
        record::seal(&mut record, 0, 0, salt);
        record
    };
    match Segment::create(directory, number, spare, seal) {
        Ok(segment) => Ok((segment, end)),
        Err(CreateError::Write(error)) => Err(write_failed(error)),
        Err(CreateError::Sync(error)) => Err(WriteError::Failed(error)),
    }
}

fn write_failed(error: io::Error) -> WriteError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::NoSpace(error),
        _ => WriteError::Failed(error),
    }
}

pub fn place(at: u64) -> io::Result<u32> {
    u32::try_from(at).map_err(io::Error::other)
}
