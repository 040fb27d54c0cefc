//! Why the store could not do what it was asked.

use quorate_mvcc::{CommandError, ReadError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The state machine refused the command; nothing changed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// No leader was found within the deadline; the command was not proposed, so it is safe to send again.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// The command may or may not have taken effect, or may yet: the leader was lost after it had been sent.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// Queues are full; nothing was proposed.
    #[error("the store is overloaded")]
    Overloaded,
    /// The leader's disk is full; nothing was proposed. Deletions, compactions and renewals of leases are still taken, and
    /// everything again when there is space.
    #[error("no space left on the disk of {0}")]
    NoSpace(String),
    /// Nothing was proposed.
    #[error("a command of {size_bytes} bytes, of at most {max_bytes}")]
    TooLarge { size_bytes: usize, max_bytes: usize },
    /// A member of the quorum may not be able to decode the command; nothing was proposed.
    #[error("not supported by the whole quorum yet: {0}")]
    Unsupported(String),
    #[error("the store is shutting down")]
    ShuttingDown,
    /// This member can no longer serve (disk, corruption).
    #[error("the store failed: {0}")]
    Fatal(String),
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Refused(refused) => StoreError::Command(refused),
            ReadError::Backend(error) => StoreError::Fatal(error.to_string()),
        }
    }
}
