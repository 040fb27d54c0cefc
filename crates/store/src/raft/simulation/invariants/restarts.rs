//! A restarted member still has its vote. That it starts at all is checked during the simulation.

use super::Facts;

pub fn check(facts: &Facts) -> Vec<String> {
    let forgotten = facts.restarts.iter().filter(|restart| restart.vote_after < restart.vote_before);
    forgotten
        .map(|restart| {
            let (before, after) = (restart.vote_before, restart.vote_after);
            format!("m{} had voted {before:?} and came back with {after:?}", restart.member)
        })
        .collect()
}
