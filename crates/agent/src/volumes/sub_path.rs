//! `subPath`: finds or creates one directory or file of a volume without leaving the volume.
//!
//! Containers that mount the volume can put symbolic links into it, and swap directories for links at any moment.
//! Therefore the kernel resolves the path with the volume as its root, missing directories are made through the
//! descriptor of their parent, and the resulting descriptor is mounted at a path of the agent, which the runtime gets.
//! Links that stay inside the volume are followed, as the kubelet does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use super::mounts;

/// Maximum number of attempts to resolve a path. Renames and mounts elsewhere on the machine may disturb an attempt.
const WALKS: u32 = 64;
/// Mode bits of a directory: permissions, set-user-id, set-group-id and sticky.
const MODE_BITS: u32 = 0o7777;

#[derive(Debug, thiserror::Error)]
pub(super) enum SubPathError {
    #[error("it leaves the volume")]
    Escape,
    #[error("it requires Linux 5.6 or later (openat2)")]
    Kernel,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for SubPathError {
    fn from(error: Errno) -> Self {
        match error {
            // The path has `..` above the root, an absolute link, or a link where none is allowed.
            Errno::EXDEV | Errno::ELOOP => SubPathError::Escape,
            Errno::ENOSYS => SubPathError::Kernel,
            error => SubPathError::Io(error.into()),
        }
    }
}

/// Opens `sub` inside `root`, and makes missing directories if `may_create` is set.
pub(super) fn find(root: &Path, sub: &str, may_create: bool) -> Result<OwnedFd, SubPathError> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut parts = Vec::new();
    for part in Path::new(sub).components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(SubPathError::Escape),
        }
    }
    let mode = File::from(root.try_clone()?).metadata()?.mode() & MODE_BITS;
    let mut walked = PathBuf::new();
    let mut found = root.try_clone()?;
    for (index, name) in parts.iter().enumerate() {
        walked.push(name);
        let is_last = index + 1 == parts.len();
        found = match walk(&root, &walked, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_MAGICLINKS) {
            Err(Errno::ENOENT) if may_create => make(&found, Path::new(name), mode, is_last)?,
            walked => walked?,
        };
    }
    Ok(found)
}

/// Makes one directory. The last one has the mode of the volume, as in the kubelet; the umask applies to those above.
fn make(parent: &OwnedFd, name: &Path, mode: u32, is_last: bool) -> Result<OwnedFd, SubPathError> {
    let made = match mkdirat(parent, name, Mode::from_bits_truncate(mode)) {
        Err(Errno::EEXIST) => false,
        made => {
            made?;
            true
        }
    };
    let directory = walk(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_NO_SYMLINKS)?;
    if made && is_last {
        fchmod(&directory, Mode::from_bits_truncate(mode))?;
    }
    Ok(directory)
}

fn walk(root: &OwnedFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH | resolve);
    let mut last = Errno::EAGAIN;
    for _ in 0..WALKS {
        match openat2(root.as_fd(), path, how) {
            Err(error @ (Errno::EAGAIN | Errno::EINTR)) => last = error,
            walked => return walked,
        }
    }
    Err(last)
}

/// Mounts the found file at `target`, which only the agent can write to. Does nothing if it is mounted there already.
pub(super) fn bind(found: &OwnedFd, target: &Path) -> io::Result<()> {
    let wanted = File::from(found.try_clone()?).metadata()?;
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(parent)?;
    let shows_it = || {
        let shown = std::fs::metadata(target)?;
        io::Result::Ok((shown.dev(), shown.ino()) == (wanted.dev(), wanted.ino()))
    };
    let real = parent.canonicalize()?.join(target.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let mounted = mounts::below(parent)?.into_iter().filter(|point| *point == real).count();
    if mounted == 1 && shows_it()? {
        return Ok(());
    }
    for _ in 0..mounted {
        nix::mount::umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    make_point(target, wanted.is_dir())?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    nix::mount::mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    if shows_it()? { Ok(()) } else { Err(io::Error::other("something else was mounted in its place")) }
}

/// Makes an empty directory or file as a mount point.
fn make_point(target: &Path, is_dir: bool) -> io::Result<()> {
    match std::fs::symlink_metadata(target) {
        Ok(found) if found.is_dir() == is_dir && !found.is_symlink() => return Ok(()),
        Ok(found) if found.is_dir() => std::fs::remove_dir(target)?,
        Ok(_) => std::fs::remove_file(target)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if is_dir { std::fs::create_dir(target) } else { File::create_new(target).map(drop) }
}

/// Opens a file inside `root` for reading.
pub(super) fn open_file(root: &Path, path: &str) -> Result<File, SubPathError> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // Without O_NONBLOCK, opening a pipe would block.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    Ok(File::from(walk(&root, Path::new(path), flags, ResolveFlag::RESOLVE_NO_MAGICLINKS)?))
}

/// Returns the current path of a descriptor.
pub(super) fn path_of(found: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}
