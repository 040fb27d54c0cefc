//! What members say to each other.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{CommandVersion, Reply};
use serde::{Deserialize, Serialize};

use crate::changes::{ChangeError, Changed};
use crate::membership::{Alarm, Member, MemberId, MemberStatus};
use crate::raft::types::{SnapshotMeta, Vote};

pub const VOTE: &str = "/raft/vote";
pub const PRE_VOTE: &str = "/raft/pre-vote";
pub const TRANSFER_LEADER: &str = "/raft/transfer-leader";
/// A stream of append requests, answered by a stream of results in the same order.
pub const APPEND: &str = "/raft/append";
/// A stream of [`SnapshotPart`]s, answered once.
pub const SNAPSHOT: &str = "/raft/snapshot";
pub const PROPOSE: &str = "/store/propose";
pub const READ_INDEX: &str = "/store/read-index";
/// Asks for a member's vote as it stands on its disk.
pub const CONFIRM: &str = "/store/confirm";
pub const STATUS: &str = "/store/status";
/// Asks for the time that a [`quorate_mvcc::LeaseId`] has left.
pub const LEASE_TIME: &str = "/store/lease-time";

/// Tells who one is, and asks whether one is known.
pub const HELLO: &str = "/quorum/hello";
/// Asks to be let in.
pub const JOIN: &str = "/quorum/join";
/// Asks the leader to change the quorum: a [`Change`], answered by a [`ChangeResponse`].
pub const CHANGE: &str = "/quorum/change";

/// Asks for the newest [`quorate_mvcc::CommandVersion`] that a member decodes.
pub const COMMANDS: &str = "/quorum/commands";

/// Asks for a hash of the state.
pub const HASH: &str = "/store/hash";
/// Tells what all members answered.
pub const COMPARISON: &str = "/store/comparison";

/// The cluster and the member that a request is for: who has moved in at an old address must not take it.
pub const CLUSTER_HEADER: &str = "quorate-cluster";
pub const MEMBER_HEADER: &str = "quorate-member";
/// The incarnation that a request is for, as the sender knows it.
pub const INCARNATION_HEADER: &str = "quorate-incarnation";
/// Who sends a request: its id, its incarnation, and the index of the newest membership in its log that has it, or 0;
/// with commas between them.
pub const SENDER_HEADER: &str = "quorate-sender";

/// What is in a [`SENDER_HEADER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub member: MemberId,
    pub incarnation: u64,
    pub version: u64,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.member, self.incarnation, self.version)
    }
}

impl FromStr for Claim {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split(',').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or("a malformed sender");
        let claim = Claim { member: next()?, incarnation: next()?, version: next()? };
        if numbers.next().is_none() { Ok(claim) } else { Err("a malformed sender") }
    }
}

/// Who answers a [`HELLO`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloResponse {
    pub id: MemberId,
    pub incarnation: u64,
    /// Whether the sender, with its incarnation, is a member; `None` from someone who is not in a quorum yet.
    pub knows_sender: Option<bool>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    pub secret: String,
    pub incarnation: u64,
    /// What it calls itself.
    pub name: String,
    /// Ports of its APIs, for an invitation that names no address: REST, and etcd with its scheme.
    pub api_port: u16,
    pub etcd: Option<(String, u16)>,
    /// By a member that took the addressee for the leader.
    pub is_forwarded: bool,
    /// What it decodes.
    pub commands: CommandVersion,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JoinResponse {
    /// It is a member now, under this id.
    Joined(Member),
    /// It will not be let in.
    Refused(String),
    /// Not now.
    NotNow(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ChangeResponse {
    /// It is in the membership of this version, or in the state; who votes follows from it.
    Accepted {
        changed: Changed,
        version: u64,
    },
    Refused(ChangeError),
    NotLeader {
        leader: Option<MemberId>,
    },
}

/// Encoded commands to commit, by who leads in `term` or nobody; they may end up in several entries.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProposeRequest {
    pub term: u64,
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
    /// Certainly not proposed: the leader's disk is full.
    NoSpace,
    /// It may take effect, or have done so.
    Unknown { reason: String },
    /// Certainly not proposed: the leader, or another member, may not be able to decode it.
    Unsupported { reason: String },
}

/// One [`Proposed`] for each command.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProposeResponse {
    pub outcomes: Vec<Proposed>,
}

/// A member asks for the read index, and shows its vote.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ReadIndexRequest {
    pub member: MemberId,
    pub vote: Option<Vote>,
}

/// What a linearizable read has to wait for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ReadIndexResponse {
    /// The entry that must have been applied.
    At(u64),
    NotLeader {
        leader: Option<MemberId>,
    },
    /// A quorum did not confirm the leader in time.
    NoQuorum,
}

/// How long a lease has left.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum LeaseTimeResponse {
    Remaining(Duration),
    /// It is newer than the last look at the clock, or there is none.
    Unknown,
    NotLeader,
}

/// At which revision to hash.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HashRequest {
    pub revision: Revision,
}

/// `None`: the state cannot be read as it was at that revision.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HashResponse {
    pub hash: Option<u64>,
}

/// The hashes of those members that answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    pub revision: Revision,
    pub hashes: BTreeMap<MemberId, u64>,
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
    pub member: Member,
    pub role: crate::membership::MemberRole,
    pub term: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub revision: Revision,
    pub database_size_bytes: u64,
    pub alarms: Vec<Alarm>,
}

impl StatusFields {
    #[must_use]
    pub fn into_status(self, lag: u64, voter: bool) -> MemberStatus {
        MemberStatus {
            member: self.member,
            role: self.role,
            voter,
            term: self.term,
            last_log_index: self.last_log_index,
            applied_index: self.applied_index,
            lag,
            revision: self.revision,
            database_size_bytes: self.database_size_bytes,
            alarms: self.alarms,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_survives_its_header() {
        let claim = Claim { member: 7, incarnation: u64::MAX, version: 0 };
        assert_eq!(claim.to_string().parse(), Ok(claim));
        for wrong in ["", "1,2", "1,2,3,4", "1,,3", "a,2,3"] {
            assert!(wrong.parse::<Claim>().is_err(), "{wrong}");
        }
    }
}
