//! The log on disk: segments, one behind the other, and where in them each entry lies.
//!
//! What is written never changes; truncations, votes and purges are records as entries are. A segment begins with where
//! the log stood then, so those before it can go when their entries have been purged.

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

/// A segment that has grown past this is followed by another one.
const SEGMENT_BYTES: u64 = 16 << 20;
/// From here on a file is prepared for the next one.
const PREPARE_FROM_BYTES: u64 = SEGMENT_BYTES / 4;
/// A batch's buffer that grew past this is given back.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// The open log. Its last owner closes it, and tells `closed`.
pub struct LogDisk {
    directory: PathBuf,
    index: RwLock<Index>,
    writer: Mutex<Writer>,
    spare: Arc<Mutex<Spare>>,
    /// See [`LogOptions`](super::LogOptions).
    prepares_first: bool,
    /// Dropped last. Whoever prepares a file has a clone.
    closed: CloseSignal,
}

/// What the disk knew when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// What the entries take.
    pub size_bytes: u64,
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no space. Nothing has changed; it can be tried again.
    #[error("no space for the log: {0}")]
    NoSpace(io::Error),
    /// Nobody knows what is on disk now.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// Where the log stands, but for its entries.
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
    /// It is on its way.
    Expected,
    Ready(SpareFile),
    /// It could not be made. The next segment does without, and it is tried again for the one after that.
    Failed,
}

/// What only the writer needs.
struct Writer {
    segment: Segment,
    /// Where the next record goes.
    end: u64,
    /// Before this place everything in the segment is on disk.
    durable: u64,
    /// Whether the segment is in a file that was prepared, and need not grow.
    is_prepared: bool,
    /// Up to where writes that failed may have left something behind `end`, if that is later. The next write goes over it.
    torn_until: u64,
    /// Whether something that was written later says that everything before `durable` was synced.
    is_proven: bool,
    head: Head,
}

impl Writer {
    fn is_torn(&self) -> bool {
        self.torn_until > self.end
    }
}

/// Where entries lie.
#[derive(Default)]
struct Index {
    /// One for each segment, in order.
    spans: VecDeque<Span>,
}

/// The entries of a segment that still count: a range without gaps.
struct Span {
    segment: Segment,
    first: u64,
    places: Vec<u32>,
    /// After the last one.
    end: u32,
}

impl Span {
    fn new(segment: Segment) -> Self {
        Span { segment, first: 0, places: Vec::new(), end: 0 }
    }

    /// After the last index; zero when there is none.
    fn next(&self) -> u64 {
        if self.places.is_empty() { 0 } else { self.first + self.places.len() as u64 }
    }
}

impl Index {
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

    /// Forgets the segments with nothing but entries before `first_kept`, but for the newest; returns their numbers.
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
    /// Opens or makes the log in `directory`, checks all of it, and takes note of where things lie.
    ///
    /// # Errors
    /// When it cannot be read, or holds a log that is damaged elsewhere than at its torn end.
    pub fn open(directory: &Path, prepares_first: bool, closed: CloseSignal) -> io::Result<(Self, Recovered)> {
        fs::create_dir_all(directory)?;
        segment::clear_spares(directory)?;
        let mut recovery = Recovery { directory, index: Index::default(), head: Head::default() };
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
            writer: Mutex::new(Writer {
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
            tracing::debug!(%error, "that the log is durable is not written down yet");
        }
        Ok((disk, recovered))
    }

    /// Entries in `range`, as far as they are there, ending early when `limit_bytes` of encoded entries are reached.
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
        if is_whole { Ok(found) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "a hole in the log")) }
    }

    /// Writes a batch; with `sync`, returns when it and all before it are durable.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&self, batch: &mut LogBatch, sync: bool) -> Result<(), WriteError> {
        let mut writer = self.writer.lock();
        // The first one after a start is never in a prepared file.
        let is_provisional = self.prepares_first && !writer.is_prepared;
        if !writer.is_torn() && (writer.end >= threshold(SEGMENT_BYTES) || is_provisional && self.has_spare()) {
            self.begin_next(&mut writer)?;
        } else if writer.end >= threshold(PREPARE_FROM_BYTES) || is_provisional {
            self.prepare_spare();
        }
        self.put(&mut writer, batch, sync)
    }

    /// Writes a record, without a sync, that says that everything in the log was synced, if nothing says so yet. Until
    /// then damage of the last batch looks like a write that a crash tore, and entries that this member has acknowledged
    /// would be cut off. The record repeats what is known to be committed, so it changes nothing.
    ///
    /// # Errors
    /// When it cannot be written; the log is then as it was.
    pub fn prove_durable(&self, batch: &mut LogBatch) -> Result<(), WriteError> {
        let mut writer = self.writer.lock();
        if writer.is_proven || writer.is_torn() || writer.durable < writer.end {
            return Ok(());
        }
        batch.clear();
        batch.committed(writer.head.committed)?;
        self.put(&mut writer, batch, false)
    }

    /// Writes a batch behind what is there.
    fn put(&self, writer: &mut Writer, batch: &mut LogBatch, sync: bool) -> Result<(), WriteError> {
        let durable = place(writer.durable)?;
        for change in &batch.changes {
            record::seal(&mut batch.buffer, change.start, durable, writer.segment.salt);
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
        for (i, change) in batch.changes.iter().enumerate() {
            let next = batch.changes.get(i + 1).map_or(batch.buffer.len(), |next| next.start);
            let lies = place(begin + change.start as u64)?..place(begin + next as u64)?;
            change.what.note(&mut writer.head, &mut index, lies);
        }
        Ok(())
    }

    /// Begins another segment. The one before it is then durable, which its successor proves.
    ///
    /// Nothing may lie after its last record, for nobody tells that from damage when it is the last segment no more: after
    /// a write that failed, the next one goes to the same place before.
    fn begin_next(&self, writer: &mut Writer) -> Result<(), WriteError> {
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

    /// Has a file made for the next segment, if that has not been done.
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
            // The directory is left alone from here on.
            drop(closed);
        };
        let prepared = ThreadBuilder::new().name("raft-log-spare".to_owned()).spawn(prepare);
        if let Err(error) = prepared {
            *self.spare.lock() = Spare::Failed;
            tracing::debug!(%error, "no file is prepared for the next segment");
        }
    }

    /// Drops files that hold nothing but purged entries. The purge must be durable.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn drop_files_before(&self, first_kept: u64) -> io::Result<()> {
        let gone = self.index.write().purge_before(first_kept);
        gone.into_iter().try_for_each(|number| Segment::remove(&self.directory, number))
    }
}

/// Makes a segment that begins with where the log stands, durably; says where it goes on.
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

/// Reads all segments, one after the other.
struct Recovery<'a> {
    directory: &'a Path,
    index: Index,
    head: Head,
}

impl Recovery<'_> {
    /// The newest segment and where it ends, if there is one.
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

    /// Where the segment ends.
    fn scan(&mut self, segment: &Segment, is_last: bool) -> io::Result<u64> {
        let is_first = self.index.spans.is_empty();
        self.index.spans.push_back(Span::new(segment.clone()));
        let mut records = 0;
        let (directory, number) = (self.directory, segment.number);
        let end = segment.scan(directory, is_last, |kind, at, payload| {
            records += 1;
            if (records == 1) != (kind == Kind::Head) {
                return Err(self.invalid(number, "its head is not where it should be"));
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
            let what = What::read(kind, payload)?;
            if let What::Entry(id) = &what
                && id.index != self.head.last.map_or(0, |last| last.index + 1)
            {
                return Err(self.invalid(number, &format!("a hole before entry {}", id.index)));
            }
            what.note(&mut self.head, &mut self.index, place(at)?..place(end)?);
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
            // What a killed process has written may not be on disk yet; from here on it counts as if it were.
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

/// Changes that become durable together, in order. It can be cleared and used again.
#[derive(Default)]
pub struct LogBatch {
    buffer: Vec<u8>,
    changes: Vec<Change>,
}

struct Change {
    /// Where its record begins in the buffer.
    start: usize,
    what: What,
}

/// What a record changes.
enum What {
    Entry(LogId),
    /// The new last id.
    TruncateAfter(Option<LogId>),
    Vote(Vote),
    Committed(Option<LogId>),
    Purge(LogId),
}

impl What {
    fn read(kind: Kind, payload: &[u8]) -> io::Result<Self> {
        Ok(match kind {
            Kind::Head => return Err(io::Error::new(io::ErrorKind::InvalidData, "a head in the middle of a segment")),
            // An entry begins with its id.
            Kind::Entry => What::Entry(codec::decode_prefix(payload).map_err(invalid_data)?.0),
            Kind::Truncate => What::TruncateAfter(decode(payload)?),
            Kind::Vote => What::Vote(decode(payload)?),
            Kind::Committed => What::Committed(decode(payload)?),
            Kind::Purge => What::Purge(decode(payload)?),
        })
    }

    fn note(&self, head: &mut Head, index: &mut Index, lies: Range<u32>) {
        match self {
            What::Entry(id) => {
                head.last = Some(*id);
                index.push(id.index, lies);
            }
            What::TruncateAfter(last) => {
                head.last = *last;
                index.truncate_from(last.map_or(0, |last| last.index + 1));
            }
            What::Vote(vote) => head.vote = Some(*vote),
            What::Committed(committed) => head.committed = *committed,
            What::Purge(upto) => {
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
        self.changes.clear();
    }

    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.add(Kind::Entry, entry, What::Entry(entry.log_id))
    }

    /// Removes everything after `last`.
    pub fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.add(Kind::Truncate, &last, What::TruncateAfter(last))
    }

    /// Removes everything up to and including `upto`.
    pub fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.add(Kind::Purge, &upto, What::Purge(upto))
    }

    pub fn vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.add(Kind::Vote, vote, What::Vote(*vote))
    }

    pub fn committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.add(Kind::Committed, &committed, What::Committed(committed))
    }

    fn add<T: Serialize>(&mut self, kind: Kind, value: &T, what: What) -> io::Result<()> {
        let encode = |buffer: &mut Vec<u8>| codec::encode_into(value, buffer).map_err(io::Error::other);
        let start = record::append(&mut self.buffer, kind, encode)?;
        self.changes.push(Change { start, what });
        Ok(())
    }
}

/// Entries that lie in one segment.
struct Part {
    segment: Segment,
    places: Vec<u32>,
    end: u32,
}

impl Index {
    /// The first entries of `range` that there are, some `limit_bytes` of them but at least one, as far as they lie
    /// together.
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
    /// Appends the entries; says how many bytes they take.
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
