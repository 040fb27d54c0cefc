//! A term has at most one leader, and all entries of a term are that leader's.

use std::collections::BTreeMap;

use super::Facts;

pub fn check(facts: &Facts) -> Vec<String> {
    let seen = facts.leaders.iter().copied();
    let written = facts.applied.iter().map(|(_, log_id)| (log_id.leader_id.term, log_id.leader_id.node_id));
    let mut leaders = BTreeMap::new();
    let mut problems = Vec::new();
    for (term, member) in seen.chain(written.filter(|(term, _)| *term > 0)) {
        let first = *leaders.entry(term).or_insert(member);
        if first != member {
            problems.push(format!("m{first} and m{member} led term {term}"));
        }
    }
    problems.dedup();
    problems
}
