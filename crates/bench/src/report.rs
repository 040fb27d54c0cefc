//! Result of a benchmark: one table, as text and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A table of figures. The names of the columns contain the units.
#[derive(Debug, Serialize)]
pub struct Report {
    pub benchmark: String,
    /// Settings of the benchmark, so that it can be repeated.
    pub setting: Vec<(String, String)>,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Report {
    pub fn new(benchmark: &str, columns: &[&'static str]) -> Self {
        Report { benchmark: benchmark.to_owned(), setting: Vec::new(), columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.setting.push((name.to_owned(), value.to_string()));
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    #[expect(clippy::print_stdout, reason = "the report is what the command is for")]
    pub fn print(&self) {
        let setting = self.setting.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        println!("{} {}", self.benchmark, setting.join(" "));
        let widths = (0..self.columns.len())
            .map(|i| self.rows.iter().map(|row| row[i].len()).chain([self.columns[i].len()]).max().unwrap_or(0))
            .collect::<Vec<_>>();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().enumerate().map(|(i, cell)| match i {
                0 => format!("{cell:<width$}", width = widths[i]),
                _ => format!("{cell:>width$}", width = widths[i]),
            });
            padded.collect::<Vec<_>>().join("  ")
        };
        println!("{}", line(self.columns.clone()));
        for row in &self.rows {
            println!("{}", line(row.iter().map(String::as_str).collect()));
        }
    }
}

/// Histogram of latencies from a microsecond to a minute, with three significant digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        Latencies(Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds are valid"))
    }

    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Latency at a quantile between 0 and 1, in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> String {
        let value = self.0.value_at_quantile(quantile) as f64 / 1000.0;
        format!("{value:.2}")
    }
}

pub fn per_second(count: u64, elapsed: Duration) -> String {
    let rate = count as f64 / elapsed.as_secs_f64();
    format!("{rate:.0}")
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// Median of durations; for an even number the lower of the middle two.
pub fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}
