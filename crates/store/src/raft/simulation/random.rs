//! Randomness that the seed determines.

use std::ops::Range;
use std::time::Duration;

use rand::RngCore;
use rand::distr::{Distribution, StandardUniform};

/// Random number generator that its seed determines (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Returns a second generator that does not depend on the further use of this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Random(self.next_u64())
    }

    pub fn value<T>(&mut self) -> T
    where
        StandardUniform: Distribution<T>,
    {
        StandardUniform.sample(self)
    }

    /// Returns a number in a range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next_u64() % (range.end - range.start)
    }

    /// Returns a position in a list of that length, which must not be 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.next_u64() % length as u64).expect("less than a length")
    }

    /// Returns true with a probability of `percent` percent.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.next_u64() % 100 < percent
    }

    /// Returns a duration of a number of microseconds in the range.
    pub fn micros(&mut self, range: Range<u64>) -> Duration {
        // The resolution is nanoseconds, so that few events happen at the same time.
        Duration::from_nanos(self.within(range.start * 1000..range.end * 1000))
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        self.micros(range.start * 1000..range.end * 1000)
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next_u64() >> 32).expect("a 32-bit half")
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let value = self.next_u64().to_le_bytes();
            part.copy_from_slice(&value[..part.len()]);
        }
    }
}
