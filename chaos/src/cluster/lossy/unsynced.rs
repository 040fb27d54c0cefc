//! Unsynced changes of one file: the durable content of each changed page is kept from its first change until a sync.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use rand::Rng;
use rand::rngs::StdRng;

const PAGE_BYTES: u64 = 4096;
/// Unit that a disk writes atomically.
const SECTOR_BYTES: u64 = 512;

/// A file, and its durable content.
#[derive(Debug)]
pub struct Unsynced {
    file: File,
    /// Durable length of the file.
    durable_bytes: u64,
    /// Durable content of the pages that were changed since, up to the durable length.
    pages: BTreeMap<u64, Vec<u8>>,
    /// Time of the oldest change that is not durable.
    since: Option<Instant>,
}

impl Unsynced {
    /// A file whose first `durable_bytes` bytes are durable with their current content.
    #[must_use]
    pub fn new(file: File, durable_bytes: u64) -> Self {
        Unsynced { file, durable_bytes, pages: BTreeMap::new(), since: None }
    }

    /// Marks the whole content as durable.
    ///
    /// # Errors
    /// When the file's length cannot be read.
    pub fn synced(&mut self) -> io::Result<()> {
        self.durable_bytes = self.file.metadata()?.len();
        self.pages.clear();
        self.since = None;
        Ok(())
    }

    /// Writes to the file; the change is not durable until a sync.
    ///
    /// # Errors
    /// Those of reading the replaced data, and of writing.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.keep(at, at + bytes.len() as u64)?;
        self.since.get_or_insert_with(Instant::now);
        self.file.write_all_at(bytes, at)
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// Those of reading the data that is cut off, and of setting the length.
    pub fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.keep(length, self.durable_bytes)?;
        self.since.get_or_insert_with(Instant::now);
        self.file.set_len(length)
    }

    /// Allocates space; `is_longer` says whether that extends the file.
    ///
    /// # Errors
    /// Those of `fallocate`.
    pub fn allocate(&mut self, at: u64, length: u64, is_longer: bool) -> io::Result<()> {
        let flags = if is_longer { FallocateFlags::empty() } else { FallocateFlags::FALLOC_FL_KEEP_SIZE };
        if is_longer {
            self.since.get_or_insert_with(Instant::now);
        }
        let (at, length) = (i64::try_from(at), i64::try_from(length));
        fallocate(&self.file, flags, at.map_err(io::Error::other)?, length.map_err(io::Error::other)?)?;
        Ok(())
    }

    /// Whether the file has unsynced changes and still has a name.
    #[must_use]
    pub fn is_at_risk(&self) -> bool {
        let is_there = self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        is_there && self.since.is_some()
    }

    /// Whether the file has unsynced changes older than `age`.
    #[must_use]
    pub fn is_older_than(&self, age: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() > age)
    }

    /// Keeps the durable content of the pages of a range, unless it is kept already.
    fn keep(&mut self, from: u64, to: u64) -> io::Result<()> {
        let to = to.min(self.durable_bytes);
        let pages = if from < to { from / PAGE_BYTES..to.div_ceil(PAGE_BYTES) } else { 0..0 };
        for page in pages {
            if self.pages.contains_key(&page) {
                continue;
            }
            let length = PAGE_BYTES.min(self.durable_bytes - page * PAGE_BYTES);
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, page * PAGE_BYTES)?;
            self.pages.insert(page, bytes);
        }
        Ok(())
    }

    /// Simulates a power loss: discards all unsynced changes or some sectors of them. Returns whether there were any.
    ///
    /// # Errors
    /// When the durable content cannot be restored.
    pub fn lose(&mut self, rng: &mut StdRng) -> io::Result<bool> {
        if self.since.is_none() {
            return Ok(false);
        }
        let all = rng.random_bool(0.5);
        let is_lost = |rng: &mut StdRng| all || rng.random_bool(0.5);
        let length = self.file.metadata()?.len();
        let (shorter, longer) = (length.min(self.durable_bytes), length.max(self.durable_bytes));
        let left = if all { self.durable_bytes } else { rng.random_range(shorter..=longer) };
        // Cut first, so that the file is extended again with zeros.
        self.file.set_len(left.min(length))?;
        self.file.set_len(left)?;
        for (page, bytes) in std::mem::take(&mut self.pages) {
            for (i, sector) in bytes.chunks(SECTOR_BYTES as usize).enumerate() {
                let at = page * PAGE_BYTES + i as u64 * SECTOR_BYTES;
                // Data beyond the current length has no newer content that could survive.
                if at < left && (at >= length || is_lost(rng)) {
                    let fits = usize::try_from(left - at).map_or(sector.len(), |room| room.min(sector.len()));
                    self.file.write_all_at(&sector[..fits], at)?;
                }
            }
        }
        let mut at = self.durable_bytes;
        while at < left {
            let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(left);
            if is_lost(rng) {
                self.file.write_all_at(&vec![0; usize::try_from(end - at).map_err(io::Error::other)?], at)?;
            }
            at = end;
        }
        self.synced()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn file() -> Unsynced {
        Unsynced::new(tempfile::tempfile().expect("a temporary file"), 0)
    }

    fn content(unsynced: &Unsynced) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(unsynced.file.metadata().expect("a length").len()).expect("short")];
        unsynced.file.read_exact_at(&mut bytes, 0).expect("all of it");
        bytes
    }

    #[test]
    fn synced_data_survives_a_power_loss() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut file = file();
            file.write(0, &[1; 10_000]).expect("written");
            file.synced().expect("synced");
            assert!(!file.lose(&mut rng).expect("nothing to lose"));
            file.write(9_000, &[2; 5000]).expect("written");
            assert!(file.lose(&mut rng).expect("something to lose"));
            let found = content(&file);
            assert!((10_000..=14_000).contains(&found.len()), "seed {seed}: {}", found.len());
            assert_eq!(found[..9_000], [1; 9_000], "seed {seed}");
            assert!(found[9_000..10_000].iter().all(|byte| [1, 2].contains(byte)), "seed {seed}");
            assert!(found[10_000..].iter().all(|byte| [0, 2].contains(byte)), "seed {seed}");
        }
    }

    #[test]
    fn a_power_loss_takes_all_some_or_no_changes() {
        let outcome = |seed| {
            let mut file = file();
            file.write(0, &[1; 2048]).expect("written");
            file.synced().expect("synced");
            file.write(0, &[2; 2048]).expect("written");
            file.lose(&mut StdRng::seed_from_u64(seed)).expect("lost");
            content(&file).iter().filter(|byte| **byte == 2).count()
        };
        let left: Vec<usize> = (0..50).map(outcome).collect();
        assert!(left.contains(&0) && left.iter().any(|count| *count > 0), "{left:?}");
    }

    #[test]
    fn an_unsynced_truncation_can_be_lost() {
        let seen = |seed| {
            let mut file = file();
            file.write(0, &[1; 6000]).expect("written");
            file.synced().expect("synced");
            file.set_len(100).expect("cut");
            file.write(100, &[2; 50]).expect("written");
            file.lose(&mut StdRng::seed_from_u64(seed)).expect("lost");
            let found = content(&file);
            assert_eq!(found[..100], [1; 100]);
            // The sector with the new end may have survived; it ends in zeros.
            assert!(found[512.min(found.len())..].iter().all(|byte| *byte == 1), "{seed}: {found:?}");
            found.len()
        };
        let lengths: Vec<usize> = (0..50).map(seen).collect();
        assert!(lengths.contains(&6000), "{lengths:?}");
    }
}
