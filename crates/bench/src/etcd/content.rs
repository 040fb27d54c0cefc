//! Keys and values, derived from numbers. This module is pure.

use std::sync::Arc;

/// Number of keys that puts overwrite and gets read.
pub const KEYS: u64 = 10_000;
/// Number of keys in one range.
pub const RANGE_KEYS: u64 = 1000;

const POOL_BYTES: usize = 1 << 20;

/// The SplitMix64 generator, which is fast and deterministic.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Incompressible values: slices of one random block.
#[derive(Clone)]
pub struct Values {
    pool: Arc<[u8]>,
    bytes: usize,
}

impl Values {
    /// Creates values of `bytes` bytes, at most 512 KiB.
    pub fn new(bytes: usize) -> Self {
        let mut random = Random(1);
        let pool = (0..POOL_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Values { pool, bytes: bytes.min(POOL_BYTES / 2) }
    }

    pub fn pick(&self, random: &mut Random) -> Vec<u8> {
        let at = (random.next() % (POOL_BYTES - self.bytes) as u64) as usize;
        self.pool[at..at + self.bytes].to_vec()
    }
}

pub fn key(number: u64) -> Vec<u8> {
    format!("/bench/keys/{number:08}").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        let (values, mut random) = (Values::new(256), Random(7));
        let picked: HashSet<Vec<u8>> = (0..1000).map(|_| values.pick(&mut random)).collect();
        assert_eq!(picked.len(), 1000);
        assert!(picked.iter().all(|value| value.len() == 256));
    }

    #[test]
    fn keys_are_in_the_order_of_their_numbers() {
        assert!(key(9) < key(10) && key(99_999) < key(1_000_000));
        assert_eq!(key(0).len(), key(9_999_999).len());
    }
}
