//! Checks that each increment of the counter is acknowledged to the client that made it, and that none is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::history::{Counted, Increment};

/// Checks all increments of a counter that began at zero and ended at `end`, if that is known.
#[must_use]
pub fn check(increments: &[Increment], end: Option<u64>) -> Check {
    const NAME: &str = "an increment over REST counts once, and is acknowledged to its own client";
    let mut violations = Vec::new();
    let (mut acknowledged, mut unknown) = (BTreeMap::new(), BTreeSet::new());
    for increment in increments {
        match increment.counted {
            Counted::Yes => {
                if let Some(other) = acknowledged.insert(increment.to, increment) {
                    violations.push(format!("{other:?} and {increment:?} were both acknowledged"));
                }
            }
            Counted::Unknown => drop(unknown.insert(increment.to)),
            Counted::No => {}
        }
    }
    if let Some(end) = end {
        let lost = acknowledged.values().filter(|increment| increment.to > end);
        violations.extend(lost.map(|increment| format!("the counter is {end} after {increment:?}")));
        let denied = (1..=end).filter(|value| !acknowledged.contains_key(value) && !unknown.contains(value));
        violations.extend(
            denied.map(|value| {
                format!("the counter is {end}, but no client that set it to {value} got an acknowledgement")
            }),
        );
    }
    let of = increments.len();
    let extent =
        format!("{of} increments, {} of them acknowledged, {} unanswered values", acknowledged.len(), unknown.len());
    if violations.is_empty() && acknowledged.is_empty() {
        return Check::undecided(NAME, extent);
    }
    Check::of(NAME, extent, violations)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn increment(to: u64, counted: Counted) -> Increment {
        Increment { client: "c".to_owned(), member: 0, called: 0, returned: 1, to, counted }
    }

    #[test]
    fn increments_that_are_shared_lost_or_denied_are_found() {
        let status = |increments: &[(u64, Counted)], end| {
            let increments: Vec<_> = increments.iter().map(|(to, counted)| increment(*to, *counted)).collect();
            check(&increments, Some(end)).status
        };
        let fair =
            [(1, Counted::Yes), (1, Counted::No), (2, Counted::Unknown), (2, Counted::Yes), (3, Counted::Unknown)];
        assert_eq!(status(&fair, 2), Status::Passed);
        assert_eq!(status(&fair, 3), Status::Passed);
        assert_eq!(status(&fair, 4), Status::Violated, "no client has set it to that value");
        assert_eq!(status(&fair, 1), Status::Violated, "an acknowledged increment is lost");
        let shared = [(1, Counted::Yes), (1, Counted::Yes), (2, Counted::Unknown)];
        assert_eq!(status(&shared, 2), Status::Violated, "two clients got the same increment acknowledged");
        let denied = [(1, Counted::Yes), (2, Counted::No), (3, Counted::Yes), (4, Counted::Unknown)];
        assert_eq!(status(&denied, 3), Status::Violated, "a refused increment has counted");
        assert_eq!(status(&[(1, Counted::Unknown)], 0), Status::Undecided);
    }
}
