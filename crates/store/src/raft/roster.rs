//! The membership as this member knows it: what its log says, and before there is any, who it was told.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{ServerMetrics, StoredMembership};
use crate::membership::{Intent, Member, MemberId};

/// All members and who of them votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    pub members: BTreeMap<MemberId, Member>,
    pub voters: BTreeSet<MemberId>,
    /// One more than the index of the log entry that says so; 0 before there is one.
    pub version: u64,
    /// It is half way to another one.
    pub is_joint: bool,
    /// The newest membership that is known to be committed, likewise.
    pub(super) committed_version: u64,
    pub(super) committed: BTreeSet<MemberId>,
}

/// What a member knows of another that talks to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Member,
    /// Perhaps a newer membership has it.
    Unknown,
    /// It was one, and never will be again.
    Removed,
    /// It is one, with another directory.
    Wiped(Member),
}

impl Roster {
    /// Before anything is in the log.
    #[must_use]
    pub fn founding(founders: &[Member]) -> Self {
        let members: BTreeMap<_, _> = founders.iter().map(|member| (member.id, member.clone())).collect();
        Roster { voters: members.keys().copied().collect(), members, ..Roster::default() }
    }

    /// As an instance reports it; `None` while its log says nothing.
    #[must_use]
    pub fn reported(metrics: &ServerMetrics) -> Option<Self> {
        Self::of(&metrics.membership_config, &metrics.committed_membership_config)
    }

    /// From the newest membership in the log and the newest that is committed; `None` while the log says nothing.
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

    /// Whose place this member takes.
    #[must_use]
    pub fn replaces(&self, id: MemberId) -> Option<MemberId> {
        self.members.get(&id)?.replaces
    }

    /// Whether this member goes, or another one comes in its place.
    #[must_use]
    pub fn is_to_go(&self, member: &Member) -> bool {
        member.intent == Intent::Leaving || self.members.values().any(|other| other.replaces == Some(member.id))
    }

    #[must_use]
    pub fn is_formed(&self) -> bool {
        self.version > 0
    }

    /// Judges who calls itself `id` with this incarnation, and has itself in a membership of `version`, if in any.
    #[must_use]
    pub fn standing(&self, id: MemberId, incarnation: u64, version: u64) -> Standing {
        match self.members.get(&id) {
            Some(member) if self.is_formed() && member.incarnation != incarnation => Standing::Wiped(member.clone()),
            Some(_) => Standing::Member,
            // An id is given out once: who is in an older membership and not in a newer one was removed between them.
            None if version > 0 && self.committed_version > version && !self.committed.contains(&id) => {
                Standing::Removed
            }
            None => Standing::Unknown,
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
    fn who_was_removed_or_wiped_is_known_by_it() {
        let member = |id| Member { id, incarnation: 10 * id, ..Member::default() };
        let roster = Roster {
            version: 9,
            committed_version: 7,
            committed: [1, 2].into(),
            ..Roster::founding(&[member(1), member(2)])
        };
        assert_eq!(roster.standing(1, 10, 3), Standing::Member);
        assert_eq!(roster.standing(1, 11, 0), Standing::Wiped(member(1)));
        assert_eq!(roster.standing(3, 30, 6), Standing::Removed);
        assert_eq!(roster.standing(3, 30, 7), Standing::Unknown, "what is not committed may not stay");
        assert_eq!(roster.standing(3, 30, 0), Standing::Unknown, "it may be about to join");
        let founding = Roster::founding(&[member(1)]);
        assert_eq!(founding.standing(1, 11, 0), Standing::Member, "no incarnation is known yet");
    }
}
