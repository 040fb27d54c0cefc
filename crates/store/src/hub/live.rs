//! Live watchers: those that have received every delivered event, grouped by their keys, ranges and indexed values.

use std::cell::LazyCell;
use std::sync::Arc;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{Event, KeyRange};

use super::group::Group;
use super::progress_mark;
use super::ring::EventBatch;
use crate::platform::HashMap;
use crate::watch::{IndexedValue, NotSent, WatchBatch, WatchError, WatchEvents, WatchSender};

/// A watcher.
pub(super) struct Watcher {
    /// The watcher has received, or does not want, the events up to this revision. For a live watcher, this counts only
    /// when it is later than `delivered`.
    pub(super) after: Revision,
    /// Whether the watcher wants the previous version of each change.
    pub(super) with_previous: bool,
    pub(super) indexed: Option<IndexedValue>,
    pub(super) sender: WatchSender,
}

/// All live watchers.
pub(super) struct Live {
    delivered: Revision,
    /// Watchers of a single key, by that key.
    keys: HashMap<Bytes, Vec<Watcher>>,
    /// Watchers of other ranges. Each distinct range is matched once.
    ranges: HashMap<KeyRange, Group>,
}

type Lagging = Vec<(KeyRange, Watcher)>;

/// Reads the previous versions of events. Returns `None` when they cannot be read now.
pub(super) type Complete<'a> = &'a dyn Fn(&[Event]) -> Option<Vec<Event>>;

impl Live {
    pub(super) fn new(revision: Revision) -> Self {
        Live { delivered: revision, keys: HashMap::default(), ranges: HashMap::default() }
    }

    /// The revision up to which all live watchers have received everything.
    pub(super) fn delivered(&self) -> Revision {
        self.delivered
    }

    /// Adds a watcher that has received everything up to [`Live::delivered`], or returns it as the error if it has not.
    pub(super) fn join(&mut self, range: &KeyRange, watcher: Watcher) -> Result<(), Watcher> {
        if watcher.after < self.delivered {
            return Err(watcher);
        }
        match range.single() {
            Some(key) => self.keys.entry(key.clone()).or_default().push(watcher),
            None => self.ranges.entry(range.clone()).or_default().add(watcher),
        }
        Ok(())
    }

    /// Delivers the new events of the next batch. Returns the watchers whose channels were full, or whose previous
    /// versions could not be read. They have received everything before the batch.
    pub(super) fn deliver(&mut self, batch: &EventBatch, complete: Complete<'_>) -> Lagging {
        let mut lagging = Vec::new();
        // After the source was reset to an older state, the first batch may begin with events that were delivered
        // before.
        let rest;
        let batch = if batch.after < self.delivered {
            rest = batch.rest(self.delivered);
            &rest
        } else {
            batch
        };
        if !self.keys.is_empty() {
            self.deliver_to_keys(batch, complete, &mut lagging);
        }
        self.ranges.retain(|range, group| {
            let matching = matching(range, &batch.events);
            if !matching.is_empty() {
                group.deliver(batch, &matching, complete, |watcher| lagging.push((range.clone(), watcher)));
            }
            !group.is_empty()
        });
        self.delivered = batch.revision;
        lagging
    }

    fn deliver_to_keys(&mut self, batch: &EventBatch, complete: Complete<'_>, lagging: &mut Lagging) {
        let mut watched: HashMap<&Bytes, Vec<Event>> = HashMap::default();
        for event in batch.events.iter() {
            if self.keys.contains_key(&event.kv().key) {
                watched.entry(&event.kv().key).or_default().push(event.clone());
            }
        }
        for (key, events) in watched {
            if let Some(watchers) = self.keys.get_mut(key) {
                let lag = |watcher| lagging.push((KeyRange::key(key.clone()), watcher));
                let events = Offered::new(events.into(), complete);
                offer(watchers, batch, |watcher| events.to(watcher), lag);
                if watchers.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
    }

    /// Removes and returns all watchers, which have received everything up to [`Live::delivered`], and continues at
    /// `revision`.
    pub(super) fn restart(&mut self, revision: Revision) -> Lagging {
        let delivered = std::mem::replace(&mut self.delivered, revision);
        let keys = self.keys.drain().map(|(key, watchers)| (KeyRange::key(key), watchers));
        let all = keys.chain(self.ranges.drain().map(|(range, group)| (range, group.into_watchers())));
        all.flat_map(|(range, watchers)| watchers.into_iter().map(move |watcher| (range.clone(), watcher)))
            .map(|(range, watcher)| (range, Watcher { after: watcher.after.max(delivered), ..watcher }))
            .collect()
    }

    /// Sends a progress mark to every watcher whose channel has room, and drops closed watchers. If the mark was
    /// requested (`is_wanted`), watchers with full channels are returned, so that they catch up and get their mark
    /// later.
    pub(super) fn mark_progress(&mut self, is_wanted: bool) -> Lagging {
        let mark = progress_mark(self.delivered);
        let mut lagging = Vec::new();
        let mut mark_all = |range: &dyn Fn() -> KeyRange, watchers: &mut Vec<Watcher>| {
            let mut place = 0;
            while let Some(watcher) = watchers.get(place) {
                let sent = if watcher.after > mark.revision {
                    if watcher.sender.is_closed() { Err(NotSent::Closed) } else { Ok(()) }
                } else {
                    watcher.sender.try_send(mark.clone(), 0)
                };
                match sent {
                    Err(NotSent::Full) if !is_wanted => place += 1,
                    Ok(()) => place += 1,
                    Err(NotSent::Closed) => drop(watchers.swap_remove(place)),
                    Err(NotSent::Full) => {
                        let watcher = watchers.swap_remove(place);
                        lagging.push((range(), Watcher { after: watcher.after.max(mark.revision), ..watcher }));
                    }
                }
            }
            !watchers.is_empty()
        };
        self.keys.retain(|key, watchers| mark_all(&|| KeyRange::key(key.clone()), watchers));
        self.ranges.retain(|range, group| group.retain(|watchers| mark_all(&|| range.clone(), watchers)));
        lagging
    }

    /// Ends all watches.
    pub(super) fn end(&mut self) {
        let keys = self.keys.drain().flat_map(|(_, watchers)| watchers);
        for watcher in keys.chain(self.ranges.drain().flat_map(|(_, group)| group.into_watchers())) {
            watcher.sender.end(WatchError::ShuttingDown);
        }
    }
}

/// Returns the events of a range. The list is shared when all events match.
fn matching(range: &KeyRange, events: &Arc<[Event]>) -> Arc<[Event]> {
    let is_match = |event: &&Event| range.contains(&event.kv().key);
    let count = events.iter().filter(is_match).count();
    if count == events.len() { events.clone() } else { events.iter().filter(is_match).cloned().collect() }
}

/// Events for watchers, some of which want previous versions. Those are read at most once, when the first watcher wants
/// them.
pub(super) struct Offered<'a> {
    plain: Measured,
    completed: LazyCell<Option<Measured>, Box<dyn FnOnce() -> Option<Measured> + 'a>>,
}

impl<'a> Offered<'a> {
    pub(super) fn new(events: Arc<[Event]>, complete: Complete<'a>) -> Self {
        let plain = Measured::of(events.clone());
        let completed: Box<dyn FnOnce() -> Option<Measured> + 'a> =
            Box::new(move || complete(&events).map(|events| Measured::of(events.into())));
        Offered { plain, completed: LazyCell::new(completed) }
    }

    /// Returns the events for a watcher, or `None` when their previous versions cannot be read now.
    pub(super) fn to(&self, watcher: &Watcher) -> Option<&Measured> {
        if watcher.with_previous { self.completed() } else { Some(&self.plain) }
    }

    pub(super) fn completed(&self) -> Option<&Measured> {
        self.completed.as_ref()
    }
}

/// Sends events to watchers. Watchers with full channels, and those without events, are removed and passed to `lag`;
/// closed watchers are removed.
pub(super) fn offer<'a>(
    watchers: &mut Vec<Watcher>,
    batch: &EventBatch,
    events: impl Fn(&Watcher) -> Option<&'a Measured>,
    mut lag: impl FnMut(Watcher),
) {
    let mut place = 0;
    while let Some(watcher) = watchers.get(place) {
        let Some(all) = events(watcher) else {
            let watcher = watchers.swap_remove(place);
            lag(Watcher { after: watcher.after.max(batch.after), ..watcher });
            continue;
        };
        let some = after(watcher.after, batch, &all.events).map(Measured::of);
        let Measured { events: wanted, size_bytes } = some.unwrap_or_else(|| all.clone());
        if wanted.is_empty() {
            place += 1;
            continue;
        }
        match watcher.sender.try_send(WatchBatch { revision: batch.revision, events: wanted }, size_bytes) {
            Ok(()) => place += 1,
            Err(NotSent::Closed) => drop(watchers.swap_remove(place)),
            Err(NotSent::Full) => {
                let watcher = watchers.swap_remove(place);
                lag(Watcher { after: watcher.after.max(batch.after), ..watcher });
            }
        }
    }
}

/// Events and their size.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) events: WatchEvents,
    size_bytes: usize,
}

impl Measured {
    pub(super) fn of(events: Arc<[Event]>) -> Self {
        Measured { size_bytes: events.iter().map(Event::size_bytes).sum(), events: WatchEvents::new(events) }
    }
}

/// Returns the events of a batch that come after a revision, or `None` when all of them do.
fn after(after: Revision, batch: &EventBatch, events: &[Event]) -> Option<Arc<[Event]>> {
    (after > batch.after).then(|| events.iter().filter(|event| event.kv().mod_revision > after).cloned().collect())
}
