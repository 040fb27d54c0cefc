//! The cluster as this master sees it: the controllers' cache and the scheduler's view, fed by the informer on every
//! master, read by whatever the leader runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use quorate_api::{ObjectKey, Revision};
use quorate_controllers::{Cache, Change};
use quorate_mvcc::KeyValue;
use tokio::sync::{Notify, watch};

use crate::controllers::Dispatch;
use crate::scheduling::Scheduling;

/// One change of the store, decoded as far as its key.
pub(crate) enum Update {
    Put(ObjectKey, KeyValue),
    Delete(ObjectKey),
}

pub(crate) struct Cluster {
    cache: RwLock<Cache>,
    pub(crate) scheduling: Mutex<Scheduling>,
    /// Told whenever `scheduling` may have something new to do.
    pub(crate) scheduling_changed: Notify,
    reached: watch::Sender<Revision>,
    /// Set while this master leads: whom changes wake. Only touched while `cache` is locked for writing.
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

    /// Time since this process began, by the monotonic clock: it dates heartbeats and the scheduling queue.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything up to this revision has been taken in.
    pub(crate) fn reached(&self) -> watch::Receiver<Revision> {
        self.reached.subscribe()
    }

    /// Takes changes in, in the order of the store, and wakes whom they concern. `revision` is where that leads;
    /// `None` in the middle of a listing.
    pub(crate) fn apply(&self, updates: Vec<Update>, revision: Option<Revision>) {
        let changes = self.update_cache(updates, revision);
        if !changes.is_empty() {
            let now = self.now();
            let mut scheduling = self.scheduling.lock();
            let concerned = changes.iter().fold(false, |any, change| scheduling.apply(change, now) | any);
            drop(scheduling);
            if concerned {
                self.scheduling_changed.notify_one();
            }
        }
        if let Some(revision) = revision {
            self.reached.send_replace(revision);
        }
    }

    fn update_cache(&self, updates: Vec<Update>, revision: Option<Revision>) -> Vec<Change> {
        let at = self.now();
        let mut changes = Vec::with_capacity(updates.len());
        let mut cache = self.cache.write();
        let dispatch = self.dispatch.lock().clone();
        for update in updates {
            let change = match update {
                Update::Put(key, kv) => match cache.upsert(&key, &kv.value, kv.mod_revision, at) {
                    Ok(change) => Some(change),
                    Err(error) => {
                        tracing::error!(%error, "an object in the store cannot be decoded");
                        None
                    }
                },
                Update::Delete(key) => cache.remove(&key),
            };
            let Some(change) = change else { continue };
            if let Some(dispatch) = &dispatch {
                dispatch.wake(&cache, &change);
            }
            changes.push(change);
        }
        if let (Some(dispatch), Some(revision)) = (&dispatch, revision) {
            dispatch.advance(revision);
        }
        changes
    }

    /// From now on changes wake these controllers; all their keys are queued. Nothing can fall between the two.
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

    /// This master may have missed heartbeats: no node is declared dead for that.
    pub(crate) fn begin_observation(&self) {
        let now = self.now();
        self.cache.write().begin_observation(now);
    }
}
