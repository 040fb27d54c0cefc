//! Key figures of a run.

use crate::checker::availability;
use crate::history::{Micros, Operation, Outcome};
use crate::leader::Led;
use crate::nemesis::Account;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub operations: usize,
    pub done: usize,
    pub refused: usize,
    pub unknown: usize,
    /// Latencies of answered operations at the 50th, 99th and 100th percentile, in microseconds.
    pub read_us: [Micros; 3],
    pub write_us: [Micros; 3],
    /// Number of changes of the world that left a connected majority and were followed by an acknowledged write.
    pub recoveries: usize,
    /// Times from such a change to the write at the 50th and 100th percentile.
    pub recovery_us: [Micros; 2],
    pub terms: usize,
    /// Longest delay of a step of the schedule.
    pub late_ms: u64,
}

impl Figures {
    #[must_use]
    pub fn of(operations: &[Operation], account: &Account, leaders: &[Led], end: Micros) -> Self {
        let count = |wanted: fn(&Outcome) -> bool| operations.iter().filter(|o| wanted(&o.outcome)).count();
        let latencies = |writes: bool| {
            let done = |o: &&Operation| matches!(o.outcome, Outcome::Done { .. }) && o.request.is_write() == writes;
            sorted(operations.iter().filter(done).map(|o| o.returned - o.called))
        };
        let (reads, writes) = (latencies(false), latencies(true));
        let recoveries = sorted(availability::recoveries(&account.changes, operations, end));
        let mut terms: Vec<u64> = leaders.iter().map(|led| led.term).collect();
        terms.sort_unstable();
        terms.dedup();
        Figures {
            operations: operations.len(),
            done: count(|outcome| matches!(outcome, Outcome::Done { .. })),
            refused: count(|outcome| matches!(outcome, Outcome::Refused { .. })),
            unknown: count(|outcome| matches!(outcome, Outcome::Unknown { .. })),
            read_us: [50, 99, 100].map(|percent| quantile(&reads, percent)),
            write_us: [50, 99, 100].map(|percent| quantile(&writes, percent)),
            recoveries: recoveries.len(),
            recovery_us: [50, 100].map(|percent| quantile(&recoveries, percent)),
            terms: terms.len(),
            late_ms: account.late_ms,
        }
    }

    /// Names and values as they are displayed.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let [read_50, read_99, read_100] = self.read_us.map(millis);
        let [write_50, write_99, write_100] = self.write_us.map(millis);
        let [recovery_50, recovery_100] = self.recovery_us.map(millis);
        vec![
            (
                "operations",
                format!("{} (done {}, refused {}, unknown {})", self.operations, self.done, self.refused, self.unknown),
            ),
            ("reads, p50 / p99 / max ms", format!("{read_50} / {read_99} / {read_100}")),
            ("writes, p50 / p99 / max ms", format!("{write_50} / {write_99} / {write_100}")),
            (
                "next write after a change that leaves a majority, p50 / max ms",
                format!("{recovery_50} / {recovery_100} of {}", self.recoveries),
            ),
            ("terms with a leader", self.terms.to_string()),
            ("max delay of a fault, ms", self.late_ms.to_string()),
        ]
    }
}

/// Formats milliseconds with the significant digits.
pub fn millis(micros: Micros) -> String {
    let digits = if micros < 10_000 { 2 } else { usize::from(micros < 100_000) };
    format!("{:.digits$}", micros as f64 / 1000.0)
}

pub fn sorted(values: impl IntoIterator<Item = Micros>) -> Vec<Micros> {
    let mut values: Vec<Micros> = values.into_iter().collect();
    values.sort_unstable();
    values
}

/// The value that `percent` percent of the sorted values do not exceed; zero without values.
pub fn quantile(sorted: &[Micros], percent: usize) -> Micros {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_observed_values() {
        let values = sorted([5, 1, 4, 2, 3]);
        assert_eq!([1, 50, 99, 100].map(|percent| quantile(&values, percent)), [1, 3, 5, 5]);
        assert_eq!(quantile(&[], 50), 0);
        assert_eq!((millis(1234), millis(12_340), millis(1_234_000)), ("1.23".into(), "12.3".into(), "1234".into()));
    }
}
