//! Batches of commands, and rounds that many callers share.
//!
//! A [`Batcher`] gathers commands while earlier batches are in flight, so batches grow with the load and a lone command
//! never waits. It sends a batch beside one in flight only when the batch is large enough for a round of its own. A
//! [`Rounds`] answers every caller that asked before a round began with the result of that round.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, Either};
use tokio_util::sync::CancellationToken;

use super::network::messages::Proposed;
use crate::platform::TaskTracker;
use crate::platform::tokio;
use crate::platform::tokio::sync::mpsc::error::TrySendError;
use crate::platform::tokio::sync::{Notify, mpsc, oneshot};
use crate::platform::tokio::time::Instant;

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

/// Commands that are proposed together.
#[derive(Debug)]
pub struct Batch {
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
        F: Fn(Batch, Slot) -> Fut,
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
    fn gather(&mut self, first: Queued) -> (Batch, Vec<Recipient>) {
        let mut batch = Batch { term: first.term, commands: Vec::new() };
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

/// Why a caller got no result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRound {
    /// Too many callers wait already.
    TooMany,
    Ended,
}

/// The callers' side of [`Rounds`].
#[derive(Clone)]
pub struct RoundQueue<T> {
    waiting: mpsc::Sender<oneshot::Sender<T>>,
}

impl<T> RoundQueue<T> {
    /// Waits for a round that begins after this call, and returns its result.
    ///
    /// # Errors
    /// When too many callers wait already, or there are no more rounds.
    pub async fn next(&self) -> Result<T, NoRound> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.try_send(sender).map_err(|error| match error {
            TrySendError::Full(_) => NoRound::TooMany,
            TrySendError::Closed(_) => NoRound::Ended,
        })?;
        receiver.await.map_err(|_| NoRound::Ended)
    }
}

/// Runs one round at a time and gives its result to all callers that asked before it began.
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
    use crate::platform::tokio;
    use crate::platform::tokio::sync::Semaphore;

    fn limits() -> Limits {
        Limits {
            queue: 10,
            queue_bytes: 1 << 20,
            batch_commands: 10,
            batch_bytes: 1 << 20,
            in_flight: 1,
            worth_commands: 1,
            patience: Duration::from_secs(3600),
        }
    }

    /// Runs a batcher until the token is cancelled; sends the size and the slot of each batch to the receiver.
    fn begin(limits: Limits) -> (BatchQueue, mpsc::UnboundedReceiver<(usize, Slot)>, CancellationToken) {
        let tasks = TaskTracker::new();
        let (queue, batcher) = Batcher::new(limits, tasks.clone());
        let (slots, begun) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        tasks.spawn(batcher.run(
            move |batch, slot| {
                let count = batch.commands.len();
                slots.send((count, slot)).expect("the test listens");
                std::future::ready(vec![Proposed::Overloaded; count])
            },
            shutdown.clone(),
        ));
        (queue, begun, shutdown)
    }

    #[tokio::test]
    async fn a_second_batch_is_sent_once_enough_commands_are_queued() {
        let (queue, mut begun, shutdown) = begin(Limits { in_flight: 2, worth_commands: 4, ..limits() });
        let submit = || queue.submit(1, Bytes::from_static(b"x")).expect("there is room");
        let _one = submit();
        let (count, first) = begun.recv().await.expect("a lone command does not wait");
        assert_eq!(count, 1);
        let _few: Vec<_> = (0..3).map(|_| submit()).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(begun.try_recv().is_err(), "three wait while one is in flight");
        let _fourth = submit();
        let (count, second) = begun.recv().await.expect("four are worth a round");
        assert_eq!(count, 4);
        let _many: Vec<_> = (0..5).map(|_| submit()).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(begun.try_recv().is_err(), "two are in flight");
        drop(second);
        assert_eq!(begun.recv().await.map(|(count, _)| count), Some(5));
        drop(first);
        let _last = submit();
        assert_eq!(begun.recv().await.map(|(count, _)| count), Some(1), "the slot of the batch of five is free");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_slow_batch_does_not_hold_up_the_next_one() {
        let (queue, mut begun, shutdown) =
            begin(Limits { in_flight: 2, worth_commands: 4, patience: Duration::from_millis(1), ..limits() });
        let submit = || queue.submit(1, Bytes::from_static(b"x")).expect("there is room");
        let _one = submit();
        let _stuck = begun.recv().await.expect("a lone command does not wait");
        let _other = submit();
        assert_eq!(begun.recv().await.map(|(count, _)| count), Some(1));
        shutdown.cancel();
    }

    #[tokio::test]
    async fn commands_that_wait_for_a_slot_are_sent_together() {
        let tasks = TaskTracker::new();
        let limits = Limits { queue: 100, ..limits() };
        let (queue, batcher) = Batcher::new(limits, tasks.clone());
        let (sizes, mut seen) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let outcomes: Vec<_> =
            (0..25).map(|_| queue.submit(1, Bytes::from_static(b"x")).expect("there is room")).collect();
        let open = gate.clone();
        let shutdown = CancellationToken::new();
        tasks.spawn(batcher.run(
            move |batch, slot| {
                let count = batch.commands.len();
                sizes.send(count).expect("the test listens");
                let gate = gate.clone();
                async move {
                    gate.acquire().await.expect("open").forget();
                    drop(slot);
                    vec![Proposed::Overloaded; count]
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
        let limits = Limits { queue_bytes: 1000, ..limits() };
        let of_bytes = |bytes: usize| Bytes::from(vec![0; bytes]);
        let (queue, mut batcher) = Batcher::new(limits, TaskTracker::new());
        let long = queue.submit(1, of_bytes(5000)).expect("an empty queue takes any length");
        assert!(queue.submit(1, of_bytes(1)).is_none());
        let first = batcher.queued.try_recv().expect("it is queued");
        assert_eq!(batcher.gather(first).0.commands.len(), 1);
        drop(long);
        let waiting: Vec<_> = (0..5).filter_map(|_| queue.submit(1, of_bytes(300))).collect();
        assert_eq!(waiting.len(), 3);
        drop((queue, waiting));

        let (queue, _batcher) = Batcher::new(limits, TaskTracker::new());
        let waiting: Vec<_> = (0..20).filter_map(|_| queue.submit(1, of_bytes(1))).collect();
        assert_eq!(waiting.len(), 10);
        let (other, batcher) = Batcher::new(limits, TaskTracker::new());
        drop(batcher);
        assert!(other.submit(1, of_bytes(1)).is_none(), "the batcher is gone");
    }

    #[tokio::test]
    async fn all_commands_of_a_batch_have_the_same_term() {
        let (queue, mut batcher) = Batcher::new(limits(), TaskTracker::new());
        let submit = |term| queue.submit(term, Bytes::from_static(b"x")).expect("there is room");
        let _waiting = [submit(1), submit(1), submit(2), submit(2), submit(1)];
        let mut batches = Vec::new();
        while let Some(first) = batcher.held.take().or_else(|| batcher.queued.try_recv().ok()) {
            let (batch, recipients) = batcher.gather(first);
            assert_eq!(batch.commands.len(), recipients.len());
            batches.push((batch.term, batch.commands.len()));
        }
        assert_eq!(batches, [(1, 2), (2, 2), (1, 1)]);
        assert_eq!(batcher.backlog.queued_commands.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn commands_of_a_new_term_do_not_wait_for_answers_of_the_old_term() {
        let (queue, mut begun, shutdown) = begin(limits());
        let submit = |term| queue.submit(term, Bytes::from_static(b"x")).expect("there is room");
        let _first = submit(1);
        let (_, slot) = begun.recv().await.expect("a lone command does not wait");
        let _waiting = [submit(1), submit(2), submit(2)];
        let (answer, answered) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let end_of_term = async { drop(ended.await) };
        let waiting = tokio::spawn(slot.keep_for(answered, end_of_term));
        end.send(()).expect("the slot waits for it");
        let (count, slot) = begun.recv().await.expect("the slot is free");
        assert_eq!(count, 1, "the rest of the old term");
        drop(slot);
        assert_eq!(begun.recv().await.map(|(count, _)| count), Some(2));
        answer.send("late").expect("the task waits for it");
        assert_eq!(waiting.await.expect("no panic"), Ok("late"));
        shutdown.cancel();
    }

    #[tokio::test]
    async fn each_caller_gets_the_outcomes_of_its_own_commands() {
        let limits = Limits { batch_commands: 100, ..limits() };
        let tasks = TaskTracker::new();
        let (queue, batcher) = Batcher::new(limits, tasks.clone());
        let command = |name: &'static str| Bytes::from_static(name.as_bytes());
        let one = queue.submit(1, command("a")).expect("there is room");
        let many = queue.submit_many(1, vec![command("b"), command("c")]).expect("there is room");
        drop(queue.submit(1, command("given up")));
        let last = queue.submit(1, command("d")).expect("there is room");
        let shutdown = CancellationToken::new();
        let name_of = |command: &Bytes| String::from_utf8_lossy(command).into_owned();
        tasks.spawn(batcher.run(
            move |batch, _slot| async move {
                batch.commands.iter().map(|command| Proposed::Unknown { reason: name_of(command) }).collect()
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
    async fn callers_share_a_round_that_begins_after_they_asked() {
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
