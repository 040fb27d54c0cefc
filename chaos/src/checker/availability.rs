//! Checks that writes are accepted while a connected majority runs.

use super::Check;
use crate::history::{Micros, Operation};
use crate::nemesis::{Change, ServiceLevel};

/// Time until the next acknowledged write after each change of the world that left a connected majority. Changes that
/// were followed too soon by another one are left out.
#[must_use]
pub fn recoveries(changes: &[Change], operations: &[Operation], end: Micros) -> Vec<Micros> {
    let acks = acknowledged(operations);
    let recovery = |(from, to): (Micros, Micros)| {
        let first = acks.iter().find(|(called, returned)| *called >= from && *returned <= to)?;
        Some(first.1 - from)
    };
    required(changes, end).into_iter().filter_map(recovery).collect()
}

/// Call and return times of acknowledged writes, sorted by return.
fn acknowledged(operations: &[Operation]) -> Vec<(Micros, Micros)> {
    let mut acks: Vec<(Micros, Micros)> =
        operations.iter().filter(|o| o.has_written()).map(|o| (o.called, o.returned)).collect();
    acks.sort_by_key(|(_, returned)| *returned);
    acks
}

/// Periods in which writes must be accepted and the world does not change.
fn required(changes: &[Change], end: Micros) -> Vec<(Micros, Micros)> {
    let ends = changes.iter().skip(1).map(|next| next.at).chain(std::iter::once(end));
    let stretches = changes.iter().zip(ends);
    stretches
        .filter(|(change, _)| change.service == ServiceLevel::Required)
        .map(|(change, to)| (change.at, to))
        .collect()
}

/// Checks that in each period the time between acknowledged writes never exceeds `bound`.
#[must_use]
pub fn check(changes: &[Change], operations: &[Operation], end: Micros, bound: Micros) -> Check {
    let acks = acknowledged(operations);
    let mut violations = Vec::new();
    let mut looked_at = 0;
    for (from, to) in required(changes, end) {
        if to.saturating_sub(from) < bound {
            continue;
        }
        looked_at += 1;
        let first = acks.partition_point(|(_, returned)| *returned < from);
        let inside = acks[first..].iter().take_while(|(_, returned)| *returned <= to);
        let returns = inside.filter(|(called, _)| *called >= from).map(|(_, returned)| *returned);
        let mut last = from;
        for at in returns.chain(std::iter::once(to)) {
            if at - last > bound {
                let seconds = (at - last) / 1_000_000;
                violations.push(format!(
                    "a connected majority ran, but no write was accepted for {seconds} s from {last} µs on"
                ));
            }
            last = at;
        }
    }
    let extent = format!("{looked_at} periods longer than {} s", bound / 1_000_000);
    Check::of("a connected majority accepts writes", extent, violations)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use crate::history::{Api, Outcome, Transaction};

    const S: Micros = 1_000_000;

    fn write(called: Micros) -> Operation {
        Operation {
            client: "c".to_owned(),
            api: Api::Etcd,
            object: "a".to_owned(),
            member: 0,
            called,
            returned: called + 1000,
            request: Transaction::put("a", "x"),
            outcome: Outcome::Done { succeeded: true, observed: Vec::new(), revision: 1 },
        }
    }

    fn change(at: Micros, service: ServiceLevel) -> Change {
        Change { at, service }
    }

    #[test]
    fn periods_without_writes_count_only_with_a_connected_majority() {
        use ServiceLevel::{Degraded, Impossible, Required};
        let writes: Vec<Operation> = (0..10).chain(30..40).map(|second| write(second * S)).collect();
        let status = |changes: &[Change]| check(changes, &writes, 40 * S, 5 * S).status;
        assert_eq!(status(&[change(0, Required)]), Status::Violated);
        assert_eq!(
            status(&[change(0, Required), change(10 * S, Impossible), change(28 * S, Required)]),
            Status::Passed
        );
        assert_eq!(status(&[change(0, Required), change(10 * S, Degraded), change(28 * S, Required)]), Status::Passed);
        assert_eq!(
            status(&[change(0, Required), change(10 * S, Impossible), change(20 * S, Required)]),
            Status::Violated
        );
    }

    #[test]
    fn recoveries_are_measured() {
        use ServiceLevel::{Impossible, Required};
        let writes: Vec<Operation> = [1, 12].map(|second| write(second * S)).to_vec();
        let changes = [change(0, Required), change(5 * S, Impossible), change(10 * S, Required)];
        assert_eq!(recoveries(&changes, &writes, 20 * S), vec![S + 1000, 2 * S + 1000]);
    }
}
