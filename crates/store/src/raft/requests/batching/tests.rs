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
    let outcomes: Vec<_> = (0..25).map(|_| queue.submit(1, Bytes::from_static(b"x")).expect("there is room")).collect();
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
