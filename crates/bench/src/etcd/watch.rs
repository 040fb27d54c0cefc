//! Watch fan-out: every put is an event for every watcher. A writer puts its next value after all watchers received the
//! previous one, so that neither system is flooded and only delivered events count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use etcd_client::{KvClient, WatchClient, WatchOptions, WatchStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::clients::Pool;
use super::content::{Random, Values};
use super::load::{READ_VALUE_BYTES, Tally, Timing, Window};
use super::quorum::Quorum;
use super::stats::{Finding, Unit};

pub const WATCHERS: usize = 1000;
const WRITERS: usize = 16;
const PREFIX: &str = "/bench/watch/";
/// Time after its put at which an undelivered event counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(15);
const CREATED_WITHIN: Duration = Duration::from_secs(30);

/// Events of one writer that the watchers received.
#[derive(Default)]
struct Slot {
    events: AtomicU64,
    all_had_one: Notify,
}

#[derive(Default)]
struct Board {
    slots: Vec<Slot>,
    /// Number of events that were duplicated, out of order or unexpected.
    disorder: AtomicU64,
}

impl Board {
    fn delivered(&self) -> u64 {
        self.slots.iter().map(|slot| slot.events.load(Ordering::Relaxed)).sum()
    }

    fn event(&self, key: &[u8]) {
        let slot = key.strip_prefix(PREFIX.as_bytes()).and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
        let Some(slot) = slot.and_then(|place: usize| self.slots.get(place)) else {
            self.disorder.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if (slot.events.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(WATCHERS as u64) {
            slot.all_had_one.notify_one();
        }
    }
}

/// Measures events delivered per second. Latencies are from a put to its delivery to the last watcher.
pub async fn run(quorum: &Quorum, timing: Timing) -> anyhow::Result<Finding> {
    let endpoints = quorum.endpoints().await?;
    let board = Arc::new(Board { slots: (0..WRITERS).map(|_| Slot::default()).collect(), ..Board::default() });
    let watcher_pool = Pool::open(&endpoints, WATCHERS).await?;
    // Dropping the set ends the watchers.
    let mut watchers = JoinSet::new();
    for index in 0..WATCHERS {
        let opened = timeout(CREATED_WITHIN, open(watcher_pool.watch(index))).await;
        watchers.spawn(watch(opened.context("a watch is not created")??, board.clone()));
    }
    let writer_pool = Pool::open(&endpoints, WRITERS).await?;
    let window = Window::from_now(timing);
    let mut writers = JoinSet::new();
    for index in 0..WRITERS {
        writers.spawn(write(writer_pool.kv(index), index, board.clone(), window));
    }
    let delivered = async {
        tokio::time::sleep_until(window.start.into()).await;
        let before = board.delivered();
        tokio::time::sleep_until(window.end.into()).await;
        board.delivered() - before
    };
    let (usage, delivered) = tokio::join!(window.usage(quorum), delivered);
    let mut tally = Tally::default();
    while let Some(seen) = writers.join_next().await {
        tally.merge(seen?);
    }
    let disorder = board.disorder.load(Ordering::Relaxed);
    if disorder > 0 {
        tally.failure("events came twice or out of order");
        tally.errors += disorder - 1;
    }
    let sample = tally.sample(delivered, timing.length, usage?);
    Ok(Finding { row: format!("watch events, {WATCHERS}"), unit: Unit::PerSecond, sample })
}

/// Opens a watch, and waits until the server confirms it.
async fn open(mut client: WatchClient) -> anyhow::Result<WatchStream> {
    let mut stream = client.watch(PREFIX, Some(WatchOptions::new().with_prefix())).await?;
    let first = stream.message().await?.context("a watch ended at once")?;
    ensure!(first.created() && !first.canceled(), "a watch was refused: {}", first.cancel_reason());
    Ok(stream)
}

/// Counts events until the task is aborted. After the end of the stream, its events count as lost.
async fn watch(mut stream: WatchStream, board: Arc<Board>) {
    let mut last = 0;
    while let Ok(Some(response)) = stream.message().await {
        for kv in response.events().iter().filter_map(|event| event.kv()) {
            // Each revision has one event, so every event must be newer than the one before.
            if kv.mod_revision() <= last {
                board.disorder.fetch_add(1, Ordering::Relaxed);
            }
            last = kv.mod_revision();
            board.event(kv.key());
        }
    }
}

async fn write(mut kv: KvClient, index: usize, board: Arc<Board>, window: Window) -> Tally {
    let (mut tally, mut random) = (Tally::default(), Random(index as u64));
    let (values, slot) = (Values::new(READ_VALUE_BYTES), &board.slots[index]);
    let mut expected = 0;
    loop {
        let began = Instant::now();
        if began >= window.end {
            return tally;
        }
        if let Err(error) = kv.put(format!("{PREFIX}{index}"), values.pick(&mut random), None).await {
            // The put may or may not produce events, so this writer cannot count any longer.
            tally.failure(error);
            return tally;
        }
        expected += WATCHERS as u64;
        let all_have_it = async {
            while slot.events.load(Ordering::Acquire) < expected {
                slot.all_had_one.notified().await;
            }
        };
        if timeout(LOST_AFTER, all_have_it).await.is_err() {
            let lost = expected.saturating_sub(slot.events.load(Ordering::Acquire));
            tally.failure(format!("{lost} events were not delivered within {LOST_AFTER:?}"));
            tally.errors += lost.saturating_sub(1);
            return tally;
        }
        let ended = Instant::now();
        if window.contains(ended) {
            tally.success(ended - began);
        }
    }
}
