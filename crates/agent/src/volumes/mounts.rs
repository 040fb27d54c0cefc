//! Mounts below a pod's directory: memory file systems, the mount table, and removal that stops at mounts.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// A memory file system for one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub mode: u32,
    pub group: Option<u32>,
    pub size_bytes: Option<i128>,
}

impl Memory {
    fn options(self) -> String {
        let mut options = format!("mode={:o}", self.mode);
        if let Some(group) = self.group {
            options.push_str(&format!(",gid={group}"));
        }
        if let Some(size) = self.size_bytes {
            options.push_str(&format!(",size={size}"));
        }
        options
    }

    /// Mounts the file system at `dir`, unless one is mounted there. A plain directory, which a failed mount or a
    /// reboot leaves behind, is mounted over.
    pub(super) fn mount(self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        if is_tmpfs(dir)? {
            return Ok(());
        }
        let mount =
            |options: &str| nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(options));
        let options = self.options();
        // Kernels before 6.4 do not support `noswap`, which keeps the content out of swap.
        match mount(&format!("{options},noswap")) {
            Err(Errno::EINVAL) => mount(&options)?,
            mounted => mounted?,
        }
        Ok(())
    }
}

/// Whether `dir` is the root of a memory file system.
pub(super) fn is_tmpfs(dir: &Path) -> io::Result<bool> {
    if statfs(dir)?.filesystem_type() != TMPFS_MAGIC {
        return Ok(false);
    }
    // The whole data directory may be in a memory file system, so the type of the file system is not enough.
    let parent = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(std::fs::metadata(dir)?.dev() != std::fs::metadata(parent)?.dev())
}

/// Returns the mount points at `dir` and below it, in the order in which they were mounted. A point with several mounts
/// on top of each other appears several times.
pub(super) fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = match dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    Ok(points()?.into_iter().filter(|point| point.starts_with(&dir)).collect())
}

/// Whether something is mounted at `dir`. The mount itself is not touched, since it may be of a server that is gone and
/// block every call forever.
pub(super) fn is_mounted(dir: &Path) -> io::Result<bool> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match parent.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    Ok(points()?.contains(&parent.join(name)))
}

/// Returns all mount points of this process.
fn points() -> io::Result<Vec<PathBuf>> {
    // Mount points need not be UTF-8.
    let table = std::fs::read("/proc/self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(unescape).collect())
}

/// Decodes a path of the mount table, in which blanks, tabs, line ends and backslashes are octal numbers.
pub(super) fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let number = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match number {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Unmounts everything at `dir` and below it.
pub(super) fn unmount_below(dir: &Path) -> io::Result<()> {
    for point in below(dir)?.iter().rev() {
        match nix::mount::umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // The mount was removed together with the one around it.
            Err(Errno::EINVAL | Errno::ENOENT) => {}
            done => done?,
        }
    }
    match below(dir)?.first() {
        None => Ok(()),
        Some(point) => Err(io::Error::other(format!("{} is still mounted", point.display()))),
    }
}

/// Removes a directory with everything in it, except the content of mounts.
pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
    unmount_below(dir)?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn paths_of_the_mount_table_are_unescaped() {
        let cases = [("/a/b", "/a/b"), (r"/a\040b\134", r"/a b\"), (r"/a\0", r"/a\0"), (r"/\011", "/\t")];
        for (text, path) in cases {
            assert_eq!(unescape(text.as_bytes()), Path::new(path), "{text}");
        }
    }

    #[test]
    fn a_mount_is_found_without_being_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let (link, point) = (dir.path().join("link"), dir.path().join("point"));
        std::os::unix::fs::symlink("/elsewhere", &link).expect("a link");
        std::fs::write(&point, b"").expect("a file");
        assert!(!is_mounted(&point).expect("the table can be read"));
        assert!(!is_mounted(&dir.path().join("absent/point")).expect("nothing is mounted there"));
        // The mount is a link, so every call that looks at it is led elsewhere.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let link = open(&link, flags, Mode::empty()).expect("the link itself");
        let source = PathBuf::from(format!("/proc/self/fd/{}", link.as_raw_fd()));
        nix::mount::mount(Some(&source), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mounted");
        let found = is_mounted(&point);
        nix::mount::umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).expect("unmounted");
        assert!(found.expect("the table can be read"));
    }

    #[test]
    fn a_directory_inside_a_memory_file_system_is_not_its_root() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a temporary directory in memory");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("a directory");
        assert!(!is_tmpfs(&inner).expect("the file system can be read"));
        assert!(is_tmpfs(Path::new("/dev/shm")).expect("the file system can be read"));
    }
}
