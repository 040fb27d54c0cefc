//! A snapshot is a directory: a RocksDB checkpoint of the state, with the applied index and the membership inside.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::fs;

/// What openraft passes around as the contents of a snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    /// The state as it lies on disk, flushed up to the snapshot's index: enough to purge the log, nothing to send.
    Flushed,
    /// To be sent, or received and not yet installed.
    Directory(Arc<SnapshotDir>),
}

/// A checkpoint's directory, made or received. It goes when its last owner does, unless it was installed.
#[derive(Debug)]
pub struct SnapshotDir {
    path: PathBuf,
}

impl SnapshotDir {
    /// Takes ownership of `path`.
    #[must_use]
    pub fn adopt(path: PathBuf) -> Self {
        SnapshotDir { path }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its files, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn files(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is no name of a file of ours", name.display()))
            })?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// Makes it the directory `target`, durably. The files must have been synced.
    ///
    /// # Errors
    /// When it cannot be renamed; a snapshot is installed at most once.
    pub fn install(&self, target: &Path) -> io::Result<()> {
        sync_directory(&self.path)?;
        fs::rename(&self.path, target)?;
        target.parent().map_or(Ok(()), sync_directory)
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot remove a snapshot"),
        }
    }
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
