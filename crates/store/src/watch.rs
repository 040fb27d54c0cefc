//! Watches, which deliver every event after a revision once and in order.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::Stream;
use quorate_api::Revision;
use quorate_mvcc::Event;

use crate::platform::tokio;
use crate::platform::tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// A batch of events up to and including `revision`. It never splits a revision. An empty batch is a progress mark:
/// everything up to `revision` has been delivered.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    pub revision: Revision,
    pub events: WatchEvents,
}

/// Events that any number of watches share, with a value that a reader derived from them.
#[derive(Clone)]
pub struct WatchEvents(Arc<SharedEvents>);

struct SharedEvents {
    events: Arc<[Event]>,
    derived: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl WatchEvents {
    pub(crate) fn new(events: Arc<[Event]>) -> Self {
        WatchEvents(Arc::new(SharedEvents { events, derived: OnceLock::new() }))
    }

    /// Returns the value that `make` derives from these events. The first caller's value is kept for all watches that
    /// share the events and ask for the same type. It should not be larger than the events, because only their size is
    /// counted.
    pub fn derived<T: Clone + Send + Sync + 'static>(&self, make: impl Fn(&[Event]) -> T) -> T {
        let kept = self.0.derived.get_or_init(|| Box::new(make(self)));
        kept.downcast_ref().cloned().unwrap_or_else(|| make(self))
    }
}

impl Deref for WatchEvents {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.0.events
    }
}

impl fmt::Debug for WatchEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.events.fmt(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The start revision, or the position of a slow watcher, is older than the retained events.
    #[error("revision {requested} has been compacted; the oldest kept is {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("the store is shutting down")]
    ShuttingDown,
    #[error("the store failed: {0}")]
    Fatal(String),
}

/// Budget for the events that the watches of one client hold and the client has not taken yet. Watches that catch up
/// take turns: only a limited number of them may hold a page. The other watches share a number of bytes, and a watch
/// that finds none left has to catch up.
#[derive(Clone, Debug)]
pub struct WatchBudget {
    pages: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl WatchBudget {
    #[must_use]
    pub fn new(pages: usize, room_bytes: usize) -> Self {
        WatchBudget { pages: Arc::new(Semaphore::new(pages)), room: Arc::new(Semaphore::new(room_bytes)) }
    }
}

/// A message's part of its client's budget, if there is one: a turn to catch up, or a number of bytes.
pub(crate) type BudgetShare = Option<OwnedSemaphorePermit>;

/// Returns the values of an event in an index, such as the nodes of a pod before and after a change. `None` means that
/// they are not known, because the previous version is no longer retained.
pub type IndexFunc = Arc<dyn Fn(&Event) -> Option<Vec<String>> + Send + Sync>;

/// A value of an index. A watch with one receives only the events that have this value or whose values are not known. It
/// costs nothing for the other events of its range.
#[derive(Clone)]
pub struct IndexedValue {
    /// Names the index. In one range, the function of an index is the one that its first watch brought.
    pub index: &'static str,
    pub values_of: IndexFunc,
    pub value: String,
}

impl fmt::Debug for IndexedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.index, self.value)
    }
}

/// Options of a watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Whether to read the previous version of each change, where it is still retained.
    pub with_previous: bool,
    /// The budget that it shares with the other watches of its client.
    pub budget: Option<WatchBudget>,
    /// Narrows the watch to the events with a value. Such a watch reads previous versions whatever `with_previous` says.
    pub indexed: Option<IndexedValue>,
}

/// A running watch. Dropping it ends it. A watch that ends by itself ends with exactly one error.
pub struct Watch {
    messages: mpsc::Receiver<WatchMessage>,
    room: Arc<Semaphore>,
    end: Arc<OnceLock<WatchError>>,
    has_ended: bool,
}

impl Watch {
    /// Returns the next batch or the error that ends the watch, and `None` after that error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<WatchBatch, WatchError>> {
        let message = self.messages.recv().await;
        self.received(message)
    }

    /// Releases the room of a received message. `None` is the end of the channel, which ends the watch.
    fn received(&mut self, message: Option<WatchMessage>) -> Option<Result<WatchBatch, WatchError>> {
        if let Some(WatchMessage { batch, charge, share }) = message {
            drop(share);
            self.room.add_permits(charge as usize);
            return Some(Ok(batch));
        }
        if std::mem::replace(&mut self.has_ended, true) {
            return None;
        }
        let unexplained = || WatchError::Fatal("the watch ended without a reason".to_owned());
        Some(Err(self.end.get().cloned().unwrap_or_else(unexplained)))
    }
}

impl Stream for Watch {
    type Item = Result<WatchBatch, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(context).map(|message| self.received(message))
    }
}

struct WatchMessage {
    batch: WatchBatch,
    /// Number of bytes that it takes of the channel's room.
    charge: u32,
    /// Released when the message has been received.
    share: BudgetShare,
}

/// The sending end of a [`Watch`], a channel that is bounded in messages and in bytes.
#[derive(Clone)]
pub(crate) struct WatchSender {
    messages: mpsc::Sender<WatchMessage>,
    room: Arc<Semaphore>,
    /// The error that ends the watch. It is not sent through the channel, so a full channel cannot lose it.
    end: Arc<OnceLock<WatchError>>,
    max_bytes: u32,
    budget: Option<WatchBudget>,
}

/// Reason why a message was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// The channel or the client's budget is full.
    Full,
    /// The watch was dropped.
    Closed,
}

/// Creates a channel for `max_messages` messages and `max_bytes` bytes. A single message may be larger than
/// `max_bytes`.
pub(crate) fn watch_channel(
    max_messages: usize,
    max_bytes: usize,
    budget: Option<WatchBudget>,
) -> (WatchSender, Watch) {
    let (sender, messages) = mpsc::channel(max_messages);
    let max_bytes = u32::try_from(max_bytes).unwrap_or(u32::MAX >> 3);
    let room = Arc::new(Semaphore::new(max_bytes as usize));
    let end = Arc::new(OnceLock::new());
    let sender = WatchSender { messages: sender, room: room.clone(), end: end.clone(), max_bytes, budget };
    (sender, Watch { messages, room, end, has_ended: false })
}

impl WatchSender {
    fn charge(&self, size_bytes: usize) -> u32 {
        u32::try_from(size_bytes).unwrap_or(u32::MAX).min(self.max_bytes)
    }

    /// Ends the watch with an error, which the reader gets after everything that was sent before. Clones of this sender
    /// keep the watch open until they are dropped. The first error wins.
    pub(crate) fn end(self, error: WatchError) {
        self.end.get_or_init(|| error);
    }

    /// Sends without waiting. `size_bytes` is the size of the batch in memory.
    pub(crate) fn try_send(&self, batch: WatchBatch, size_bytes: usize) -> Result<(), NotSent> {
        let charge = self.charge(size_bytes);
        let full = || if self.messages.is_closed() { NotSent::Closed } else { NotSent::Full };
        let room = self.room.try_acquire_many(charge).map_err(|_| full())?;
        let share = match &self.budget {
            Some(budget) if charge > 0 => Some(budget.room.clone().try_acquire_many_owned(charge).map_err(|_| full())?),
            _ => None,
        };
        self.messages.try_send(WatchMessage { batch, charge, share }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::Closed,
        })?;
        room.forget();
        Ok(())
    }

    /// Waits for a turn to catch up. Returns `None` when the watch was dropped.
    pub(crate) async fn turn(&self) -> Option<BudgetShare> {
        let Some(WatchBudget { pages, .. }) = &self.budget else { return Some(None) };
        tokio::select! {
            turn = pages.clone().acquire_owned() => turn.ok().map(Some),
            () = self.messages.closed() => None,
        }
    }

    /// Waits for room and sends a batch. The turn ends when the batch has been received. Returns false when the watch
    /// was dropped.
    pub(crate) async fn send(&self, batch: WatchBatch, size_bytes: usize, turn: BudgetShare) -> bool {
        let charge = self.charge(size_bytes);
        let room = tokio::select! {
            room = self.room.acquire_many(charge) => room,
            () = self.messages.closed() => return false,
        };
        let Ok(room) = room else { return false };
        if self.messages.send(WatchMessage { batch, charge, share: turn }).await.is_err() {
            return false;
        }
        room.forget();
        true
    }

    /// Waits until all sent bytes have been received and the channel has room for a message. Returns false when the
    /// watch was dropped.
    pub(crate) async fn drained(&self) -> bool {
        tokio::select! {
            all = self.room.acquire_many(self.max_bytes) => if all.is_err() { return false },
            () = self.messages.closed() => return false,
        }
        self.messages.reserve().await.is_ok()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }
}
