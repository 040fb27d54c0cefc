//! Recent batches, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_api::Revision;
use quorate_mvcc::Event;

/// The events of the revisions after `after` up to `revision`.
pub(super) struct Batch {
    pub(super) after: Revision,
    pub(super) revision: Revision,
    pub(super) events: Arc<[Event]>,
    size_bytes: usize,
}

impl Batch {
    /// The part of it after a revision.
    pub(super) fn rest(&self, after: Revision) -> Batch {
        let events = self.events.iter().filter(|event| event.kv().mod_revision > after).cloned().collect();
        Batch { after, revision: self.revision, events, size_bytes: self.size_bytes }
    }

    /// The same events in fewer batches, of up to so many bytes where there is more than one in them: what each watcher
    /// is sent costs more than what is in it.
    pub(super) fn together(batches: Vec<Arc<Batch>>, max_bytes: usize) -> Vec<Arc<Batch>> {
        let mut joined: Vec<Arc<Batch>> = Vec::with_capacity(batches.len());
        let mut rest = &batches[..];
        while let Some(first) = rest.first() {
            let mut size_bytes = 0;
            let fits = |batch: &&Arc<Batch>| {
                size_bytes += batch.size_bytes;
                size_bytes <= max_bytes
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (some, after) = rest.split_at(count);
            rest = after;
            joined.push(match some {
                [.., last] if count > 1 => Arc::new(Batch {
                    after: first.after,
                    revision: last.revision,
                    events: some.iter().flat_map(|batch| batch.events.iter().cloned()).collect(),
                    size_bytes: some.iter().map(|batch| batch.size_bytes).sum(),
                }),
                _ => first.clone(),
            });
        }
        joined
    }
}

/// Every event after `start` up to the newest.
pub(super) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    start: Revision,
    end: Revision,
    size_bytes: usize,
    max_bytes: usize,
}

impl Ring {
    pub(super) fn new(revision: Revision, max_bytes: usize) -> Self {
        Ring { batches: VecDeque::new(), start: revision, end: revision, size_bytes: 0, max_bytes }
    }

    /// Forgets everything and stands at `revision`.
    pub(super) fn restart(&mut self, revision: Revision) {
        *self = Ring::new(revision, self.max_bytes);
    }

    pub(super) fn push(&mut self, revision: Revision, events: Vec<Event>) {
        let size_bytes = events.iter().map(Event::size_bytes).sum();
        self.batches.push_back(Arc::new(Batch { after: self.end, revision, events: events.into(), size_bytes }));
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

    /// The batches with every event after `after`, and perhaps some before it in the first; `None` when some are gone.
    pub(super) fn since(&self, after: Revision) -> Option<Vec<Arc<Batch>>> {
        if after < self.start {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.revision <= after);
        Some(self.batches.range(first..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::{KeyValue, Previous};

    use super::*;

    #[test]
    fn what_goes_together_loses_nothing_and_stays_in_order() {
        let mut ring = Ring::new(Revision(1), 1 << 20);
        for revision in 2..12 {
            let kv = KeyValue { mod_revision: Revision(revision), value: vec![0; 1000].into(), ..KeyValue::default() };
            ring.push(Revision(revision), vec![Event::Put { kv, prev: Previous::None }]);
        }
        let all = ring.since(Revision(1)).expect("all of it");
        for (max_bytes, count) in [(0, 10), (1500, 10), (3500, 4), (1 << 20, 1)] {
            let joined = Batch::together(all.clone(), max_bytes);
            assert_eq!(joined.len(), count, "up to {max_bytes} bytes");
            assert!(joined.windows(2).all(|pair| pair[0].revision == pair[1].after));
            let revisions = joined.iter().flat_map(|batch| batch.events.iter()).map(|event| event.kv().mod_revision);
            assert_eq!(revisions.collect::<Vec<_>>(), (2..12).map(Revision).collect::<Vec<_>>());
            assert!(
                joined.iter().all(|batch| batch.events.last().map(|e| e.kv().mod_revision) == Some(batch.revision))
            );
        }
    }
}
