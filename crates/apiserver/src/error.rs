//! The one place that turns errors of the store into statuses for clients.

use quorate_api::{Cause, Reason, Status, StatusDetails};
use quorate_mvcc::CommandError;
use quorate_store::{StoreError, WatchError};

/// Delay before a client should retry, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Turns a failed read or proposal into a status.
pub(crate) fn from_store(error: &StoreError) -> Status {
    match error {
        StoreError::Command(CommandError::Compacted { requested, compacted }) => {
            Status::expired(format!("The resourceVersion for the provided list is too old: {requested} ({compacted})"))
        }
        StoreError::Command(CommandError::FutureRevision { requested, current }) => {
            too_large_resource_version(requested.0, current.0)
        }
        StoreError::Command(error) => Status::internal(error),
        StoreError::NoLeader(_) => Status::unavailable(format!("etcdserver: {error}")),
        StoreError::ShuttingDown => Status::unavailable("the server is shutting down"),
        StoreError::Unsupported(_) => Status::unavailable(error.to_string()),
        StoreError::Overloaded => too_many_requests(),
        StoreError::NoSpace(_) => Status::unavailable(format!("etcdserver: mvcc: database space exceeded: {error}")),
        StoreError::TooLarge { .. } => too_large_to_store(),
        StoreError::OutcomeUnknown(_) => retry_later(
            Reason::Timeout,
            format!("Timeout: request did not complete within the allotted timeout: {error}"),
        ),
        StoreError::Fatal(_) | StoreError::JoinRefused { .. } => Status::internal(error),
    }
}

/// Turns the end of a watch into a status.
pub(crate) fn from_watch(error: &WatchError) -> Status {
    match error {
        WatchError::Compacted { requested, compacted } => {
            Status::expired(format!("too old resource version: {requested} ({compacted})"))
        }
        WatchError::ShuttingDown => Status::unavailable("the server is shutting down"),
        WatchError::Fatal(_) => Status::internal(error),
    }
}

/// Returns the status of a request that the server refused because it is at its limit.
pub(crate) fn too_many_requests() -> Status {
    retry_later(Reason::TooManyRequests, "Too many requests, please try again later.")
}

/// Returns the status of a read at a revision that this cluster has not reached.
pub(crate) fn too_large_resource_version(requested: u64, current: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    Status::new(Reason::Timeout, message).with_details(StatusDetails {
        causes: vec![cause],
        retry_after_seconds: RETRY_AFTER_SECONDS,
        ..StatusDetails::default()
    })
}

/// Returns the status of a request whose body is larger than `limit_bytes`.
pub(crate) fn too_large(limit_bytes: usize) -> Status {
    Status::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit_bytes}"))
}

/// Returns the status of an object that is too large to store. Kubernetes passes on etcd's message and gives no reason.
pub(crate) fn too_large_to_store() -> Status {
    Status::new(Reason::Unknown, "etcdserver: request is too large")
}

/// Returns the status of a path that does not exist.
pub(crate) fn no_such_path() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
        .with_details(StatusDetails::default())
}

/// Returns the status of a path that exists, but not for this method.
pub(crate) fn method_not_allowed() -> Status {
    Status::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
        .with_details(StatusDetails::default())
}

fn retry_later(reason: Reason, message: impl Into<String>) -> Status {
    Status::new(reason, message)
        .with_details(StatusDetails { retry_after_seconds: RETRY_AFTER_SECONDS, ..StatusDetails::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queues_ask_the_client_to_retry() {
        let status = from_store(&StoreError::Overloaded);
        assert_eq!((status.code, status.reason), (429, Reason::TooManyRequests));
        let details = StatusDetails { retry_after_seconds: RETRY_AFTER_SECONDS, ..StatusDetails::default() };
        assert_eq!(status.details.as_deref(), Some(&details));
        assert_eq!(status.to_json()["details"]["retryAfterSeconds"], 1);
    }
}
