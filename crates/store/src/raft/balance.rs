//! Which members should vote.
//!
//! An even number of voters survives no more failures than the odd one below it. So whoever comes or goes does so when
//! the number stays odd: in pairs, or one for another.

use std::collections::BTreeSet;

use super::roster::Roster;
use crate::membership::{Intent, MemberId};

/// The most voters that a quorum has.
const MAX_VOTERS: usize = 7;

/// The voters as they should be, if they should be others. `is_ready` says who has caught up.
#[must_use]
pub fn voters(roster: &Roster, is_ready: impl Fn(MemberId) -> bool) -> Option<BTreeSet<MemberId>> {
    let with = |intent: Intent| roster.members.values().filter(move |member| member.intent == intent).map(|m| m.id);
    let mut coming: Vec<_> = with(Intent::Voter).filter(|id| !roster.voters.contains(id) && is_ready(*id)).collect();
    let mut going: Vec<_> = with(Intent::Leaving).filter(|id| roster.voters.contains(id)).collect();
    // First come, first served would need an order of arrival; any order will do.
    while !coming.is_empty() && roster.voters.len() + coming.len() > MAX_VOTERS + going.len() {
        coming.pop();
    }
    loop {
        let size = roster.voters.len() + coming.len() - going.len();
        if !size.is_multiple_of(2) {
            break;
        }
        // One more can wait; who goes should not leave before there is someone else.
        if coming.pop().is_none() && going.pop().is_none() {
            return None;
        }
    }
    let mut voters = roster.voters.clone();
    voters.retain(|id| !going.contains(id));
    voters.extend(coming);
    (voters != roster.voters).then_some(voters)
}

/// Members without a vote that were told to go: they can at any time.
#[must_use]
pub fn idle_leavers(roster: &Roster) -> BTreeSet<MemberId> {
    let members = roster.members.values();
    let leavers = members.filter(|member| member.intent == Intent::Leaving && !roster.voters.contains(&member.id));
    leavers.map(|member| member.id).collect()
}

/// What a member waits for before it gets, or loses, its vote; `None` when it need not wait long.
#[must_use]
pub fn waits(roster: &Roster, id: MemberId) -> Option<String> {
    let member = roster.members.get(&id)?;
    let now = roster.voters.len();
    let end = voters(roster, |_| true).unwrap_or_else(|| roster.voters.clone());
    match member.intent {
        Intent::Voter if end.contains(&id) => None,
        Intent::Voter if now >= MAX_VOTERS => {
            Some(format!("{} has no vote: {MAX_VOTERS} voters are the most. It votes when one is removed", member.name))
        }
        Intent::Voter => Some(format!(
            "{} has no vote yet: {} voters would survive no more failures than {now}. It votes when a second new member \
             has come, or one is removed",
            member.name,
            now + 1
        )),
        Intent::Learner => Some(format!("{} has no vote until it is promoted", member.name)),
        Intent::Leaving if end.contains(&id) && now == 1 => {
            Some(format!("{} is the only voter: it goes when a new member has come in its place", member.name))
        }
        Intent::Leaving if end.contains(&id) => Some(format!(
            "{} keeps its vote for now: {} voters would survive no more failures than {}. It goes when a second member is \
             removed, or a new one has come in its place",
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

    /// Voters, learners that want a vote, and those of both that leave.
    fn roster(voters: &[MemberId], learners: &[MemberId], leaving: &[MemberId]) -> Roster {
        let members = voters.iter().chain(learners).map(|id| {
            let intent = if leaving.contains(id) { Intent::Leaving } else { Intent::Voter };
            (*id, Member { id: *id, name: format!("m{id}"), intent, ..Member::default() })
        });
        Roster { members: members.collect(), voters: voters.iter().copied().collect(), ..Roster::default() }
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
    fn who_goes_waits_for_another_to_go_or_to_come() {
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
    fn an_even_quorum_becomes_odd() {
        check(&[1, 2], &[3], &[], Some(&[1, 2, 3]));
        check(&[1, 2], &[], &[2], Some(&[1]));
    }

    #[test]
    fn who_is_not_ready_does_not_count() {
        let roster = roster(&[1, 2, 3], &[4, 5], &[]);
        assert_eq!(voters(&roster, |id| id != 5), None);
    }

    #[test]
    fn what_is_waited_for_is_said() {
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
