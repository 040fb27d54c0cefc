//! How a leader knows that it has not been replaced: by the votes of a quorum.
//!
//! A member whose vote, as it stands on its disk, is for a leader has voted for nobody in a later term, nor followed
//! anyone there: it stores such a vote before it answers. So while a quorum's votes are for this leader, no other can
//! have won a later term; and whoever wins one afterwards starts from all that was committed before. A vote confirms for
//! the moment at which it was read, so that moment must come after the read began. No clock has a part in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::network::client::{Lane, PeerClient};
use super::network::messages;
use super::node::Node;
use super::types::{StoredMembership, Vote};
use crate::membership::MemberId;
use crate::platform::tokio;

/// When those that were asked first have not all answered by then, the others are asked as well.
const PATIENCE: Duration = Duration::from_millis(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Who has confirmed a leader.
pub struct Confirmed {
    term: u64,
    leader: MemberId,
    /// As the leader knows it. When that is behind by a change, every quorum after the change has a member in common
    /// with every quorum before it; it is never behind by more, since a leader begins no change before the last one is
    /// committed.
    membership: Arc<StoredMembership>,
    by: BTreeSet<MemberId>,
}

impl Confirmed {
    #[must_use]
    pub fn new(term: u64, leader: MemberId, membership: Arc<StoredMembership>) -> Self {
        Confirmed { term, leader, membership, by: BTreeSet::new() }
    }

    /// Counts a member in if its vote is for this leader.
    pub fn add(&mut self, member: MemberId, vote: Option<Vote>) {
        if vote.is_some_and(|vote| (vote.leader_id.term, vote.leader_id.node_id) == (self.term, self.leader)) {
            self.by.insert(member);
        }
    }

    #[must_use]
    pub fn has(&self, member: MemberId) -> bool {
        self.by.contains(&member)
    }

    /// Whether they are a quorum; while the members change, one of the old and one of the new.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        let configs = self.membership.membership().get_joint_config();
        !configs.is_empty() && configs.iter().all(|voters| 2 * voters.intersection(&self.by).count() > voters.len())
    }

    /// How many more voters must confirm at least.
    fn missing(&self) -> usize {
        let configs = self.membership.membership().get_joint_config();
        let missing =
            |voters: &BTreeSet<MemberId>| (voters.len() / 2 + 1).saturating_sub(voters.intersection(&self.by).count());
        configs.iter().map(missing).max().unwrap_or(usize::MAX)
    }
}

/// Asks other voters until they are enough: as many as are needed at first, the others when one of these is slow.
/// False when all have been asked and they are not.
pub async fn ask(node: &Node, confirmed: &mut Confirmed) -> bool {
    let voters: Vec<MemberId> = confirmed.membership.voter_ids().filter(|id| !confirmed.has(*id)).collect();
    let peers = voters.into_iter().filter_map(|id| node.peers.get(id));
    // Those that are connected first.
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
        tracing::debug!(%error, "a leader is not confirmed");
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
        // One that has no vote in the quorum.
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
