//! Confirmation that a leader has not been replaced, by the votes of a quorum.
//!
//! A member stores its vote before it answers a candidate or follows a leader of a later term. So a member whose stored
//! vote is for this leader has neither voted nor followed anyone in a later term. While the votes of a quorum are for
//! this leader, no other leader can have won a later term, and one that wins afterwards starts from all entries
//! committed before. A vote confirms the leader for the moment at which it was read, so that moment must come after the
//! read began. No clock is involved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::membership::MemberId;
use crate::platform::tokio;
use crate::raft::network::client::{Lane, PeerClient};
use crate::raft::network::messages;
use crate::raft::node::Node;
use crate::raft::types::{StoredMembership, Vote};

/// How long to wait for the members that were asked first before the others are asked as well.
const PATIENCE: Duration = Duration::from_millis(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The members that have confirmed a leader.
pub struct Confirmed {
    term: u64,
    leader: MemberId,
    /// The membership as the leader knows it. It may be one change behind; every quorum after that change shares a
    /// member with every quorum before it. It is never further behind, since a leader begins no change before the last
    /// one is committed.
    membership: Arc<StoredMembership>,
    by: BTreeSet<MemberId>,
}

impl Confirmed {
    #[must_use]
    pub fn new(term: u64, leader: MemberId, membership: Arc<StoredMembership>) -> Self {
        Confirmed { term, leader, membership, by: BTreeSet::new() }
    }

    /// Counts a member if its vote is for this leader.
    pub fn add(&mut self, member: MemberId, vote: Option<Vote>) {
        if vote.is_some_and(|vote| (vote.leader_id.term, vote.leader_id.node_id) == (self.term, self.leader)) {
            self.by.insert(member);
        }
    }

    #[must_use]
    pub fn has(&self, member: MemberId) -> bool {
        self.by.contains(&member)
    }

    /// Returns whether the members are a quorum; in a joint membership, a quorum of the old and of the new voters.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        let configs = self.membership.membership().get_joint_config();
        !configs.is_empty() && configs.iter().all(|voters| 2 * voters.intersection(&self.by).count() > voters.len())
    }

    /// Returns the minimum number of voters that must still confirm.
    fn missing(&self) -> usize {
        let configs = self.membership.membership().get_joint_config();
        let missing =
            |voters: &BTreeSet<MemberId>| (voters.len() / 2 + 1).saturating_sub(voters.intersection(&self.by).count());
        configs.iter().map(missing).max().unwrap_or(usize::MAX)
    }
}

/// Asks other voters until enough of them have confirmed: at first as many as are needed, and the rest when one of
/// those is slow or refuses. Returns false when all were asked and too few confirmed.
pub async fn ask(node: &Node, confirmed: &mut Confirmed) -> bool {
    let voters: Vec<MemberId> = confirmed.membership.voter_ids().filter(|id| !confirmed.has(*id)).collect();
    let peers = voters.into_iter().filter_map(|id| node.peers.get(id));
    // Connected voters are asked first.
    let (near, far): (Vec<_>, Vec<_>) = peers.partition(|peer| peer.link(Lane::Control).is_up());
    let mut waiting = near.into_iter().chain(far);
    let mut asked: FuturesUnordered<_> = waiting.by_ref().take(confirmed.missing()).map(vote_of).collect();
    while !confirmed.is_enough() {
        let answer = tokio::time::timeout(PATIENCE, asked.next()).await;
        let is_slow = match answer {
            Ok(Some((member, vote))) => {
                confirmed.add(member, vote);
                !confirmed.has(member)
            }
            Ok(None) => return false,
            Err(_) => true,
        };
        if is_slow {
            asked.extend(waiting.by_ref().map(vote_of));
        }
    }
    true
}

async fn vote_of(peer: PeerClient) -> (MemberId, Option<Vote>) {
    let answer = peer.call::<_, Option<Vote>>(Lane::Control, messages::CONFIRM, &(), ASK_TIMEOUT).await;
    let vote = answer.unwrap_or_else(|error| {
        tracing::debug!(%error, "a member did not confirm this leader");
        None
    });
    (peer.peer.id, vote)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::Membership;

    use super::*;
    use crate::membership::Member;

    fn confirmed(configs: &[&[MemberId]]) -> Confirmed {
        let configs: Vec<BTreeSet<_>> = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
        let nodes: BTreeMap<_, _> = configs.iter().flatten().map(|id| (*id, Member::default())).collect();
        let membership = Membership::new(configs, nodes).expect("each voter has a node");
        Confirmed::new(3, 1, Arc::new(StoredMembership::new(None, membership)))
    }

    fn vote(term: u64, leader: MemberId) -> Option<Vote> {
        Some(Vote::new(term, leader))
    }

    #[test]
    fn only_votes_for_this_leader_in_this_term_count() {
        let mut confirmed = confirmed(&[&[1, 2, 3]]);
        confirmed.add(1, vote(3, 1));
        assert!(confirmed.has(1) && !confirmed.is_enough());
        for other in [vote(4, 1), vote(2, 1), vote(3, 2), None] {
            confirmed.add(2, other);
            assert!(!confirmed.is_enough(), "{other:?}");
        }
        // Member 9 has no vote in the quorum.
        confirmed.add(9, vote(3, 1));
        assert!(!confirmed.is_enough());
        assert_eq!(confirmed.missing(), 1);
        confirmed.add(3, Some(Vote::new_committed(3, 1)));
        assert!(confirmed.is_enough());
    }

    #[test]
    fn a_change_of_members_needs_both_quorums() {
        let mut confirmed = confirmed(&[&[1, 2, 3], &[1, 4, 5]]);
        confirmed.add(1, vote(3, 1));
        confirmed.add(2, vote(3, 1));
        assert!(!confirmed.is_enough());
        confirmed.add(4, vote(3, 1));
        assert!(confirmed.is_enough());
    }

    #[test]
    fn a_lone_member_is_its_own_quorum() {
        let mut lone = confirmed(&[&[1]]);
        assert!(!lone.is_enough());
        lone.add(1, vote(3, 1));
        assert!(lone.is_enough());
        assert!(!confirmed(&[]).is_enough(), "there is no quorum yet");
    }
}
