//! Checks on a recorded history. This module is pure.

pub mod adoption;
pub mod availability;
pub mod counters;
pub mod deployments;
pub mod endpoints;
pub mod events;
pub mod hashes;
pub mod informers;
pub mod leases;
pub mod linearizability;
pub mod registers;
pub mod revisions;
pub mod starts;
pub mod statuses;
pub mod strays;
pub mod watches;

#[cfg(test)]
pub(crate) mod workload;

use serde::Serialize;

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    Passed,
    Violated,
    /// There was nothing to check, or the search was too long.
    Undecided,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub name: String,
    pub status: Status,
    /// Amount of data that was checked.
    pub extent: String,
    /// Violations, of which the first few are given in full.
    pub violations: Vec<String>,
}

/// Maximum number of violations in full; more are only counted.
const MAX_REPORTED: usize = 20;

impl Check {
    /// Creates a check that passed if there are no violations.
    #[must_use]
    pub fn of(name: &str, extent: String, mut violations: Vec<String>) -> Self {
        let status = if violations.is_empty() { Status::Passed } else { Status::Violated };
        if violations.len() > MAX_REPORTED {
            let more = violations.len() - MAX_REPORTED;
            violations.truncate(MAX_REPORTED);
            violations.push(format!("… and {more} more"));
        }
        Check { name: name.to_owned(), status, extent, violations }
    }

    #[must_use]
    pub fn undecided(name: &str, extent: String) -> Self {
        Check { name: name.to_owned(), status: Status::Undecided, extent, violations: Vec::new() }
    }
}
