//! The live watchers of one range.

use std::sync::Arc;

use quorate_mvcc::Event;

use super::live::{Complete, Measured, Offered, Watcher, offer};
use super::ring::EventBatch;
use crate::platform::HashMap;
use crate::watch::IndexFunc;

/// The watchers of one range. Those with an indexed value are looked up by the values of an event, so that an event
/// costs nothing for the watchers of other values.
#[derive(Default)]
pub(super) struct Group {
    all: Vec<Watcher>,
    indexes: HashMap<&'static str, Index>,
}

struct Index {
    values_of: IndexFunc,
    watchers: HashMap<String, Vec<Watcher>>,
}

impl Group {
    pub(super) fn add(&mut self, watcher: Watcher) {
        let Some(indexed) = &watcher.indexed else { return self.all.push(watcher) };
        let new = || Index { values_of: indexed.values_of.clone(), watchers: HashMap::default() };
        let index = self.indexes.entry(indexed.index).or_insert_with(new);
        index.watchers.entry(indexed.value.clone()).or_default().push(watcher);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.indexes.is_empty()
    }

    /// Sends the events of a batch that are in the range. Watchers that cannot have them now are removed and passed to
    /// `lag`.
    pub(super) fn deliver(
        &mut self,
        batch: &EventBatch,
        events: &Arc<[Event]>,
        complete: Complete<'_>,
        mut lag: impl FnMut(Watcher),
    ) {
        let events = Offered::new(events.clone(), complete);
        offer(&mut self.all, batch, |watcher| events.to(watcher), &mut lag);
        self.indexes.retain(|_, index| {
            match events.completed() {
                Some(completed) => index.deliver(batch, &completed.events, &mut lag),
                None => index.watchers.values_mut().for_each(|watchers| offer(watchers, batch, |_| None, &mut lag)),
            }
            index.watchers.retain(|_, watchers| !watchers.is_empty());
            !index.watchers.is_empty()
        });
    }

    /// Calls `keep` with each list of watchers and removes the lists for which it returns false. Returns whether any is
    /// left.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Vec<Watcher>) -> bool) -> bool {
        keep(&mut self.all);
        self.indexes.retain(|_, index| {
            index.watchers.retain(|_, watchers| keep(watchers));
            !index.watchers.is_empty()
        });
        !self.is_empty()
    }

    pub(super) fn into_watchers(self) -> Vec<Watcher> {
        let indexed = self.indexes.into_values().flat_map(|index| index.watchers.into_values().flatten());
        self.all.into_iter().chain(indexed).collect()
    }
}

impl Index {
    fn deliver(&mut self, batch: &EventBatch, events: &[Event], mut lag: impl FnMut(Watcher)) {
        let mut wanted: HashMap<String, Vec<Event>> = HashMap::default();
        for event in events {
            let mut want = |value: &String| {
                let events = wanted.entry(value.clone()).or_default();
                // An event has a value twice when a change leaves it as it was.
                if events.last().is_none_or(|last| !is_same(last, event)) {
                    events.push(event.clone());
                }
            };
            match (self.values_of)(event) {
                Some(values) => values.iter().filter(|value| self.watchers.contains_key(*value)).for_each(&mut want),
                None => self.watchers.keys().for_each(&mut want),
            }
        }
        for (value, events) in wanted {
            let events = Measured::of(events.into());
            if let Some(watchers) = self.watchers.get_mut(&value) {
                offer(watchers, batch, |_| Some(&events), &mut lag);
            }
        }
    }
}

fn is_same(a: &Event, b: &Event) -> bool {
    a.kv().mod_revision == b.kv().mod_revision && a.kv().key == b.kv().key
}
