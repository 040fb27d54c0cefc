//! Work that waits is taken together.
//!
//! A [`Batcher`] gathers commands while those before them are under way, so batches grow with the load and a lone
//! command never waits. A [`Rounds`] answers everyone who asked before a round began with that round's result.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::network::messages::Proposed;

/// Limits of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Commands that may wait.
    pub queue: usize,
    /// Bytes that may wait; a command that is longer may wait alone.
    pub queue_bytes: usize,
    pub batch_commands: usize,
    pub batch_bytes: usize,
    /// Batches under way.
    pub in_flight: usize,
}

/// Commands that wait, and who waits for what becomes of them.
enum Waiting {
    One { command: Bytes, outcome: oneshot::Sender<Proposed> },
    Many { commands: Vec<Bytes>, outcomes: oneshot::Sender<Vec<Proposed>> },
}

impl Waiting {
    fn size_bytes(&self) -> usize {
        match self {
            Waiting::One { command, .. } => command.len(),
            Waiting::Many { commands, .. } => commands.iter().map(Bytes::len).sum(),
        }
    }
}

/// Who is told what became of some commands of a batch.
enum Recipient {
    One(oneshot::Sender<Proposed>),
    Many(usize, oneshot::Sender<Vec<Proposed>>),
}

impl Recipient {
    /// Takes its outcomes. Who asked may have given up.
    fn tell(self, outcomes: &mut std::vec::IntoIter<Proposed>) {
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

/// Where commands are handed in.
#[derive(Clone)]
pub struct BatchQueue {
    waiting: mpsc::Sender<Waiting>,
    waiting_bytes: Arc<AtomicUsize>,
    max_bytes: usize,
}

impl BatchQueue {
    /// Hands a command in; `None` when the queue is full or closed, and then nothing will come of it.
    #[must_use]
    pub fn submit(&self, command: Bytes) -> Option<oneshot::Receiver<Proposed>> {
        let (outcome, receiver) = oneshot::channel();
        self.enqueue(Waiting::One { command, outcome }).then_some(receiver)
    }

    /// Hands commands in that go together, and are answered together.
    #[must_use]
    pub fn submit_many(&self, commands: Vec<Bytes>) -> Option<oneshot::Receiver<Vec<Proposed>>> {
        let (outcomes, receiver) = oneshot::channel();
        self.enqueue(Waiting::Many { commands, outcomes }).then_some(receiver)
    }

    fn enqueue(&self, waiting: Waiting) -> bool {
        let length = waiting.size_bytes();
        let before = self.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        let fits = before == 0 || before + length <= self.max_bytes;
        if fits && self.waiting.try_send(waiting).is_ok() {
            return true;
        }
        self.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
        false
    }
}

/// One of the places for a batch under way. Who sends the batch lets go of it when the next may follow.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "it is held for its drop")] OwnedSemaphorePermit);

/// Sends batches on.
pub struct Batcher {
    limits: Limits,
    waiting: mpsc::Receiver<Waiting>,
    waiting_bytes: Arc<AtomicUsize>,
    tasks: TaskTracker,
}

impl Batcher {
    #[must_use]
    pub fn new(limits: Limits, tasks: TaskTracker) -> (BatchQueue, Self) {
        let (sender, waiting) = mpsc::channel(limits.queue);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let queue = BatchQueue { waiting: sender, waiting_bytes: waiting_bytes.clone(), max_bytes: limits.queue_bytes };
        (queue, Batcher { limits, waiting, waiting_bytes, tasks })
    }

    /// Runs until `shutdown`; `send` answers with one outcome for each command.
    pub async fn run<F, Fut>(mut self, send: F, shutdown: CancellationToken)
    where
        F: Fn(Vec<Bytes>, Slot) -> Fut,
        Fut: Future<Output = Vec<Proposed>> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.limits.in_flight));
        loop {
            let first = tokio::select! {
                () = shutdown.cancelled() => return,
                first = self.waiting.recv() => first,
            };
            let Some(first) = first else { return };
            let slot = tokio::select! {
                () = shutdown.cancelled() => return,
                slot = slots.clone().acquire_owned() => slot,
            };
            let Ok(slot) = slot else { return };
            let (commands, recipients) = self.gather(first);
            if commands.is_empty() {
                continue;
            }
            let sending = send(commands, Slot(slot));
            self.tasks.spawn(async move {
                let mut outcomes = sending.await.into_iter();
                for recipient in recipients {
                    recipient.tell(&mut outcomes);
                }
            });
        }
    }

    fn gather(&mut self, first: Waiting) -> (Vec<Bytes>, Vec<Recipient>) {
        let (mut batch, mut recipients, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(waiting) = next {
            let length = waiting.size_bytes();
            self.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            match waiting {
                Waiting::One { command, outcome } if !outcome.is_closed() => {
                    batch.push(command);
                    recipients.push(Recipient::One(outcome));
                    bytes += length;
                }
                Waiting::Many { commands, outcomes } if !outcomes.is_closed() => {
                    recipients.push(Recipient::Many(commands.len(), outcomes));
                    batch.extend(commands);
                    bytes += length;
                }
                // Who asked has given up, and nothing has been begun.
                Waiting::One { .. } | Waiting::Many { .. } => {}
            }
            let is_full = batch.len() >= self.limits.batch_commands || bytes >= self.limits.batch_bytes;
            next = if is_full { None } else { self.waiting.try_recv().ok() };
        }
        (batch, recipients)
    }
}

/// Why there is no result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRound {
    TooMany,
    Ended,
}

/// Where to wait for a round.
#[derive(Clone)]
pub struct RoundQueue<T> {
    waiting: mpsc::Sender<oneshot::Sender<T>>,
}

impl<T> RoundQueue<T> {
    /// The result of a round that began after this call.
    ///
    /// # Errors
    /// When too many wait already, or there are no more rounds.
    pub async fn next(&self) -> Result<T, NoRound> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.try_send(sender).map_err(|error| match error {
            TrySendError::Full(_) => NoRound::TooMany,
            TrySendError::Closed(_) => NoRound::Ended,
        })?;
        receiver.await.map_err(|_| NoRound::Ended)
    }
}

/// Runs one round at a time.
pub struct Rounds<T> {
    waiting: mpsc::Receiver<oneshot::Sender<T>>,
}

impl<T: Clone> Rounds<T> {
    #[must_use]
    pub fn new(queue: usize) -> (RoundQueue<T>, Self) {
        let (sender, waiting) = mpsc::channel(queue);
        (RoundQueue { waiting: sender }, Rounds { waiting })
    }

    /// Runs until `shutdown`.
    pub async fn run<F, Fut>(mut self, round: F, shutdown: CancellationToken)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = T>,
    {
        const MAX_WAITERS: usize = 65_536;
        let mut waiters = Vec::new();
        loop {
            let some = tokio::select! {
                () = shutdown.cancelled() => return,
                some = self.waiting.recv_many(&mut waiters, MAX_WAITERS) => some,
            };
            if some == 0 {
                return;
            }
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = round() => result,
            };
            for waiter in waiters.drain(..) {
                drop(waiter.send(result.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_waits_for_a_slot_goes_together() {
        let tasks = TaskTracker::new();
        let limits =
            Limits { queue: 100, queue_bytes: 1 << 20, batch_commands: 10, batch_bytes: 1 << 20, in_flight: 1 };
        let (queue, batcher) = Batcher::new(limits, tasks.clone());
        let (sizes, mut seen) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let outcomes: Vec<_> =
            (0..25).map(|_| queue.submit(Bytes::from_static(b"x")).expect("there is room")).collect();
        let open = gate.clone();
        let shutdown = CancellationToken::new();
        tasks.spawn(batcher.run(
            move |commands, slot| {
                sizes.send(commands.len()).expect("the test listens");
                let gate = gate.clone();
                async move {
                    gate.acquire().await.expect("open").forget();
                    drop(slot);
                    vec![Proposed::Overloaded; commands.len()]
                }
            },
            shutdown.clone(),
        ));
        let mut batches = Vec::new();
        while batches.iter().sum::<usize>() < 25 {
            batches.push(seen.recv().await.expect("a batch"));
            open.add_permits(1);
        }
        assert_eq!(batches, [10, 10, 5]);
        for outcome in outcomes {
            assert!(matches!(outcome.await, Ok(Proposed::Overloaded)));
        }
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_queue_is_bounded_in_commands_and_in_bytes() {
        let limits = Limits { queue: 10, queue_bytes: 1000, batch_commands: 10, batch_bytes: 1 << 20, in_flight: 1 };
        let of_bytes = |bytes: usize| Bytes::from(vec![0; bytes]);
        let (queue, mut batcher) = Batcher::new(limits, TaskTracker::new());
        let long = queue.submit(of_bytes(5000)).expect("an empty queue takes any length");
        assert!(queue.submit(of_bytes(1)).is_none());
        let first = batcher.waiting.try_recv().expect("it waits");
        assert_eq!(batcher.gather(first).0.len(), 1);
        drop(long);
        let waiting: Vec<_> = (0..5).filter_map(|_| queue.submit(of_bytes(300))).collect();
        assert_eq!(waiting.len(), 3);
        drop((queue, waiting));

        let (queue, _batcher) = Batcher::new(limits, TaskTracker::new());
        let waiting: Vec<_> = (0..20).filter_map(|_| queue.submit(of_bytes(1))).collect();
        assert_eq!(waiting.len(), 10);
        let (other, batcher) = Batcher::new(limits, TaskTracker::new());
        drop(batcher);
        assert!(other.submit(of_bytes(1)).is_none(), "nobody would send it on");
    }

    #[tokio::test]
    async fn everyone_gets_the_outcomes_of_his_own_commands() {
        let limits = Limits { queue: 10, queue_bytes: 1000, batch_commands: 100, batch_bytes: 1 << 20, in_flight: 1 };
        let tasks = TaskTracker::new();
        let (queue, batcher) = Batcher::new(limits, tasks.clone());
        let command = |name: &'static str| Bytes::from_static(name.as_bytes());
        let one = queue.submit(command("a")).expect("there is room");
        let many = queue.submit_many(vec![command("b"), command("c")]).expect("there is room");
        drop(queue.submit(command("given up")));
        let last = queue.submit(command("d")).expect("there is room");
        let shutdown = CancellationToken::new();
        let name_of = |command: &Bytes| String::from_utf8_lossy(command).into_owned();
        tasks.spawn(batcher.run(
            move |commands, _slot| async move {
                commands.iter().map(|command| Proposed::Unknown { reason: name_of(command) }).collect()
            },
            shutdown.clone(),
        ));
        let reason = |proposed| match proposed {
            Proposed::Unknown { reason } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(one.await.map(reason).as_deref(), Ok("a"));
        let many: Vec<_> = many.await.expect("an answer").into_iter().map(reason).collect();
        assert_eq!(many, ["b", "c"]);
        assert_eq!(last.await.map(reason).as_deref(), Ok("d"));
        shutdown.cancel();
    }

    #[tokio::test]
    async fn waiters_share_a_round_that_began_after_them() {
        let (queue, rounds) = Rounds::new(100);
        let shutdown = CancellationToken::new();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let tasks = TaskTracker::new();
        let waiters = futures::future::join_all((0..50).map(|_| queue.next()));
        tasks.spawn(rounds.run(
            move || {
                let counter = counter.clone();
                async move {
                    tokio::task::yield_now().await;
                    counter.fetch_add(1, Ordering::Relaxed)
                }
            },
            shutdown.clone(),
        ));
        let results = waiters.await;
        assert!(results.iter().all(Result::is_ok));
        assert!(count.load(Ordering::Relaxed) <= 3, "{} rounds", count.load(Ordering::Relaxed));
        shutdown.cancel();
    }
}
