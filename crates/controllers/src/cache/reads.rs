//! Notes which kinds are read, so that tests can compare it with what a controller declares.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Cache, CachedKind};

/// The kinds that were read since the last [`Cache::has_read_only`], as bits.
#[derive(Debug, Default)]
pub(super) struct Reads(AtomicU64);

impl Reads {
    pub(super) fn note(&self, kind: CachedKind) {
        self.0.fetch_or(bit(kind), Ordering::Relaxed);
    }
}

fn bit(kind: CachedKind) -> u64 {
    1 << (kind as u64)
}

impl Cache {
    /// Forgets the noted reads and returns whether all of them were of these kinds.
    pub(crate) fn has_read_only(&self, kinds: &[CachedKind]) -> bool {
        let allowed = kinds.iter().fold(0, |bits, kind| bits | bit(*kind));
        self.reads.0.swap(0, Ordering::Relaxed) & !allowed == 0
    }
}
