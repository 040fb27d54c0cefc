//! A watch channel like Tokio's, except that waiters wake in the order in which they wait, not in a random one.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// Error of a channel whose sender was dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channel closed")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    version: AtomicUsize,
    senders: AtomicUsize,
    changed: Notify,
}

#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: usize,
}

/// The value, locked.
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    pub fn new(value: T) -> Self {
        let (version, senders) = (AtomicUsize::new(0), AtomicUsize::new(1));
        Sender { shared: Arc::new(Shared { value: RwLock::new(value), version, senders, changed: Notify::new() }) }
    }

    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.shared.version.load(Ordering::SeqCst) }
    }

    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut value = self.shared.value.write();
            if !modify(&mut value) {
                return false;
            }
            self.shared.version.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.changed.notify_waiters();
        true
    }

    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    pub fn send_replace(&self, new: T) -> T {
        let mut old = new;
        self.send_modify(|value| std::mem::swap(value, &mut old));
        old
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.senders.store(0, Ordering::SeqCst);
        self.shared.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Receiver<T> {
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version.load(Ordering::SeqCst);
        Ref(value)
    }

    pub fn has_changed(&self) -> Result<bool, Closed> {
        if self.shared.senders.load(Ordering::SeqCst) == 0 {
            return Err(Closed);
        }
        Ok(self.seen != self.shared.version.load(Ordering::SeqCst))
    }

    pub fn mark_changed(&mut self) {
        self.seen = self.shared.version.load(Ordering::SeqCst).wrapping_sub(1);
    }

    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.version.load(Ordering::SeqCst);
    }

    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let shared = self.shared.clone();
            let mut changed = std::pin::pin!(shared.changed.notified());
            // No change is missed after this.
            changed.as_mut().enable();
            let version = shared.version.load(Ordering::SeqCst);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if shared.senders.load(Ordering::SeqCst) == 0 {
                return Err(Closed);
            }
            changed.await;
        }
    }

    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let is_there = is_wanted(&self.borrow_and_update());
            if is_there {
                return Ok(self.borrow());
            }
            self.changed().await?;
        }
    }
}
