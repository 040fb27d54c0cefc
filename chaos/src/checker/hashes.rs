//! Checks that members at the same revision have the same state.

use serde::{Deserialize, Serialize};

use super::Check;
use crate::history::Micros;
use crate::world::MemberIndex;

/// Hashes of one revision, from the members that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    pub at: Micros,
    /// Source of the hashes, `HashKV` or `/quorum/hash`.
    pub of: String,
    pub revision: u64,
    pub hashes: Vec<(MemberIndex, String)>,
}

/// Checks all rounds; the last ones must include all members.
#[must_use]
pub fn check(rounds: &[Round], members: usize) -> Check {
    let mut violations: Vec<String> = rounds
        .iter()
        .filter(|round| round.hashes.windows(2).any(|pair| pair[0].1 != pair[1].1))
        .map(|round| format!("at revision {} the members differ: {:?}", round.revision, round.hashes))
        .collect();
    if rounds.last().is_none_or(|round| round.hashes.len() < members) {
        violations.push("not every member returned a hash after everything was healed".to_owned());
    }
    let compared = rounds.iter().filter(|round| round.hashes.len() > 1).count();
    Check::of("equal revisions have equal hashes on all members", format!("{compared} comparisons"), violations)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn round(hashes: &[(usize, &str)]) -> Round {
        let hashes = hashes.iter().map(|(member, hash)| (*member, (*hash).to_owned())).collect();
        Round { at: 0, of: "HashKV".to_owned(), revision: 5, hashes }
    }

    #[test]
    fn a_member_that_differs_is_found() {
        let equal = round(&[(0, "a"), (1, "a"), (2, "a")]);
        let status = |rounds: &[Round]| check(rounds, 3).status;
        assert_eq!(status(&[round(&[(0, "b")]), equal.clone()]), Status::Passed);
        assert_eq!(status(&[round(&[(0, "a"), (2, "b")]), equal.clone()]), Status::Violated);
        assert_eq!(status(&[equal, round(&[(0, "a"), (1, "a")])]), Status::Violated);
        assert_eq!(status(&[]), Status::Violated);
    }
}
