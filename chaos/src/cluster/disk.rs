//! A small disk for one member, that can be filled and freed: a tmpfs, so only for root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

/// More than a run needs; the rest is filled by [`SmallDisk::fill`].
const SIZE: &str = "size=1g";
const BALLAST: &str = "ballast";
const PAGE_BYTES: usize = 4096;
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_millis(200);

/// Mounted until it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts it over the directory `at`.
    ///
    /// # Errors
    /// When this is not root, or may not mount.
    pub fn mount(at: &Path) -> anyhow::Result<SmallDisk> {
        ensure!(geteuid().is_root(), "only root can mount a small disk");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(SIZE))
            .with_context(|| format!("cannot mount a tmpfs at {}", at.display()))?;
        Ok(SmallDisk { at: at.to_owned() })
    }

    /// Takes every byte that is free. Whoever frees some meanwhile may get it back: this is to be called again.
    ///
    /// # Errors
    /// When the file that takes them cannot be written for another reason than that the disk is full.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(self.at.join(BALLAST))?;
        let started = Instant::now();
        while Instant::now() < started + PATIENCE {
            let status = statvfs(&self.at)?;
            let free = status.blocks_available() * status.fragment_size();
            let length = ballast.metadata()?.len();
            if free == 0 {
                return Ok(());
            }
            match posix_fallocate(&ballast, i64::try_from(length)?, i64::try_from(free)?) {
                Ok(()) | Err(Errno::ENOSPC) => {}
                Err(error) => return Err(error.into()),
            }
            // Somebody else was faster; page by page, until there is none.
            while ballast.write(&[0; PAGE_BYTES]).is_ok() && Instant::now() < started + PATIENCE {}
        }
        Ok(())
    }

    /// Gives them back.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn free(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.at.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The members are dead by now; a failure leaves a mount that the next reboot removes.
        umount2(&self.at, MntFlags::MNT_DETACH).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_filled_and_freed() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Not every root may mount.
        let Ok(disk) = SmallDisk::mount(dir.path()) else { return };
        disk.fill().expect("it is filled");
        let error = fs::write(dir.path().join("more"), [1; 8192]).expect_err("it is full");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        disk.free().expect("it is freed");
        fs::write(dir.path().join("more"), [1; 8192]).expect("there is space again");
        drop(disk);
        assert_eq!(fs::read_dir(dir.path()).expect("the directory below").count(), 0);
    }
}
