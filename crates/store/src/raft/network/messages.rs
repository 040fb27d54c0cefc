//! What members say to each other.

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::Reply;
use serde::{Deserialize, Serialize};

use crate::membership::{MemberId, MemberStatus};
use crate::raft::types::{LogId, SnapshotMeta, Vote};

pub const VOTE: &str = "/raft/vote";
pub const PRE_VOTE: &str = "/raft/pre-vote";
pub const TRANSFER_LEADER: &str = "/raft/transfer-leader";
/// A stream of append requests, answered by a stream of results in the same order.
pub const APPEND: &str = "/raft/append";
/// A stream of [`SnapshotPart`]s, answered once.
pub const SNAPSHOT: &str = "/raft/snapshot";
pub const PROPOSE: &str = "/store/propose";
pub const READ_INDEX: &str = "/store/read-index";
pub const STATUS: &str = "/store/status";

/// The cluster and the member that a request is for: who has moved in at an old address must not take it.
pub const CLUSTER_HEADER: &str = "quorate-cluster";
pub const MEMBER_HEADER: &str = "quorate-member";

/// Encoded commands to commit; they may end up in several entries.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProposeRequest {
    pub commands: Vec<Bytes>,
}

/// What became of one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Proposed {
    /// Committed in the entry `index`, and applied by the leader.
    Applied { index: u64, reply: Reply },
    /// Certainly not proposed; perhaps that member leads.
    NotLeader { leader: Option<MemberId> },
    /// Certainly not proposed.
    Overloaded,
    /// It may take effect, or have done so.
    Unknown { reason: String },
}

/// One [`Proposed`] for each command.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProposeResponse {
    pub outcomes: Vec<Proposed>,
}

/// What a linearizable read has to wait for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ReadIndexResponse {
    At(LogId),
    NotLeader {
        leader: Option<MemberId>,
    },
    /// A quorum did not confirm the leader in time.
    NoQuorum,
}

/// A member's own view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusResponse {
    pub status: StatusFields,
    pub leader: Option<MemberId>,
}

/// [`MemberStatus`] as bincode can carry it (it flattens for JSON).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusFields {
    pub member: crate::membership::Member,
    pub role: crate::membership::MemberRole,
    pub term: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub revision: Revision,
    pub database_size_bytes: u64,
}

impl StatusFields {
    #[must_use]
    pub fn into_status(self, lag: u64) -> MemberStatus {
        MemberStatus {
            member: self.member,
            role: self.role,
            term: self.term,
            last_log_index: self.last_log_index,
            applied_index: self.applied_index,
            lag,
            revision: self.revision,
            database_size_bytes: self.database_size_bytes,
        }
    }
}

/// A piece of a snapshot: `Begin`, then for each file `File`, its `Chunk`s and `FileEnd`, then `End`.
#[derive(Debug, Serialize, Deserialize)]
pub enum SnapshotPart {
    Begin { vote: Vote, meta: Box<SnapshotMeta> },
    File { name: String },
    Chunk(Bytes),
    FileEnd { size: u64, crc32: u32 },
    End { files: u32 },
}
