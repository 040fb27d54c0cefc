//! Recovery of the log when it is opened.

use std::io;
use std::path::Path;

use super::batch::{LogChange, LogHead, decode};
use super::disk::place;
use super::index::EntryIndex;
use super::record::{self, RecordKind};
use super::segment::{self, Segment, Tail};
use crate::raft::state::snapshot::sync_directory;

/// Recovery of the log: reads all segments in order.
pub struct LogRecovery<'a> {
    directory: &'a Path,
    pub index: EntryIndex,
    pub head: LogHead,
}

impl<'a> LogRecovery<'a> {
    pub fn new(directory: &'a Path) -> Self {
        LogRecovery { directory, index: EntryIndex::default(), head: LogHead::default() }
    }

    /// Reads all segments; returns the newest one with its end, if there is one.
    pub fn run(&mut self) -> io::Result<Option<(Segment, u64)>> {
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
        let is_first = !self.index.has_segments();
        self.index.begin_segment(segment.clone());
        let mut records = 0;
        let (directory, number) = (self.directory, segment.number);
        let end = segment.scan(directory, is_last, |kind, at, payload| {
            records += 1;
            if (records == 1) != (kind == RecordKind::Head) {
                return Err(self.invalid(number, "its head is not its first record"));
            }
            if kind == RecordKind::Head {
                let head: LogHead = decode(payload)?;
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
