//! Report of a run: a table for the terminal and a page with a timeline. This module is pure and returns strings.

mod figures;
mod page;
mod summary;
mod timeline;

pub use figures::Figures;
pub use page::page;
pub use summary::summary;

use crate::checker::{Check, Status};
use crate::history::{Micros, Operation};
use crate::leader::Led;
use crate::nemesis::Account;

/// Content of a report.
pub struct Report<'a> {
    pub seed: u64,
    pub members: usize,
    pub workers: usize,
    /// Other settings, by the names of the command's options.
    pub setting: Vec<(String, String)>,
    pub checks: &'a [Check],
    pub operations: &'a [Operation],
    pub account: &'a Account,
    pub leaders: &'a [Led],
    /// Time at which the schedule ended.
    pub end: Micros,
    /// Faults that this machine does not support, and why.
    pub left_out: &'a [String],
    /// Directory of the saved history.
    pub kept: Option<String>,
}

impl Report<'_> {
    #[must_use]
    pub fn is_violated(&self) -> bool {
        self.checks.iter().any(|check| check.status == Status::Violated)
    }

    /// Command line that repeats the run.
    #[must_use]
    pub fn again(&self) -> String {
        let options = self.setting.iter().map(|(name, value)| format!(" --{name} {value}"));
        format!("./scripts/chaos --seed {}{}", self.seed, options.collect::<String>())
    }

    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::of(self.operations, self.account, self.leaders, self.end)
    }
}

fn sign(status: Status) -> &'static str {
    match status {
        Status::Passed => "ok",
        Status::Violated => "VIOLATED",
        Status::Undecided => "undecided",
    }
}
