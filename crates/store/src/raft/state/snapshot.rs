//! Snapshots: directories with a RocksDB checkpoint of the state, the applied index and the membership included.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::fs;

/// The contents of a snapshot, as openraft passes them around.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    /// The state itself, flushed up to the snapshot's index. It lets the log be purged and cannot be sent.
    Flushed,
    /// A directory to send, or one that was received and is not yet installed.
    Directory(Arc<SnapshotDir>),
}

/// Directory of a checkpoint, made or received. Dropping it removes the directory, unless it was installed.
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

    /// Returns the names of the files, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn files(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is not a file name of a snapshot", name.display()),
                )
            })?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// Renames the directory to `target`, durably. The files must have been synced.
    ///
    /// # Errors
    /// When it cannot be renamed, for example because it was installed already.
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

/// Syncs a directory, so that the names in it are durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
