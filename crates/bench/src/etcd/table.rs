//! The table for the terminal. This module is pure.

use super::stats::{Results, Side, Spread, Summary, Unit};
use crate::report::Report;

const COLUMNS: [&str; 14] = [
    "workload",
    "unit",
    "etcd",
    "p50",
    "p99",
    "quorate",
    "p50",
    "p99",
    "ratio",
    "of rounds",
    "CPU e",
    "CPU q",
    "MiB e",
    "MiB q",
];

/// Mark of a workload whose clients had errors.
const MARK: &str = " !";

/// Returns a table with a row for each workload. `p50` and `p99` are in milliseconds, `CPU` is seconds of all members
/// per million operations, `MiB` is the peak of the largest member.
pub fn report(results: &Results) -> Report {
    let mut report = Report::new("etcd", &COLUMNS);
    for summary in results.rows.iter().map(Summary::of) {
        report.row(cells(&summary));
        let (etcd, quorate) = summary.errors();
        if etcd + quorate > 0 {
            report.set(&format!("errors[{}]", summary.name), format!("etcd:{etcd},quorate:{quorate}"));
        }
    }
    report
}

fn cells(summary: &Summary) -> Vec<String> {
    let Summary { name, unit, etcd, quorate, ratio } = summary;
    let mark = if summary.errors() == (0, 0) { "" } else { MARK };
    let mut cells = vec![format!("{name}{mark}"), unit.name().to_owned()];
    for side in [etcd, quorate] {
        cells.push(optional(side.map(|side| value(side.value.median, *unit))));
        cells.extend([side.and_then(|side| side.p50_ms), side.and_then(|side| side.p99_ms)].map(milliseconds));
    }
    cells.push(optional(ratio.map(|ratio| format!("{:.2}", ratio.value.median))));
    cells.push(optional(ratio.map(|ratio| ends(ratio.value))));
    for figure in [|side: &Side| side.cpu_s_per_million, |side: &Side| side.peak_mib] {
        cells.extend([etcd, quorate].map(|side| optional(side.as_ref().and_then(figure).map(short))));
    }
    cells
}

/// Formats a value without its unit.
pub fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => format!("{value:.2}"),
        Unit::PerSecond | Unit::Milliseconds | Unit::Mebibytes => short(value),
    }
}

fn milliseconds(value: Option<f64>) -> String {
    optional(value.map(|value| if value < 9.995 { format!("{value:.2}") } else { short(value) }))
}

fn ends(spread: Spread) -> String {
    format!("{:.2}-{:.2}", spread.min, spread.max)
}

fn short(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn optional(text: Option<String>) -> String {
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::stats::{Finding, Sample, System};
    use super::*;

    #[test]
    fn a_row_has_both_systems_and_a_mark_for_errors() {
        let mut results = Results::default();
        for (system, rate, errors) in [(System::Etcd, 9022.0, 0), (System::Quorate, 22_555.0, 2)] {
            let sample = Sample {
                values: vec![rate],
                p50_ms: Some(6.6),
                p99_ms: Some(19.04),
                cpu_s_per_million: Some(142.4),
                client_cpu_s_per_million: None,
                other_cpus: None,
                peak_mib: Some(95.26),
                errors,
            };
            results.add(system, 0, Finding { row: "put".to_owned(), unit: Unit::PerSecond, sample });
        }
        let report = report(&results);
        let row = &report.rows[0];
        let expected = "put !|1/s|9022|6.60|19.0|22555|6.60|19.0|2.50|2.50-2.50|142|142|95.3|95.3";
        assert_eq!(row.join("|"), expected);
        assert_eq!(row.len(), COLUMNS.len());
        assert_eq!(report.setting, [("errors[put]".to_owned(), "etcd:0,quorate:2".to_owned())]);
    }

    #[test]
    fn missing_figures_are_empty() {
        let mut results = Results::default();
        let sample = Sample { values: vec![0.973], ..Sample::default() };
        results.add(System::Quorate, 0, Finding { row: "compacting".to_owned(), unit: Unit::Share, sample });
        assert_eq!(report(&results).rows[0].join("|"), "compacting|share||||0.97||||||||");
    }
}
