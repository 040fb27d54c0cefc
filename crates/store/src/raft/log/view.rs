//! The current log in memory, whether or not it is on disk yet.

use std::collections::VecDeque;
use std::ops::Range;

use super::votes::Votes;
use crate::platform::threshold;
use crate::raft::types::{Entry, LogId};

/// Approximate number of bytes of log between two marks.
const MARK_EVERY_BYTES: u64 = 1 << 20;

/// The ends of the log, its recent entries, and its size up to certain indexes.
#[derive(Debug, Default)]
pub struct LogView {
    pub votes: Votes,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// Number of truncations so far. A report that entries are written applies to the view only if both have seen the
    /// same number.
    truncations: u64,
    recent: Recent,
    marks: ByteMarks,
}

/// A range of entries, of which the recent ones are in memory.
#[derive(Debug)]
pub struct Lookup {
    /// Indexes of the first entries, which must be read from disk.
    pub on_disk: Range<u64>,
    pub in_memory: Vec<Entry>,
}

impl LogView {
    pub fn recovered(recovered: super::disk::Recovered, cache_bytes: usize) -> Self {
        let first = recovered.purged.map_or(0, |id| id.index + 1);
        let end = recovered.last.map_or(0, |id| id.index + 1);
        LogView {
            votes: Votes::recovered(recovered.vote),
            committed: recovered.committed,
            purged: recovered.purged,
            last: recovered.last,
            truncations: 0,
            recent: Recent { entries: VecDeque::new(), bytes: 0, limit_bytes: cache_bytes, written: end },
            marks: ByteMarks::evenly(first..end, recovered.size_bytes),
        }
    }

    /// Removes all entries; `at` is then both the last and the last purged id.
    pub fn restart_at(&mut self, at: LogId) {
        let recovered = super::disk::Recovered {
            vote: None,
            committed: self.committed,
            purged: Some(at),
            last: Some(at),
            size_bytes: 0,
        };
        *self = LogView { votes: self.votes, ..LogView::recovered(recovered, self.recent.limit_bytes) };
    }

    pub fn append(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id);
        self.marks.append(entry.log_id.index, bytes as u64);
        self.recent.push(entry, bytes);
    }

    pub fn truncate_after(&mut self, last: Option<LogId>) {
        let first_removed = last.map_or(0, |id| id.index + 1);
        self.last = last;
        self.truncations += 1;
        self.marks.truncate_from(first_removed);
        self.recent.truncate_from(first_removed);
    }

    pub fn purge(&mut self, upto: LogId) {
        self.purged = Some(upto);
        if self.last < Some(upto) {
            self.last = Some(upto);
        }
        self.marks.purge_before(upto.index + 1);
        self.recent.purge_before(upto.index + 1);
    }

    /// Notes that entries below `end` are on disk, after `truncations` truncations, so that memory may evict them.
    pub fn written_before(&mut self, end: u64, truncations: u64) {
        if truncations == self.truncations {
            self.recent.written = self.recent.written.max(end);
            self.recent.evict();
        }
    }

    /// Returns the part of `range` that the log has.
    pub fn lookup(&self, range: Range<u64>, limit_bytes: usize) -> Lookup {
        let first = self.purged.map_or(0, |id| id.index + 1).max(range.start);
        let end = self.last.map_or(0, |id| id.index + 1).min(range.end);
        let split = self.recent.first().unwrap_or(u64::MAX).clamp(first, end.max(first));
        // The limit ignores the part on disk: a reader with a limit uses only that part if there is one.
        let in_memory = if split < end { self.recent.slice(split..end, limit_bytes) } else { Vec::new() };
        Lookup { on_disk: first..split, in_memory }
    }

    /// Returns the approximate size of the log's entries.
    pub fn size_bytes(&self) -> u64 {
        self.marks.total()
    }

    /// Returns the last index that can be purged while at least `keep_bytes` stay.
    pub fn purge_point(&self, keep_bytes: u64) -> Option<u64> {
        self.marks.purge_point(keep_bytes)
    }
}

/// Decoded entries at the end of the log, without gaps. Entries that are not on disk yet are never evicted.
#[derive(Debug, Default)]
struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    limit_bytes: usize,
    /// Index below which all entries are on disk.
    written: u64,
}

impl Recent {
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index)
    }

    fn push(&mut self, entry: Entry, bytes: usize) {
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.limit_bytes
            && let Some((entry, bytes)) = self.entries.front()
            && entry.log_id.index < self.written
        {
            self.bytes -= bytes;
            self.entries.pop_front();
        }
    }

    fn truncate_from(&mut self, first_removed: u64) {
        self.written = self.written.min(first_removed);
        while let Some((entry, bytes)) = self.entries.back()
            && entry.log_id.index >= first_removed
        {
            self.bytes -= bytes;
            self.entries.pop_back();
        }
    }

    fn purge_before(&mut self, first_kept: u64) {
        while let Some((entry, bytes)) = self.entries.front()
            && entry.log_id.index < first_kept
        {
            self.bytes -= bytes;
            self.entries.pop_front();
        }
    }

    fn slice(&self, range: Range<u64>, limit_bytes: usize) -> Vec<Entry> {
        let Some(first) = self.first() else { return Vec::new() };
        let from = usize::try_from(range.start - first).unwrap_or(usize::MAX);
        let count = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let within = self.entries.iter().skip(from).take(count).take_while(|(_, size)| {
            let fits = bytes < limit_bytes;
            bytes += size;
            fits
        });
        within.map(|(entry, _)| entry.clone()).collect()
    }
}

/// Number of bytes before certain indexes, counted from an arbitrary origin.
#[derive(Debug, Default)]
struct ByteMarks {
    /// Pairs of an index and the bytes before it, in ascending order; the first is the start of the log.
    marks: VecDeque<(u64, u64)>,
    end_bytes: u64,
}

impl ByteMarks {
    /// Spreads marks evenly over a log found on disk, since only its total size is known.
    fn evenly(range: Range<u64>, bytes: u64) -> Self {
        let count = range.end.saturating_sub(range.start);
        let steps = (bytes / threshold(MARK_EVERY_BYTES)).min(count);
        let mut marks: VecDeque<_> = (0..steps)
            .map(|i| {
                let before = i * threshold(MARK_EVERY_BYTES);
                (
                    range.start
                        + u64::try_from(u128::from(before) * u128::from(count) / u128::from(bytes)).unwrap_or(0),
                    before,
                )
            })
            .collect();
        if marks.is_empty() {
            marks.push_back((range.start, 0));
        }
        ByteMarks { marks, end_bytes: bytes }
    }

    fn append(&mut self, index: u64, bytes: u64) {
        let due = self.marks.back().is_none_or(|(_, before)| self.end_bytes - before >= threshold(MARK_EVERY_BYTES));
        if due {
            self.marks.push_back((index, self.end_bytes));
        }
        self.end_bytes += bytes;
    }

    fn truncate_from(&mut self, first_removed: u64) {
        // The removed bytes since the last remaining mark still count. Truncations are rare, and that is never much.
        while let Some(&(index, before)) = self.marks.back()
            && index >= first_removed
        {
            self.end_bytes = before;
            self.marks.pop_back();
        }
    }

    fn purge_before(&mut self, first_kept: u64) {
        let mut before = None;
        while let Some(&(index, bytes)) = self.marks.front()
            && index < first_kept
        {
            before = Some(bytes);
            self.marks.pop_front();
        }
        if let Some(before) = before {
            let exact = self.marks.front().is_some_and(|(index, _)| *index == first_kept);
            if !exact {
                self.marks.push_front((first_kept, before));
            }
        }
    }

    fn total(&self) -> u64 {
        self.end_bytes - self.marks.front().map_or(self.end_bytes, |(_, before)| *before)
    }

    fn purge_point(&self, keep_bytes: u64) -> Option<u64> {
        let kept = self.marks.iter().rev().find(|(_, before)| self.end_bytes - before >= keep_bytes)?;
        let begin = self.marks.front()?;
        (kept.0 > begin.0).then(|| kept.0 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_keeps_the_requested_bytes() {
        let mut marks = ByteMarks::evenly(0..0, 0);
        for index in 0..100 {
            marks.append(index, MARK_EVERY_BYTES / 4);
        }
        assert_eq!(marks.total(), 25 * MARK_EVERY_BYTES);
        let upto = marks.purge_point(10 * MARK_EVERY_BYTES).expect("more than that is there");
        marks.purge_before(upto + 1);
        assert!((10 * MARK_EVERY_BYTES..12 * MARK_EVERY_BYTES).contains(&marks.total()), "{}", marks.total());
        assert_eq!(marks.purge_point(20 * MARK_EVERY_BYTES), None);
    }

    #[test]
    fn a_recovered_log_is_measured_by_its_average() {
        let marks = ByteMarks::evenly(1000..2000, 100 * MARK_EVERY_BYTES);
        assert_eq!(marks.total(), 100 * MARK_EVERY_BYTES);
        assert_eq!(marks.purge_point(50 * MARK_EVERY_BYTES), Some(1499));
    }
}
