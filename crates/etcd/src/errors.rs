//! Errors with etcd's codes and messages (its `rpctypes`), which clients compare.

use quorate_mvcc::CommandError;
use quorate_store::{BudgetExhausted, ChangeError, StoreError};
use tonic::{Code, Status};

/// An error of etcd's: its gRPC code and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(Code, &'static str);

impl Refusal {
    pub(crate) fn message(self) -> &'static str {
        self.1
    }
}

impl From<BudgetExhausted> for Refusal {
    fn from(_: BudgetExhausted) -> Self {
        TOO_MANY_REQUESTS
    }
}

impl From<Refusal> for Status {
    fn from(Refusal(code, message): Refusal) -> Self {
        Status::new(code, message)
    }
}

pub(crate) const EMPTY_KEY: Refusal = Refusal(Code::InvalidArgument, "etcdserver: key is not provided");
pub(crate) const KEY_NOT_FOUND: Refusal = Refusal(Code::InvalidArgument, "etcdserver: key not found");
pub(crate) const VALUE_PROVIDED: Refusal = Refusal(Code::InvalidArgument, "etcdserver: value is provided");
pub(crate) const LEASE_PROVIDED: Refusal = Refusal(Code::InvalidArgument, "etcdserver: lease is provided");
pub(crate) const TOO_MANY_OPS: Refusal =
    Refusal(Code::InvalidArgument, "etcdserver: too many operations in txn request");
pub(crate) const DUPLICATE_KEY: Refusal =
    Refusal(Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
pub(crate) const INVALID_SORT: Refusal = Refusal(Code::InvalidArgument, "etcdserver: invalid sort option");
pub(crate) const REQUEST_TOO_LARGE: Refusal = Refusal(Code::InvalidArgument, "etcdserver: request is too large");
pub(crate) const COMPACTED: Refusal =
    Refusal(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
pub(crate) const FUTURE_REVISION: Refusal =
    Refusal(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
pub(crate) const LEASE_NOT_FOUND: Refusal = Refusal(Code::NotFound, "etcdserver: requested lease not found");
pub(crate) const LEASE_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: lease already exists");
pub(crate) const LEASE_TTL_TOO_LARGE: Refusal = Refusal(Code::OutOfRange, "etcdserver: too large lease TTL");
pub(crate) const MEMBER_NOT_FOUND: Refusal = Refusal(Code::NotFound, "etcdserver: member not found");
pub(crate) const MEMBER_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: member ID already exist");
pub(crate) const PEER_URL_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
pub(crate) const MEMBER_BAD_URLS: Refusal = Refusal(Code::InvalidArgument, "etcdserver: given member URLs are invalid");
pub(crate) const MEMBER_NOT_LEARNER: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: can only promote a learner member");
pub(crate) const LEARNER_NOT_READY: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader");
pub(crate) const UNHEALTHY: Refusal = Refusal(Code::Unavailable, "etcdserver: unhealthy cluster");
pub(crate) const BAD_LEADER_TRANSFEREE: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: bad leader transferee");
pub(crate) const NOT_LEADER: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: not leader");
pub(crate) const NO_LEADER: Refusal = Refusal(Code::Unavailable, "etcdserver: no leader");
pub(crate) const TIMEOUT: Refusal = Refusal(Code::Unavailable, "etcdserver: request timed out");
pub(crate) const STOPPED: Refusal = Refusal(Code::Unavailable, "etcdserver: server stopped");
pub(crate) const TOO_MANY_REQUESTS: Refusal = Refusal(Code::ResourceExhausted, "etcdserver: too many requests");
pub(crate) const NO_SPACE: Refusal = Refusal(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
pub(crate) const AUTH_NOT_ENABLED: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: authentication is not enabled");

/// Converts an error of the store to etcd's.
pub(crate) fn status(error: StoreError) -> Status {
    match error {
        StoreError::Command(refused) => refusal(&refused).into(),
        StoreError::NoLeader(reason) => {
            tracing::debug!(reason, "no leader");
            NO_LEADER.into()
        }
        // The write may have been committed. Clients treat a timeout as an unknown outcome, unlike a refusal.
        StoreError::OutcomeUnknown(reason) => {
            tracing::debug!(reason, "the outcome is unknown");
            TIMEOUT.into()
        }
        StoreError::Overloaded => TOO_MANY_REQUESTS.into(),
        StoreError::NoSpace(member) => {
            tracing::debug!(member, "no space");
            NO_SPACE.into()
        }
        StoreError::TooLarge { .. } => REQUEST_TOO_LARGE.into(),
        StoreError::Unsupported(reason) => Status::unimplemented(reason),
        StoreError::ShuttingDown => STOPPED.into(),
        StoreError::JoinRefused { .. } => Status::internal(error.to_string()),
        StoreError::Fatal(reason) => Status::internal(reason),
    }
}

/// Converts the error of a membership change to etcd's.
pub(crate) fn change(error: ChangeError) -> Status {
    let refusal = match error {
        ChangeError::NotFound(_) => MEMBER_NOT_FOUND,
        ChangeError::Exists(_) => MEMBER_EXISTS,
        ChangeError::PeerInUse(_) => PEER_URL_EXISTS,
        ChangeError::Invalid(_) => MEMBER_BAD_URLS,
        ChangeError::NotLearner(_) => MEMBER_NOT_LEARNER,
        ChangeError::NotReady(_) => LEARNER_NOT_READY,
        ChangeError::Unhealthy(_) => UNHEALTHY,
        ChangeError::Unavailable(_) => TIMEOUT,
    };
    tracing::debug!(%error, "the quorum was not changed");
    refusal.into()
}

pub(crate) fn refusal(error: &CommandError) -> Refusal {
    match error {
        CommandError::Compacted { .. } => COMPACTED,
        CommandError::FutureRevision { .. } => FUTURE_REVISION,
        CommandError::LeaseNotFound(_) => LEASE_NOT_FOUND,
        CommandError::LeaseExists(_) => LEASE_EXISTS,
        CommandError::KeyNotFound => KEY_NOT_FOUND,
        CommandError::DuplicateKey => DUPLICATE_KEY,
        CommandError::EmptyKey => EMPTY_KEY,
        CommandError::ValueProvided => VALUE_PROVIDED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overloaded_store_is_too_many_requests() {
        let status = status(StoreError::Overloaded);
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "etcdserver: too many requests"));
    }
}
