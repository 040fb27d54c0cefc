//! The membership as this member knows it: from its log, and before that has one, from the configured founders.

use std::collections::{BTreeMap, BTreeSet};

use crate::membership::{Intent, Member, MemberId};
use crate::raft::types::{ServerMetrics, StoredMembership};

/// All members, and which of them vote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    pub members: BTreeMap<MemberId, Member>,
    pub voters: BTreeSet<MemberId>,
    /// One more than the index of the log entry of this membership; 0 before there is one.
    pub version: u64,
    /// Whether this is a joint membership, which an unfinished change of voters leaves.
    pub is_joint: bool,
    /// The version of the newest membership that is known to be committed.
    pub committed_version: u64,
    pub committed: BTreeSet<MemberId>,
}

/// The status of the sender of a message, as the receiver's membership has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderStatus {
    Member,
    /// Not a member here; a newer membership may have it.
    Unknown,
    /// A former member. Its id is never used again.
    Removed,
    /// A member under this id has another directory.
    Wiped(Member),
}

impl Roster {
    /// Returns the roster of the founders, for use before the log has a membership.
    #[must_use]
    pub fn founding(founders: &[Member]) -> Self {
        let members: BTreeMap<_, _> = founders.iter().map(|member| (member.id, member.clone())).collect();
        Roster { voters: members.keys().copied().collect(), members, ..Roster::default() }
    }

    /// Returns the roster that an instance reports; `None` while its log has no membership.
    #[must_use]
    pub fn reported(metrics: &ServerMetrics) -> Option<Self> {
        Self::of(&metrics.membership_config, &metrics.committed_membership_config)
    }

    /// Returns the roster of the newest membership in the log and the newest committed one; `None` while the log has no
    /// membership.
    #[must_use]
    pub fn of(stored: &StoredMembership, committed: &StoredMembership) -> Option<Self> {
        stored.voter_ids().next()?;
        Some(Roster {
            members: stored.nodes().map(|(id, member)| (*id, member.clone())).collect(),
            voters: stored.voter_ids().collect(),
            version: version(stored),
            is_joint: stored.membership().get_joint_config().len() > 1,
            committed_version: version(committed),
            committed: committed.nodes().map(|(id, _)| *id).collect(),
        })
    }

    /// Returns the member that this one replaces, if any.
    #[must_use]
    pub fn replaces(&self, id: MemberId) -> Option<MemberId> {
        self.members.get(&id)?.replaces
    }

    /// Returns whether this member is leaving or is being replaced.
    #[must_use]
    pub fn is_to_go(&self, member: &Member) -> bool {
        member.intent == Intent::Leaving || self.members.values().any(|other| other.replaces == Some(member.id))
    }

    #[must_use]
    pub fn is_formed(&self) -> bool {
        self.version > 0
    }

    /// Returns the status of a sender that claims this `id` and `incarnation`, and whose own membership, of `version`
    /// (0 for none), includes itself.
    #[must_use]
    pub fn sender_status(&self, id: MemberId, incarnation: u64, version: u64) -> SenderStatus {
        match self.members.get(&id) {
            Some(member) if self.is_formed() && member.incarnation != incarnation => {
                SenderStatus::Wiped(member.clone())
            }
            Some(_) => SenderStatus::Member,
            // Ids are never reused, so a member of an older membership that is missing from a newer one was removed.
            None if version > 0 && self.committed_version > version && !self.committed.contains(&id) => {
                SenderStatus::Removed
            }
            None => SenderStatus::Unknown,
        }
    }
}

fn version(stored: &StoredMembership) -> u64 {
    stored.log_id().as_ref().map_or(0, |id| id.index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_wiped_senders_are_recognized() {
        let member = |id| Member { id, incarnation: 10 * id, ..Member::default() };
        let roster = Roster {
            version: 9,
            committed_version: 7,
            committed: [1, 2].into(),
            ..Roster::founding(&[member(1), member(2)])
        };
        assert_eq!(roster.sender_status(1, 10, 3), SenderStatus::Member);
        assert_eq!(roster.sender_status(1, 11, 0), SenderStatus::Wiped(member(1)));
        assert_eq!(roster.sender_status(3, 30, 6), SenderStatus::Removed);
        assert_eq!(roster.sender_status(3, 30, 7), SenderStatus::Unknown, "an uncommitted membership may not stay");
        assert_eq!(roster.sender_status(3, 30, 0), SenderStatus::Unknown, "it may be about to join");
        let founding = Roster::founding(&[member(1)]);
        assert_eq!(founding.sender_status(1, 11, 0), SenderStatus::Member, "no incarnation is known yet");
    }
}
