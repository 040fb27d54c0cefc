//! While a majority runs and hears itself, writes are taken.

use super::Check;
use crate::history::{Micros, Operation};
use crate::nemesis::{Change, ServiceLevel};

/// How long the quorum took until it acknowledged a write again, after each change of the world that left a connected
/// majority, where the world stayed like that for long enough to see.
#[must_use]
pub fn recoveries(changes: &[Change], operations: &[Operation], end: Micros) -> Vec<Micros> {
    let acks = acknowledged(operations);
    let recovery = |(from, to): (Micros, Micros)| {
        let first = acks.iter().find(|(called, returned)| *called >= from && *returned <= to)?;
        Some(first.1 - from)
    };
    required(changes, end).into_iter().filter_map(recovery).collect()
}

/// Calls and returns of the acknowledged writes, by return.
fn acknowledged(operations: &[Operation]) -> Vec<(Micros, Micros)> {
    let mut acks: Vec<(Micros, Micros)> =
        operations.iter().filter(|o| o.has_written()).map(|o| (o.called, o.returned)).collect();
    acks.sort_by_key(|(_, returned)| *returned);
    acks
}

/// The stretches in which writes must be taken and nothing changes.
fn required(changes: &[Change], end: Micros) -> Vec<(Micros, Micros)> {
    let ends = changes.iter().skip(1).map(|next| next.at).chain(std::iter::once(end));
    let stretches = changes.iter().zip(ends);
    stretches
        .filter(|(change, _)| change.service == ServiceLevel::Required)
        .map(|(change, to)| (change.at, to))
        .collect()
}

/// In each such stretch a write is acknowledged within `bound`, and then again and again.
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
                    "a connected majority lived, but no write was taken for {seconds} s from {last} µs on"
                ));
            }
            last = at;
        }
    }
    let extent = format!("{looked_at} stretches longer than {} s", bound / 1_000_000);
    Check::of("a connected majority takes writes", extent, violations)
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
    fn silence_counts_only_where_a_majority_lives() {
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
