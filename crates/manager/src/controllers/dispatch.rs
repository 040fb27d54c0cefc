//! The work queues of all controllers. The informer adds the keys that a change triggers, and the workers take them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_controllers::{Cache, Change, Controller, WorkKey};
use tokio::sync::Notify;

use crate::controllers::work_queue::{Finish, Turn, WorkQueue};
use crate::guard;

/// A [`WorkQueue`] whose next key can be awaited.
pub(crate) struct SharedQueue {
    queue: Mutex<WorkQueue>,
    changed: Notify,
    started: Instant,
}

impl SharedQueue {
    fn new() -> SharedQueue {
        SharedQueue { queue: Mutex::new(WorkQueue::default()), changed: Notify::new(), started: Instant::now() }
    }

    /// Returns the time by the queue's clock.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn add_all(&self, keys: Vec<WorkKey>) {
        if keys.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        for key in keys {
            queue.add(key);
        }
        drop(queue);
        self.changed.notify_one();
    }

    fn advance(&self, revision: Revision) {
        let mut queue = self.queue.lock();
        queue.advance(revision);
        let ready = queue.has_ready();
        drop(queue);
        if ready {
            self.changed.notify_one();
        }
    }

    /// Waits for the next key to reconcile. Cancel-safe.
    pub(crate) async fn next(&self) -> Turn {
        loop {
            let deadline = {
                let mut queue = self.queue.lock();
                if let Some(taken) = queue.take(self.now()) {
                    let more = queue.has_ready();
                    drop(queue);
                    if more {
                        // One permit wakes one worker. Each worker passes the permit on while there is work.
                        self.changed.notify_one();
                    }
                    return taken;
                }
                queue.next_deadline()
            };
            match deadline {
                Some(due) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep(due.saturating_sub(self.now())) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    pub(crate) fn finish(&self, key: &WorkKey, finish: Finish) {
        self.queue.lock().finish(key, finish);
        self.changed.notify_one();
    }
}

/// All controllers with their queues.
pub(crate) struct Dispatch {
    queues: Vec<(&'static Controller, Arc<SharedQueue>)>,
}

impl Dispatch {
    pub(crate) fn new(controllers: &'static [Controller]) -> Dispatch {
        let queues = controllers.iter().map(|controller| (controller, Arc::new(SharedQueue::new())));
        Dispatch { queues: queues.collect() }
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = (&'static Controller, Arc<SharedQueue>)> {
        self.queues.iter().map(|(controller, queue)| (*controller, queue.clone()))
    }

    /// Queues the keys that a change triggers. The change is already in the cache.
    pub(crate) fn wake(&self, cache: &Cache, change: &Change) {
        for (controller, queue) in &self.queues {
            let keys = guard::catch(controller.name, || (controller.triggers)(cache, change)).unwrap_or_default();
            if !keys.is_empty() {
                tracing::trace!(controller = controller.name, cause = %change.key, keys = keys.len(), "keys queued");
            }
            queue.add_all(keys);
        }
    }

    /// Queues every key that may need work.
    pub(crate) fn wake_all(&self, cache: &Cache) {
        for (controller, queue) in &self.queues {
            queue.add_all(all_keys(controller, cache));
        }
    }

    /// Records that the cache has reached this revision.
    pub(crate) fn advance(&self, revision: Revision) {
        for (_, queue) in &self.queues {
            queue.advance(revision);
        }
    }
}

pub(crate) fn all_keys(controller: &Controller, cache: &Cache) -> Vec<WorkKey> {
    guard::catch(controller.name, || (controller.all_keys)(cache)).unwrap_or_default()
}
