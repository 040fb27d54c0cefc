//! A disk that loses what was not synced when the power fails: a file system of ours (FUSE) over a directory.
//!
//! A killed process loses nothing that it has written: its kernel still has it. To see whether a member syncs before it
//! promises, something below it must forget. Writes go through to the directory at once, and what they replace is kept
//! until a sync; a loss of power puts it back, all of it or some sectors of it, as a disk would. The same for names:
//! what was made, moved or removed since a directory was synced. Only for root, and where there is `/dev/fuse`.

mod files;
mod names;
mod requests;
mod tree;
mod unsynced;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use fuser::{BackgroundSession, Config, MountOption};
use nix::mount::{MntFlags, umount2};
use nix::unistd::geteuid;
use rand::rngs::StdRng;

pub use files::Loss;

use self::files::Files;
use self::requests::Requests;
use super::failpoints::Failpoints;
use crate::world::MemberIndex;

/// Syncs of a file must not hold up reads of others.
const THREADS: usize = 4;

/// Mounted until it is dropped.
pub struct LossyDisk {
    at: PathBuf,
    files: Arc<Files>,
    _session: BackgroundSession,
}

impl LossyDisk {
    /// Mounts it at `at`; everything lies below the directory `below`.
    ///
    /// # Errors
    /// When this is not root, or there is no FUSE.
    pub fn mount(
        below: &Path,
        at: &Path,
        member: MemberIndex,
        failpoints: Arc<Failpoints>,
    ) -> anyhow::Result<LossyDisk> {
        ensure!(geteuid().is_root(), "only root can mount a disk");
        let root = below.join("files");
        fs::create_dir_all(&root)?;
        let files = Arc::new(Files::new(&root, &below.join("removed"), member, failpoints)?);
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("quorate-chaos".to_owned())];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Requests(files.clone()), at, &config)
            .with_context(|| format!("cannot mount a disk at {}", at.display()))?;
        Ok(LossyDisk { at: at.to_owned(), files, _session: session })
    }

    /// The power fails. Whoever used the disk is dead.
    ///
    /// # Errors
    /// When something cannot be undone.
    pub fn lose(&self, rng: &mut StdRng) -> anyhow::Result<Loss> {
        self.files.lose(rng).with_context(|| format!("{} cannot lose what was not synced", self.at.display()))
    }

    /// Each read and write takes this much longer from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.files.set_delay(delay);
    }
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        // The members are dead by now; a failure leaves a mount that ends with this process.
        umount2(&self.at, MntFlags::MNT_DETACH).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_mounted_disk_forgets_what_was_not_synced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (below, at) = (dir.path().join("below"), dir.path().join("at"));
        fs::create_dir(&at).expect("a directory");
        // Not everywhere is FUSE, nor root.
        let Ok(disk) = LossyDisk::mount(&below, &at, 0, Arc::new(Failpoints::new(1))) else { return };
        let mut rng = StdRng::seed_from_u64(3);
        let mut log = File::create(at.join("log")).expect("a file");
        log.write_all(&[1; 5000]).expect("written");
        log.sync_data().expect("synced");
        File::open(&at).and_then(|directory| directory.sync_all()).expect("its name is synced");
        fs::create_dir_all(at.join("a/b")).expect("directories");
        fs::write(at.join("a/b/c"), "not synced").expect("written");
        fs::hard_link(at.join("a/b/c"), at.join("a/d")).expect("linked");
        assert_eq!(fs::read_to_string(at.join("a/d")).expect("it is there"), "not synced");
        fs::rename(at.join("log"), at.join("renamed")).expect("moved");
        log.write_all(&[2; 5000]).expect("written");
        assert_eq!(fs::read(at.join("renamed")).expect("it is there").len(), 10_000);
        drop(log);
        let mut lost = Loss::default();
        // A loss may take nothing.
        for _ in 0..20 {
            fs::write(at.join("a/b/c"), "not synced either")
                .or_else(|_| fs::write(at.join("new"), "x"))
                .expect("written");
            let loss = disk.lose(&mut rng).expect("lost");
            (lost.files, lost.names) = (lost.files + loss.files, lost.names + loss.names);
        }
        assert!(lost.files > 0 && lost.names > 0, "{lost:?}");
        let log = fs::read(at.join("log")).or_else(|_| fs::read(at.join("renamed"))).expect("under one of its names");
        assert_eq!(log[..5000], [1; 5000]);
        fs::remove_dir_all(&at).expect_err("the root stays");
        assert_eq!(fs::read_dir(&at).expect("the root").count(), 0);
        drop(disk);
        assert_eq!(fs::read_dir(&at).expect("the directory below").count(), 0);
    }
}
