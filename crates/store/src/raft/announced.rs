//! How far this member has told others, as their leader, that they may apply.
//!
//! openraft tells the followers before it applies itself. So one of them may have applied an entry, shown it to a reader,
//! and acknowledged it to whoever handed it in there, when the leader has not yet. What the leader has applied is
//! therefore not enough for a read; what it has told as well is.

use std::sync::atomic::{AtomicU64, Ordering};

/// The largest index, 0 for none. It is for good: what is committed stays so, whoever leads.
#[derive(Debug, Default)]
pub struct Announced(AtomicU64);

impl Announced {
    /// Notes an index before it is sent to anyone.
    pub fn note(&self, committed: Option<u64>) {
        if let Some(index) = committed {
            self.0.fetch_max(index, Ordering::SeqCst);
        }
    }

    /// The index up to which others may have applied when this member, which leads and has applied up to `applied`, is
    /// asked.
    #[must_use]
    pub fn at_least(&self, applied: u64) -> u64 {
        self.0.load(Ordering::SeqCst).max(applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_counts_and_never_less() {
        let announced = Announced::default();
        announced.note(None);
        assert_eq!(announced.at_least(3), 3);
        announced.note(Some(5));
        announced.note(Some(4));
        assert_eq!(announced.at_least(3), 5);
        assert_eq!(announced.at_least(6), 6);
    }
}
