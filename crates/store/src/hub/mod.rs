//! The watch hub delivers applied events to watchers. A slow watcher never delays the writer or other watchers.
//!
//! The writer puts each batch into a [`ring::Ring`] and continues. One task takes batches from there, matches them
//! against each distinct range once, and sends the result to every watcher of the range without waiting. Watchers that
//! want one value of an index, such as the pods of a node, are looked up by the values of each event. A watcher
//! whose channel is full leaves the live watchers: a task of its own reads events for it, from the ring or from the
//! events table, at the watcher's pace, and adds it to the live watchers again at the right revision. A revision is
//! never split between batches.

mod catch_up;
mod group;
mod live;
mod ring;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{Backend, BackendError, Event, EventPage, KeyRange, Previous, ReadError, State};
use tokio_util::sync::CancellationToken;

use self::live::{Live, Watcher};
use self::ring::Ring;
use crate::platform::TaskTracker;
use crate::platform::tokio;
use crate::platform::tokio::sync::{Notify, watch};
use crate::platform::tokio::time::MissedTickBehavior;
use crate::watch::{Watch, WatchBatch, WatchError, WatchEvents, WatchOptions, watch_channel};

/// Source of events that are no longer in the ring.
pub trait WatchSource: Send + Sync + 'static {
    /// The newest revision whose events can be read.
    fn revision(&self) -> Revision;
    fn compacted(&self) -> Revision;
    /// See [`State::events_since`].
    ///
    /// # Errors
    /// `Refused(Compacted)` when some of the events are compacted.
    fn events_since(
        &self,
        after: Revision,
        range: &KeyRange,
        max_bytes: usize,
        with_previous: bool,
    ) -> Result<EventPage, ReadError>;
    /// See [`State::with_previous`].
    ///
    /// # Errors
    /// When the versions cannot be read.
    fn with_previous(&self, events: &[Event]) -> Result<Vec<Event>, BackendError>;
}

impl<B: Backend> WatchSource for State<B> {
    fn revision(&self) -> Revision {
        State::revision(self)
    }

    fn compacted(&self) -> Revision {
        State::compacted(self)
    }

    fn events_since(
        &self,
        after: Revision,
        range: &KeyRange,
        max_bytes: usize,
        with_previous: bool,
    ) -> Result<EventPage, ReadError> {
        State::events_since(self, after, range, max_bytes, with_previous)
    }

    fn with_previous(&self, events: &[Event]) -> Result<Vec<Event>, BackendError> {
        State::with_previous(self, events)
    }
}

/// Minimum size of a page in bytes. The overhead of reading smaller pages is too large.
const MIN_PAGE_BYTES: usize = 16 << 10;

/// Limits of the hub.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Maximum size of the recent events that are kept in memory for all watchers.
    pub ring_bytes: usize,
    /// Maximum number of batches in a watcher's channel. A watcher that exceeds it has to catch up.
    pub channel_batches: usize,
    /// Maximum number of bytes in a watcher's channel. A watcher that exceeds it has to catch up. A larger batch may be
    /// in the channel alone.
    pub channel_bytes: usize,
    /// Size of the pages for a watcher that catches up, exceeded by at most one revision. The next page is sent when
    /// the watcher has taken the previous one.
    pub page_bytes: usize,
    /// Maximum size of the pages of all watchers that catch up. The more such watchers there are, the smaller their
    /// pages.
    pub catch_up_bytes: usize,
    /// Interval of the progress marks for watchers without events.
    pub progress_interval: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        HubConfig {
            ring_bytes: 16 << 20,
            channel_batches: 64,
            channel_bytes: 1 << 20,
            page_bytes: 512 << 10,
            catch_up_bytes: 64 << 20,
            progress_interval: Duration::from_secs(5),
        }
    }
}

/// The watch hub. Clones share it.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn WatchSource>,
    config: HubConfig,
    ring: Mutex<Ring>,
    /// Locked before `ring`, never after it.
    live: Mutex<Live>,
    /// Revision of the end of the ring.
    published: watch::Sender<Revision>,
    /// Revision that delivery must reach before the requested progress marks are sent; zero when none were requested.
    progress_wanted: Mutex<Revision>,
    /// Signals that `progress_wanted` has changed.
    progress_asked: Notify,
    /// Tasks of the watchers that catch up.
    tasks: TaskTracker,
    /// Number of watchers that catch up.
    lagging: AtomicUsize,
    stopping: CancellationToken,
}

impl Hub {
    /// Creates a hub at the current revision of its source. It delivers once [`Hub::run`] runs.
    #[must_use]
    pub fn new(source: Arc<dyn WatchSource>, config: HubConfig) -> Self {
        let revision = source.revision();
        Hub {
            inner: Arc::new(Inner {
                ring: Mutex::new(Ring::new(revision, config.ring_bytes)),
                live: Mutex::new(Live::new(revision)),
                source,
                config,
                published: watch::Sender::new(revision),
                progress_wanted: Mutex::new(Revision::ZERO),
                progress_asked: Notify::new(),
                tasks: TaskTracker::new(),
                lagging: AtomicUsize::new(0),
                stopping: CancellationToken::new(),
            }),
        }
    }

    /// Adds the events of a batch that the source has published and that ends at `revision`. The single writer calls
    /// this in order. It never waits.
    pub fn publish(&self, revision: Revision, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.inner.ring.lock().push(revision, events);
        self.inner.published.send_replace(revision);
    }

    /// Handles a jump of the source. After a jump forward, through an installed snapshot, all watchers read from the
    /// source. After a jump back, through reopening an older state, events that are applied again are not delivered
    /// again.
    pub fn reset(&self) {
        let revision = self.inner.source.revision();
        self.inner.ring.lock().restart(revision);
        self.inner.published.send_replace(revision);
    }

    /// Watches a range for every event after `after`. [`Revision::ZERO`] means after the newest published revision.
    /// `after` may be in the future. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `Compacted` when an event after `after` is compacted, and `ShuttingDown` after the end of [`Hub::run`].
    pub fn watch(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError> {
        if self.inner.stopping.is_cancelled() {
            return Err(WatchError::ShuttingDown);
        }
        let compacted = self.inner.source.compacted();
        let mut live = self.inner.live.lock();
        let after = if after.is_zero() { self.inner.source.revision().max(live.delivered()) } else { after };
        if after < compacted && after.next() < compacted {
            return Err(WatchError::Compacted { requested: after, compacted });
        }
        let config = &self.inner.config;
        let WatchOptions { with_previous, budget, indexed } = options;
        let with_previous = with_previous || indexed.is_some();
        let (sender, watch) = watch_channel(config.channel_batches, config.channel_bytes, budget);
        let joined = live.join(&range, Watcher { after, with_previous, indexed, sender });
        // The hub may have stopped in the meantime, and then nothing would end this watch.
        if self.inner.stopping.is_cancelled() {
            return Err(WatchError::ShuttingDown);
        }
        drop(live);
        if let Err(watcher) = joined {
            self.inner.clone().spawn_catch_up(range, watcher);
        }
        Ok(watch)
    }

    /// Requests a progress mark for every watcher, sent as soon as everything up to `at_least` is delivered. The source
    /// shows a revision to readers before it publishes the events here, so delivery may still be behind it.
    pub fn mark_progress(&self, at_least: Revision) {
        {
            let mut wanted = self.inner.progress_wanted.lock();
            // Zero means that no mark was requested.
            *wanted = (*wanted).max(at_least).max(Revision(1));
        }
        self.inner.progress_asked.notify_one();
    }

    /// Delivers until `shutdown` is cancelled, then ends every watch with an error.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut progress = tokio::time::interval(self.inner.config.progress_interval);
        let mut published = self.inner.published.subscribe();
        published.mark_changed();
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // The sender lives as long as `self`.
                Ok(()) = published.changed() => {
                    self.inner.deliver();
                    self.inner.mark_wanted_progress();
                }
                _ = progress.tick() => drop(self.inner.live.lock().mark_progress(false)),
                () = self.inner.progress_asked.notified() => self.inner.mark_wanted_progress(),
            }
        }
        self.inner.stopping.cancel();
        self.inner.live.lock().end();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Delivers the new batches of the ring to the live watchers.
    fn deliver(self: &Arc<Self>) {
        let mut live = self.live.lock();
        let (batches, end) = {
            let ring = self.ring.lock();
            (ring.since(live.delivered()), ring.end())
        };
        let lagging = match batches {
            Some(batches) => {
                let complete = |events: &[Event]| self.complete(events);
                batches.iter().flat_map(|batch| live.deliver(batch, &complete)).collect()
            }
            // The ring no longer has the next batch, so all watchers catch up from the tables.
            None => live.restart(end),
        };
        drop(live);
        for (range, watcher) in lagging {
            self.clone().spawn_catch_up(range, watcher);
        }
    }

    /// Sends the requested progress marks, if everything up to the requested revision is delivered. Watchers with full
    /// channels get theirs when they have caught up.
    fn mark_wanted_progress(self: &Arc<Self>) {
        let lagging = {
            let mut wanted = self.progress_wanted.lock();
            let mut live = self.live.lock();
            if wanted.is_zero() || live.delivered() < *wanted {
                return;
            }
            *wanted = Revision::ZERO;
            live.mark_progress(true)
        };
        for (range, watcher) in lagging {
            self.clone().spawn_catch_up(range, watcher);
        }
    }

    /// Reads the previous version of each published event. Returns `None` when that is impossible now, because the
    /// source may have been reset to a state before these events.
    fn complete(&self, events: &[Event]) -> Option<Vec<Event>> {
        let is_unread = |event: &Event| matches!(event.previous(), Previous::Unread(_));
        if !events.iter().any(is_unread) {
            return Some(events.to_vec());
        }
        if events.last().is_some_and(|event| event.kv().mod_revision > self.source.revision()) {
            return None;
        }
        let complete = self.source.with_previous(events);
        complete
            .inspect_err(|error| tracing::error!(%error, "the previous versions of some events cannot be read"))
            .ok()
    }

    /// Maximum size of a page for a watcher that catches up, in bytes.
    fn page_bytes(&self) -> usize {
        let share = self.config.catch_up_bytes / self.lagging.load(Ordering::Relaxed).max(1);
        share.max(MIN_PAGE_BYTES).min(self.config.page_bytes)
    }

    fn spawn_catch_up(self: Arc<Self>, range: KeyRange, watcher: Watcher) {
        let tasks = self.tasks.clone();
        self.lagging.fetch_add(1, Ordering::Relaxed);
        tasks.spawn(async move {
            let stopping = self.stopping.clone();
            let sender = watcher.sender.clone();
            // A watcher that returns to the live watchers keeps its sender there.
            tokio::select! {
                () = stopping.cancelled() => sender.end(WatchError::ShuttingDown),
                () = catch_up::run(&self, range, watcher) => {}
            }
            self.lagging.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Returns the mark that everything up to a revision was delivered.
fn progress_mark(revision: Revision) -> WatchBatch {
    WatchBatch { revision, events: WatchEvents::new(Arc::new([])) }
}
