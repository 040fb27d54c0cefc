//! The log on disk: a sequence of segments, and the place of each entry in them.
//!
//! Records are only appended, never changed; truncations, votes and purges are records like entries. A segment begins
//! with the head of the log at that time, so earlier segments can be removed once their entries are purged.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::record::{self, Header, Kind};
use super::segment::{self, CreateError, Segment, SpareFile, Tail};
use crate::platform::ThreadBuilder;
use crate::platform::fs;
use crate::platform::fs::FileExt;
use crate::platform::threshold;
use crate::raft::closing::CloseSignal;
use crate::raft::codec;
use crate::raft::snapshot::sync_directory;
use crate::raft::types::{Entry, LogId, Vote};

/// Size at which a segment is full; the next batch then goes to a new segment.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Size of a segment at which a file is prepared for the next one.
const PREPARE_FROM_BYTES: u64 = SEGMENT_BYTES / 4;
/// Maximum capacity that the buffer of a batch keeps between two uses.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// The open log. It is closed when its last owner drops it, and `closed` with it.
pub struct LogDisk {
    directory: PathBuf,
    index: RwLock<EntryIndex>,
    writer: Mutex<WriteState>,
    spare: Arc<Mutex<Spare>>,
    /// See [`LogOptions`](super::LogOptions).
    prepares_first: bool,
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

/// The state of the log apart from its entries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Head {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
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
    /// Whether a later record says that everything before `durable` was synced.
    is_proven: bool,
    head: Head,
}

impl WriteState {
    fn is_torn(&self) -> bool {
        self.torn_until > self.end
    }
}

/// The places of all entries.
#[derive(Default)]
struct EntryIndex {
    /// One for each segment, in order.
    spans: VecDeque<Span>,
}

/// The entries of a segment that are not truncated: a range without gaps.
struct Span {
    segment: Segment,
    first: u64,
    places: Vec<u32>,
    /// Place after the last entry.
    end: u32,
}

impl Span {
    fn new(segment: Segment) -> Self {
        Span { segment, first: 0, places: Vec::new(), end: 0 }
    }

    /// Returns the index after the last entry; zero when there is none.
    fn next(&self) -> u64 {
        if self.places.is_empty() { 0 } else { self.first + self.places.len() as u64 }
    }
}

impl EntryIndex {
    fn push(&mut self, index: u64, place: Range<u32>) {
        let Some(span) = self.spans.back_mut() else { return };
        if span.places.is_empty() {
            span.first = index;
        }
        span.places.push(place.start);
        span.end = place.end;
    }

    fn truncate_from(&mut self, first_removed: u64) {
        for span in self.spans.iter_mut().rev().filter(|span| !span.places.is_empty()) {
            if span.next() <= first_removed {
                return;
            }
            let kept = usize::try_from(first_removed.saturating_sub(span.first)).unwrap_or(usize::MAX);
            span.end = span.places[kept];
            span.places.truncate(kept);
        }
    }

    /// Removes the segments that hold only entries before `first_kept`, except for the newest; returns their numbers.
    fn purge_before(&mut self, first_kept: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.spans.len() > 1 && self.spans.front().is_some_and(|span| span.next() <= first_kept) {
            gone.extend(self.spans.pop_front().map(|span| span.segment.number));
        }
        for span in self.spans.iter_mut().filter(|span| span.next() <= first_kept) {
            span.places.clear();
        }
        gone
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
        let mut recovery = Recovery { directory, index: EntryIndex::default(), head: Head::default() };
        let found = recovery.run()?;
        let is_new = found.is_none();
        let (segment, end) = match found {
            Some(newest) => newest,
            None => {
                let (segment, end) =
                    begin_segment(directory, 1, None, &recovery.head).map_err(|error| match error {
                        WriteError::NoSpace(error) | WriteError::Failed(error) => error,
                    })?;
                recovery.index.spans.push_back(Span::new(segment.clone()));
                (segment, end)
            }
        };
        let Recovery { index, head, .. } = recovery;
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
    /// Until then damage of the last batch looks like a torn write, and recovery would cut off entries that this member
    /// has acknowledged. The record repeats the committed id, so it changes nothing.
    ///
    /// # Errors
    /// When the record cannot be written; the log is then unchanged.
    pub fn prove_durable(&self, batch: &mut LogBatch) -> Result<(), WriteError> {
        let mut writer = self.writer.lock();
        if writer.is_proven || writer.is_torn() || writer.durable < writer.end {
            return Ok(());
        }
        batch.clear();
        batch.committed(writer.head.committed)?;
        self.put(&mut writer, batch, false)
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
        }
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
        self.index.write().spans.push_back(Span::new(segment.clone()));
        (writer.segment, writer.end, writer.durable, writer.is_prepared) = (segment, end, end, is_prepared);
        writer.is_proven = true;
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
    head: &Head,
) -> Result<(Segment, u64), WriteError> {
    let mut record = Vec::new();
    record::append(&mut record, Kind::Head, |buffer| codec::encode_into(head, buffer).map_err(io::Error::other))?;
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

fn place(at: u64) -> io::Result<u32> {
    u32::try_from(at).map_err(io::Error::other)
}

/// Recovery of the log: reads all segments in order.
struct Recovery<'a> {
    directory: &'a Path,
    index: EntryIndex,
    head: Head,
}

impl Recovery<'_> {
    /// Reads all segments; returns the newest one with its end, if there is one.
    fn run(&mut self) -> io::Result<Option<(Segment, u64)>> {
        let numbers = segment::list(self.directory)?;
        let mut newest = None;
        for (i, &number) in numbers.iter().enumerate() {
            let is_last = i + 1 == numbers.len();
            let segment = Segment::open(self.directory, number)?;
            if i > 0 && number != numbers[i - 1] + 1 {
                return Err(self.invalid(number, "the segment before it is missing"));
            }
            let end = self.scan(&segment, is_last)?;
            newest = Some((segment, end));
        }
        Ok(newest)
    }

    /// Reads a segment; returns its end.
    fn scan(&mut self, segment: &Segment, is_last: bool) -> io::Result<u64> {
        let is_first = self.index.spans.is_empty();
        self.index.spans.push_back(Span::new(segment.clone()));
        let mut records = 0;
        let (directory, number) = (self.directory, segment.number);
        let end = segment.scan(directory, is_last, |kind, at, payload| {
            records += 1;
            if (records == 1) != (kind == Kind::Head) {
                return Err(self.invalid(number, "its head is not its first record"));
            }
            if kind == Kind::Head {
                let head: Head = decode(payload)?;
                if !is_first && head != self.head {
                    return Err(self.invalid(number, "it does not follow from the one before it"));
                }
                self.head = head;
                return Ok(());
            }
            let end = at + (record::HEADER_BYTES + payload.len()).next_multiple_of(record::ALIGNMENT) as u64;
            let change = LogChange::read(kind, payload)?;
            if let LogChange::Entry(id) = &change
                && id.index != self.head.last.map_or(0, |last| last.index + 1)
            {
                return Err(self.invalid(number, &format!("entries before {} are missing", id.index)));
            }
            change.apply(&mut self.head, &mut self.index, place(at)?..place(end)?);
            Ok(())
        })?;
        if records == 0 {
            return Err(segment::damaged(&segment::path(directory, number), Segment::first_record()));
        }
        if end.tail == Tail::Torn {
            tracing::warn!(segment = number, at = end.at, "the log ends in a torn write, which is cut off");
        }
        if is_last {
            segment.file.set_len(end.at)?;
            // Writes of a killed process may not be on disk yet; after this sync they are.
            segment.file.sync_all()?;
            sync_directory(directory)?;
        }
        Ok(end.at)
    }

    fn invalid(&self, number: u64, problem: &str) -> io::Error {
        let path = segment::path(self.directory, number);
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {problem}", path.display()))
    }
}

/// Changes that become durable together, in order. The batch can be cleared and reused.
#[derive(Default)]
pub struct LogBatch {
    buffer: Vec<u8>,
    records: Vec<BatchRecord>,
}

struct BatchRecord {
    /// Start of the record in the buffer.
    start: usize,
    change: LogChange,
}

/// The change that a record makes to the log.
enum LogChange {
    Entry(LogId),
    /// The new last id.
    TruncateAfter(Option<LogId>),
    Vote(Vote),
    Committed(Option<LogId>),
    Purge(LogId),
}

impl LogChange {
    fn read(kind: Kind, payload: &[u8]) -> io::Result<Self> {
        Ok(match kind {
            Kind::Head => return Err(io::Error::new(io::ErrorKind::InvalidData, "a head in the middle of a segment")),
            // An entry begins with its id.
            Kind::Entry => LogChange::Entry(codec::decode_prefix(payload).map_err(invalid_data)?.0),
            Kind::Truncate => LogChange::TruncateAfter(decode(payload)?),
            Kind::Vote => LogChange::Vote(decode(payload)?),
            Kind::Committed => LogChange::Committed(decode(payload)?),
            Kind::Purge => LogChange::Purge(decode(payload)?),
        })
    }

    /// Applies the change to the head and the index. `place` is where its record lies in the segment.
    fn apply(&self, head: &mut Head, index: &mut EntryIndex, place: Range<u32>) {
        match self {
            LogChange::Entry(id) => {
                head.last = Some(*id);
                index.push(id.index, place);
            }
            LogChange::TruncateAfter(last) => {
                head.last = *last;
                index.truncate_from(last.map_or(0, |last| last.index + 1));
            }
            LogChange::Vote(vote) => head.vote = Some(*vote),
            LogChange::Committed(committed) => head.committed = *committed,
            LogChange::Purge(upto) => {
                head.purged = Some(*upto);
                if head.last < Some(*upto) {
                    head.last = Some(*upto);
                    index.truncate_from(0);
                }
            }
        }
    }
}

impl LogBatch {
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        self.records.clear();
    }

    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.add(Kind::Entry, entry, LogChange::Entry(entry.log_id))
    }

    /// Removes everything after `last`.
    pub fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.add(Kind::Truncate, &last, LogChange::TruncateAfter(last))
    }

    /// Removes everything up to and including `upto`.
    pub fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.add(Kind::Purge, &upto, LogChange::Purge(upto))
    }

    pub fn vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.add(Kind::Vote, vote, LogChange::Vote(*vote))
    }

    pub fn committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.add(Kind::Committed, &committed, LogChange::Committed(committed))
    }

    fn add<T: Serialize>(&mut self, kind: Kind, value: &T, change: LogChange) -> io::Result<()> {
        let encode = |buffer: &mut Vec<u8>| codec::encode_into(value, buffer).map_err(io::Error::other);
        let start = record::append(&mut self.buffer, kind, encode)?;
        self.records.push(BatchRecord { start, change });
        Ok(())
    }
}

/// Entries that lie in one segment.
struct Part {
    segment: Segment,
    places: Vec<u32>,
    end: u32,
}

impl EntryIndex {
    /// Returns the places of the first entries of `range` that exist, as far as they are in one segment: about
    /// `limit_bytes` of them, but at least one entry.
    fn part(&self, range: Range<u64>, limit_bytes: u64) -> Option<Part> {
        let span = self.spans.iter().find(|span| span.next() > range.start)?;
        let from = usize::try_from(range.start.max(span.first) - span.first).ok()?;
        let to = usize::try_from(range.end.min(span.next()).saturating_sub(span.first)).ok()?;
        let places = span.places.get(from..to).filter(|places| !places.is_empty())?;
        let begin = places[0];
        let fitting = places.iter().take_while(|&&place| u64::from(place - begin) < limit_bytes).count();
        let end = span.places.get(from + fitting).copied().unwrap_or(span.end);
        Some(Part { segment: span.segment.clone(), places: places[..fitting].to_vec(), end })
    }

    fn size_bytes(&self) -> u64 {
        let size = |span: &Span| span.places.first().map_or(0, |first| u64::from(span.end - first));
        self.spans.iter().map(size).sum()
    }
}

impl Part {
    /// Reads the entries and appends them to `entries`; returns their size in bytes.
    fn read(&self, directory: &Path, entries: &mut Vec<Entry>) -> io::Result<u64> {
        let Some(&begin) = self.places.first() else { return Ok(0) };
        let length = self.end - begin;
        let mut bytes = vec![0; length as usize];
        self.segment.file.read_exact_at(&mut bytes, begin.into())?;
        for &place in &self.places {
            let record = &bytes[(place - begin) as usize..];
            let payload = Header::read(record).and_then(|header| header.payload(record, self.segment.salt));
            let damaged = || segment::damaged(&segment::path(directory, self.segment.number), place.into());
            entries.push(decode(payload.ok_or_else(damaged)?)?);
        }
        Ok(length.into())
    }
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> io::Result<T> {
    codec::decode(value).map_err(invalid_data)
}

fn invalid_data(error: codec::CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
