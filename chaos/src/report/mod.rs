//! What a run found, for people: a table on the terminal and a page with a timeline. Pure: strings come out.

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

/// Everything that a report tells of.
pub struct Report<'a> {
    pub seed: u64,
    pub members: usize,
    pub workers: usize,
    /// What else was set, by the names of the command's options.
    pub setting: Vec<(String, String)>,
    pub checks: &'a [Check],
    pub operations: &'a [Operation],
    pub account: &'a Account,
    pub leaders: &'a [Led],
    /// When the schedule was over.
    pub end: Micros,
    /// What could not be done here, and why.
    pub left_out: &'a [String],
    /// Where the history of a failure is kept.
    pub kept: Option<String>,
}

impl Report<'_> {
    #[must_use]
    pub fn is_violated(&self) -> bool {
        self.checks.iter().any(|check| check.status == Status::Violated)
    }

    /// The command that does it again.
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
