//! The table on the terminal.

use super::{Report, sign};

/// Returns the summary as text.
#[must_use]
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for injected in &report.account.injected {
        let (from, to) = (injected.from as f64 / 1e6, injected.to as f64 / 1e6);
        line(format!("{from:>8.2} s … {to:>8.2} s  {}", injected.text));
    }
    for reason in report.left_out {
        line(format!("left out: {reason}"));
    }
    line(String::new());
    for (name, value) in report.figures().rows() {
        line(format!("{name}: {value}"));
    }
    line(String::new());
    let width = report.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in report.checks {
        line(format!("{:<9}  {:<width$}  {}", sign(check.status), check.name, check.extent));
        for violation in &check.violations {
            line(format!("    {}", violation.replace('\n', "\n    ")));
        }
    }
    line(String::new());
    let found = if report.is_violated() { "VIOLATED" } else { "no violation" };
    line(format!("seed {}: {found}; again: {}", report.seed, report.again()));
    text
}
