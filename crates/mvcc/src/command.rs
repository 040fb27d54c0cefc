//! Commands of the state machine, and its replies.
//!
//! Everything that does not follow from the state (lease ids, times) is in the command: the proposer sets it.

use bytes::Bytes;
use quorate_api::Revision;
use serde::{Deserialize, Serialize};

use crate::kv::{KeyRange, KeyValue, LeaseId};

/// A replicated change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Txn(Txn),
    /// Forgets versions older than `revision` that are not the newest of their key.
    Compact {
        revision: Revision,
    },
    /// A new lease; `id` is never [`LeaseId::NONE`].
    LeaseGrant {
        id: LeaseId,
        ttl_seconds: u64,
    },
    /// Restarts the lease's TTL and increments its generation.
    LeaseKeepAlive {
        id: LeaseId,
    },
    /// Ends a lease and deletes its keys. When the leader expires a lease, `generation` is the one that expired, and
    /// the command does nothing if a keep-alive was applied in between. A client's revoke has `None`.
    LeaseRevoke {
        id: LeaseId,
        generation: Option<u64>,
    },
    /// A transaction with an id by which its sender recognizes it when it is applied. The state does not store the id.
    TracedTxn {
        trace: TraceId,
        txn: Txn,
    },
    /// Allows proposals of commands up to this version, because all members can decode them. The allowed version never
    /// decreases.
    RaiseVersion {
        version: CommandVersion,
    },
}

/// Version of the command encoding. A program decodes every command whose version is at most its own. A new command, or
/// a new form of an existing one, gets the next version, and [`CommandVersion::NEWEST`] is raised to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandVersion(pub u32);

impl CommandVersion {
    /// Version in force until the quorum agrees on a newer one.
    pub const FIRST: CommandVersion = CommandVersion(1);
    /// Newest version that this program decodes.
    pub const NEWEST: CommandVersion = CommandVersion(2);
}

impl std::fmt::Display for CommandVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Command {
    /// Returns the first version that has this command.
    #[must_use]
    pub fn version(&self) -> CommandVersion {
        match self {
            Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseKeepAlive { .. }
            | Command::LeaseRevoke { .. }
            | Command::TracedTxn { .. } => CommandVersion::FIRST,
            Command::RaiseVersion { .. } => CommandVersion(2),
        }
    }
}

/// Unique id of a transaction, which stays the same when the transaction is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceId(pub u64);

/// Comparisons that choose one of two lists of operations. The chosen list runs at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub compare: Vec<Compare>,
    /// Runs when every comparison holds.
    pub success: Vec<Op>,
    /// Runs when a comparison does not hold.
    pub failure: Vec<Op>,
}

/// A condition that every key of a range must meet. In a range without keys, revisions, version and lease compare as 0,
/// and a comparison of values fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    pub range: KeyRange,
    pub target: CompareTarget,
    pub operator: CompareOperator,
}

/// The field to compare, and the value to compare it with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    Version(u64),
    CreateRevision(Revision),
    ModRevision(Revision),
    Value(Bytes),
    Lease(LeaseId),
}

/// `actual <operator> given`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareOperator {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(Box<Txn>),
}

/// A read of a range: the keys, the revision, the filters and the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRequest {
    pub range: KeyRange,
    /// [`Revision::ZERO`] reads the newest revision.
    pub revision: Revision,
    /// Maximum number of keys to return; 0 means no limit.
    pub limit: u64,
    pub keys_only: bool,
    pub count_only: bool,
    pub sort: Option<Sort>,
    pub min_mod_revision: Revision,
    pub max_mod_revision: Revision,
    pub min_create_revision: Revision,
    pub max_create_revision: Revision,
}

impl RangeRequest {
    /// A read of the newest version of every key in a range, in key order.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        RangeRequest {
            range,
            revision: Revision::ZERO,
            limit: 0,
            keys_only: false,
            count_only: false,
            sort: None,
            min_mod_revision: Revision::ZERO,
            max_mod_revision: Revision::ZERO,
            min_create_revision: Revision::ZERO,
            max_create_revision: Revision::ZERO,
        }
    }

    /// Whether the request is unsorted and unfiltered, so that it returns the first keys of the range in key order.
    #[must_use]
    pub fn is_in_key_order(&self) -> bool {
        self.sort.is_none() && !self.is_filtered()
    }

    pub(crate) fn is_filtered(&self) -> bool {
        let bounds = [self.min_mod_revision, self.max_mod_revision, self.min_create_revision, self.max_create_revision];
        bounds.iter().any(|bound| !bound.is_zero())
    }

    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }
}

/// Sort order of a range response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    pub by: SortTarget,
    pub descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortTarget {
    Key,
    Version,
    CreateRevision,
    ModRevision,
    Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRequest {
    pub key: Bytes,
    pub value: Bytes,
    pub lease: LeaseId,
    pub prev_kv: bool,
    /// Keeps the current value; the key must exist.
    pub ignore_value: bool,
    /// Keeps the current lease; the key must exist.
    pub ignore_lease: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRequest {
    pub range: KeyRange,
    pub prev_kv: bool,
}

/// Result of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The store's revision after the command.
    pub revision: Revision,
    pub outcome: Result<Outcome, CommandError>,
}

/// Response to each kind of command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Txn(TxnResponse),
    Compact,
    LeaseGrant {
        id: LeaseId,
        ttl_seconds: u64,
    },
    LeaseKeepAlive {
        id: LeaseId,
        ttl_seconds: u64,
    },
    /// `revoked` is false when a keep-alive had raised the generation.
    LeaseRevoke {
        revoked: bool,
    },
    /// The version now in force.
    RaiseVersion {
        version: CommandVersion,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResponse {
    /// Whether every comparison held.
    pub succeeded: bool,
    pub responses: Vec<OpResponse>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResponse {
    Range(RangeResponse),
    Put { prev: Option<KeyValue> },
    Delete { deleted: u64, prev: Vec<KeyValue> },
    Txn(TxnResponse),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResponse {
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left out keys.
    pub more: bool,
    /// Number of keys in the range, regardless of the limit.
    pub count: u64,
    /// The newest revision at the time of the read, even when the request asked for an older one.
    pub revision: Revision,
}

/// Reason for refusing a command. A refused command leaves the state unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CommandError {
    #[error("revision {requested} has been compacted; the oldest kept is {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} is in the future; the newest is {current}")]
    FutureRevision { requested: Revision, current: Revision },
    #[error("lease {} does not exist", .0.0)]
    LeaseNotFound(LeaseId),
    #[error("lease {} exists already", .0.0)]
    LeaseExists(LeaseId),
    #[error("ignore_value or ignore_lease requires an existing key")]
    KeyNotFound,
    #[error("a transaction writes the same key twice")]
    DuplicateKey,
    #[error("empty key")]
    EmptyKey,
    #[error("a value was given together with ignore_value, or a lease with ignore_lease")]
    ValueProvided,
}
