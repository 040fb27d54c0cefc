//! This member's vote, and whose vote was its first in the term.

use crate::membership::MemberId;
use crate::raft::types::Vote;

/// The votes of this member that are on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Votes {
    last: Option<Vote>,
    /// The candidate of the first vote in the term of `last`. Unknown after a restart, until the term changes.
    first: Option<MemberId>,
}

impl Votes {
    /// Returns the votes of a member that has started with `last` on its disk.
    pub fn recovered(last: Option<Vote>) -> Self {
        Votes { last, first: None }
    }

    pub fn save(&mut self, vote: Vote) {
        if self.last.is_none_or(|last| last.leader_id.term < vote.leader_id.term) {
            self.first = Some(vote.leader_id.node_id);
        }
        self.last = Some(vote);
    }

    pub fn last(&self) -> Option<Vote> {
        self.last
    }

    /// Returns the last vote if it excludes `vote`: the term is the same, and the first vote of the term was for another
    /// candidate or may have been.
    pub fn excludes(&self, vote: &Vote) -> Option<Vote> {
        self.last.filter(|last| last.leader_id.term == vote.leader_id.term && !self.begin_with(vote))
    }

    /// Returns whether the first vote of the term was for the candidate of `vote`, in the term of `vote`.
    pub fn begin_with(&self, vote: &Vote) -> bool {
        let is_same_term = self.last.is_some_and(|last| last.leader_id.term == vote.leader_id.term);
        is_same_term && self.first == Some(vote.leader_id.node_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_vote_of_a_term_excludes_other_candidates() {
        let mut votes = Votes::default();
        assert_eq!(votes.excludes(&Vote::new(3, 1)), None);
        for later in [Vote::new(3, 1), Vote::new_committed(3, 1), Vote::new(3, 2), Vote::new_committed(3, 2)] {
            votes.save(later);
            assert!(votes.begin_with(&Vote::new(3, 1)) && votes.excludes(&Vote::new(3, 1)).is_none());
            assert!(!votes.begin_with(&Vote::new(3, 2)), "the member may have answered the first candidate");
            assert_eq!(votes.excludes(&Vote::new(3, 2)), Some(later));
        }
        votes.save(Vote::new(4, 2));
        assert!(votes.begin_with(&Vote::new(4, 2)) && votes.excludes(&Vote::new(4, 1)).is_some());
        assert!(!votes.begin_with(&Vote::new(3, 1)), "the vote of an older term cannot be granted any more");
        assert_eq!(votes.excludes(&Vote::new(5, 1)), None);
    }

    #[test]
    fn a_restarted_member_votes_for_nobody_in_the_term_of_its_last_vote() {
        let mut votes = Votes::recovered(Some(Vote::new(3, 2)));
        assert!(votes.excludes(&Vote::new(3, 2)).is_some(), "its first vote of the term may have been for another");
        votes.save(Vote::new(3, 3));
        assert!(!votes.begin_with(&Vote::new(3, 3)));
        assert_eq!(votes.excludes(&Vote::new(4, 1)), None);
        votes.save(Vote::new(4, 1));
        assert!(votes.begin_with(&Vote::new(4, 1)));
    }
}
