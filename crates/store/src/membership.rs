//! Members of the quorum and their status.

use std::fmt;

use quorate_api::Revision;
use serde::{Deserialize, Serialize};

/// Id of a member. It is chosen at random when the member first joins, and never reused after the member was removed or
/// wiped.
pub type MemberId = u64;

/// A master, as the other members know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub id: MemberId,
    pub name: String,
    /// `host:port` of the peer transport.
    pub peer: String,
    /// `https://host:port` of the REST API.
    pub api: String,
    /// `https://host:port` of the etcd API; empty when it is not served.
    #[serde(default)]
    pub etcd: String,
    /// Random number of its data directory. A member that returns with another one has lost the votes and entries that
    /// it had acknowledged under this id. Zero means unknown, as in the list that a quorum is founded with.
    #[serde(default)]
    pub incarnation: u64,
    #[serde(default)]
    pub intent: Intent,
    /// The member that is removed in the same step in which this one gets its vote.
    #[serde(default)]
    pub replaces: Option<MemberId>,
}

/// Desired role of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// The member votes as soon as it has caught up and the number of voters can be odd with it.
    #[default]
    Voter,
    /// The member follows without a vote until it is promoted.
    Learner,
    /// The member is removed as soon as the number of voters can be odd without it.
    Leaving,
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Intent::Voter => "voter",
            Intent::Learner => "learner",
            Intent::Leaving => "leaving",
        })
    }
}

/// Ids of this member and of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the cluster, which is the same on every member.
    pub cluster: u64,
    pub member: MemberId,
}

/// The leader as far as this member knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<Member>,
    /// Whether this member leads *and* has applied its own first entry, so that it may schedule and reconcile.
    pub is_active_leader: bool,
}

impl Leadership {
    /// The leader's id, and the term.
    #[must_use]
    pub fn leader_and_term(&self) -> (Option<MemberId>, u64) {
        (self.leader.as_ref().map(|leader| leader.id), self.term)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    Leader,
    Follower,
    Candidate,
    Learner,
    /// The member did not respond.
    Unreachable,
}

/// A problem that a member cannot repair by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Alarm {
    /// The member's disk is full.
    NoSpace,
    /// The member's state differs from the majority's, so it is out of service.
    Corrupt,
}

/// Status of a member, as it reports itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    #[serde(flatten)]
    pub member: Member,
    pub role: MemberRole,
    /// Whether it counts towards a majority, according to the membership that the responding member knows.
    pub voter: bool,
    pub term: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    /// Number of log entries that it is behind the leader.
    pub lag: u64,
    pub revision: Revision,
    pub database_size_bytes: u64,
    /// The newest command version that it decodes, if it has reported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_version: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
}

/// The quorum as `qctl quorum` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuorumStatus {
    /// The leader's name, when there is one.
    pub leader: Option<String>,
    pub term: u64,
    /// The command version that the quorum has agreed on, which all members can decode.
    #[serde(default)]
    pub command_version: u32,
    pub members: Vec<MemberStatus>,
    /// Invited members that have not joined yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invited: Vec<Member>,
}
