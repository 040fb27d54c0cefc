//! The watch hub over a state that may be replaced.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{BackendError, Event, EventPage, KeyRange, ReadError, State};
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, HubConfig, WatchSource};
#[cfg(test)]
use crate::raft::simulation::planted::{self, Bug};
use crate::raft::state::StateBackend;
use crate::watch::{Watch, WatchError, WatchOptions};

/// The state that watchers read from; none while it is being opened.
#[derive(Default)]
struct Source {
    state: ArcSwapOption<State<StateBackend>>,
}

impl WatchSource for Source {
    fn revision(&self) -> Revision {
        self.state.load().as_ref().map_or(Revision::ZERO, |state| state.revision())
    }

    fn compacted(&self) -> Revision {
        self.state.load().as_ref().map_or(Revision::ZERO, |state| state.compacted())
    }

    fn events_since(
        &self,
        after: Revision,
        range: &KeyRange,
        max_bytes: usize,
        with_previous: bool,
    ) -> Result<EventPage, ReadError> {
        match self.state.load_full() {
            Some(state) => state.events_since(after, range, max_bytes, with_previous),
            None => Err(ReadError::Backend(not_open())),
        }
    }

    fn with_previous(&self, events: &[Event]) -> Result<Vec<Event>, BackendError> {
        self.state.load_full().ok_or_else(not_open)?.with_previous(events)
    }
}

fn not_open() -> BackendError {
    BackendError::Write("the state is not open".to_owned())
}

/// The watch hub of this member, and the state behind it.
pub struct Watching {
    source: Arc<Source>,
    hub: Hub,
    /// The newest revision that was published to the hub. A state that was reopened replays entries that it had not
    /// flushed, and their events must not be published twice.
    published: Mutex<Revision>,
}

impl Watching {
    #[must_use]
    pub fn new(config: HubConfig) -> Self {
        let source = Arc::new(Source::default());
        Watching { hub: Hub::new(source.clone(), config), source, published: Mutex::new(Revision::ZERO) }
    }

    /// Continues with `state`, which may be newer than the last one (a snapshot) or a little older (a reopened state).
    pub fn attach(&self, state: Arc<State<StateBackend>>) {
        let revision = state.revision();
        self.source.state.store(Some(state));
        let mut published = self.published.lock();
        if *published < revision {
            *published = revision;
            self.hub.reset();
        }
    }

    /// Drops the reference to the state.
    pub fn detach(&self) {
        self.source.state.store(None);
    }

    /// Publishes the events that brought the attached state to `revision`.
    pub fn publish(&self, revision: Revision, mut events: Vec<Event>) {
        let mut published = self.published.lock();
        #[cfg(test)]
        if planted::is(Bug::WatchSkips) {
            events.retain(|event| !event.kv().mod_revision.0.is_multiple_of(16));
        }
        if *published < revision {
            events.retain(|event| event.kv().mod_revision > *published);
            *published = revision;
            self.hub.publish(revision, events);
        }
    }

    /// # Errors
    /// See [`Hub::watch`].
    pub fn watch(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError> {
        self.hub.watch(range, after, options)
    }

    /// See [`Hub::mark_progress`].
    pub fn mark_progress(&self, at_least: Revision) {
        self.hub.mark_progress(at_least);
    }

    /// Delivers until the token fires.
    pub fn run(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        self.hub.clone().run(shutdown)
    }
}
