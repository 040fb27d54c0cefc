//! Watches: every event after a revision, once and in order.

use std::sync::Arc;

use quorate_api::Revision;
use quorate_mvcc::Event;

/// Events up to and including `revision`, never part of a revision. An empty batch is a progress mark: everything up
/// to `revision` has been delivered.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    pub revision: Revision,
    pub events: Arc<[Event]>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The start revision, or a slow watcher's position, is older than what is kept.
    #[error("revision {requested} has been compacted; the oldest kept is {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("the store is shutting down")]
    ShuttingDown,
    #[error("the store failed: {0}")]
    Fatal(String),
}

/// A running watch; dropping it ends it.
pub struct Watch {
    receiver: tokio::sync::mpsc::Receiver<Result<WatchBatch, WatchError>>,
}

impl Watch {
    #[must_use]
    pub fn new(receiver: tokio::sync::mpsc::Receiver<Result<WatchBatch, WatchError>>) -> Self {
        Watch { receiver }
    }

    /// The next batch; after an error or `None` there is no more. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<WatchBatch, WatchError>> {
        self.receiver.recv().await
    }
}
