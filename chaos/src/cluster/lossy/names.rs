//! Changes of a directory tree that a power loss would take: files created, removed and moved since a directory was
//! synced.
//!
//! The changes form a journal, as in a file system: a sync of any directory makes all earlier changes durable, and a
//! power loss takes a suffix of the journal.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

#[derive(Debug)]
enum Change {
    /// A file, link or directory was created.
    Made(PathBuf),
    Removed {
        path: PathBuf,
        grave: PathBuf,
    },
    RemovedDirectory(PathBuf),
    Moved {
        from: PathBuf,
        to: PathBuf,
        /// Grave of the file that the target name had before.
        replaced: Option<PathBuf>,
    },
}

/// Journal of changes to names. Removed files stay in a directory of graves until their removal is durable.
#[derive(Debug)]
pub struct Names {
    graves: PathBuf,
    dug: u64,
    changes: VecDeque<(Instant, Change)>,
}

impl Names {
    /// # Errors
    /// When the directory for graves cannot be made.
    pub fn new(graves: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&graves)?;
        Ok(Names { graves, dug: 0, changes: VecDeque::new() })
    }

    /// Records a created path.
    pub fn made(&mut self, path: PathBuf) {
        self.note(Change::Made(path));
    }

    fn note(&mut self, change: Change) {
        self.changes.push_back((Instant::now(), change));
    }

    fn bury(&mut self, path: &Path) -> io::Result<PathBuf> {
        self.dug += 1;
        let grave = self.graves.join(self.dug.to_string());
        fs::rename(path, &grave)?;
        Ok(grave)
    }

    /// # Errors
    /// Those of `unlink`.
    pub fn remove(&mut self, path: PathBuf) -> io::Result<()> {
        let grave = self.bury(&path)?;
        self.note(Change::Removed { path, grave });
        Ok(())
    }

    /// # Errors
    /// Those of `rmdir`.
    pub fn remove_directory(&mut self, path: PathBuf) -> io::Result<()> {
        fs::remove_dir(&path)?;
        self.note(Change::RemovedDirectory(path));
        Ok(())
    }

    /// # Errors
    /// Those of `rename`.
    pub fn rename(&mut self, from: PathBuf, to: PathBuf) -> io::Result<()> {
        let replaced = match fs::symlink_metadata(&to) {
            Ok(found) if found.is_dir() => {
                self.remove_directory(to.clone())?;
                None
            }
            Ok(_) => Some(self.bury(&to)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        fs::rename(&from, &to)?;
        self.note(Change::Moved { from, to, replaced });
        Ok(())
    }

    /// Makes changes older than `age` durable.
    ///
    /// # Errors
    /// When a grave cannot be emptied.
    pub fn sync_older_than(&mut self, age: Duration) -> io::Result<()> {
        while self.changes.front().is_some_and(|(at, _)| at.elapsed() >= age) {
            let grave = match self.changes.pop_front() {
                Some((_, Change::Removed { grave, .. } | Change::Moved { replaced: Some(grave), .. })) => grave,
                _ => continue,
            };
            fs::remove_file(grave)?;
        }
        Ok(())
    }

    /// Simulates a power loss: undoes a suffix of the journal, often all of it. Returns the number of undone changes.
    ///
    /// # Errors
    /// When a change cannot be undone.
    pub fn lose(&mut self, rng: &mut StdRng) -> io::Result<usize> {
        let all = self.changes.len();
        let lost = if rng.random_bool(0.5) { all } else { rng.random_range(0..=all) };
        for _ in 0..lost {
            if let Some((_, change)) = self.changes.pop_back() {
                undo(change)?;
            }
        }
        self.sync_older_than(Duration::ZERO)?;
        Ok(lost)
    }
}

fn undo(change: Change) -> io::Result<()> {
    match change {
        Change::Made(path) if path.is_dir() => fs::remove_dir_all(path),
        Change::Made(path) => fs::remove_file(path),
        Change::Removed { path, grave } => fs::rename(grave, path),
        Change::RemovedDirectory(path) => fs::create_dir(path),
        Change::Moved { from, to, replaced } => {
            fs::rename(&to, from)?;
            replaced.map_or(Ok(()), |grave| fs::rename(grave, to))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;

    use super::*;

    fn tree(root: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(root).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
            if entry.is_dir() {
                found.insert(name.clone(), "directory".to_owned());
                found.extend(tree(&entry).into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
            } else {
                found.insert(name, fs::read_to_string(&entry).expect("text"));
            }
        }
        found
    }

    /// Records the tree after each step; a loss must restore one of these trees.
    #[test]
    fn a_loss_restores_an_earlier_tree() {
        for seed in 0..60 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let root = dir.path().join("root");
            fs::create_dir(&root).expect("a directory");
            let mut names = Names::new(dir.path().join("graves")).expect("graves");
            let at = |name: &str| root.join(name);
            fs::write(at("old"), "old").expect("a file");
            names.made(at("old"));
            names.sync_older_than(Duration::ZERO).expect("synced");
            let mut seen = vec![tree(&root)];
            fs::create_dir(at("sub")).expect("a directory");
            names.made(at("sub"));
            seen.push(tree(&root));
            fs::write(at("sub/new"), "new").expect("a file");
            names.made(at("sub/new"));
            seen.push(tree(&root));
            names.rename(at("sub/new"), at("old")).expect("moved over the old one");
            seen.push(tree(&root));
            names.remove_directory(at("sub")).expect("removed");
            seen.push(tree(&root));
            names.remove(at("old")).expect("removed");
            seen.push(tree(&root));
            let lost = names.lose(&mut StdRng::seed_from_u64(seed)).expect("lost");
            assert_eq!(tree(&root), seen[seen.len() - 1 - lost], "seed {seed}");
            assert_eq!(tree(&dir.path().join("graves")).len(), 0);
        }
    }
}
