//! A disk that loses unsynced writes when the power fails: a FUSE file system over a directory.
//!
//! A killed process loses nothing that it has written, because the kernel still has it. This disk checks that a member
//! syncs before it acknowledges. Writes go through to the directory at once, and the replaced data is kept until a
//! sync. A power loss restores all of that data or some sectors of it, as on a real disk. The same holds for names that
//! were created, moved or removed since a directory was synced. It needs root and `/dev/fuse`.

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

/// Threads that serve requests, so that a sync of one file does not block reads of others.
const THREADS: usize = 4;

/// A lossy disk, mounted until it is dropped.
pub struct LossyDisk {
    at: PathBuf,
    files: Arc<Files>,
    _session: BackgroundSession,
}

impl LossyDisk {
    /// Mounts the disk at `at`, with its data in the directory `below`.
    ///
    /// # Errors
    /// When the process is not root, or there is no FUSE.
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

    /// Simulates a power loss. All processes that used the disk must be dead.
    ///
    /// # Errors
    /// When a change cannot be undone.
    pub fn lose(&self, rng: &mut StdRng) -> anyhow::Result<Loss> {
        self.files.lose(rng).with_context(|| format!("{} cannot discard unsynced writes", self.at.display()))
    }

    /// Sets the extra delay of each read and write.
    pub fn set_delay(&self, delay: Duration) {
        self.files.set_delay(delay);
    }
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        // The members are dead by now. A failed unmount leaves a mount that ends with this process.
        umount2(&self.at, MntFlags::MNT_DETACH).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};

    use nix::fcntl::{FallocateFlags, fallocate};
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use rand::SeedableRng;

    use super::*;

    /// Mounts a disk in a directory of its own; returns `None` and says so when that is not possible here.
    #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
    fn mounted(dir: &Path) -> Option<(LossyDisk, PathBuf)> {
        match mount_in_own_namespace(dir) {
            Ok(mounted) => Some(mounted),
            Err(error) => {
                eprintln!("skipped, because nothing can be mounted here: {error:#}");
                None
            }
        }
    }

    /// Mounts the disk in a mount namespace of its own, so that a killed test leaves no mount.
    fn mount_in_own_namespace(dir: &Path) -> anyhow::Result<(LossyDisk, PathBuf)> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
        let at = dir.join("at");
        fs::create_dir(&at)?;
        let disk = LossyDisk::mount(&dir.join("below"), &at, 0, Arc::new(Failpoints::new(1)))?;
        Ok((disk, at))
    }

    #[test]
    fn a_disk_supports_the_operations_of_a_database() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Some((disk, at)) = mounted(dir.path()) else { return };
        let read = |name: &str| fs::read_to_string(at.join(name)).expect("text");
        fs::write(at.join("a"), "one").expect("written");
        let mut end = OpenOptions::new().append(true).open(at.join("a")).expect("a file");
        end.write_all(b", two").expect("written");
        OpenOptions::new()
            .append(true)
            .open(at.join("a"))
            .and_then(|mut file| file.write_all(b", three"))
            .expect("written");
        end.write_all(b", four").expect("written");
        assert_eq!(read("a"), "one, two, three, four");
        // A replaced or removed file can still be read through an open handle.
        let mut old = File::open(at.join("a")).expect("a file");
        fs::write(at.join("b"), "new").expect("written");
        fs::rename(at.join("b"), at.join("a")).expect("moved");
        assert_eq!((old.metadata().expect("a length").len(), read("a").len()), (21, 3));
        let mut text = String::new();
        old.read_to_string(&mut text).expect("text");
        assert_eq!(text, "one, two, three, four");
        end.set_len(3).expect("cut");
        assert_eq!((old.metadata().expect("a length").len(), read("a").as_str()), (3, "new"));
        fs::hard_link(at.join("a"), at.join("link")).expect("linked");
        fs::remove_file(at.join("a")).expect("removed");
        assert_eq!(read("link"), "new");
        let space = File::create(at.join("space")).expect("a file");
        fallocate(&space, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 50_000).expect("space");
        fallocate(&space, FallocateFlags::empty(), 0, 10_000).expect("space");
        assert_eq!(space.metadata().expect("a length").len(), 10_000);
        fs::copy(at.join("link"), at.join("copy")).expect("copied");
        assert_eq!(read("copy"), "new");
        drop(disk);
    }

    #[test]
    fn a_file_that_was_open_at_a_power_loss_is_writable_afterwards() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Some((disk, at)) = mounted(dir.path()) else { return };
        let mut rng = StdRng::seed_from_u64(4);
        fs::write(at.join("file"), "old").expect("written");
        File::open(at.join("file")).and_then(|file| file.sync_all()).expect("synced");
        File::open(&at).and_then(|directory| directory.sync_all()).expect("its name is synced");
        for round in 0..20 {
            // The file stays open, like that of a dead process that the kernel has not closed yet.
            let mut open = OpenOptions::new().append(true).open(at.join("file")).expect("a file");
            open.write_all(b", more").expect("written");
            disk.lose(&mut rng).expect("lost");
            fs::write(at.join("file"), format!("{round}")).expect("written");
            drop(open);
            assert_eq!(fs::read_to_string(at.join("file")).expect("text"), format!("{round}"));
            let file = OpenOptions::new().write(true).open(at.join("file")).expect("a file");
            file.sync_all().expect("synced");
            disk.lose(&mut rng).expect("lost");
            assert_eq!(fs::read_to_string(at.join("file")).expect("text"), format!("{round}"));
        }
    }

    #[test]
    fn a_power_loss_discards_unsynced_writes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Some((disk, at)) = mounted(dir.path()) else { return };
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
        // A single loss may take nothing, so repeat it.
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

    #[test]
    fn an_emptied_disk_stays_empty_after_a_power_loss() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Some((disk, at)) = mounted(dir.path()) else { return };
        let mut rng = StdRng::seed_from_u64(5);
        for _ in 0..10 {
            fs::create_dir(at.join("store")).expect("a directory");
            fs::write(at.join("store/identity"), "m1").expect("written");
            crate::cluster::process::empty(&at).expect("emptied");
            disk.lose(&mut rng).expect("lost");
            assert_eq!(fs::read_dir(&at).expect("the root").count(), 0);
        }
    }
}
