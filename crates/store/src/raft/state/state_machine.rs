//! The applied state as openraft's state machine.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::snapshot::SnapshotData;
use crate::platform::tokio;
use crate::raft::state::StateStore;
use crate::raft::types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Maximum number of entries applied in one write. They become visible together, so more would delay the first one.
const MAX_ENTRIES_PER_WRITE: usize = 64;

/// The state machine that openraft applies entries to.
pub struct StateMachine {
    store: Arc<StateStore>,
}

impl StateMachine {
    #[must_use]
    pub fn new(store: Arc<StateStore>) -> Self {
        StateMachine { store }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Flusher;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let position = self.store.position().borrow().clone();
        Ok((position.log_id, position.membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(MAX_ENTRIES_PER_WRITE);
        while let Some(chunk) = chunks.next().await {
            let mut entries = Vec::with_capacity(chunk.len());
            let mut responders = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                entries.push(entry);
                responders.push(responder);
            }
            // Simulates a busy member that applies later than others.
            #[cfg(test)]
            crate::raft::simulation::disk::delay().await;
            // Without this, openraft would notice a panic of its worker only at the next entry.
            let applied = catch_unwind(AssertUnwindSafe(|| self.store.apply(&entries)));
            let replies = applied.map_err(|_| io::Error::other("applying an entry panicked"))??;
            for (responder, replies) in responders.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(replies);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Flusher {
        Flusher { store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let SnapshotData::Directory(dir) = snapshot else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a snapshot without a directory"));
        };
        let (store, meta) = (self.store.clone(), meta.clone());
        blocking(move || Ok(store.install(&meta, &dir)?)).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        // Each call makes a new copy of the current state. Nothing is applied meanwhile, because this runs on the
        // state machine's own task.
        if !self.store.has_snapshot() {
            return Ok(None);
        }
        let store = self.store.clone();
        let (meta, dir) = blocking(move || Ok(store.checkpoint()?)).await?;
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::Directory(Arc::new(dir)) }))
    }
}

/// Builds a snapshot by flushing the state, which is on disk anyway.
pub struct Flusher {
    store: Arc<StateStore>,
}

impl RaftSnapshotBuilder<TypeConfig> for Flusher {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let store = self.store.clone();
        let meta = blocking(move || Ok(store.flush()?)).await?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Flushed })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
