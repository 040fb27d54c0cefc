//! Nobody's increment is counted for another's, and none is lost.

use std::collections::HashMap;

use super::Check;
use crate::history::{Counted, Increment};

/// Checks all increments of a counter that began at zero and has come to `end`.
#[must_use]
pub fn check(increments: &[Increment], end: u64) -> Check {
    let count = |counted| increments.iter().filter(|increment| increment.counted == counted).count() as u64;
    let (acknowledged, unknown) = (count(Counted::Yes), count(Counted::Unknown));
    let mut violations = Vec::new();
    let mut counted: HashMap<u64, &Increment> = HashMap::new();
    for increment in increments.iter().filter(|increment| increment.counted == Counted::Yes) {
        if let Some(other) = counted.insert(increment.to, increment) {
            violations.push(format!("{other:?} and {increment:?} were both acknowledged"));
        }
    }
    if end < acknowledged || end > acknowledged + unknown {
        violations
            .push(format!("it is {end} after {acknowledged} acknowledged increments and {unknown} unanswered ones"));
    }
    let extent = format!("{} increments, {acknowledged} of them acknowledged, {unknown} unanswered", increments.len());
    Check::of("an increment over REST counts once, and for whom it is acknowledged", extent, violations)
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
            check(&increments, end).status
        };
        let fair =
            [(1, Counted::Yes), (1, Counted::No), (2, Counted::Unknown), (2, Counted::Yes), (3, Counted::Unknown)];
        assert_eq!(status(&fair, 2), Status::Passed);
        assert_eq!(status(&fair, 3), Status::Passed);
        assert_eq!(status(&fair, 4), Status::Passed, "the clients cannot tell");
        assert_eq!(status(&fair, 5), Status::Violated, "one that was refused has counted");
        assert_eq!(status(&fair, 1), Status::Violated, "an acknowledged one is lost");
        let shared = [(1, Counted::Yes), (1, Counted::Yes), (2, Counted::Unknown)];
        assert_eq!(status(&shared, 2), Status::Violated, "two for one");
    }
}
