//! [`StateStore`]: the state of this member. Raft applies entries to it and all readers share it.

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
use super::backend::BackendContext;
use super::directory::StateDirectory;
use crate::platform::tokio::sync::watch;
use crate::platform::{fs, random};
use crate::raft::codec::{self, CodecError};
use crate::raft::lifecycle::closing::CloseSignal;
use crate::raft::lifecycle::damage::DamageReport;
use crate::raft::requests::commands::Decodable;
#[cfg(test)]
use crate::raft::simulation::planted::{self, Bug};
use crate::raft::state::snapshot::SnapshotDir;
use crate::raft::state::watching::Watching;
use crate::raft::types::{Entry, LogId, SnapshotMeta, StoredMembership};
use crate::raft::upkeep::space::Space;
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

/// The last applied entry, and the membership as of that entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppliedAt {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

impl AppliedAt {
    /// Returns the index after the last applied entry.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.log_id.map_or(0, |id| id.index + 1)
    }
}

/// Everything that a state needs to be opened.
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
    context: BackendContext,
    watching: Arc<Watching>,
    traces: Arc<Traces>,
    decodable: Decodable,
    /// Makes the next `apply` panic, for tests.
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
        let context = BackendContext {
            cache,
            space,
            damage: damage.in_use(),
            closed: Arc::new(closed),
            waits: CancellationToken::new(),
        };
        let directory = StateDirectory::open(path)?;
        let state = Arc::new(State::open(StateBackend::open(&directory.current(), &context)?)?);
        decodable.check(state.command_version()).map_err(StateError::Outdated)?;
        let position = read_position(state.backend())?;
        traces.lose_sight();
        watching.attach(state.clone());
        Ok(StateStore {
            current: ArcSwap::new(state),
            directory: Mutex::new(directory),
            position: watch::Sender::new(position),
            has_snapshot: AtomicBool::new(false),
            context,
            watching,
            traces,
            decodable,
            #[cfg(test)]
            panics: AtomicBool::new(false),
        })
    }

    /// Returns the current state. The installation of a snapshot replaces it by another one.
    #[must_use]
    pub fn current(&self) -> Arc<State<StateBackend>> {
        self.current.load_full()
    }

    /// Returns the applied position, which can be watched for changes.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<AppliedAt> {
        self.position.subscribe()
    }

    /// Applies entries in order, in one write. First readers see them, then their events go to watchers.
    ///
    /// # Errors
    /// When an entry cannot be applied; the state must then be closed.
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
            // Traces must change together with the position: a reader that waited for the position must find them here,
            // and no reader may find them earlier.
            self.traces.landed(&landings);
            position.log_id = Some(last.log_id);
            if let Some(membership) = membership {
                position.membership = membership;
            }
        });
        Ok(replies)
    }

    /// Flushes everything applied so far to disk. A restart then no longer needs the log up to the returned position.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&self) -> Result<SnapshotMeta, StateError> {
        // The position is read first, so the flushed state is at least as new.
        let AppliedAt { log_id, membership } = self.position.borrow().clone();
        self.current().backend().flush()?;
        self.has_snapshot.store(true, Ordering::Release);
        Ok(SnapshotMeta { last_log_id: log_id, last_membership: membership })
    }

    /// Makes writes that would wait for space or for RocksDB fail instead. All acknowledged entries are in the log.
    pub fn stop_waiting(&self) {
        self.context.waits.cancel();
    }

    /// Returns whether the state was flushed as a snapshot, or installed from one, since it was opened.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.has_snapshot.load(Ordering::Acquire)
    }

    /// Copies the state into a new snapshot. Nothing may be applied meanwhile.
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

    /// Copies the state for a backup, while entries may be applied. The copy has all writes up to the returned
    /// revision. Blocks.
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

    /// Returns the directory in which snapshots are received.
    #[must_use]
    pub fn snapshots_path(&self) -> PathBuf {
        self.directory.lock().snapshots()
    }

    /// Replaces the state by a snapshot, durably. Only one snapshot may be installed at a time.
    ///
    /// # Errors
    /// When the snapshot cannot be installed; the old state then stays in use.
    pub fn install(&self, meta: &SnapshotMeta, snapshot: &SnapshotDir) -> Result<(), StateError> {
        let staged = self.directory.lock().stage(snapshot)?;
        // Damage to the snapshot does not concern this member: it came from the sender.
        let incoming = BackendContext { damage: self.context.damage.not_in_use(), ..self.context.clone() };
        let state = State::open(StateBackend::open(&staged, &incoming)?)?;
        let found = read_position(state.backend())?;
        if found.log_id != meta.last_log_id {
            return Err(StateError::WrongSnapshot { promised: meta.last_log_id, found: found.log_id });
        }
        self.decodable.check(state.command_version()).map_err(StateError::Outdated)?;
        state.backend().verify()?;
        self.directory.lock().commit()?;
        incoming.damage.set_in_use(true);
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

/// Reads the id of the last applied entry.
pub fn read_applied(backend: &StateBackend) -> Result<Option<LogId>, StateError> {
    let log_id = backend.get(Table::Meta, APPLIED)?.map(|row| codec::decode(&row)).transpose();
    log_id.map_err(StateError::Position)
}
