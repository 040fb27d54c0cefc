//! The queue of pods that wait for a node, ordered by priority and then by arrival. A pod that found no node is parked
//! until an event occurs that may help, and then backs off. No pod is parked for longer than five minutes.
//!
//! Times are durations since a fixed moment that the caller chooses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::event::ClusterEvents;
use crate::pod::{PodInfo, PodKey};

/// Wait after failed attempts: it doubles with each attempt, up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
    /// Time after which a parked pod is tried again even if nothing has changed.
    pub max_parked: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(10),
            max_parked: Duration::from_secs(5 * 60),
        }
    }
}

impl Backoff {
    fn after(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(30);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }
}

/// State of a pod in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Ready to be tried, at this position.
    Active(Position),
    /// To be tried at this time.
    BackingOff(Duration, u64),
    /// Found no node at `since`, and waits for one of the events `wake_on`.
    Parked { since: Duration, wake_on: ClusterEvents },
    /// Held back by its scheduling gates until an update removes them.
    Gated,
    /// Popped; its attempt is in progress.
    InFlight,
}

/// Sort key of the active pods.
type Position = (Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    /// Time when the last attempt failed.
    failed_at: Duration,
}

/// Pods that wait for a node; see the module.
#[derive(Debug, Default)]
pub struct Queue {
    backoff: Backoff,
    entries: HashMap<PodKey, Entry>,
    active: BTreeMap<Position, PodKey>,
    backing_off: BTreeMap<(Duration, u64), PodKey>,
    /// Parked pods by the time when they were parked. Each event is checked against all of them.
    parked: BTreeSet<(Duration, PodKey)>,
    sequence: u64,
}

impl Queue {
    #[must_use]
    pub fn new(backoff: Backoff) -> Queue {
        Queue { backoff, ..Queue::default() }
    }

    /// Returns the number of all pods in the queue, in any state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of pods that are ready to be tried.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.len()
    }

    #[must_use]
    pub fn get(&self, key: &PodKey) -> Option<&Arc<PodInfo>> {
        self.entries.get(key).map(|entry| &entry.pod)
    }

    /// Adds or updates a pod without a node. A pod whose scheduling constraints have changed is tried again at once;
    /// any other change (such as one of its status) leaves its state as it is.
    pub fn upsert(&mut self, pod: Arc<PodInfo>) {
        let key = pod.key.clone();
        match self.entries.get_mut(&key) {
            Some(entry) if entry.pod == pod => {}
            Some(entry) if entry.pod.uid == pod.uid && entry.place == Place::InFlight => entry.pod = pod,
            _ => {
                self.remove(&key);
                let place = Place::Gated;
                let gated = pod.gated;
                self.entries.insert(key.clone(), Entry { pod, place, attempts: 0, failed_at: Duration::ZERO });
                if !gated {
                    self.activate(&key);
                }
            }
        }
    }

    /// Removes a pod that is gone or has a node.
    pub fn remove(&mut self, key: &PodKey) {
        self.leave_place(key);
        self.entries.remove(key);
    }

    /// Takes the next pod to try. It stays in the queue, in flight, until [`Queue::remove`], [`Queue::park`] or
    /// [`Queue::retry`].
    pub fn pop(&mut self, now: Duration) -> Option<Arc<PodInfo>> {
        self.wake_due(now);
        let (_, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        Some(entry.pod.clone())
    }

    /// Parks a pod whose attempt found no node until one of these events.
    pub fn park(&mut self, key: &PodKey, wake_on: ClusterEvents, now: Duration) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.place == Place::InFlight) else { return };
        entry.failed_at = now;
        entry.place = Place::Parked { since: now, wake_on };
        self.parked.insert((now, key.clone()));
    }

    /// Retries a pod after a backoff, because its attempt failed for a reason outside the pod (a conflict, an error).
    pub fn retry(&mut self, key: &PodKey, now: Duration) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.place == Place::InFlight) else { return };
        entry.failed_at = now;
        self.back_off(key, now);
    }

    /// Activates the parked pods that the events may help, after their backoff. Returns their number.
    pub fn wake(&mut self, events: ClusterEvents, now: Duration) -> usize {
        if events.is_empty() || self.parked.is_empty() {
            return 0;
        }
        let helped = |entry: &Entry| match entry.place {
            Place::Parked { wake_on, .. } => wake_on.intersects(events),
            _ => false,
        };
        let keys: Vec<PodKey> = self
            .parked
            .iter()
            .map(|(_, key)| key)
            .filter(|key| self.entries.get(*key).is_some_and(helped))
            .cloned()
            .collect();
        for key in &keys {
            self.back_off(key, now);
        }
        keys.len()
    }

    /// Makes every pod that is not gated ready to be tried, regardless of earlier attempts. A new leader calls this,
    /// because it has only filled the queue so far.
    pub fn restart(&mut self) {
        let mut waiting: Vec<PodKey> = Vec::new();
        for (key, entry) in &mut self.entries {
            entry.attempts = 0;
            if !matches!(entry.place, Place::Active(_) | Place::Gated) {
                waiting.push(key.clone());
            }
        }
        waiting.sort();
        for key in waiting {
            self.activate(&key);
        }
    }

    /// Returns the time at which [`Queue::pop`] may return a pod without any further event; `None` when only events can
    /// help.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let backing_off = self.backing_off.keys().next().map(|(due, _)| *due);
        let parked = self.parked.iter().next().map(|(since, _)| *since + self.backoff.max_parked);
        backing_off.into_iter().chain(parked).min()
    }

    fn wake_due(&mut self, now: Duration) {
        while let Some(entry) = self.backing_off.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.get().clone();
            self.activate(&key);
        }
        while let Some((since, key)) = self.parked.first().cloned() {
            if since + self.backoff.max_parked > now {
                break;
            }
            self.activate(&key);
        }
    }

    /// Makes a pod back off, or activates it if its backoff has already passed.
    fn back_off(&mut self, key: &PodKey, now: Duration) {
        let Some(entry) = self.entries.get(key) else { return };
        let due = entry.failed_at + self.backoff.after(entry.attempts);
        if due <= now {
            return self.activate(key);
        }
        self.leave_place(key);
        self.sequence += 1;
        self.backing_off.insert((due, self.sequence), key.clone());
        self.set_place(key, Place::BackingOff(due, self.sequence));
    }

    fn activate(&mut self, key: &PodKey) {
        self.leave_place(key);
        self.sequence += 1;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let position = (Reverse(entry.pod.footprint.priority), self.sequence);
        entry.place = Place::Active(position);
        self.active.insert(position, key.clone());
    }

    fn set_place(&mut self, key: &PodKey, place: Place) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = place;
        }
    }

    fn leave_place(&mut self, key: &PodKey) {
        match self.entries.get(key).map(|entry| entry.place) {
            Some(Place::Active(position)) => drop(self.active.remove(&position)),
            Some(Place::BackingOff(due, sequence)) => drop(self.backing_off.remove(&(due, sequence))),
            Some(Place::Parked { since, .. }) => drop(self.parked.remove(&(since, key.clone()))),
            Some(Place::Gated | Place::InFlight) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
