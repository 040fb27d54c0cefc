//! [`State`]: a backend, the index and leases in memory, and the current revisions.
//!
//! There is one writer and many readers. The writer changes the index while it applies a batch, before the batch is in
//! the backend. Readers use the *published* revision: for an index entry that is newer, they look up the version before
//! it in the backend. A reader therefore waits at most for the change of one index entry.

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_api::Revision;

use crate::apply::Applier;
use crate::backend::{Backend, BackendError, Table};
use crate::command::{CommandError, CommandVersion};
use crate::compact::Progress;
use crate::index::Index;
use crate::kv::LeaseId;
use crate::layout;
use crate::lease::{LeaseInfo, Leases};

/// Reason for a failed read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// `Compacted` or `FutureRevision`.
    #[error(transparent)]
    Refused(CommandError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The state machine's state.
pub struct State<B> {
    pub(crate) backend: B,
    pub(crate) shared: RwLock<Shared>,
    /// Progress of the deletion of compacted versions. Its lock keeps the deletion from running.
    pub(crate) compaction: Mutex<Progress>,
}

/// The part of the state that is in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Ahead of `revision` while a batch is applied.
    pub(crate) index: Index,
    /// Ahead of `revision` while a batch is applied.
    pub(crate) leases: Leases,
    /// Newest published revision: the backend has all of it.
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    /// Newest command version that may be proposed. While a batch is applied it may be ahead of the backend, which is
    /// safe because the command is already committed.
    pub(crate) commands: CommandVersion,
}

/// The changes of a batch of commands, to be written and then published.
#[must_use = "a batch that is not written and published leaves the index ahead of the backend"]
pub struct Prepared<W> {
    /// The rows to write. The caller may add rows of its own that must be written atomically with them.
    pub batch: W,
    /// The revision after the batch.
    pub revision: Revision,
    /// The compacted revision after the batch.
    pub compacted: Revision,
}

impl<B: Backend> State<B> {
    /// Opens a state and loads its index and leases from the backend. An empty backend is an empty store at
    /// [`Revision::INITIAL`].
    ///
    /// # Errors
    /// When the backend cannot be read or is damaged.
    pub fn open(backend: B) -> Result<Self, BackendError> {
        let shared = Shared::load(&backend)?;
        Ok(State { backend, shared: RwLock::new(shared), compaction: Mutex::new(Progress::default()) })
    }

    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The newest published revision.
    pub fn revision(&self) -> Revision {
        self.shared.read().revision
    }

    /// The oldest revision that can still be read, or zero when nothing was compacted yet.
    pub fn compacted(&self) -> Revision {
        self.shared.read().compacted
    }

    /// The command version that the quorum has agreed on.
    pub fn command_version(&self) -> CommandVersion {
        self.shared.read().commands
    }

    /// Returns the newest published revision and the compacted revision of the same moment.
    pub(crate) fn position(&self) -> (Revision, Revision) {
        let shared = self.shared.read();
        (shared.revision, shared.compacted)
    }

    /// Returns the error for a version that must exist and does not.
    pub(crate) fn missing(&self) -> BackendError {
        layout::corrupt(Table::Versions, &[], "a version that is still needed is missing")
    }

    /// Begins a batch. Only one batch may be open at a time, and it must be written and published before the next one
    /// begins. A batch that is given up leaves the index ahead of the backend, so the state must be opened anew.
    pub fn applier(&self) -> Applier<'_, B> {
        Applier::new(self)
    }

    /// Makes a written batch visible to readers.
    pub fn publish(&self, revision: Revision, compacted: Revision) {
        let mut shared = self.shared.write();
        shared.revision = revision;
        shared.compacted = compacted;
    }

    /// Writes a batch to the backend and publishes it.
    ///
    /// # Errors
    /// When the batch could not be written. The state must not be used after that.
    pub fn commit(&self, prepared: Prepared<B::Batch>) -> Result<(), BackendError> {
        self.backend.write(prepared.batch)?;
        self.publish(prepared.revision, prepared.compacted);
        Ok(())
    }

    /// All leases, in id order.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.shared.read().leases.iter().collect()
    }

    pub fn lease(&self, id: LeaseId) -> Option<LeaseInfo> {
        self.shared.read().leases.get(id)
    }

    /// The keys attached to a lease, in order.
    pub fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.shared.read().leases.keys(id)
    }

    /// Number of keys, including those deleted since the compacted revision.
    pub fn key_count(&self) -> usize {
        self.shared.read().index.len()
    }

    /// Whether the index and leases in memory equal those that [`State::open`] would load. For tests.
    ///
    /// # Errors
    /// When the backend cannot be read.
    pub fn matches_backend(&self) -> Result<bool, BackendError> {
        let loaded = Shared::load(&self.backend)?;
        Ok(*self.shared.read() == loaded)
    }
}

impl Shared {
    fn load(backend: &impl Backend) -> Result<Self, BackendError> {
        let meta = |key: &[u8], default: Revision| {
            backend.get(Table::Meta, key)?.map_or(Ok(default), |row| layout::read_meta(key, &row))
        };
        let index = Index::load(backend)?;
        let commands = backend.get(Table::Meta, layout::META_COMMANDS)?;
        Ok(Shared {
            commands: commands.map_or(Ok(CommandVersion::FIRST), |row| layout::read_command_version(&row))?,
            leases: Leases::load(backend, &index)?,
            index,
            revision: meta(layout::META_REVISION, Revision::INITIAL)?,
            compacted: meta(layout::META_COMPACTED, Revision::ZERO)?,
        })
    }
}
