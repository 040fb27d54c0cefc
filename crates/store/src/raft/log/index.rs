//! The places of the entries in the segments.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::batch;
use super::record::Header;
use super::segment::{self, Segment};
use crate::platform::fs::FileExt;
use crate::raft::types::Entry;

/// The places of all entries.
#[derive(Default)]
pub struct EntryIndex {
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
    /// Begins a segment; the entries that follow are in it.
    pub fn begin_segment(&mut self, segment: Segment) {
        self.spans.push_back(Span::new(segment));
    }

    pub fn has_segments(&self) -> bool {
        !self.spans.is_empty()
    }

    pub fn push(&mut self, index: u64, place: Range<u32>) {
        let Some(span) = self.spans.back_mut() else { return };
        if span.places.is_empty() {
            span.first = index;
        }
        span.places.push(place.start);
        span.end = place.end;
    }

    pub fn truncate_from(&mut self, first_removed: u64) {
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
    pub fn purge_before(&mut self, first_kept: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.spans.len() > 1 && self.spans.front().is_some_and(|span| span.next() <= first_kept) {
            gone.extend(self.spans.pop_front().map(|span| span.segment.number));
        }
        for span in self.spans.iter_mut().filter(|span| span.next() <= first_kept) {
            span.places.clear();
        }
        gone
    }

    /// Returns the places of the first entries of `range` that exist, as far as they are in one segment: about
    /// `limit_bytes` of them, but at least one entry.
    pub fn part(&self, range: Range<u64>, limit_bytes: u64) -> Option<EntryPart> {
        let span = self.spans.iter().find(|span| span.next() > range.start)?;
        let from = usize::try_from(range.start.max(span.first) - span.first).ok()?;
        let to = usize::try_from(range.end.min(span.next()).saturating_sub(span.first)).ok()?;
        let places = span.places.get(from..to).filter(|places| !places.is_empty())?;
        let begin = places[0];
        let fitting = places.iter().take_while(|&&place| u64::from(place - begin) < limit_bytes).count();
        let end = span.places.get(from + fitting).copied().unwrap_or(span.end);
        Some(EntryPart { segment: span.segment.clone(), places: places[..fitting].to_vec(), end })
    }

    pub fn size_bytes(&self) -> u64 {
        let size = |span: &Span| span.places.first().map_or(0, |first| u64::from(span.end - first));
        self.spans.iter().map(size).sum()
    }
}

/// Entries that lie in one segment.
pub struct EntryPart {
    segment: Segment,
    places: Vec<u32>,
    end: u32,
}

impl EntryPart {
    /// Reads the entries and appends them to `entries`; returns their size in bytes.
    pub fn read(&self, directory: &Path, entries: &mut Vec<Entry>) -> io::Result<u64> {
        let Some(&begin) = self.places.first() else { return Ok(0) };
        let length = self.end - begin;
        let mut bytes = vec![0; length as usize];
        self.segment.file.read_exact_at(&mut bytes, begin.into())?;
        for &place in &self.places {
            let record = &bytes[(place - begin) as usize..];
            let payload = Header::read(record).and_then(|header| header.payload(record, self.segment.salt));
            let damaged = || segment::damaged(&segment::path(directory, self.segment.number), place.into());
            entries.push(batch::decode(payload.ok_or_else(damaged)?)?);
        }
        Ok(length.into())
    }
}
