//! Who is in the quorum and how each member does.

use std::fmt;

use quorate_api::Revision;
use serde::{Deserialize, Serialize};

/// A member's number: chosen at random when it first joins, never used again after it was removed or wiped.
pub type MemberId = u64;

/// One master, as all others know it.
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
    /// The number of its data directory. A member that comes with another one has lost what it promised under this id.
    /// Zero while it is not known: in the list that a quorum is founded with.
    #[serde(default)]
    pub incarnation: u64,
    #[serde(default)]
    pub intent: Intent,
    /// The member that goes in the step in which this one gets its vote.
    #[serde(default)]
    pub replaces: Option<MemberId>,
}

/// What is to become of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// It votes, as soon as it has caught up and the number of voters can be odd with it.
    #[default]
    Voter,
    /// It follows without a vote until it is promoted.
    Learner,
    /// It goes, as soon as the number of voters can be odd without it.
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

/// This member and its quorum, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The same on every member, and different in another quorum.
    pub cluster: u64,
    pub member: MemberId,
}

/// What this member knows of the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<Member>,
    /// This member leads *and* has applied its own first entry: it may schedule and reconcile.
    pub is_active_leader: bool,
}

impl Leadership {
    /// Who leads, and in which term.
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
    /// It did not answer.
    Unreachable,
}

/// What a member cannot mend by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Alarm {
    /// Its disk is full.
    NoSpace,
    /// Its state differs from that of the majority; it is out of service.
    Corrupt,
}

/// A member's own view of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    #[serde(flatten)]
    pub member: Member,
    pub role: MemberRole,
    /// Whether it counts for a majority, by the membership that the answering member knows.
    pub voter: bool,
    pub term: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    /// Log entries behind the leader.
    pub lag: u64,
    pub revision: Revision,
    pub database_size_bytes: u64,
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
    /// The version of commands that all members can decode, as they have agreed.
    #[serde(default)]
    pub command_version: u32,
    pub members: Vec<MemberStatus>,
    /// Who was asked to join and has not come yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invited: Vec<Member>,
}
