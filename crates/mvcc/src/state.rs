//! [`State`]: a backend, what is kept in memory beside it, and where it stands.
//!
//! One writer and many readers. The writer changes the index while it works through a batch, before the batch is in the
//! backend; readers go by the *published* revision, and for a head that is newer than that they look for the version
//! before it in the backend. So a reader never waits for more than the change of one head.

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

/// Why something could not be read.
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
    /// How far the deletion of what was compacted has come.
    pub(crate) compaction: Mutex<Progress>,
}

/// What is kept in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Ahead of `revision` while a batch is applied.
    pub(crate) index: Index,
    /// Ahead of `revision` while a batch is applied.
    pub(crate) leases: Leases,
    /// The newest that readers may see: all of it is in the backend.
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    /// What may be proposed. Ahead of the backend while a batch is applied, which makes no difference: it is committed.
    pub(crate) commands: CommandVersion,
}

/// What a batch of commands came to: to be written, then published.
#[must_use = "a batch that is not written and published leaves the index ahead of the backend"]
pub struct Prepared<W> {
    /// To be written as it is, together with whatever must be as new as it.
    pub batch: W,
    /// Where the state then stands.
    pub revision: Revision,
    /// The compacted revision then.
    pub compacted: Revision,
}

impl<B: Backend> State<B> {
    /// Reads what is kept in memory from the backend; an empty backend is an empty store at [`Revision::INITIAL`].
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

    /// The oldest revision that can still be read; zero when nothing was compacted yet.
    pub fn compacted(&self) -> Revision {
        self.shared.read().compacted
    }

    /// The version of commands that the quorum has agreed on.
    pub fn command_version(&self) -> CommandVersion {
        self.shared.read().commands
    }

    /// The newest published revision and the compacted one, of the same moment.
    pub(crate) fn position(&self) -> (Revision, Revision) {
        let shared = self.shared.read();
        (shared.revision, shared.compacted)
    }

    /// A version that must be there is not.
    pub(crate) fn missing(&self) -> BackendError {
        layout::corrupt(Table::Versions, &[], "a version that is still needed is missing")
    }

    /// Begins a batch. There must be one at a time, and each but the last must be written and published before the next
    /// one begins; after giving one up, [`State::reload`].
    pub fn applier(&self) -> Applier<'_, B> {
        Applier::new(self)
    }

    /// Shows readers a batch that the backend has.
    pub fn publish(&self, revision: Revision, compacted: Revision) {
        let mut shared = self.shared.write();
        shared.revision = revision;
        shared.compacted = compacted;
    }

    /// Writes a batch to the backend and shows it to readers.
    ///
    /// # Errors
    /// When it could not be written: this state is then of no more use.
    pub fn commit(&self, prepared: Prepared<B::Batch>) -> Result<(), BackendError> {
        self.backend.write(prepared.batch)?;
        self.publish(prepared.revision, prepared.compacted);
        Ok(())
    }

    /// All leases, in the order of their ids.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.shared.read().leases.iter().collect()
    }

    pub fn lease(&self, id: LeaseId) -> Option<LeaseInfo> {
        self.shared.read().leases.get(id)
    }

    /// The keys that end with a lease, in order.
    pub fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.shared.read().leases.keys(id)
    }

    /// Keys that exist, and those deleted since the compacted revision.
    pub fn key_count(&self) -> usize {
        self.shared.read().index.len()
    }

    /// Whether what is in memory is what [`State::open`] would read: for tests.
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
