//! Statistics of the rounds. This module is pure.

use serde::Serialize;

/// Measured system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Etcd,
    Quorate,
}

impl System {
    pub const BOTH: [System; 2] = [System::Etcd, System::Quorate];

    pub fn name(self) -> &'static str {
        match self {
            System::Etcd => "etcd",
            System::Quorate => "quorate",
        }
    }
}

/// Unit of a row's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Fraction of the value of the same load without the row's extra work.
    #[serde(rename = "share")]
    Share,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "1/s",
            Unit::Milliseconds => "ms",
            Unit::Mebibytes => "MiB",
            Unit::Share => "share",
        }
    }

    pub fn more_is_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::Share)
    }
}

/// Result of one round of one workload on one system. Figures that do not apply are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Values in the row's unit; several if a round repeats its measurement.
    pub values: Vec<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// CPU seconds of all members per million operations.
    pub cpu_s_per_million: Option<f64>,
    /// CPU seconds of the load generator per million operations. If it is close to the members' value, it affects the
    /// measurement.
    pub client_cpu_s_per_million: Option<f64>,
    /// Number of CPUs that other load on the machine used; 0.5 is half a CPU.
    pub other_cpus: Option<f64>,
    /// Peak memory of the largest member.
    pub peak_mib: Option<f64>,
    /// Number of failed operations.
    pub errors: u64,
}

/// A sample and its row.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub row: String,
    pub unit: Unit,
    pub sample: Sample,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Round {
    pub round: usize,
    #[serde(flatten)]
    pub sample: Sample,
}

/// One workload with all rounds on both systems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub name: String,
    pub unit: Unit,
    pub etcd: Vec<Round>,
    pub quorate: Vec<Round>,
}

/// All workloads in the order of their first measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Results {
    pub rows: Vec<Row>,
}

impl Results {
    pub fn add(&mut self, system: System, round: usize, finding: Finding) {
        let Finding { row: name, unit, sample } = finding;
        let place = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name, unit, etcd: Vec::new(), quorate: Vec::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        let rounds = match system {
            System::Etcd => &mut row.etcd,
            System::Quorate => &mut row.quorate,
        };
        rounds.push(Round { round, sample });
    }

    /// Number of CPUs that other load used, over all measurements that have this figure.
    pub fn other_cpus(&self) -> Option<Spread> {
        let rounds = self.rows.iter().flat_map(|row| row.etcd.iter().chain(&row.quorate));
        Spread::of(rounds.filter_map(|round| round.sample.other_cpus))
    }
}

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Returns the spread of the values; `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let [low, high] = [(sorted.len() - 1) / 2, sorted.len() / 2];
        Some(Spread { median: f64::midpoint(sorted[low], sorted[high]), min, max })
    }
}

/// Medians of the rounds of one system in one row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Side {
    pub value: Spread,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub cpu_s_per_million: Option<f64>,
    pub client_cpu_s_per_million: Option<f64>,
    pub peak_mib: Option<f64>,
    /// Errors in all rounds.
    pub errors: u64,
}

impl Side {
    fn of(rounds: &[Round]) -> Option<Side> {
        let median = |of: fn(&Sample) -> Option<f64>| {
            Spread::of(rounds.iter().filter_map(|round| of(&round.sample))).map(|spread| spread.median)
        };
        Some(Side {
            value: Spread::of(rounds.iter().flat_map(|round| round.sample.values.iter().copied()))?,
            p50_ms: median(|sample| sample.p50_ms),
            p99_ms: median(|sample| sample.p99_ms),
            cpu_s_per_million: median(|sample| sample.cpu_s_per_million),
            client_cpu_s_per_million: median(|sample| sample.client_cpu_s_per_million),
            peak_mib: median(|sample| sample.peak_mib),
            errors: rounds.iter().map(|round| round.sample.errors).sum(),
        })
    }
}

/// Ratios of Quorate's figures to etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratios {
    /// Ratio of the medians; minimum and maximum are those of the ratios within one round.
    pub value: Spread,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub cpu: Option<f64>,
    pub peak: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub name: String,
    pub unit: Unit,
    pub etcd: Option<Side>,
    pub quorate: Option<Side>,
    pub ratio: Option<Ratios>,
}

impl Summary {
    pub fn of(row: &Row) -> Summary {
        let (etcd, quorate) = (Side::of(&row.etcd), Side::of(&row.quorate));
        let ratio = etcd.zip(quorate).and_then(|(etcd, quorate)| ratios(row, &etcd, &quorate));
        Summary { name: row.name.clone(), unit: row.unit, etcd, quorate, ratio }
    }

    /// Numbers of errors of etcd's clients and of Quorate's clients.
    pub fn errors(&self) -> (u64, u64) {
        let of = |side: &Option<Side>| side.map_or(0, |side| side.errors);
        (of(&self.etcd), of(&self.quorate))
    }
}

fn ratios(row: &Row, etcd: &Side, quorate: &Side) -> Option<Ratios> {
    let middle = |round: &Round| Spread::of(round.sample.values.iter().copied()).map(|spread| spread.median);
    let within_rounds = row.quorate.iter().filter_map(|quorate| {
        let etcd = row.etcd.iter().find(|etcd| etcd.round == quorate.round)?;
        divide(middle(quorate), middle(etcd))
    });
    let ends = Spread::of(within_rounds)?;
    Some(Ratios {
        value: Spread { median: divide(Some(quorate.value.median), Some(etcd.value.median))?, ..ends },
        p50: divide(quorate.p50_ms, etcd.p50_ms),
        p99: divide(quorate.p99_ms, etcd.p99_ms),
        cpu: divide(quorate.cpu_s_per_million, etcd.cpu_s_per_million),
        peak: divide(quorate.peak_mib, etcd.peak_mib),
    })
}

fn divide(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let ratio = a? / b?;
    ratio.is_finite().then_some(ratio)
}

/// Value at a quantile between 0 and 1 by nearest rank; `None` without values.
pub fn quantile(sorted: &[u32], quantile: f64) -> Option<u32> {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().checked_sub(1)?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(results: &mut Results, system: System, round: usize, value: f64, errors: u64) {
        let sample = Sample { values: vec![value], p99_ms: Some(value / 10.0), errors, ..Sample::default() };
        results.add(system, round, Finding { row: "put".to_owned(), unit: Unit::PerSecond, sample });
    }

    #[test]
    fn quantiles_are_observed_values() {
        let sorted: Vec<u32> = (1..=100).collect();
        assert_eq!(quantile(&sorted, 0.5), Some(50));
        assert_eq!(quantile(&sorted, 0.99), Some(99));
        assert_eq!(quantile(&sorted, 1.0), Some(100));
        assert_eq!(quantile(&sorted, 0.0), Some(1));
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn the_ratio_is_of_medians_and_its_spread_of_paired_rounds() {
        let mut results = Results::default();
        for (round, (etcd, quorate)) in [(100.0, 250.0), (200.0, 400.0), (100.0, 300.0)].into_iter().enumerate() {
            add(&mut results, System::Etcd, round, etcd, 0);
            add(&mut results, System::Quorate, round, quorate, 1);
        }
        // A round that only one system finished.
        add(&mut results, System::Etcd, 3, 100.0, 0);
        let summary = Summary::of(&results.rows[0]);
        let ratio = summary.ratio.expect("both systems have rounds");
        assert_eq!(ratio.value, Spread { median: 3.0, min: 2.0, max: 3.0 });
        assert_eq!(ratio.p99, Some(3.0));
        assert_eq!(ratio.cpu, None);
        assert_eq!(summary.errors(), (0, 3));
    }

    #[test]
    fn a_single_system_has_no_ratio() {
        let mut results = Results::default();
        add(&mut results, System::Quorate, 0, 1.0, 0);
        let summary = Summary::of(&results.rows[0]);
        assert!(summary.ratio.is_none() && summary.etcd.is_none() && summary.quorate.is_some());
    }
}
