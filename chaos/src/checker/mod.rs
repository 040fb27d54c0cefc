//! What a history must fulfil. Pure: a history in, findings out.

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

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    Passed,
    Violated,
    /// There was nothing to check, or too much.
    Undecided,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub name: String,
    pub status: Status,
    /// How much was looked at.
    pub extent: String,
    /// What was found, the first few in full.
    pub violations: Vec<String>,
}

/// Violations beyond this are counted, not told.
const TOLD: usize = 20;

impl Check {
    /// Passed, unless there are violations.
    #[must_use]
    pub fn of(name: &str, extent: String, mut violations: Vec<String>) -> Self {
        let status = if violations.is_empty() { Status::Passed } else { Status::Violated };
        if violations.len() > TOLD {
            let more = violations.len() - TOLD;
            violations.truncate(TOLD);
            violations.push(format!("… and {more} more"));
        }
        Check { name: name.to_owned(), status, extent, violations }
    }

    #[must_use]
    pub fn undecided(name: &str, extent: String) -> Self {
        Check { name: name.to_owned(), status: Status::Undecided, extent, violations: Vec::new() }
    }
}
