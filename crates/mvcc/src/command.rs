//! What can be asked of the state machine, and what it answers.
//!
//! Everything that is not a function of the state (lease ids, times) is in the command: the proposer stamps it.

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
    /// Starts the lease's lifetime anew, which raises its generation.
    LeaseKeepAlive {
        id: LeaseId,
    },
    /// Ends a lease and deletes its keys. From the leader's expiry it carries the generation that was seen to expire
    /// and does nothing when a keep-alive came in between; from a client it carries `None`.
    LeaseRevoke {
        id: LeaseId,
        generation: Option<u64>,
    },
    /// A transaction that whoever sent it can tell from all others, when it is applied. The state does not keep the trace.
    TracedTxn {
        trace: TraceId,
        txn: Txn,
    },
    /// From now on commands up to this version may be proposed: all members can decode them. It never goes back.
    RaiseVersion {
        version: CommandVersion,
    },
}

/// Which commands a program can decode: all whose version is not above its own. A new command, or a new form of one that
/// there is, gets the next version; then [`CommandVersion::NEWEST`] is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandVersion(pub u32);

impl CommandVersion {
    /// That of a quorum that has not agreed on another.
    pub const FIRST: CommandVersion = CommandVersion(1);
    /// What this program decodes.
    pub const NEWEST: CommandVersion = CommandVersion(2);
}

impl std::fmt::Display for CommandVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Command {
    /// The first version with this command.
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

/// Which transaction a command is, each time that it is sent: a number that nobody else uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceId(pub u64);

/// Compare, then one of two lists of operations, all at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub compare: Vec<Compare>,
    /// When every comparison holds.
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// A condition on each key of a range; on a single key that does not exist, revisions and version are 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    pub range: KeyRange,
    pub target: CompareTarget,
    pub operator: CompareOperator,
}

/// What is compared, and with what.
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

/// Which keys and versions to read, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRequest {
    pub range: KeyRange,
    /// [`Revision::ZERO`]: the newest.
    pub revision: Revision,
    /// 0: no limit.
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
    /// All newest versions in a range, in key order.
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

    /// Whether it wants all keys of the range, up to the limit, in the order in which they are stored.
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

/// An order other than that of the keys.
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
    /// Keep the value that is there; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease that is there; the key must exist.
    pub ignore_lease: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRequest {
    pub range: KeyRange,
    pub prev_kv: bool,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The store's revision after the command.
    pub revision: Revision,
    pub outcome: Result<Outcome, CommandError>,
}

/// The answer to each kind of command.
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
    /// `revoked` is false when the generation had moved on.
    LeaseRevoke {
        revoked: bool,
    },
    /// The version that holds now.
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
    /// Keys were left out because of the limit.
    pub more: bool,
    /// All keys in the range, whatever the limit.
    pub count: u64,
    /// The revision of the state that was read (not of a historical request's target).
    pub revision: Revision,
}

/// Why a command was refused; the state is unchanged.
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
    #[error("the key to keep the value or lease of does not exist")]
    KeyNotFound,
    #[error("a transaction writes the same key twice")]
    DuplicateKey,
    #[error("empty key")]
    EmptyKey,
    #[error("a value was given together with ignore_value, or a lease with ignore_lease")]
    ValueProvided,
}
