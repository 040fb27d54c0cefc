//! A small disk for one member that can be filled and freed. It is a tmpfs, so it needs root.

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

/// More than a run needs; [`SmallDisk::fill`] takes the rest.
const SIZE: &str = "size=1g";
const BALLAST: &str = "ballast";
const PAGE_BYTES: usize = 4096;
/// Time limit for one attempt to fill the disk.
const PATIENCE: Duration = Duration::from_millis(200);

/// A small disk, mounted until it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts the disk over the directory `at`.
    ///
    /// # Errors
    /// When the process is not root, or is not allowed to mount.
    pub fn mount(at: &Path) -> anyhow::Result<SmallDisk> {
        ensure!(geteuid().is_root(), "only root can mount a small disk");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(SIZE))
            .with_context(|| format!("cannot mount a tmpfs at {}", at.display()))?;
        Ok(SmallDisk { at: at.to_owned() })
    }

    /// Takes every free byte. A process that frees space meanwhile may take it again, so the caller repeats this.
    ///
    /// # Errors
    /// When the ballast file cannot be written for another reason than a full disk.
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
            // Another process took some of the space first; take the rest page by page.
            while ballast.write(&[0; PAGE_BYTES]).is_ok() && Instant::now() < started + PATIENCE {}
        }
        Ok(())
    }

    /// Frees the space again.
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
        // The members are dead by now. A failed unmount leaves a mount until the next reboot.
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
        // Root without CAP_SYS_ADMIN may not mount.
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
