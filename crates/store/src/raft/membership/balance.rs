//! The choice of voters.
//!
//! An even number of voters survives no more failures than the odd one below it. So members gain or lose their votes
//! only when the number stays odd: in pairs, or one for another. A member that is being replaced keeps its vote until
//! its replacement gets one.

use std::collections::BTreeSet;

use super::roster::Roster;
use crate::membership::{Intent, MemberId};
use crate::raft::config::QUORUM_SIZES;

/// Maximum number of voters of a quorum.
const MAX_VOTERS: usize = QUORUM_SIZES[QUORUM_SIZES.len() - 1];

/// Returns the voters that the quorum should have, if they differ from the current ones. `is_ready` tells whether a
/// member has caught up.
#[must_use]
pub fn voters(roster: &Roster, is_ready: impl Fn(MemberId) -> bool) -> Option<BTreeSet<MemberId>> {
    let with = |intent: Intent| roster.members.values().filter(move |member| member.intent == intent).map(|m| m.id);
    let mut coming: Vec<_> = with(Intent::Voter).filter(|id| !roster.voters.contains(id) && is_ready(*id)).collect();
    let mut going: Vec<_> = with(Intent::Leaving).filter(|id| roster.voters.contains(id)).collect();
    let mut voters = roster.voters.clone();
    coming.retain(|id| match replaced_voter(roster, *id) {
        Some(replaced) if voters.remove(&replaced) => {
            going.retain(|id| *id != replaced);
            voters.insert(*id);
            false
        }
        _ => true,
    });
    // The order of arrival is not stored, so it does not matter which members have to wait.
    while !coming.is_empty() && voters.len() + coming.len() > MAX_VOTERS + going.len() {
        coming.pop();
    }
    loop {
        let size = voters.len() + coming.len() - going.len();
        if !size.is_multiple_of(2) {
            break;
        }
        // To stay odd, first a new voter waits; if there is none, a leaving one stays.
        if coming.pop().is_none() && going.pop().is_none() {
            break;
        }
    }
    voters.retain(|id| !going.contains(id));
    voters.extend(coming);
    (voters != roster.voters).then_some(voters)
}

/// Returns the voter that a member replaces. If the replaced member has no vote, follows the chain of members that it
/// was meant to replace.
fn replaced_voter(roster: &Roster, id: MemberId) -> Option<MemberId> {
    let chain = std::iter::successors(roster.replaces(id), |replaced| roster.replaces(*replaced));
    chain.take(roster.members.len()).find(|id| roster.voters.contains(id))
}

/// Returns the members without a vote that are leaving, or whose replacement votes. They can be removed at any time.
#[must_use]
pub fn idle_leavers(roster: &Roster) -> BTreeSet<MemberId> {
    let members = roster.members.values();
    let is_replaced = |id: MemberId| roster.voters.iter().any(|voter| roster.replaces(*voter) == Some(id));
    let leavers = members.filter(|member| member.intent == Intent::Leaving || is_replaced(member.id));
    leavers.map(|member| member.id).filter(|id| !roster.voters.contains(id)).collect()
}

/// Returns the condition that a member waits for before it gets or loses its vote; `None` when it depends on no other
/// member.
#[must_use]
pub fn waits(roster: &Roster, id: MemberId) -> Option<String> {
    let member = roster.members.get(&id)?;
    let now = roster.voters.len();
    let end = voters(roster, |_| true).unwrap_or_else(|| roster.voters.clone());
    match member.intent {
        Intent::Voter if end.contains(&id) => None,
        Intent::Voter if now >= MAX_VOTERS => Some(format!(
            "{} has no vote: at most {MAX_VOTERS} members vote. It votes when one is removed",
            member.name
        )),
        Intent::Voter => Some(format!(
            "{} has no vote yet: {} voters would survive no more failures than {now}. It votes when a second new member \
             has joined, or one is removed",
            member.name,
            now + 1
        )),
        Intent::Learner => Some(format!("{} has no vote until it is promoted", member.name)),
        Intent::Leaving if end.contains(&id) && now == 1 => {
            Some(format!("{} is the only voter: it is removed when a new member has taken its place", member.name))
        }
        Intent::Leaving if end.contains(&id) => Some(format!(
            "{} keeps its vote for now: {} voters would survive no more failures than {}. It is removed when a second \
             member leaves, or a new one has taken its place",
            member.name,
            now - 1,
            now.saturating_sub(2).max(1)
        )),
        Intent::Leaving => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;

    /// Returns a roster of voters and of learners that should vote; the `leaving` ones of both are to be removed.
    fn roster(voters: &[MemberId], learners: &[MemberId], leaving: &[MemberId]) -> Roster {
        let members = voters.iter().chain(learners).map(|id| {
            let intent = if leaving.contains(id) { Intent::Leaving } else { Intent::Voter };
            (*id, Member { id: *id, name: format!("m{id}"), intent, ..Member::default() })
        });
        Roster { members: members.collect(), voters: voters.iter().copied().collect(), ..Roster::default() }
    }

    /// Makes the first member of each pair the replacement of the second.
    fn replacing(mut roster: Roster, pairs: &[(MemberId, MemberId)]) -> Roster {
        for (new, old) in pairs {
            roster.members.get_mut(new).expect("a member").replaces = Some(*old);
        }
        roster
    }

    fn check(voters: &[MemberId], learners: &[MemberId], leaving: &[MemberId], expected: Option<&[MemberId]>) {
        let roster = roster(voters, learners, leaving);
        let expected = expected.map(|ids| ids.iter().copied().collect());
        assert_eq!(super::voters(&roster, |_| true), expected, "{voters:?} {learners:?} {leaving:?}");
    }

    #[test]
    fn the_number_of_voters_stays_odd() {
        check(&[1], &[], &[], None);
        check(&[1], &[2], &[], None);
        check(&[1], &[2, 3], &[], Some(&[1, 2, 3]));
        check(&[1, 2, 3], &[4], &[], None);
        check(&[1, 2, 3], &[4, 5], &[], Some(&[1, 2, 3, 4, 5]));
        check(&[1, 2, 3], &[4, 5, 6], &[], Some(&[1, 2, 3, 4, 5]));
        check(&[1, 2, 3], &[4, 5, 6, 7], &[], Some(&[1, 2, 3, 4, 5, 6, 7]));
        check(&[1, 2, 3, 4, 5, 6, 7], &[8, 9], &[], None);
    }

    #[test]
    fn a_leaving_voter_waits_for_another_to_leave_or_to_join() {
        check(&[1, 2, 3], &[], &[3], None);
        check(&[1, 2, 3], &[4], &[3], Some(&[1, 2, 4]));
        check(&[1, 2, 3], &[], &[2, 3], Some(&[1]));
        check(&[1], &[], &[1], None);
        check(&[1], &[2], &[1], Some(&[2]));
        check(&[1, 2, 3, 4, 5], &[], &[4], None);
        check(&[1, 2, 3, 4, 5], &[], &[4, 5], Some(&[1, 2, 3]));
        check(&[1, 2, 3, 4, 5], &[6], &[4, 5], Some(&[1, 2, 3]));
        check(&[1, 2, 3, 4, 5], &[6, 7], &[4, 5], Some(&[1, 2, 3, 6, 7]));
        check(&[1, 2, 3, 4, 5, 6, 7], &[8], &[7], Some(&[1, 2, 3, 4, 5, 6, 8]));
    }

    #[test]
    fn a_replaced_voter_keeps_its_vote_until_its_replacement_is_ready() {
        let become_of = |voters: &[MemberId], learners: &[MemberId], leaving: &[MemberId], pairs: &[_], ready: &[_]| {
            let roster = replacing(roster(voters, learners, leaving), pairs);
            let voters = super::voters(&roster, |id| ready.contains(&id));
            voters.map(|ids| ids.into_iter().collect::<Vec<_>>()).unwrap_or_default()
        };
        let two = [(4, 2), (5, 3)];
        assert!(become_of(&[1, 2, 3], &[4, 5], &[], &two, &[]).is_empty());
        assert_eq!(become_of(&[1, 2, 3], &[4, 5], &[], &two, &[5]), [1, 2, 5]);
        assert_eq!(become_of(&[1, 2, 3], &[4, 5], &[], &two, &[4, 5]), [1, 4, 5]);
        assert_eq!(become_of(&[1], &[2], &[], &[(2, 1)], &[2]), [2]);
        // A leaving voter without a replacement keeps waiting, and does not pair up with the replaced voter.
        assert!(become_of(&[1, 2, 3, 4, 5], &[6], &[5], &[(6, 4)], &[]).is_empty());
        assert_eq!(become_of(&[1, 2, 3, 4, 5], &[6], &[5], &[(6, 4)], &[6]), [1, 2, 3, 5, 6]);
        assert_eq!(become_of(&[1, 2, 3], &[4], &[2], &[(4, 2)], &[4]), [1, 3, 4]);
        // A place is taken only once, and a replaced member without a vote has no place to take.
        assert_eq!(become_of(&[1, 2, 3], &[4, 5], &[], &[(4, 2), (5, 2)], &[4, 5]), [1, 3, 4]);
        assert!(become_of(&[1, 2, 3], &[4], &[], &[(4, 9)], &[4]).is_empty());
        // The first replacement was lost before it could vote, and is itself replaced.
        assert_eq!(become_of(&[1, 2, 3], &[4, 5], &[], &[(4, 3), (5, 4)], &[5]), [1, 2, 5]);
        let seven = [1, 2, 3, 4, 5, 6, 7];
        assert_eq!(become_of(&seven, &[8], &[], &[(8, 7)], &[8]), [1, 2, 3, 4, 5, 6, 8]);

        let learner_replaced = replacing(roster(&[1, 2, 4], &[3], &[]), &[(4, 3)]);
        assert_eq!(idle_leavers(&learner_replaced), [3].into());
        let awaited = replacing(roster(&[1, 2, 3], &[4], &[]), &[(4, 3)]);
        assert!(idle_leavers(&awaited).is_empty() && waits(&awaited, 4).is_none());
    }

    #[test]
    fn an_even_quorum_becomes_odd() {
        check(&[1, 2], &[3], &[], Some(&[1, 2, 3]));
        check(&[1, 2], &[], &[2], Some(&[1]));
    }

    #[test]
    fn a_member_that_has_not_caught_up_gets_no_vote() {
        let roster = roster(&[1, 2, 3], &[4, 5], &[]);
        assert_eq!(voters(&roster, |id| id != 5), None);
    }

    #[test]
    fn the_condition_that_a_member_waits_for_is_named() {
        let says = |roster: &Roster, id, text: &str| {
            let waits = waits(roster, id).unwrap_or_default();
            assert!(waits.contains(text) && waits.is_empty() == text.is_empty(), "{waits}");
        };
        says(&roster(&[1, 2, 3], &[4], &[]), 4, "4 voters would survive no more failures than 3");
        says(&roster(&[1, 2, 3], &[4, 5], &[]), 4, "");
        says(&roster(&[1, 2, 3], &[], &[3]), 3, "2 voters would survive no more failures than 1");
        says(&roster(&[1, 2, 3], &[4], &[3]), 3, "");
        says(&roster(&[1], &[], &[1]), 1, "the only voter");
    }
}
