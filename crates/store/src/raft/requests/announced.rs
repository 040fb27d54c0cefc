//! The highest commit index that this member, as the leader, has sent to its followers.
//!
//! openraft sends the commit index to the followers before it applies the entries on the leader. A follower may
//! therefore have applied an entry, shown it to a reader and acknowledged it to its caller before the leader has
//! applied it. So a read index must cover both what the leader has applied and the commit index that it has sent.

use std::sync::atomic::{AtomicU64, Ordering};

/// The largest index, 0 for none. It never decreases: a committed entry stays committed, whichever member leads.
#[derive(Debug, Default)]
pub struct Announced(AtomicU64);

impl Announced {
    /// Notes an index before it is sent to anyone.
    pub fn note(&self, committed: Option<u64>) {
        if let Some(index) = committed {
            self.0.fetch_max(index, Ordering::SeqCst);
        }
    }

    /// Returns the highest index that any member may have applied, when this leader has applied up to `applied`.
    #[must_use]
    pub fn at_least(&self, applied: u64) -> u64 {
        self.0.load(Ordering::SeqCst).max(applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_covers_the_announced_and_the_applied_one() {
        let announced = Announced::default();
        announced.note(None);
        assert_eq!(announced.at_least(3), 3);
        announced.note(Some(5));
        announced.note(Some(4));
        assert_eq!(announced.at_least(3), 5);
        assert_eq!(announced.at_least(6), 6);
    }
}
