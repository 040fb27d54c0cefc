//! The pods that wait for a node: by priority, then first come, first served. What found no node is parked until
//! something changes that may help, then backs off; nothing is parked for longer than five minutes.
//!
//! Times are durations since any fixed moment that the caller chooses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::event::ClusterEvents;
use crate::pod::{PodInfo, PodKey};

/// How long a pod waits after each failed attempt: doubled each time, up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
    /// A pod that was parked for this long is tried again even if nothing has changed.
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

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Ready to be tried, at this position.
    Active(Position),
    /// To be tried at this time.
    BackingOff(Duration, u64),
    /// Found no node; since when, and what may help.
    Parked { since: Duration, wake_on: ClusterEvents },
    /// Its scheduling gates keep it out; an update may let it in.
    Gated,
    /// Popped; its attempt is under way.
    InFlight,
}

/// The order of the active pods.
type Position = (Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    /// When the last attempt failed.
    failed_at: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    backoff: Backoff,
    entries: HashMap<PodKey, Entry>,
    active: BTreeMap<Position, PodKey>,
    backing_off: BTreeMap<(Duration, u64), PodKey>,
    /// By the time since when; looked through when something changes.
    parked: BTreeSet<(Duration, PodKey)>,
    sequence: u64,
}

impl Queue {
    #[must_use]
    pub fn new(backoff: Backoff) -> Queue {
        Queue { backoff, ..Queue::default() }
    }

    /// All pods that it knows, wherever they stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Pods that are ready to be tried at once.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.len()
    }

    #[must_use]
    pub fn get(&self, key: &PodKey) -> Option<&Arc<PodInfo>> {
        self.entries.get(key).map(|entry| &entry.pod)
    }

    /// A pod without a node appeared or changed. One whose scheduling constraints have changed is tried again at once;
    /// any other change (of its status, say) leaves it where it stands.
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

    /// The pod is gone, or has a node.
    pub fn remove(&mut self, key: &PodKey) {
        self.leave_place(key);
        self.entries.remove(key);
    }

    /// The next pod to try. It stays known, as in flight, until [`Queue::remove`], [`Queue::park`] or
    /// [`Queue::retry`].
    pub fn pop(&mut self, now: Duration) -> Option<Arc<PodInfo>> {
        self.wake_due(now);
        let (_, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        Some(entry.pod.clone())
    }

    /// The attempt found no node: waits for one of these events.
    pub fn park(&mut self, key: &PodKey, wake_on: ClusterEvents, now: Duration) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.place == Place::InFlight) else { return };
        entry.failed_at = now;
        entry.place = Place::Parked { since: now, wake_on };
        self.parked.insert((now, key.clone()));
    }

    /// The attempt failed for a reason that lies outside the pod (a conflict, an error): tries again after a backoff.
    pub fn retry(&mut self, key: &PodKey, now: Duration) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.place == Place::InFlight) else { return };
        entry.failed_at = now;
        self.back_off(key, now);
    }

    /// Something happened: moves the parked pods that it may help. Returns how many.
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

    /// Begins anew: every pod that is not gated is tried at once, whatever became of earlier attempts. For a process
    /// that becomes responsible for a queue that it has only kept filled so far.
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

    /// When [`Queue::pop`] may have something although nothing happens until then; `None` when only events help.
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

    /// Moves a pod to where its backoff ends: at once when it has already passed.
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
