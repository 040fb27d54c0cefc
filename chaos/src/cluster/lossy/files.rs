//! A member's files, stored in a directory below the mount. [`super::unsynced`] and [`super::names`] track which
//! changes would survive a power loss.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;

use super::names::Names;
use super::tree::Tree;
use super::unsynced::Unsynced;
use crate::cluster::failpoints::{Failpoints, Operation};
use crate::world::{MemberIndex, Phase};

/// Age at which the kernel writes changes back without a sync.
const WRITTEN_BACK_AFTER: Duration = Duration::from_secs(15);
/// Number of tracked files above which removed files are dropped.
const MANY_FILES: usize = 200;

/// All files of one member.
pub struct Files {
    root: PathBuf,
    inner: Mutex<Inner>,
    /// Extra delay of each read and write.
    delay_us: AtomicU64,
    member: MemberIndex,
    failpoints: Arc<Failpoints>,
}

struct Inner {
    tree: Tree,
    names: Names,
    /// Tracked files by their inode number in the directory below.
    files: HashMap<u64, Arc<Mutex<Unsynced>>>,
    open: HashMap<u64, Open>,
    listings: HashMap<u64, Listing>,
    next_handle: u64,
}

#[derive(Clone)]
struct Open {
    number: u64,
    file: Arc<File>,
    unsynced: Arc<Mutex<Unsynced>>,
}

/// Content of a directory when it was opened: inode numbers, types and names.
pub type Listing = Arc<Vec<(u64, FileType, OsString)>>;

/// Numbers of changes that a power loss took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    pub files: usize,
    pub names: usize,
}

impl Files {
    /// Creates the files in `root`. Removed files move to `graves` on the same file system.
    ///
    /// # Errors
    /// When the directory for graves cannot be made.
    pub fn new(root: &Path, graves: &Path, member: MemberIndex, failpoints: Arc<Failpoints>) -> io::Result<Self> {
        let inner = Inner {
            tree: Tree::new(root.to_owned()),
            names: Names::new(graves.to_owned())?,
            files: HashMap::new(),
            open: HashMap::new(),
            listings: HashMap::new(),
            next_handle: 1,
        };
        let (root, inner) = (root.to_owned(), Mutex::new(inner));
        Ok(Files { root, inner, delay_us: AtomicU64::new(0), member, failpoints })
    }

    pub fn set_delay(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Directory that holds the files.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Simulates a power loss. All processes with open files are dead, although the kernel may not have closed every
    /// file yet.
    ///
    /// # Errors
    /// When a change cannot be undone.
    pub fn lose(&self, rng: &mut StdRng) -> io::Result<Loss> {
        let mut inner = self.inner.lock();
        inner.open.clear();
        inner.listings.clear();
        inner.names.sync_older_than(WRITTEN_BACK_AFTER)?;
        let mut loss = Loss::default();
        // Files are sorted so that the same random numbers cause the same loss.
        let mut files: Vec<(u64, Arc<Mutex<Unsynced>>)> = inner.files.drain().collect();
        files.sort_by_key(|(number, _)| *number);
        for (_, unsynced) in files {
            let mut unsynced = unsynced.lock();
            if !unsynced.is_older_than(WRITTEN_BACK_AFTER) {
                loss.files += usize::from(unsynced.lose(rng)?);
            }
        }
        loss.names = inner.names.lose(rng)?;
        inner.tree.forget();
        Ok(loss)
    }

    pub fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<(u64, Metadata)> {
        let mut inner = self.inner.lock();
        let path = inner.path_in(parent, name)?;
        inner.enter(&path)
    }

    /// Returns the metadata of a file, even of a removed one that is still open.
    pub fn metadata(&self, number: u64, handle: Option<u64>) -> io::Result<Metadata> {
        let inner = self.inner.lock();
        match (inner.path(number), inner.held(number, handle)) {
            (_, Some(open)) => open.file.metadata(),
            (path, None) => fs::symlink_metadata(path?),
        }
    }

    pub fn set_permissions(&self, number: u64, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.inner.lock().path(number)?, fs::Permissions::from_mode(mode))
    }

    pub fn set_len(&self, number: u64, handle: Option<u64>, length: u64) -> io::Result<()> {
        let unsynced = {
            let mut inner = self.inner.lock();
            match inner.held(number, handle) {
                Some(open) => open.unsynced.clone(),
                None => {
                    let file = OpenOptions::new().read(true).write(true).open(inner.path(number)?)?;
                    inner.unsynced(&file)?
                }
            }
        };
        unsynced.lock().set_len(length)
    }

    pub fn make_directory(&self, parent: u64, name: &OsStr, mode: u32) -> io::Result<(u64, Metadata)> {
        let mut inner = self.inner.lock();
        let path = inner.path_in(parent, name)?;
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
        inner.names.made(path.clone());
        inner.enter(&path)
    }

    pub fn remove(&self, parent: u64, name: &OsStr) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let path = inner.path_in(parent, name)?;
        inner.names.remove(path.clone())?;
        inner.tree.removed(&path);
        inner.names.sync_older_than(WRITTEN_BACK_AFTER)
    }

    pub fn remove_directory(&self, parent: u64, name: &OsStr) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let path = inner.path_in(parent, name)?;
        inner.names.remove_directory(path.clone())?;
        inner.tree.removed(&path);
        Ok(())
    }

    pub fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr)) -> io::Result<()> {
        let (from, to) = {
            let inner = self.inner.lock();
            (inner.path_in(from.0, from.1)?, inner.path_in(to.0, to.1)?)
        };
        self.at_points(Operation::Rename, &to, || {
            let mut inner = self.inner.lock();
            inner.names.rename(from.clone(), to.clone())?;
            inner.tree.moved(&from, &to);
            Ok(())
        })
    }

    pub fn link(&self, number: u64, parent: u64, name: &OsStr) -> io::Result<(u64, Metadata)> {
        let mut inner = self.inner.lock();
        let path = inner.path_in(parent, name)?;
        fs::hard_link(inner.path(number)?, &path)?;
        inner.names.made(path.clone());
        inner.enter(&path)
    }

    /// Opens a file, and returns a handle.
    pub fn open(&self, number: u64) -> io::Result<u64> {
        let mut inner = self.inner.lock();
        let file = OpenOptions::new().read(true).write(true).open(inner.path(number)?)?;
        inner.opened(number, file)
    }

    /// Creates and opens a file. Returns its inode number, metadata and a handle.
    pub fn create(&self, parent: u64, name: &OsStr, mode: u32, is_new: bool) -> io::Result<(u64, Metadata, u64)> {
        let mut inner = self.inner.lock();
        let path = inner.path_in(parent, name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(mode & 0o7777);
        let file = match options.create_new(true).open(&path) {
            Ok(file) => {
                inner.names.made(path.clone());
                // A removed file may have had the same inode number below.
                let unsynced = Unsynced::new(file.try_clone()?, 0);
                inner.files.insert(file.metadata()?.ino(), Arc::new(Mutex::new(unsynced)));
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !is_new => {
                options.create_new(false).open(&path)?
            }
            Err(error) => return Err(error),
        };
        let (number, metadata) = inner.enter(&path)?;
        Ok((number, metadata, inner.opened(number, file)?))
    }

    pub fn read(&self, handle: u64, at: u64, size: usize) -> io::Result<Vec<u8>> {
        self.slow_down();
        let open = self.inner.lock().handle(handle)?;
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match open.file.read_at(&mut bytes[filled..], at + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub fn write(&self, handle: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.slow_down();
        let (open, path) = self.inner.lock().handle_and_path(handle)?;
        self.at_points(Operation::Write, &path, || {
            let mut unsynced = open.unsynced.lock();
            if unsynced.is_older_than(WRITTEN_BACK_AFTER) {
                unsynced.synced()?;
            }
            match unsynced.write(at, bytes) {
                // Removed files still occupy space until their removal is durable, so free that space and try again.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.inner.lock().names.sync_older_than(Duration::ZERO)?;
                    unsynced.write(at, bytes)
                }
                done => done,
            }
        })
    }

    /// Allocates space for a file; `is_longer` says whether that extends the file.
    pub fn allocate(&self, handle: u64, at: u64, length: u64, is_longer: bool) -> io::Result<()> {
        let open = self.inner.lock().handle(handle)?;
        open.unsynced.lock().allocate(at, length, is_longer)
    }

    pub fn sync(&self, handle: u64) -> io::Result<()> {
        let (open, path) = self.inner.lock().handle_and_path(handle)?;
        self.at_points(Operation::Sync, &path, || {
            let mut unsynced = open.unsynced.lock();
            // The sync of the file below gives this sync a realistic duration.
            open.file.sync_data()?;
            unsynced.synced()
        })
    }

    pub fn sync_names(&self) -> io::Result<()> {
        self.inner.lock().names.sync_older_than(Duration::ZERO)
    }

    pub fn close(&self, handle: u64) {
        let mut inner = self.inner.lock();
        inner.open.remove(&handle);
        inner.listings.remove(&handle);
    }

    /// Opens a directory, and returns a handle.
    pub fn list(&self, number: u64) -> io::Result<u64> {
        let mut inner = self.inner.lock();
        let path = inner.path(number)?.to_owned();
        let mut listing = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            listing.push((inner.tree.number(&entry.path()), entry.file_type()?, entry.file_name()));
        }
        let handle = inner.next_handle();
        inner.listings.insert(handle, Arc::new(listing));
        Ok(handle)
    }

    pub fn listing(&self, handle: u64) -> io::Result<Listing> {
        self.inner.lock().listings.get(&handle).cloned().ok_or_else(stale)
    }

    fn slow_down(&self) {
        let delay = self.delay_us.load(Ordering::Relaxed);
        if delay > 0 {
            sleep(Duration::from_micros(delay));
        }
    }

    /// Runs `act`, and passes the failpoints before and after it.
    fn at_points<T>(&self, operation: Operation, path: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let path = path.strip_prefix(&self.root).unwrap_or(path);
        let pass = |phase| {
            let passing = self.failpoints.pass_disk(self.member, operation, path, phase);
            sleep(passing.pause);
            passing.is_dead
        };
        if pass(Phase::Before) {
            // The process is dead, so it does not see this error.
            return Err(io::Error::other("killed"));
        }
        let done = act()?;
        pass(Phase::After);
        Ok(done)
    }
}

impl Inner {
    fn path(&self, number: u64) -> io::Result<&Path> {
        self.tree.path(number).ok_or_else(stale)
    }

    fn path_in(&self, parent: u64, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn enter(&mut self, path: &Path) -> io::Result<(u64, Metadata)> {
        let metadata = fs::symlink_metadata(path)?;
        Ok((self.tree.number(path), metadata))
    }

    fn next_handle(&mut self) -> u64 {
        self.next_handle += 1;
        self.next_handle
    }

    fn opened(&mut self, number: u64, file: File) -> io::Result<u64> {
        let unsynced = self.unsynced(&file)?;
        let handle = self.next_handle();
        self.open.insert(handle, Open { number, file: Arc::new(file), unsynced });
        Ok(handle)
    }

    /// Returns the tracked changes of a file. An untracked file has no unsynced changes.
    fn unsynced(&mut self, file: &File) -> io::Result<Arc<Mutex<Unsynced>>> {
        let metadata = file.metadata()?;
        if let Some(known) = self.files.get(&metadata.ino()) {
            return Ok(known.clone());
        }
        if self.files.len() > MANY_FILES {
            self.files.retain(|_, unsynced| Arc::strong_count(unsynced) > 1 || unsynced.lock().is_at_risk());
        }
        let unsynced = Arc::new(Mutex::new(Unsynced::new(file.try_clone()?, metadata.len())));
        self.files.insert(metadata.ino(), unsynced.clone());
        Ok(unsynced)
    }

    fn handle(&self, handle: u64) -> io::Result<Open> {
        self.open.get(&handle).cloned().ok_or_else(stale)
    }

    /// Finds an open file, by this handle or by any other.
    fn held(&self, number: u64, handle: Option<u64>) -> Option<&Open> {
        let any = || self.open.values().find(|open| open.number == number);
        handle.and_then(|handle| self.open.get(&handle)).or_else(any)
    }

    /// Returns the open file and its path; the path is empty when the file was removed.
    fn handle_and_path(&self, handle: u64) -> io::Result<(Open, PathBuf)> {
        let open = self.handle(handle)?;
        let path = self.tree.path(open.number).map(Path::to_owned).unwrap_or_default();
        Ok((open, path))
    }
}

fn stale() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::ESTALE)
}
