//! Mapping between inode numbers and paths.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Inode numbers of all paths that were looked up. A number follows its path when that is moved, is dropped when it is
/// removed, and is never reused.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    next: u64,
}

/// Inode number of the root, as FUSE defines it.
const ROOT: u64 = 1;

impl Tree {
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let mut tree = Tree { root, paths: HashMap::new(), numbers: HashMap::new(), next: ROOT + 1 };
        tree.forget();
        tree
    }

    /// Forgets all numbers; paths get new numbers when they are looked up again.
    pub fn forget(&mut self) {
        self.paths = HashMap::from([(ROOT, self.root.clone())]);
        self.numbers = HashMap::from([(self.root.clone(), ROOT)]);
    }

    /// Returns the path of a number, unless it was removed.
    #[must_use]
    pub fn path(&self, number: u64) -> Option<&Path> {
        self.paths.get(&number).map(PathBuf::as_path)
    }

    pub fn number(&mut self, path: &Path) -> u64 {
        if let Some(known) = self.numbers.get(path) {
            return *known;
        }
        let number = self.next;
        self.next += 1;
        self.paths.insert(number, path.to_owned());
        self.numbers.insert(path.to_owned(), number);
        number
    }

    /// Drops the number of a removed path.
    pub fn removed(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
        }
    }

    pub fn moved(&mut self, from: &Path, to: &Path) {
        self.removed(to);
        let below = |path: &&PathBuf| path.starts_with(from);
        let moving: Vec<PathBuf> = self.numbers.keys().filter(below).cloned().collect();
        for old in moving {
            let Some(number) = self.numbers.remove(&old) else { continue };
            let new = match old.strip_prefix(from) {
                Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
                Ok(rest) => to.join(rest),
                Err(_) => continue,
            };
            self.paths.insert(number, new.clone());
            self.numbers.insert(new, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_moved_paths() {
        let mut tree = Tree::new(PathBuf::from("/r"));
        let (dir, file) = (tree.number(Path::new("/r/a")), tree.number(Path::new("/r/a/f")));
        let other = tree.number(Path::new("/r/ab"));
        tree.moved(Path::new("/r/a"), Path::new("/r/b"));
        assert_eq!(tree.path(dir), Some(Path::new("/r/b")));
        assert_eq!(tree.path(file), Some(Path::new("/r/b/f")));
        assert_eq!(tree.path(other), Some(Path::new("/r/ab")));
        assert_eq!(tree.number(Path::new("/r/b/f")), file);
        tree.removed(Path::new("/r/b/f"));
        assert_eq!(tree.path(file), None);
        let other_file = tree.number(Path::new("/r/b/f"));
        assert_ne!(other_file, file);
        tree.forget();
        assert_eq!((tree.path(dir), tree.path(other_file)), (None, None));
        assert!(tree.number(Path::new("/r/b")) > other_file);
        assert_eq!(tree.path(1), Some(Path::new("/r")));
    }
}
