//! The cluster as this master sees it: the controllers' cache and the scheduler's view. The informer updates them on
//! every master, and the leader's tasks read them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use quorate_api::{ObjectKey, Revision};
use quorate_controllers::{Cache, Change, Decoded};
use quorate_mvcc::KeyValue;
use tokio::sync::{Notify, watch};

use crate::controllers::Dispatch;
use crate::scheduling::Scheduling;

/// Change in the store, with its key decoded.
pub(crate) enum Update {
    Put(ObjectKey, KeyValue),
    Delete(ObjectKey),
}

/// An update that is ready for the cache.
enum Prepared {
    Store(Box<Decoded>),
    Remove(ObjectKey),
}

/// Decodes an update, before the cache is locked.
fn decode(update: Update) -> Option<Prepared> {
    let (key, kv) = match update {
        Update::Put(key, kv) => (key, kv),
        Update::Delete(key) => return Some(Prepared::Remove(key)),
    };
    let (decoded, failure) = match Cache::decode(key, &kv.value, kv.mod_revision) {
        Ok((decoded, failure)) => (Some(decoded), failure),
        Err(failure) => (None, Some(failure)),
    };
    if let Some(error) = failure {
        tracing::error!(%error, "an object in the store cannot be decoded");
    }
    decoded.map(|decoded| Prepared::Store(Box::new(decoded)))
}

pub(crate) struct Cluster {
    cache: RwLock<Cache>,
    pub(crate) scheduling: Mutex<Scheduling>,
    /// Notified whenever there may be new scheduling work.
    pub(crate) scheduling_changed: Notify,
    reached: watch::Sender<Revision>,
    /// Work queues that changes feed; set while this master leads. The field is only accessed while `cache` is
    /// locked, and only set while it is locked for writing.
    dispatch: Mutex<Option<Arc<Dispatch>>>,
    started: Instant,
}

impl Cluster {
    pub(crate) fn new(seed: u64) -> Cluster {
        Cluster {
            cache: RwLock::new(Cache::new()),
            scheduling: Mutex::new(Scheduling::new(seed)),
            scheduling_changed: Notify::new(),
            reached: watch::Sender::new(Revision::ZERO),
            dispatch: Mutex::new(None),
            started: Instant::now(),
        }
    }

    pub(crate) fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read()
    }

    /// Returns the time since this process started, by the monotonic clock. It dates heartbeats and the scheduling
    /// queue.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the revision up to which all changes have been applied.
    pub(crate) fn reached(&self) -> watch::Receiver<Revision> {
        self.reached.subscribe()
    }

    /// Applies changes in the order of the store, and queues the affected keys and pods. `revision` is the store's
    /// revision after the changes; it is `None` in the middle of a listing.
    pub(crate) fn apply(&self, updates: Vec<Update>, revision: Option<Revision>) {
        let changes = self.update_cache(updates, revision);
        if !changes.is_empty() {
            let now = self.now();
            let mut scheduling = self.scheduling.lock();
            let affected = changes.iter().fold(false, |any, change| scheduling.apply(change, now) | any);
            drop(scheduling);
            if affected {
                self.scheduling_changed.notify_one();
            }
        }
        if let Some(revision) = revision {
            self.reached.send_replace(revision);
        }
    }

    fn update_cache(&self, updates: Vec<Update>, revision: Option<Revision>) -> Vec<Change> {
        let at = self.now();
        let decoded: Vec<_> = updates.into_iter().filter_map(decode).collect();
        let mut cache = self.cache.write();
        let changes: Vec<_> = decoded
            .into_iter()
            .filter_map(|update| match update {
                Prepared::Store(decoded) => Some(cache.apply(*decoded, at)),
                Prepared::Remove(key) => cache.remove(&key),
            })
            .collect();
        // Reconciles may go on while the triggers run. Nothing is attached or changed before they have run.
        let cache = RwLockWriteGuard::downgrade(cache);
        let dispatch = self.dispatch.lock().clone();
        if let Some(dispatch) = &dispatch {
            changes.iter().for_each(|change| dispatch.wake(&cache, change));
        }
        if let (Some(dispatch), Some(revision)) = (&dispatch, revision) {
            dispatch.advance(revision);
        }
        changes
    }

    /// Connects these controllers: their keys are all queued, and from now on changes trigger them. Both happen under
    /// one lock, so no change is missed.
    pub(crate) fn attach(&self, dispatch: Arc<Dispatch>) {
        let mut cache = self.cache.write();
        cache.begin_observation(self.now());
        dispatch.wake_all(&cache);
        dispatch.advance(*self.reached.borrow());
        *self.dispatch.lock() = Some(dispatch);
    }

    pub(crate) fn detach(&self) {
        let _cache = self.cache.write();
        *self.dispatch.lock() = None;
    }

    /// Restarts every node's grace period, because this master may have missed heartbeats.
    pub(crate) fn begin_observation(&self) {
        let now = self.now();
        self.cache.write().begin_observation(now);
    }
}
