//! The directories of the state: the current one, which a pointer file names, and leftovers of interrupted operations.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::platform::fs;
use crate::raft::state::snapshot::{SnapshotDir, sync_directory};

const POINTER: &str = "CURRENT";
const GENERATION: &str = "generation-";

/// The `state` directory of a member.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    generation: u64,
}

impl StateDirectory {
    /// Opens the directory, or creates it. Removes what a crash left of snapshots and replaced states.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let generation = match fs::read_to_string(path.join(POINTER)) {
            Ok(name) => parse(name.trim()).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is not the name of a state"))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                point_to(path, 1)?;
                1
            }
            Err(error) => return Err(error),
        };
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_current = name.to_str().and_then(parse) == Some(generation);
            if entry.file_type()?.is_dir() && !is_current {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(StateDirectory { path: path.to_owned(), generation })
    }

    /// Returns the directory of the current database.
    #[must_use]
    pub fn current(&self) -> PathBuf {
        self.path.join(name_of(self.generation))
    }

    /// Returns the directory in which snapshots are made and received.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Moves a received snapshot beside the current state. It becomes current only with [`StateDirectory::commit`].
    pub fn stage(&self, snapshot: &SnapshotDir) -> io::Result<PathBuf> {
        let staged = self.path.join(name_of(self.generation + 1));
        match fs::remove_dir_all(&staged) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        snapshot.install(&staged)?;
        Ok(staged)
    }

    /// Makes the staged state the current one, durably.
    pub fn commit(&mut self) -> io::Result<()> {
        point_to(&self.path, self.generation + 1)?;
        self.generation += 1;
        Ok(())
    }
}

fn point_to(path: &Path, generation: u64) -> io::Result<()> {
    let temporary = path.join(".CURRENT.tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(name_of(generation).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(POINTER))?;
    sync_directory(path)
}

fn name_of(generation: u64) -> String {
    format!("{GENERATION}{generation}")
}

fn parse(name: &str) -> Option<u64> {
    name.strip_prefix(GENERATION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_snapshot_becomes_current_only_when_it_is_committed() {
        let temporary = tempfile::tempdir().expect("a directory");
        let path = temporary.path().join("state");
        let mut directory = StateDirectory::open(&path).expect("a new one");
        let first = directory.current();
        fs::create_dir(&first).expect("the database");
        let snapshot = temporary.path().join("incoming");
        for round in 0..2 {
            fs::create_dir(&snapshot).expect("a snapshot");
            fs::write(snapshot.join("file"), b"x").expect("a file");
            directory.stage(&SnapshotDir::adopt(snapshot.clone())).expect("moved");
            if round == 0 {
                directory = StateDirectory::open(&path).expect("again");
                assert_eq!(directory.current(), first, "it was not committed");
            }
        }
        directory.commit().expect("committed");
        let reopened = StateDirectory::open(&path).expect("again");
        assert_eq!(reopened.current(), directory.current());
        assert!(reopened.current().join("file").exists());
        assert!(!first.exists());
    }
}
