//! The watch hub: carries applied events to watchers, and never lets one of them hold the writer or another back.
//!
//! The writer puts each batch into a [`ring::Ring`] of shared bytes and goes on. One task takes batches from there,
//! matches them against each distinct range once, and hands the result to every watcher of it without waiting. A watcher
//! whose channel is full leaves the live ones: a task of its own reads on for it, from the ring or from the events table,
//! at the pace at which it takes them, and joins the live ones again by revision. A revision is never split.

mod catch_up;
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

/// Where events are read from that are not in the ring any more.
pub trait WatchSource: Send + Sync + 'static {
    /// The newest revision whose events can be read.
    fn revision(&self) -> Revision;
    fn compacted(&self) -> Revision;
    /// See [`State::events_since`].
    ///
    /// # Errors
    /// `Refused(Compacted)` when some of them are gone.
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
    /// When they cannot be read.
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

/// Below this, reading pages costs more than they hold.
const MIN_PAGE_BYTES: usize = 16 << 10;

/// The hub's limits.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Recent events kept in memory for all watchers together.
    pub ring_bytes: usize,
    /// Batches that may wait for one watcher before it counts as lagging.
    pub channel_batches: usize,
    /// Bytes that may wait for one watcher before it counts as lagging; a batch that is longer may wait alone.
    pub channel_bytes: usize,
    /// Events handed at once to a watcher that catches up, give or take a revision; the next follow when it has taken
    /// them.
    pub page_bytes: usize,
    /// What all watchers that catch up may hold together: when they are many, each gets smaller pages.
    pub catch_up_bytes: usize,
    /// How often a watcher without events is told how far it has come.
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

/// The hub; clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn WatchSource>,
    config: HubConfig,
    ring: Mutex<Ring>,
    /// Taken before `ring`, never the other way round.
    live: Mutex<Live>,
    /// The end of the ring.
    published: watch::Sender<Revision>,
    /// The revision that all watchers have to be told they have reached, because somebody asked; zero when nobody did.
    progress_wanted: Mutex<Revision>,
    /// `progress_wanted` has changed.
    progress_asked: Notify,
    /// Those that catch up.
    tasks: TaskTracker,
    /// How many they are.
    lagging: AtomicUsize,
    stopping: CancellationToken,
}

impl Hub {
    /// A hub that stands where its source does. It delivers once [`Hub::run`] runs.
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

    /// Takes the events of a batch that the source has published and that brought it to `revision`. Called by the one
    /// writer, in order; waits for nothing.
    pub fn publish(&self, revision: Revision, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.inner.ring.lock().push(revision, events);
        self.inner.published.send_replace(revision);
    }

    /// The source has jumped: forward, because a snapshot was installed, and everyone reads on from the source; or back,
    /// because it was opened anew from an older state, and what it does again is not delivered again.
    pub fn reset(&self) {
        let revision = self.inner.source.revision();
        self.inner.ring.lock().restart(revision);
        self.inner.published.send_replace(revision);
    }

    /// Watches a range for everything after `after`; [`Revision::ZERO`] means after the newest published. `after` may
    /// lie in the future. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `Compacted` when `after` is older than what is kept, `ShuttingDown` after the end of [`Hub::run`].
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
        let WatchOptions { with_previous, budget } = options;
        let (sender, watch) = watch_channel(config.channel_batches, config.channel_bytes, budget);
        let joined = live.join(&range, Watcher { after, with_previous, sender });
        // It may have ended meanwhile; then there is nobody left to say so.
        if self.inner.stopping.is_cancelled() {
            return Err(WatchError::ShuttingDown);
        }
        drop(live);
        if let Err(watcher) = joined {
            self.inner.clone().spawn_catch_up(range, watcher);
        }
        Ok(watch)
    }

    /// Has every watcher told how far it has come, as soon as everything up to `at_least` was delivered. The source shows a
    /// revision to readers before it hands the events to this hub, so those may still be on their way.
    pub fn mark_progress(&self, at_least: Revision) {
        {
            let mut wanted = self.inner.progress_wanted.lock();
            // Zero means that nobody asked.
            *wanted = (*wanted).max(at_least).max(Revision(1));
        }
        self.inner.progress_asked.notify_one();
    }

    /// Delivers until the token fires; then every watcher is told so.
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
    /// Hands what is new in the ring to the live watchers.
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
            // The ring has moved on past us: everyone reads the tables.
            None => live.give_up(end),
        };
        drop(live);
        for (range, watcher) in lagging {
            self.clone().spawn_catch_up(range, watcher);
        }
    }

    /// Tells all watchers how far they have come, if somebody asked for it and everything was delivered that had been
    /// published by then. Those without room are told when they have taken what they were given.
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

    /// Published events with the version before each; `None` when that is not to be had now: the source may have gone
    /// back to a state from before them.
    fn complete(&self, events: &[Event]) -> Option<Vec<Event>> {
        let is_unread = |event: &Event| matches!(event.previous(), Previous::Unread(_));
        if !events.iter().any(is_unread) {
            return Some(events.to_vec());
        }
        if events.last().is_some_and(|event| event.kv().mod_revision > self.source.revision()) {
            return None;
        }
        let complete = self.source.with_previous(events);
        complete.inspect_err(|error| tracing::error!(%error, "the versions before some events cannot be read")).ok()
    }

    /// What a watcher that catches up may hold.
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
            // A watcher that joins the live ones again keeps a sender there.
            tokio::select! {
                () = stopping.cancelled() => sender.end(WatchError::ShuttingDown),
                () = catch_up::run(&self, range, watcher) => {}
            }
            self.lagging.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// The mark that everything up to a revision was delivered.
fn progress_mark(revision: Revision) -> WatchBatch {
    WatchBatch { revision, events: WatchEvents::new(Arc::new([])) }
}
