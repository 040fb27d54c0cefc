//! Ring of recent batches, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_api::Revision;
use quorate_mvcc::Event;

/// The events of the revisions after `after` up to `revision`.
pub(super) struct EventBatch {
    pub(super) after: Revision,
    pub(super) revision: Revision,
    pub(super) events: Arc<[Event]>,
    size_bytes: usize,
}

impl EventBatch {
    /// Returns the part of the batch after a revision.
    pub(super) fn rest(&self, after: Revision) -> EventBatch {
        let events = self.events.iter().filter(|event| event.kv().mod_revision > after).cloned().collect();
        EventBatch { after, revision: self.revision, events, size_bytes: self.size_bytes }
    }
}

/// The events after `start`, up to the newest one.
pub(super) struct Ring {
    batches: VecDeque<Arc<EventBatch>>,
    start: Revision,
    end: Revision,
    size_bytes: usize,
    max_bytes: usize,
}

impl Ring {
    pub(super) fn new(revision: Revision, max_bytes: usize) -> Self {
        Ring { batches: VecDeque::new(), start: revision, end: revision, size_bytes: 0, max_bytes }
    }

    /// Empties the ring and continues at `revision`.
    pub(super) fn restart(&mut self, revision: Revision) {
        *self = Ring::new(revision, self.max_bytes);
    }

    pub(super) fn push(&mut self, revision: Revision, events: Vec<Event>) {
        let size_bytes = events.iter().map(Event::size_bytes).sum();
        self.batches.push_back(Arc::new(EventBatch { after: self.end, revision, events: events.into(), size_bytes }));
        self.end = revision;
        self.size_bytes += size_bytes;
        while self.size_bytes > self.max_bytes
            && let Some(oldest) = self.batches.pop_front()
        {
            self.size_bytes -= oldest.size_bytes;
            self.start = oldest.revision;
        }
    }

    /// The newest revision.
    pub(super) fn end(&self) -> Revision {
        self.end
    }

    /// Returns the batches with every event after `after`. The first batch may also have earlier events. Returns `None`
    /// when some of the events are gone.
    pub(super) fn since(&self, after: Revision) -> Option<Vec<Arc<EventBatch>>> {
        if after < self.start {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.revision <= after);
        Some(self.batches.range(first..).cloned().collect())
    }
}
