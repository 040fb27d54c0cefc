//! A small disk for one member, that can be filled and freed: a tmpfs, so only for root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

/// More than a run needs; the rest is filled by [`SmallDisk::fill`].
const SIZE: &str = "size=1g";
const BALLAST: &str = "ballast";
const PIECE_BYTES: usize = 1 << 20;

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

    /// Takes every byte that is free.
    ///
    /// # Errors
    /// When the file that takes them cannot be written for another reason than that the disk is full.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(self.at.join(BALLAST))?;
        let zeros = vec![0; PIECE_BYTES];
        loop {
            let status = statvfs(&self.at)?;
            let free = usize::try_from(status.blocks_available() * status.fragment_size())?;
            if free == 0 {
                return Ok(());
            }
            match ballast.write(&zeros[..free.min(PIECE_BYTES)]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
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
