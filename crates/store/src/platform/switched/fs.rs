//! Files, which are on the simulated disk of the current process in a simulation.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raft::simulation::disk::{Disk, Entry, Inode, SyncFault};
use crate::raft::simulation::planted::{self, Bug};
use crate::raft::simulation::process::{self, Process};

/// Returns the simulated disk of the current process, or `None` outside of a simulation.
fn disk() -> io::Result<Option<Arc<Disk>>> {
    if !process::is_simulated() {
        return Ok(None);
    }
    match Process::current() {
        Some(process) if !process.is_dead() => Ok(Some(process.disk().clone())),
        _ => Err(io::Error::other("the process has ended")),
    }
}

#[derive(Debug)]
pub enum File {
    Real(std::fs::File),
    Simulated(Entry),
}

/// [`std::os::unix::fs::FileExt`].
pub trait FileExt {
    fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()>;
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
}

fn inode(entry: &Entry) -> io::Result<&Arc<Inode>> {
    match entry {
        Entry::File(inode) => Ok(inode),
        Entry::Directory => Err(io::ErrorKind::IsADirectory.into()),
    }
}

impl File {
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    pub fn sync_data(&self) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_data(),
            File::Simulated(entry) => {
                syncing_disk()?;
                if !planted::is(Bug::AcknowledgesBeforeSync) {
                    inode(entry)?.sync();
                }
                Ok(())
            }
        }
    }

    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_all(),
            File::Simulated(entry) => {
                let disk = syncing_disk()?;
                disk.sync_names();
                if let Entry::File(inode) = entry {
                    inode.sync();
                }
                Ok(())
            }
        }
    }

    pub fn set_len(&self, length: u64) -> io::Result<()> {
        match self {
            File::Real(file) => file.set_len(length),
            File::Simulated(entry) => inode(entry)?.set_length(length),
        }
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        Ok(match self {
            File::Real(file) => Metadata { length: file.metadata()?.len() },
            File::Simulated(entry) => Metadata { length: inode(entry)?.length() },
        })
    }
}

/// Raises the planned fault of a sync: an error, or the end of the process. Returns the disk when none is planned.
fn syncing_disk() -> io::Result<Arc<Disk>> {
    let Some(disk) = disk()? else { return Err(io::Error::other("a file of a finished simulation")) };
    match (disk.take_sync_fault(), Process::current()) {
        (Some(SyncFault::Fails), _) => Err(io::Error::other("the disk failed")),
        (Some(SyncFault::Ends), Some(process)) => process.exit(),
        _ => Ok(disk),
    }
}

impl FileExt for File {
    fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            File::Real(file) => std::os::unix::fs::FileExt::read_exact_at(file, into, at),
            File::Simulated(entry) => inode(entry)?.read(at, into),
        }
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            File::Real(file) => std::os::unix::fs::FileExt::write_all_at(file, bytes, at),
            File::Simulated(entry) => {
                disk()?;
                inode(entry)?.write(at, bytes)
            }
        }
    }
}

/// Appends to the file.
impl io::Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            File::Real(file) => file.write(bytes),
            File::Simulated(entry) => {
                disk()?;
                let inode = inode(entry)?;
                inode.write(inode.length(), bytes)?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub struct Metadata {
    length: u64,
}

impl Metadata {
    pub fn len(&self) -> u64 {
        self.length
    }
}

#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "as in the standard library")]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
}

impl OpenOptions {
    pub fn new() -> Self {
        OpenOptions::default()
    }

    pub fn read(&mut self, is_wanted: bool) -> &mut Self {
        self.read = is_wanted;
        self
    }

    pub fn write(&mut self, is_wanted: bool) -> &mut Self {
        self.write = is_wanted;
        self
    }

    pub fn append(&mut self, is_wanted: bool) -> &mut Self {
        self.append = is_wanted;
        self
    }

    pub fn create(&mut self, is_wanted: bool) -> &mut Self {
        self.create = is_wanted;
        self
    }

    pub fn create_new(&mut self, is_wanted: bool) -> &mut Self {
        self.create_new = is_wanted;
        self
    }

    pub fn truncate(&mut self, is_wanted: bool) -> &mut Self {
        self.truncate = is_wanted;
        self
    }

    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let Some(disk) = disk()? else {
            let mut options = std::fs::OpenOptions::new();
            options.read(self.read).write(self.write).append(self.append);
            options.create(self.create).create_new(self.create_new).truncate(self.truncate);
            return options.open(path).map(File::Real);
        };
        match disk.find(path) {
            Some(_) if self.create_new => Err(io::ErrorKind::AlreadyExists.into()),
            Some(entry) => {
                if self.truncate {
                    inode(&entry)?.set_length(0)?;
                }
                Ok(File::Simulated(entry))
            }
            None if self.create || self.create_new => Ok(File::Simulated(Entry::File(disk.make_file(path)))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

#[derive(Debug)]
pub struct DirEntry {
    path: PathBuf,
    is_directory: bool,
}

#[derive(Debug)]
pub struct FileType(bool);

impl FileType {
    pub fn is_dir(&self) -> bool {
        self.0
    }
}

impl DirEntry {
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub fn file_name(&self) -> OsString {
        self.path.file_name().unwrap_or_default().to_owned()
    }

    pub fn file_type(&self) -> io::Result<FileType> {
        Ok(FileType(self.is_directory))
    }
}

pub fn read_dir(path: impl AsRef<Path>) -> io::Result<std::vec::IntoIter<io::Result<DirEntry>>> {
    let found: Vec<_> = match disk()? {
        None => {
            let entries = std::fs::read_dir(path)?.map(|entry| {
                let entry = entry?;
                Ok(DirEntry { path: entry.path(), is_directory: entry.file_type()?.is_dir() })
            });
            entries.collect()
        }
        Some(disk) => {
            let entries = disk.list(path.as_ref())?.into_iter();
            entries
                .map(|(path, entry)| Ok(DirEntry { path, is_directory: matches!(entry, Entry::Directory) }))
                .collect()
        }
    };
    Ok(found.into_iter())
}

pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let Some(disk) = disk()? else { return std::fs::create_dir_all(path) };
    let mut missing: Vec<_> = path.as_ref().ancestors().take_while(|path| disk.find(path).is_none()).collect();
    while let Some(path) = missing.pop() {
        disk.make_directory(path);
    }
    Ok(())
}

pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let Some(disk) = disk()? else { return std::fs::create_dir(path) };
    if disk.find(path.as_ref()).is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    disk.make_directory(path.as_ref());
    Ok(())
}

pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    match disk()? {
        None => std::fs::remove_file(path),
        Some(disk) => disk.remove(path.as_ref()),
    }
}

pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    match disk()? {
        None => std::fs::remove_dir_all(path),
        Some(disk) => disk.remove(path.as_ref()),
    }
}

pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    match disk()? {
        None => std::fs::rename(from, to),
        Some(disk) => disk.rename(from.as_ref(), to.as_ref()),
    }
}

pub fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    match disk()? {
        None => std::fs::exists(path),
        Some(disk) => Ok(disk.find(path.as_ref()).is_some()),
    }
}

pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let Some(disk) = disk()? else { return std::fs::read(path) };
    let entry = disk.find(path.as_ref()).ok_or(io::ErrorKind::NotFound)?;
    let inode = inode(&entry)?;
    let mut bytes = vec![0; usize::try_from(inode.length()).map_err(io::Error::other)?];
    inode.read(0, &mut bytes)?;
    Ok(bytes)
}

pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    match disk()? {
        None => std::fs::write(path, bytes),
        Some(disk) => disk.make_file(path.as_ref()).write(0, bytes.as_ref()),
    }
}
