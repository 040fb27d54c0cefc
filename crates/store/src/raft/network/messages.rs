//! The messages between members.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use quorate_api::Revision;
use quorate_mvcc::{CommandVersion, Reply};
use serde::{Deserialize, Serialize};

use crate::changes::{ChangeError, Changed};
use crate::membership::{Alarm, Member, MemberId, MemberStatus};
use crate::raft::codec::{self, CodecError};
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

/// Introduces the sender, and asks whether it is a known member.
pub const HELLO: &str = "/quorum/hello";
/// Asks to join the quorum: a [`JoinRequest`], answered by a [`JoinResponse`].
pub const JOIN: &str = "/quorum/join";
/// Asks the leader to change the quorum: a [`Change`], answered by a [`ChangeResponse`].
pub const CHANGE: &str = "/quorum/change";

/// Asks for the newest [`quorate_mvcc::CommandVersion`] that a member decodes.
pub const COMMANDS: &str = "/quorum/commands";

/// Asks for a hash of the state.
pub const HASH: &str = "/store/hash";
/// Sends the hashes of all members: a [`Comparison`].
pub const COMPARISON: &str = "/store/comparison";

/// Id of the cluster that a request is for. Another member that reuses an old address must refuse the request.
pub const CLUSTER_HEADER: &str = "quorate-cluster";
/// Id of the member that a request is for.
pub const MEMBER_HEADER: &str = "quorate-member";
/// Incarnation of the member that a request is for, as the sender knows it.
pub const INCARNATION_HEADER: &str = "quorate-incarnation";
/// The sender of a request: its id, its incarnation, and the version of the newest membership in its log that includes
/// it, or 0; separated by commas.
pub const SENDER_HEADER: &str = "quorate-sender";

/// The newest command version that a joining member decodes. It is a header, because members of older versions ignore
/// headers that they do not know, and refuse a [`JoinRequest`] that has one field more.
pub const COMMANDS_HEADER: &str = "quorate-commands";

/// The contents of a [`SENDER_HEADER`].
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

/// The answer to a [`HELLO`], with the identity of the member that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloResponse {
    pub id: MemberId,
    pub incarnation: u64,
    /// Whether the sender, with its incarnation, is a member; `None` when the answering member is not in a quorum yet.
    pub knows_sender: Option<bool>,
}

/// A request to join. Members of different versions exchange it, so its encoding must not change: what is added later is
/// sent in a header.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    pub secret: String,
    pub incarnation: u64,
    /// Name of the joining member, for an invitation that has none.
    pub name: String,
    /// Port of its REST API, for an invitation that names no address.
    pub api_port: u16,
    /// Scheme and port of its etcd API, likewise.
    pub etcd: Option<(String, u16)>,
    /// Whether another member has forwarded the request to the leader.
    pub is_forwarded: bool,
    /// The newest command version that it decodes, sent as [`COMMANDS_HEADER`]. A member that does not send it decodes
    /// the first one.
    #[serde(skip, default = "first_commands")]
    pub commands: CommandVersion,
}

fn first_commands() -> CommandVersion {
    CommandVersion::FIRST
}

impl JoinRequest {
    /// Decodes a request and its [`COMMANDS_HEADER`].
    ///
    /// # Errors
    /// When the body is not a request to join.
    pub fn from_parts(headers: &HeaderMap, body: &[u8]) -> Result<JoinRequest, CodecError> {
        let (mut request, used) = codec::decode_prefix::<JoinRequest>(body)?;
        let header = headers.get(COMMANDS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        // Some versions have sent the command version behind the other fields.
        let appended = || codec::decode_prefix(&body[used..]).ok().map(|(version, _)| version);
        if let Some(commands) = header.map(CommandVersion).or_else(appended) {
            request.commands = commands;
        }
        Ok(request)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JoinResponse {
    /// The joining member is a member now, under this id.
    Joined(Member),
    /// The quorum refuses the member for good.
    Refused(String),
    /// The request can be retried.
    NotNow(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ChangeResponse {
    /// The change is in the membership of this version, or in the state; the voters follow later.
    Accepted {
        changed: Changed,
        version: u64,
    },
    Refused(ChangeError),
    NotLeader {
        leader: Option<MemberId>,
    },
}

/// Encoded commands that only the leader of `term` may commit; it may put them into several entries.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProposeRequest {
    pub term: u64,
    pub commands: Vec<Bytes>,
}

/// The outcome of one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Proposed {
    /// Committed in the entry `index`, and applied by the leader.
    Applied { index: u64, reply: Reply },
    /// Certainly not proposed; `leader` may be the current leader.
    NotLeader { leader: Option<MemberId> },
    /// Certainly not proposed.
    Overloaded,
    /// Certainly not proposed: the leader's disk is full.
    NoSpace,
    /// The command may have taken effect, or may still take effect.
    Unknown { reason: String },
    /// Certainly not proposed: the leader, or another member, may not be able to decode it.
    Unsupported { reason: String },
}

/// One [`Proposed`] for each command.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProposeResponse {
    pub outcomes: Vec<Proposed>,
}

/// A request for the read index. The vote confirms the leader for the member that asks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ReadIndexRequest {
    pub member: MemberId,
    pub vote: Option<Vote>,
}

/// The read index of a linearizable read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ReadIndexResponse {
    /// Index of the entry that must be applied before the read.
    At(u64),
    NotLeader {
        leader: Option<MemberId>,
    },
    /// A quorum did not confirm the leader in time.
    NoQuorum,
}

/// The remaining time of a lease.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum LeaseTimeResponse {
    Remaining(Duration),
    /// The lease does not exist, or the leader has not observed it yet.
    Unknown,
    NotLeader,
}

/// A request for the hash of the state at a revision.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HashRequest {
    pub revision: Revision,
}

/// The hash; `None` when the state at that revision cannot be read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HashResponse {
    pub hash: Option<u64>,
}

/// The hashes of the members that answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    pub revision: Revision,
    pub hashes: BTreeMap<MemberId, u64>,
}

/// The status of a member, and the leader that it knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusResponse {
    pub status: StatusFields,
    pub leader: Option<MemberId>,
}

/// [`MemberStatus`] in a form that bincode can encode; `MemberStatus` itself flattens fields for JSON.
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
    pub fn into_status(self, lag: u64, voter: bool, command_version: Option<CommandVersion>) -> MemberStatus {
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
            command_version: command_version.map(|version| version.0),
            alarms: self.alarms,
        }
    }
}

/// A part of a snapshot stream: `Begin`, then for each file `File`, its `Chunk`s and `FileEnd`, then `End`.
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
    fn a_claim_is_parsed_from_its_header() {
        let claim = Claim { member: 7, incarnation: u64::MAX, version: 0 };
        assert_eq!(claim.to_string().parse(), Ok(claim));
        for wrong in ["", "1,2", "1,2,3,4", "1,,3", "a,2,3"] {
            assert!(wrong.parse::<Claim>().is_err(), "{wrong}");
        }
    }

    /// The request of versions before the command versions, and of those that sent the version as a field.
    #[derive(Serialize, Deserialize)]
    struct EarlierRequest {
        secret: String,
        incarnation: u64,
        name: String,
        api_port: u16,
        etcd: Option<(String, u16)>,
        is_forwarded: bool,
    }

    #[derive(Serialize)]
    struct RequestWithField(EarlierRequest, CommandVersion);

    fn earlier() -> EarlierRequest {
        EarlierRequest {
            secret: "s".to_owned(),
            incarnation: 7,
            name: "m2".to_owned(),
            api_port: 6443,
            etcd: Some(("https".to_owned(), 2379)),
            is_forwarded: true,
        }
    }

    #[test]
    fn requests_to_join_are_understood_between_versions() {
        // An older joiner asks this version.
        let body = codec::encode(&earlier()).expect("it encodes");
        let request = JoinRequest::from_parts(&HeaderMap::new(), &body).expect("a request");
        assert_eq!((request.commands, request.name.as_str()), (CommandVersion::FIRST, "m2"));
        let body = codec::encode(&RequestWithField(earlier(), CommandVersion(2))).expect("it encodes");
        let request = JoinRequest::from_parts(&HeaderMap::new(), &body).expect("a request");
        assert_eq!((request.commands, request.api_port), (CommandVersion(2), 6443));
        // A newer joiner, with another field, asks this version.
        let body = codec::encode(&RequestWithField(earlier(), CommandVersion(9))).expect("it encodes");
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static(COMMANDS_HEADER), http::HeaderValue::from(3))]);
        assert_eq!(JoinRequest::from_parts(&headers, &body).expect("a request").commands, CommandVersion(3));
        JoinRequest::from_parts(&headers, &body[..5]).expect_err("half a request");
        // This version asks an older member, which decodes strictly and does not know the header.
        let body = codec::encode(&JoinRequest { commands: CommandVersion::NEWEST, ..request }).expect("it encodes");
        let decoded: EarlierRequest = codec::decode(&body).expect("nothing is left over");
        assert!(decoded.is_forwarded && decoded.incarnation == 7);
    }
}
