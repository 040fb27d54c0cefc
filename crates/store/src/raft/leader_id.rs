//! Leader ids that allow one leader in a term (the Raft paper, section 5.2).
//!
//! openraft's default, `leader_id_adv`, orders the leaders of one term by their ids, so a term may have several. This
//! type orders leaders by their terms alone: two candidates of one term cannot be compared, and a member that has voted
//! for one refuses the other. openraft's `leader_id_std` does the same, but leaves the leader's id out of the ids of
//! log entries. This type is encoded like the default, so that older directories and older members stay readable.

use std::cmp::Ordering;
use std::fmt;

use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::membership::MemberId;

/// A candidate, or a leader that its quorum has not confirmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderId {
    pub term: u64,
    pub node_id: MemberId,
}

/// A leader that a quorum has elected: the only one of its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommittedLeaderId {
    pub term: u64,
    pub node_id: MemberId,
}

impl PartialOrd for LeaderId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.term.cmp(&other.term) {
            Ordering::Equal if self.node_id != other.node_id => None,
            ordering => Some(ordering),
        }
    }
}

impl PartialEq<CommittedLeaderId> for LeaderId {
    fn eq(&self, _: &CommittedLeaderId) -> bool {
        false
    }
}

/// In its term, an elected leader ranks above every candidate.
impl PartialOrd<CommittedLeaderId> for LeaderId {
    fn partial_cmp(&self, other: &CommittedLeaderId) -> Option<Ordering> {
        Some(self.term.cmp(&other.term).then(Ordering::Less))
    }
}

impl RaftLeaderId for LeaderId {
    type Term = u64;
    type NodeId = MemberId;
    type Committed = CommittedLeaderId;

    fn new(term: u64, node_id: MemberId) -> Self {
        LeaderId { term, node_id }
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn node_id(&self) -> &MemberId {
        &self.node_id
    }

    fn to_committed(&self) -> CommittedLeaderId {
        CommittedLeaderId { term: self.term, node_id: self.node_id }
    }
}

impl fmt::Display for LeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}", self.term, self.node_id)
    }
}

impl fmt::Display for CommittedLeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}", self.term, self.node_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::codec;
    use crate::raft::types::{LogId, Vote};

    #[test]
    fn a_vote_for_one_candidate_of_a_term_excludes_the_others() {
        let (first, second) = (Vote::new(3, 1), Vote::new(3, 2));
        assert_eq!(first.partial_cmp(&second), None, "neither is granted after the other");
        assert!(
            Vote::new_committed(3, 1) > second,
            "a member that voted for another candidate follows the elected leader"
        );
        assert!(Vote::new(4, 1) > Vote::new_committed(3, 2) && Vote::new(3, 1) >= first);
        assert!(LeaderId { term: 3, node_id: 9 } < CommittedLeaderId { term: 3, node_id: 1 });
    }

    #[test]
    fn votes_and_log_ids_of_older_directories_are_read() {
        type Older = openraft::impls::leader_id_adv::LeaderId<u64, MemberId>;
        let older = openraft::impls::Vote::<Older> { leader_id: Older { term: 300, node_id: 7 }, committed: true };
        let vote = codec::decode::<Vote>(&codec::encode(&older).expect("it encodes")).expect("it is read");
        assert_eq!(vote, Vote::new_committed(300, 7));
        let older = openraft::LogId::<Older>::new(Older { term: 300, node_id: 7 }, 99);
        let id = codec::decode::<LogId>(&codec::encode(&older).expect("it encodes")).expect("it is read");
        assert_eq!(id, LogId::new(CommittedLeaderId { term: 300, node_id: 7 }, 99));
    }
}
