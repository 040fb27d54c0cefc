//! The sequence of changes that all watchers together have seen, by revision.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Micros, Seen, Value, WatchLog, WatchRecord};

/// All changes of the watched keys, from the first revision to the last one of the run.
#[derive(Debug, Default)]
pub struct EventLog {
    by_revision: BTreeMap<u64, BTreeMap<String, Seen>>,
    by_key: HashMap<String, Vec<(u64, Value)>>,
    /// Time at which the first watcher received each revision.
    delivered: HashMap<u64, Micros>,
}

impl EventLog {
    /// Returns the union of the watchers' events, and a violation wherever two watchers saw different events for a key
    /// and revision.
    #[must_use]
    pub fn of(watches: &[WatchLog]) -> (EventLog, Vec<String>) {
        let mut log = EventLog::default();
        let mut violations = Vec::new();
        for watch in watches {
            for (at, seen) in timed(watch) {
                let delivered = log.delivered.entry(seen.revision).or_insert(at);
                *delivered = at.min(*delivered);
                // Only some watchers ask for previous values, so compare without them.
                let plain = Seen { previous: None, ..seen.clone() };
                let at = log.by_revision.entry(seen.revision).or_default();
                match at.get(&seen.key) {
                    Some(known) if *known != plain => {
                        violations.push(format!("{} saw {plain:?} where another watcher saw {known:?}", watch.watcher));
                    }
                    Some(_) => {}
                    None => {
                        at.insert(seen.key.clone(), plain);
                    }
                }
            }
        }
        for (revision, changes) in &log.by_revision {
            for (key, seen) in changes {
                log.by_key.entry(key.clone()).or_default().push((*revision, seen.value.clone()));
            }
        }
        violations.extend(log.broken_versions());
        (log, violations)
    }

    /// Time at which the first watcher received the revision.
    #[must_use]
    pub fn delivered(&self, revision: u64) -> Option<Micros> {
        self.delivered.get(&revision).copied()
    }

    #[must_use]
    pub fn revisions(&self) -> usize {
        self.by_revision.len()
    }

    /// The last revision with a change.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.by_revision.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Seen> {
        self.by_revision.values().flat_map(BTreeMap::values)
    }

    /// The changes from `first` to `last`, both included.
    pub fn range(&self, first: u64, last: u64) -> impl Iterator<Item = &Seen> {
        let range = if first <= last { Some(self.by_revision.range(first..=last)) } else { None };
        range.into_iter().flatten().flat_map(|(_, changes)| changes.values())
    }

    #[must_use]
    pub fn at(&self, revision: u64, key: &str) -> Option<&Seen> {
        self.by_revision.get(&revision)?.get(key)
    }

    /// Value of a key at a revision, and the revision of its last change.
    #[must_use]
    pub fn value_at(&self, key: &str, revision: u64) -> Option<(u64, &str)> {
        let changes = self.by_key.get(key)?;
        let after = changes.partition_point(|(changed, _)| *changed <= revision);
        let (changed, value) = changes[..after].last()?;
        Some((*changed, value.as_deref()?))
    }

    /// Reports gaps in the versions of a key. Versions count the writes since the creation, so a gap is a change that
    /// no watcher saw.
    fn broken_versions(&self) -> Vec<String> {
        let mut living: HashMap<&str, &Seen> = HashMap::new();
        let mut broken = Vec::new();
        for seen in self.iter() {
            let before = living.get(seen.key.as_str()).copied();
            if seen.value.is_none() {
                living.remove(seen.key.as_str());
                continue;
            }
            let is_next = match before {
                Some(before) => seen.version == before.version + 1 && seen.create_revision == before.create_revision,
                None => seen.version == 1 && seen.create_revision == seen.revision,
            };
            if !is_next {
                broken.push(format!("{seen:?} cannot follow {before:?}: no watcher saw a change between them"));
            }
            living.insert(&seen.key, seen);
        }
        broken
    }
}

fn timed(watch: &WatchLog) -> impl Iterator<Item = (Micros, &Seen)> {
    watch.records.iter().flat_map(|record| {
        let (at, events) = match record {
            WatchRecord::Batch { at, events } => (*at, &events[..]),
            _ => (0, &[][..]),
        };
        events.iter().map(move |event| (at, event))
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn put(revision: u64, key: &str, value: &str, version: u64, create_revision: u64) -> Seen {
        Seen { key: key.to_owned(), value: Some(value.to_owned()), revision, create_revision, version, previous: None }
    }

    pub fn delete(revision: u64, key: &str) -> Seen {
        Seen { key: key.to_owned(), value: None, revision, create_revision: 0, version: 0, previous: None }
    }

    /// A watcher that received each event in a response of its own.
    pub fn watch(name: &str, events: &[Seen]) -> WatchLog {
        let batch = |event: &Seen| WatchRecord::Batch { at: event.revision * 10, events: vec![event.clone()] };
        let opened = WatchRecord::Opened { at: 0, member: 0, from: 1 };
        WatchLog {
            watcher: name.to_owned(),
            with_previous: false,
            complete_to: events.last().map_or(0, |event| event.revision),
            records: std::iter::once(opened).chain(events.iter().map(batch)).collect(),
        }
    }

    #[test]
    fn values_last_until_the_next_change() {
        let events = [put(2, "a", "x", 1, 2), put(4, "a", "y", 2, 2), delete(6, "a")];
        let (log, violations) = EventLog::of(&[watch("w", &events)]);
        assert_eq!(violations, Vec::<String>::new());
        assert_eq!(log.value_at("a", 1), None);
        assert_eq!(log.value_at("a", 3), Some((2, "x")));
        assert_eq!(log.value_at("a", 5), Some((4, "y")));
        assert_eq!(log.value_at("a", 6), None);
        assert_eq!(log.range(3, 6).count(), 2);
    }

    #[test]
    fn conflicting_events_and_gaps_are_found() {
        let delivered = [put(2, "a", "x", 1, 2)];
        let (_, violations) = EventLog::of(&[watch("w", &delivered), watch("v", &[put(2, "a", "z", 1, 2)])]);
        assert_eq!(violations.len(), 1);
        for gap in [
            vec![put(2, "a", "x", 1, 2), put(4, "a", "y", 3, 2)],
            vec![put(4, "a", "y", 2, 2)],
            vec![put(2, "a", "x", 1, 2), delete(3, "a"), put(4, "a", "y", 2, 2)],
        ] {
            assert_eq!(EventLog::of(&[watch("w", &gap)]).1.len(), 1, "{gap:?}");
        }
    }
}
