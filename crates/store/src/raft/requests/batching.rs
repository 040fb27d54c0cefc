//! Batches of commands.
//!
//! A [`Batcher`] gathers commands while earlier batches are in flight, so batches grow with the load and a lone command
//! never waits. It sends a batch beside one in flight only when the batch is large enough for a round of its own.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, Either};
use tokio_util::sync::CancellationToken;

use crate::platform::tokio::sync::mpsc::error::TrySendError;
use crate::platform::tokio::sync::{Notify, mpsc, oneshot};
use crate::platform::tokio::time::Instant;
use crate::platform::{TaskTracker, tokio};
use crate::raft::network::messages::Proposed;

/// Limits of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of commands in the queue.
    pub queue: usize,
    /// Maximum number of bytes in the queue; an empty queue takes one command of any length.
    pub queue_bytes: usize,
    pub batch_commands: usize,
    pub batch_bytes: usize,
    /// Maximum number of batches in flight.
    pub in_flight: usize,
    /// Minimum number of commands in a batch that is sent while others are in flight; fewer wait until those are done.
    pub worth_commands: usize,
    /// How long fewer commands wait for a batch in flight, whose disk may be full or slow.
    pub patience: Duration,
}

/// Commands in the queue, with the channel for their outcomes.
struct Queued {
    term: u64,
    commands: QueuedCommands,
}

enum QueuedCommands {
    One { command: Bytes, outcome: oneshot::Sender<Proposed> },
    Many { commands: Vec<Bytes>, outcomes: oneshot::Sender<Vec<Proposed>> },
}

impl Queued {
    fn count(&self) -> usize {
        match &self.commands {
            QueuedCommands::One { .. } => 1,
            QueuedCommands::Many { commands, .. } => commands.len(),
        }
    }

    fn size_bytes(&self) -> usize {
        match &self.commands {
            QueuedCommands::One { command, .. } => command.len(),
            QueuedCommands::Many { commands, .. } => commands.iter().map(Bytes::len).sum(),
        }
    }
}

/// The channel for the outcomes of some commands of a batch.
enum Recipient {
    One(oneshot::Sender<Proposed>),
    Many(usize, oneshot::Sender<Vec<Proposed>>),
}

impl Recipient {
    /// Sends this recipient its share of `outcomes`. The caller may have given up, so a failed send is ignored.
    fn send(self, outcomes: &mut std::vec::IntoIter<Proposed>) {
        match self {
            Recipient::One(recipient) => {
                if let Some(outcome) = outcomes.next() {
                    drop(recipient.send(outcome));
                }
            }
            Recipient::Many(count, recipient) => drop(recipient.send(outcomes.by_ref().take(count).collect())),
        }
    }
}

/// The queue in front of a [`Batcher`].
#[derive(Clone)]
pub struct BatchQueue {
    queued: mpsc::Sender<Queued>,
    backlog: Arc<Backlog>,
    limits: Limits,
}

/// Counts of the queued commands and of the batches in flight.
#[derive(Debug, Default)]
struct Backlog {
    queued_bytes: AtomicUsize,
    queued_commands: AtomicUsize,
    in_flight: AtomicUsize,
    /// Notified when a batch is done, and when enough commands are queued to be worth sending.
    changed: Notify,
}

impl Backlog {
    /// Counts queued commands; false when they would exceed the limit of bytes.
    fn add(&self, queued: &Queued, limits: &Limits) -> bool {
        let (length, count) = (queued.size_bytes(), queued.count());
        let before = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if before > 0 && before + length > limits.queue_bytes {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            return false;
        }
        let before = self.queued_commands.fetch_add(count, Ordering::AcqRel);
        if before < limits.worth_commands && before + count >= limits.worth_commands {
            self.changed.notify_one();
        }
        true
    }

    fn remove(&self, queued: &Queued) {
        self.queued_bytes.fetch_sub(queued.size_bytes(), Ordering::Relaxed);
        self.queued_commands.fetch_sub(queued.count(), Ordering::AcqRel);
    }

    fn has_room(&self, limits: &Limits) -> bool {
        self.in_flight.load(Ordering::Acquire) < limits.in_flight
    }

    fn is_worth_sending(&self, limits: &Limits) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
            || self.queued_commands.load(Ordering::Acquire) >= limits.worth_commands
    }
}

impl BatchQueue {
    /// Queues a command for the leader of `term`. Returns `None` when the queue is full or closed; the command is then
    /// certainly not proposed.
    #[must_use]
    pub fn submit(&self, term: u64, command: Bytes) -> Option<oneshot::Receiver<Proposed>> {
        let (outcome, receiver) = oneshot::channel();
        self.enqueue(Queued { term, commands: QueuedCommands::One { command, outcome } }).then_some(receiver)
    }

    /// Queues commands that stay in one batch and are answered together.
    #[must_use]
    pub fn submit_many(&self, term: u64, commands: Vec<Bytes>) -> Option<oneshot::Receiver<Vec<Proposed>>> {
        let (outcomes, receiver) = oneshot::channel();
        self.enqueue(Queued { term, commands: QueuedCommands::Many { commands, outcomes } }).then_some(receiver)
    }

    fn enqueue(&self, queued: Queued) -> bool {
        if !self.backlog.add(&queued, &self.limits) {
            return false;
        }
        let sent = self.queued.try_send(queued).map_err(TrySendError::into_inner);
        if let Err(queued) = &sent {
            self.backlog.remove(queued);
        }
        sent.is_ok()
    }
}

/// A permit for one batch in flight. Dropping it lets the next batch follow.
#[derive(Debug)]
pub struct Slot(Arc<Backlog>);

impl Slot {
    fn take(backlog: &Arc<Backlog>) -> Slot {
        backlog.in_flight.fetch_add(1, Ordering::AcqRel);
        Slot(backlog.clone())
    }

    /// Waits for the answer. Keeps the slot until the answer arrives or `end` completes, whichever comes first.
    pub async fn keep_for<T>(self, answer: impl Future<Output = T>, end: impl Future<Output = ()>) -> T {
        match future::select(pin!(answer), pin!(end)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), answer)) => {
                drop(self);
                answer.await
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// Commands that are proposed together, in one term.
#[derive(Debug)]
pub struct TermBatch {
    /// The term in which they may be proposed; no leader of another term takes them.
    pub term: u64,
    pub commands: Vec<Bytes>,
}

/// Gathers queued commands into batches and sends them.
pub struct Batcher {
    limits: Limits,
    queued: mpsc::Receiver<Queued>,
    /// The first commands of the next batch, when their term differs from that of the last batch.
    held: Option<Queued>,
    backlog: Arc<Backlog>,
    tasks: TaskTracker,
}

impl Batcher {
    #[must_use]
    pub fn new(limits: Limits, tasks: TaskTracker) -> (BatchQueue, Self) {
        let (sender, queued) = mpsc::channel(limits.queue);
        let backlog = Arc::new(Backlog::default());
        let queue = BatchQueue { queued: sender, backlog: backlog.clone(), limits };
        (queue, Batcher { limits, queued, held: None, backlog, tasks })
    }

    /// Runs until `shutdown`; `send` returns one outcome for each command.
    pub async fn run<F, Fut>(mut self, send: F, shutdown: CancellationToken)
    where
        F: Fn(TermBatch, Slot) -> Fut,
        Fut: Future<Output = Vec<Proposed>> + Send + 'static,
    {
        loop {
            let first = match self.held.take() {
                Some(held) => Some(held),
                None => tokio::select! {
                    () = shutdown.cancelled() => return,
                    first = self.queued.recv() => first,
                },
            };
            let Some(first) = first else { return };
            if shutdown.run_until_cancelled(self.may_send()).await.is_none() {
                return;
            }
            let (batch, recipients) = self.gather(first);
            if batch.commands.is_empty() {
                continue;
            }
            let sending = send(batch, Slot::take(&self.backlog));
            self.tasks.spawn(async move {
                let mut outcomes = sending.await.into_iter();
                for recipient in recipients {
                    recipient.send(&mut outcomes);
                }
            });
        }
    }

    /// Waits until the next batch may be sent.
    async fn may_send(&self) {
        let mut patience = None;
        while !(self.backlog.has_room(&self.limits) && self.backlog.is_worth_sending(&self.limits)) {
            let until = *patience.get_or_insert_with(|| Instant::now() + self.limits.patience);
            if tokio::time::timeout_at(until, self.backlog.changed.notified()).await.is_err() {
                break;
            }
        }
        while !self.backlog.has_room(&self.limits) {
            self.backlog.changed.notified().await;
        }
    }

    /// Takes `first` and the queued commands behind it, as long as they have the same term and fit into one batch.
    fn gather(&mut self, first: Queued) -> (TermBatch, Vec<Recipient>) {
        let mut batch = TermBatch { term: first.term, commands: Vec::new() };
        let (mut recipients, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(queued) = next {
            if queued.term != batch.term {
                self.held = Some(queued);
                break;
            }
            let length = queued.size_bytes();
            self.backlog.remove(&queued);
            match queued.commands {
                QueuedCommands::One { command, outcome } if !outcome.is_closed() => {
                    batch.commands.push(command);
                    recipients.push(Recipient::One(outcome));
                    bytes += length;
                }
                QueuedCommands::Many { commands, outcomes } if !outcomes.is_closed() => {
                    recipients.push(Recipient::Many(commands.len(), outcomes));
                    batch.commands.extend(commands);
                    bytes += length;
                }
                // The caller has given up, and nothing was proposed yet.
                QueuedCommands::One { .. } | QueuedCommands::Many { .. } => {}
            }
            let is_full = batch.commands.len() >= self.limits.batch_commands || bytes >= self.limits.batch_bytes;
            next = if is_full { None } else { self.queued.try_recv().ok() };
        }
        (batch, recipients)
    }
}

#[cfg(test)]
mod tests;
