//! Work that waits is taken together.
//!
//! A [`Batcher`] gathers commands while those before them are under way, so batches grow with the load and a lone
//! command never waits; a batch follows another that is under way only when it is worth a round of its own. A [`Rounds`]
//! answers everyone who asked before a round began with that round's result.

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
    /// Commands that may wait.
    pub queue: usize,
    /// Bytes that may wait; a command that is longer may wait alone.
    pub queue_bytes: usize,
    pub batch_commands: usize,
    pub batch_bytes: usize,
    /// Batches under way.
    pub in_flight: usize,
    /// So many commands are sent while others are under way; fewer wait until those are done.
    pub worth_commands: usize,
    /// A batch under way for longer holds no other back: a disk may be full or slow.
    pub patience: Duration,
}

/// Commands that wait, and who waits for what becomes of them.
struct Waiting {
    term: u64,
    what: What,
}

enum What {
    One { command: Bytes, outcome: oneshot::Sender<Proposed> },
    Many { commands: Vec<Bytes>, outcomes: oneshot::Sender<Vec<Proposed>> },
}

impl Waiting {
    fn count(&self) -> usize {
        match &self.what {
            What::One { .. } => 1,
            What::Many { commands, .. } => commands.len(),
        }
    }

    fn size_bytes(&self) -> usize {
        match &self.what {
            What::One { command, .. } => command.len(),
            What::Many { commands, .. } => commands.iter().map(Bytes::len).sum(),
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
    backlog: Arc<Backlog>,
    limits: Limits,
}

/// What waits and what is under way.
#[derive(Debug, Default)]
struct Backlog {
    waiting_bytes: AtomicUsize,
    waiting_commands: AtomicUsize,
    batches_under_way: AtomicUsize,
    /// A batch is done, or what waits has become worth sending.
    changed: Notify,
}

impl Backlog {
    /// Counts commands in, unless that would be too many bytes.
    fn add(&self, waiting: &Waiting, limits: &Limits) -> bool {
        let (length, count) = (waiting.size_bytes(), waiting.count());
        let before = self.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        if before > 0 && before + length > limits.queue_bytes {
            self.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            return false;
        }
        let before = self.waiting_commands.fetch_add(count, Ordering::AcqRel);
        if before < limits.worth_commands && before + count >= limits.worth_commands {
            self.changed.notify_one();
        }
        true
    }

    fn remove(&self, waiting: &Waiting) {
        self.waiting_bytes.fetch_sub(waiting.size_bytes(), Ordering::Relaxed);
        self.waiting_commands.fetch_sub(waiting.count(), Ordering::AcqRel);
    }

    fn has_room(&self, limits: &Limits) -> bool {
        self.batches_under_way.load(Ordering::Acquire) < limits.in_flight
    }

    fn is_worth_sending(&self, limits: &Limits) -> bool {
        self.batches_under_way.load(Ordering::Acquire) == 0
            || self.waiting_commands.load(Ordering::Acquire) >= limits.worth_commands
    }
}

impl BatchQueue {
    /// Hands a command in that is for the leader of `term`; `None` when the queue is full or closed, and then nothing will
    /// come of it.
    #[must_use]
    pub fn submit(&self, term: u64, command: Bytes) -> Option<oneshot::Receiver<Proposed>> {
        let (outcome, receiver) = oneshot::channel();
        self.enqueue(Waiting { term, what: What::One { command, outcome } }).then_some(receiver)
    }

    /// Hands commands in that go together, and are answered together.
    #[must_use]
    pub fn submit_many(&self, term: u64, commands: Vec<Bytes>) -> Option<oneshot::Receiver<Vec<Proposed>>> {
        let (outcomes, receiver) = oneshot::channel();
        self.enqueue(Waiting { term, what: What::Many { commands, outcomes } }).then_some(receiver)
    }

    fn enqueue(&self, waiting: Waiting) -> bool {
        if !self.backlog.add(&waiting, &self.limits) {
            return false;
        }
        let sent = self.waiting.try_send(waiting).map_err(TrySendError::into_inner);
        if let Err(waiting) = &sent {
            self.backlog.remove(waiting);
        }
        sent.is_ok()
    }
}

/// One of the places for a batch under way. Who sends the batch lets go of it when the next may follow.
#[derive(Debug)]
pub struct Slot(Arc<Backlog>);

impl Slot {
    fn take(backlog: &Arc<Backlog>) -> Slot {
        backlog.batches_under_way.fetch_add(1, Ordering::AcqRel);
        Slot(backlog.clone())
    }

    /// Keeps the place until the answer is there, or until `end`, if that is earlier, though the answer is waited for.
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
        self.0.batches_under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// Commands that go together.
#[derive(Debug)]
pub struct Batch {
    /// The term whose leader they are for.
    pub term: u64,
    pub commands: Vec<Bytes>,
}

/// Sends batches on.
pub struct Batcher {
    limits: Limits,
    waiting: mpsc::Receiver<Waiting>,
    /// The first of the next batch, when it could not go with the last one.
    held: Option<Waiting>,
    backlog: Arc<Backlog>,
    tasks: TaskTracker,
}

impl Batcher {
    #[must_use]
    pub fn new(limits: Limits, tasks: TaskTracker) -> (BatchQueue, Self) {
        let (sender, waiting) = mpsc::channel(limits.queue);
        let backlog = Arc::new(Backlog::default());
        let queue = BatchQueue { waiting: sender, backlog: backlog.clone(), limits };
        (queue, Batcher { limits, waiting, held: None, backlog, tasks })
    }

    /// Runs until `shutdown`; `send` answers with one outcome for each command.
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
                    first = self.waiting.recv() => first,
                },
            };
            let Some(first) = first else { return };
            if shutdown.run_until_cancelled(self.turn()).await.is_none() {
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
                    recipient.tell(&mut outcomes);
                }
            });
        }
    }

    /// Returns when what waits may go.
    async fn turn(&self) {
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

    /// What waits and is of one term, from `first` on.
    fn gather(&mut self, first: Waiting) -> (Batch, Vec<Recipient>) {
        let mut batch = Batch { term: first.term, commands: Vec::new() };
        let (mut recipients, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(waiting) = next {
            if waiting.term != batch.term {
                self.held = Some(waiting);
                break;
            }
            let length = waiting.size_bytes();
            self.backlog.remove(&waiting);
            match waiting.what {
                What::One { command, outcome } if !outcome.is_closed() => {
                    batch.commands.push(command);
                    recipients.push(Recipient::One(outcome));
                    bytes += length;
                }
                What::Many { commands, outcomes } if !outcomes.is_closed() => {
                    recipients.push(Recipient::Many(commands.len(), outcomes));
                    batch.commands.extend(commands);
                    bytes += length;
                }
                // Who asked has given up, and nothing has been begun.
                What::One { .. } | What::Many { .. } => {}
            }
            let is_full = batch.commands.len() >= self.limits.batch_commands || bytes >= self.limits.batch_bytes;
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

    /// Runs a batcher until the token is cancelled; tells the size of each batch, whose slot lasts as long as it is kept.
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
    async fn a_batch_follows_another_when_it_is_worth_it() {
        let (queue, mut begun, shutdown) = begin(Limits { in_flight: 2, worth_commands: 4, ..limits() });
        let submit = || queue.submit(1, Bytes::from_static(b"x")).expect("there is room");
        let _one = submit();
        let (count, first) = begun.recv().await.expect("a lone command does not wait");
        assert_eq!(count, 1);
        let _few: Vec<_> = (0..3).map(|_| submit()).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(begun.try_recv().is_err(), "three wait while one is under way");
        let _fourth = submit();
        let (count, second) = begun.recv().await.expect("four are worth a round");
        assert_eq!(count, 4);
        let _many: Vec<_> = (0..5).map(|_| submit()).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(begun.try_recv().is_err(), "two are under way");
        drop(second);
        assert_eq!(begun.recv().await.map(|(count, _)| count), Some(5));
        drop(first);
        let _last = submit();
        assert_eq!(begun.recv().await.map(|(count, _)| count), Some(1), "the one before was dropped as it was seen");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_batch_that_takes_long_holds_no_other_back() {
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
    async fn what_waits_for_a_slot_goes_together() {
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
        let first = batcher.waiting.try_recv().expect("it waits");
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
        assert!(other.submit(1, of_bytes(1)).is_none(), "nobody would send it on");
    }

    #[tokio::test]
    async fn a_batch_is_of_one_term() {
        let (queue, mut batcher) = Batcher::new(limits(), TaskTracker::new());
        let submit = |term| queue.submit(term, Bytes::from_static(b"x")).expect("there is room");
        let _waiting = [submit(1), submit(1), submit(2), submit(2), submit(1)];
        let mut batches = Vec::new();
        while let Some(first) = batcher.held.take().or_else(|| batcher.waiting.try_recv().ok()) {
            let (batch, recipients) = batcher.gather(first);
            assert_eq!(batch.commands.len(), recipients.len());
            batches.push((batch.term, batch.commands.len()));
        }
        assert_eq!(batches, [(1, 2), (2, 2), (1, 1)]);
        assert_eq!(batcher.backlog.waiting_commands.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_next_term_waits_neither_for_its_turn_nor_for_the_answers_of_the_last() {
        let (queue, mut begun, shutdown) = begin(limits());
        let submit = |term| queue.submit(term, Bytes::from_static(b"x")).expect("there is room");
        let _first = submit(1);
        let (_, slot) = begun.recv().await.expect("a lone command does not wait");
        let _waiting = [submit(1), submit(2), submit(2)];
        let (answer, answered) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let end_of_term = async { drop(ended.await) };
        let waiting = tokio::spawn(slot.keep_for(answered, end_of_term));
        end.send(()).expect("it is waited for");
        let (count, slot) = begun.recv().await.expect("the place is free");
        assert_eq!(count, 1, "what is left of the term");
        drop(slot);
        assert_eq!(begun.recv().await.map(|(count, _)| count), Some(2));
        answer.send("late").expect("it is waited for");
        assert_eq!(waiting.await.expect("no panic"), Ok("late"));
        shutdown.cancel();
    }

    #[tokio::test]
    async fn everyone_gets_the_outcomes_of_his_own_commands() {
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
