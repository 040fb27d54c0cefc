//! Reads of the log, from memory for recent entries.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::RwLock;

use super::disk::LogDisk;
use super::view::LogView;
use crate::raft::types::{Entry, TypeConfig, Vote};

/// Approximate maximum size of one message to a follower, and of one read of entries to apply.
const MAX_READ_BYTES: usize = 2 << 20;

/// Reader of the entries and the vote; any number of readers may exist.
#[derive(Clone)]
pub struct LogReader {
    pub(super) view: Arc<RwLock<LogView>>,
    pub(super) disk: Arc<LogDisk>,
}

impl LogReader {
    fn read(&self, range: Range<u64>, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        let lookup = self.view.read().lookup(range, limit_bytes);
        if lookup.on_disk.is_empty() {
            return Ok(lookup.in_memory);
        }
        let mut entries = self.disk.entries(lookup.on_disk.clone(), limit_bytes)?;
        let complete = entries.last().is_some_and(|entry| entry.log_id.index + 1 == lookup.on_disk.end);
        if complete && limit_bytes == usize::MAX {
            entries.extend(lookup.in_memory);
        } else if !complete && limit_bytes == usize::MAX && !entries.is_empty() {
            let problem = format!("the log ends before {} on disk", lookup.on_disk.end);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        } else if entries.is_empty() {
            // The entries on disk were purged after the lookup.
            entries = lookup.in_memory;
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(bounds(&range), usize::MAX)
    }

    /// Returns a stream of committed entries to apply, read in parts. A missing entry is an error.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let parts = Parts { reader: self.clone(), left: bounds(&range), part: Vec::new().into_iter() };
        futures::stream::iter(parts)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.view.read().votes.last())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start..end, MAX_READ_BYTES)?;
        // openraft sends these entries behind the one before `start` without checking their indexes, so the first must
        // be `start`. It retries when there are none.
        if entries.first().is_some_and(|entry| entry.log_id.index == start) {
            return Ok(entries);
        }
        match self.view.read().purged {
            // openraft began to send these entries before the purge and would ask for them forever, so the follower
            // would never receive later ones. The error ends this instance, and the next one sends a snapshot.
            Some(purged) if start <= purged.index => {
                Err(io::Error::other(format!("cannot send entry {start}: all up to {} are purged", purged.index)))
            }
            _ => Ok(Vec::new()),
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// Iterator over entries without a gap, which reads them part by part.
struct Parts {
    reader: LogReader,
    left: Range<u64>,
    part: std::vec::IntoIter<Entry>,
}

impl Iterator for Parts {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        if self.part.len() == 0 {
            match self.reader.read(self.left.clone(), MAX_READ_BYTES) {
                Ok(part) => self.part = part.into_iter(),
                Err(error) => {
                    self.left = 0..0;
                    return Some(Err(error));
                }
            }
        }
        let found = match self.part.next() {
            Some(entry) if entry.log_id.index == self.left.start => {
                self.left.start += 1;
                return Some(Ok(entry));
            }
            Some(entry) => format!("entry {}", entry.log_id.index),
            None if self.reader.view.read().last.is_some_and(|last| last.index >= self.left.start) => {
                "nothing".to_owned()
            }
            // The range may reach beyond the end of the log.
            None => return None,
        };
        let problem = format!("the log has {found} in the place of entry {}", self.left.start);
        self.left = 0..0;
        Some(Err(io::Error::new(io::ErrorKind::InvalidData, problem)))
    }
}
