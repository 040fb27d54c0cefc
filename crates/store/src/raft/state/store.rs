//! [`StateStore`]: the state of this member, applied to by Raft and read by everyone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use openraft::entry::EntryPayload;
use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{Backend, BackendError, Reply, State, Table, WriteBatch};
use rocksdb::Cache;
use tokio_util::sync::CancellationToken;

use super::StateBackend;
use super::backend::Surroundings;
use super::directory::StateDirectory;
use crate::platform::fs;
use crate::platform::random;
use crate::platform::tokio::sync::watch;
use crate::raft::closing::CloseSignal;
use crate::raft::codec::{self, CodecError};
use crate::raft::commands::Decodable;
use crate::raft::damage::DamageReport;
#[cfg(test)]
use crate::raft::simulation::planted::{self, Bug};
use crate::raft::snapshot::SnapshotDir;
use crate::raft::space::Space;
use crate::raft::types::{Entry, LogId, SnapshotMeta, StoredMembership};
use crate::raft::watching::Watching;
use crate::traces::{Landing, Traces};

pub const APPLIED: &[u8] = b"raft.applied";
pub const MEMBERSHIP: &[u8] = b"raft.membership";

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("a committed entry is unreadable: {0}")]
    Entry(CodecError),
    #[error("the raft position in the state is unreadable: {0}")]
    Position(CodecError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Outdated(String),
    #[error("a snapshot of {promised:?} holds the state at {found:?}")]
    WrongSnapshot { promised: Option<LogId>, found: Option<LogId> },
}

impl From<StateError> for io::Error {
    fn from(error: StateError) -> Self {
        io::Error::other(error)
    }
}

/// Where the state stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppliedAt {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

impl AppliedAt {
    /// The number of entries applied: the index after the last one.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.log_id.map_or(0, |id| id.index + 1)
    }
}

/// What a state is opened with.
pub struct StateOptions {
    pub cache: Cache,
    pub watching: Arc<Watching>,
    pub traces: Arc<Traces>,
    pub space: Arc<Space>,
    pub damage: DamageReport,
    pub decodable: Decodable,
}

/// The applied state and its place on disk.
pub struct StateStore {
    current: ArcSwap<State<StateBackend>>,
    directory: Mutex<StateDirectory>,
    position: watch::Sender<AppliedAt>,
    has_snapshot: AtomicBool,
    surroundings: Surroundings,
    watching: Arc<Watching>,
    traces: Arc<Traces>,
    decodable: Decodable,
    /// The next time something is applied, a test wants a panic.
    #[cfg(test)]
    pub panics: AtomicBool,
}

impl StateStore {
    /// Opens the state in `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn open(path: &Path, options: StateOptions, closed: CloseSignal) -> Result<Self, StateError> {
        let StateOptions { cache, watching, traces, space, damage, decodable } = options;
        let surroundings = Surroundings {
            cache,
            space,
            damage: damage.heard(),
            closed: Arc::new(closed),
            waits: CancellationToken::new(),
        };
        let directory = StateDirectory::open(path)?;
        let state = Arc::new(State::open(StateBackend::open(&directory.current(), &surroundings)?)?);
        decodable.check(state.command_version()).map_err(StateError::Outdated)?;
        let position = read_position(state.backend())?;
        traces.lose_sight();
        watching.attach(state.clone());
        Ok(StateStore {
            current: ArcSwap::new(state),
            directory: Mutex::new(directory),
            position: watch::Sender::new(position),
            has_snapshot: AtomicBool::new(false),
            surroundings,
            watching,
            traces,
            decodable,
            #[cfg(test)]
            panics: AtomicBool::new(false),
        })
    }

    /// The state as it is now; after a snapshot is installed, another one.
    #[must_use]
    pub fn current(&self) -> Arc<State<StateBackend>> {
        self.current.load_full()
    }

    /// Where it stands, and when that changes.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<AppliedAt> {
        self.position.subscribe()
    }

    /// Applies entries in order: one write, then readers see it, then watchers hear of it.
    ///
    /// # Errors
    /// The state is then of no more use.
    pub fn apply(&self, entries: &[Entry]) -> Result<Vec<Vec<Reply>>, StateError> {
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        #[cfg(test)]
        assert!(!self.panics.swap(false, Ordering::Relaxed), "as a test wants it");
        let state = self.current();
        let mut membership = None;
        let mut replies = Vec::with_capacity(entries.len());
        let commands = entries.iter().map(|entry| match &entry.payload {
            EntryPayload::Normal(batch) => batch.count(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        });
        let mut events = Vec::with_capacity(commands.sum());
        let mut landings = Vec::new();
        let mut applier = state.applier();
        for entry in entries {
            let mut of_entry = Vec::new();
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(changed) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), changed.clone()));
                }
                EntryPayload::Normal(batch) => {
                    of_entry.reserve(batch.count());
                    for command in batch.decode(self.decodable.newest).map_err(StateError::Entry)? {
                        #[cfg(test)]
                        if planted::is(Bug::AppliesTwice) && entry.log_id.index.is_multiple_of(16) {
                            events.extend(applier.apply(&command)?.events);
                        }
                        let applied = applier.apply(&command)?;
                        landings.extend(Landing::of(&command, &applied.reply));
                        of_entry.push(applied.reply);
                        events.extend(applied.events);
                    }
                }
            }
            replies.push(of_entry);
        }
        let mut prepared = applier.finish();
        self.decodable.check(state.command_version()).map_err(StateError::Outdated)?;
        let encode = |result: Result<Bytes, CodecError>| result.map_err(StateError::Position);
        prepared.batch.put(Table::Meta, APPLIED, &encode(codec::encode(&last.log_id))?);
        if let Some(membership) = &membership {
            prepared.batch.put(Table::Meta, MEMBERSHIP, &encode(codec::encode(membership))?);
        }
        state.commit(prepared)?;
        #[cfg(test)]
        if planted::is(Bug::OverlooksLandings) {
            landings.clear();
        }
        self.watching.publish(state.revision(), events);
        self.position.send_modify(|position| {
            // Whoever is told of it by this must find it here: not before it, since reads wait for the position, nor after.
            self.traces.landed(&landings);
            position.log_id = Some(last.log_id);
            if let Some(membership) = membership {
                position.membership = membership;
            }
        });
        Ok(replies)
    }

    /// Puts everything applied so far on disk; from then on the log before it is not needed to restart.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&self) -> Result<SnapshotMeta, StateError> {
        // The position first: what is flushed is as new or newer.
        let AppliedAt { log_id, membership } = self.position.borrow().clone();
        self.current().backend().flush()?;
        self.has_snapshot.store(true, Ordering::Release);
        Ok(SnapshotMeta { last_log_id: log_id, last_membership: membership })
    }

    /// From now on nobody waits until something can be written: it fails. What was acknowledged is in the log.
    pub fn stop_waiting(&self) {
        self.surroundings.waits.cancel();
    }

    /// Whether the state was ever flushed as a snapshot, or installed from one, since it was opened.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.has_snapshot.load(Ordering::Acquire)
    }

    /// Copies the state. Nothing may be applied meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn checkpoint(&self) -> Result<(SnapshotMeta, SnapshotDir), StateError> {
        let parent = self.snapshots_path();
        fs::create_dir_all(&parent)?;
        let dir = SnapshotDir::adopt(parent.join(format!("outgoing-{:016x}", random::<u64>())));
        let AppliedAt { log_id, membership } = self.position.borrow().clone();
        self.current().backend().checkpoint(dir.path())?;
        Ok((SnapshotMeta { last_log_id: log_id, last_membership: membership }, dir))
    }

    /// A copy of the state for a backup, beside whatever is being applied; all writes up to the returned revision are in
    /// it. Blocks.
    ///
    /// # Errors
    /// When it cannot be written, or the state is damaged.
    pub fn backup(&self) -> Result<(Revision, SnapshotDir), StateError> {
        let state = self.current();
        state.backend().verify()?;
        let parent = self.snapshots_path();
        fs::create_dir_all(&parent)?;
        let dir = SnapshotDir::adopt(parent.join(format!("backup-{:016x}", random::<u64>())));
        let revision = state.revision();
        state.backend().try_checkpoint(dir.path())?;
        Ok((revision, dir))
    }

    /// Where snapshots are received.
    #[must_use]
    pub fn snapshots_path(&self) -> PathBuf {
        self.directory.lock().snapshots()
    }

    /// Replaces the state by a snapshot, durably. One at a time may be installed.
    ///
    /// # Errors
    /// The old state is then still in place.
    pub fn install(&self, meta: &SnapshotMeta, snapshot: &SnapshotDir) -> Result<(), StateError> {
        let staged = self.directory.lock().stage(snapshot)?;
        // If it is damaged, it is so at whom it came from.
        let incoming = Surroundings { damage: self.surroundings.damage.unheard(), ..self.surroundings.clone() };
        let state = State::open(StateBackend::open(&staged, &incoming)?)?;
        let found = read_position(state.backend())?;
        if found.log_id != meta.last_log_id {
            return Err(StateError::WrongSnapshot { promised: meta.last_log_id, found: found.log_id });
        }
        self.decodable.check(state.command_version()).map_err(StateError::Outdated)?;
        state.backend().verify()?;
        self.directory.lock().commit()?;
        incoming.damage.set_heard(true);
        let state = Arc::new(state);
        self.traces.lose_sight();
        let replaced = self.current.swap(state.clone());
        replaced.backend().make_obsolete();
        self.has_snapshot.store(true, Ordering::Release);
        self.watching.attach(state);
        self.position.send_replace(found);
        Ok(())
    }
}

pub fn read_position(backend: &StateBackend) -> Result<AppliedAt, StateError> {
    let membership = backend.get(Table::Meta, MEMBERSHIP)?.map(|row| codec::decode(&row)).transpose();
    Ok(AppliedAt {
        log_id: read_applied(backend)?,
        membership: membership.map_err(StateError::Position)?.unwrap_or_default(),
    })
}

/// The last entry that is applied.
pub fn read_applied(backend: &StateBackend) -> Result<Option<LogId>, StateError> {
    let log_id = backend.get(Table::Meta, APPLIED)?.map(|row| codec::decode(&row)).transpose();
    log_id.map_err(StateError::Position)
}
