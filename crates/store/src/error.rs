//! Errors of the store.

use quorate_mvcc::{CommandError, ReadError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The state machine refused the command. Nothing changed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// No leader was found within the deadline. The command was not proposed, so it is safe to send it again.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// The leader was lost after the command was sent, so the command may have taken effect, or may still do so.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// The queues are full. Nothing was proposed.
    #[error("the store is overloaded")]
    Overloaded,
    /// The leader's disk is full. Nothing was proposed. Deletions, compactions and lease renewals are still accepted,
    /// and everything else when there is space again.
    #[error("no space left on the disk of {0}")]
    NoSpace(String),
    /// The command exceeds the size limit. Nothing was proposed.
    #[error("a command of {size_bytes} bytes exceeds the limit of {max_bytes} bytes")]
    TooLarge { size_bytes: usize, max_bytes: usize },
    /// A member of the quorum may not be able to decode the command. Nothing was proposed.
    #[error("not supported by the whole quorum yet: {0}")]
    Unsupported(String),
    /// The quorum refuses to let this member in. The same token will not be accepted later either.
    #[error("the quorum does not let {name} in: {reason}")]
    JoinRefused { name: String, reason: String },
    #[error("the store is shutting down")]
    ShuttingDown,
    /// This member can no longer serve, because its disk failed or its state is corrupt.
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
