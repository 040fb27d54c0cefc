//! Certificates and keys on disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;

use crate::error::PkiError;
use crate::identity::LiveIdentity;

/// A certificate and its key on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// Returns the pair `name.crt` and `name.key` in `dir`.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Pair {
        Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }

    /// Reads the key, or creates it when it does not exist.
    ///
    /// # Errors
    /// Fails when the key cannot be created, read or written.
    pub fn key(&self) -> Result<KeyPair, PkiError> {
        if !self.key.exists() {
            let make = |source| PkiError::Make { what: format!("the key {}", self.key.display()), source };
            let key = KeyPair::generate().map_err(make)?;
            write_private(&self.key, key.serialize_pem().as_bytes())?;
            return Ok(key);
        }
        let unusable = |source| PkiError::Unusable { what: self.key.display().to_string(), source };
        KeyPair::from_pem(&read(&self.key)?).map_err(unusable)
    }
}

/// # Errors
/// Fails when the file cannot be read; the error names the path.
pub fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}

/// Replaces a file that only its owner may read.
///
/// # Errors
/// Fails when the file cannot be written; the error names the path.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    write(path, bytes, 0o600)
}

/// Replaces a file that everyone may read.
///
/// # Errors
/// Fails when the file cannot be written; the error names the path.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    write(path, bytes, 0o644)
}

/// Replaces the file atomically, so that a reader sees either the old or the new content, even after a crash. Once this
/// returns, the new content survives a power failure: losing a key whose certificate was signed would lock a machine out.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    // A certificate and its key differ only in their extension, so the whole name is kept.
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let replace = || -> std::io::Result<()> {
        create_directories(directory)?;
        // A partial file left by a crash may have another mode.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        sync_directory(directory)
    };
    replace().map_err(|source| PkiError::Write { path: path.to_owned(), source })
}

/// Creates a directory with its parents, and makes the entry of each new one durable.
fn create_directories(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directories(parent)?;
    match fs::create_dir(directory) {
        // Another process may create it at the same time.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory(parent),
    }
}

/// Makes the entries of a directory durable. Renaming a file changes its directory, which a power failure may undo.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    #[cfg(test)]
    tests::SYNCED.with_borrow_mut(|synced| synced.push(directory.to_owned()));
    fs::File::open(directory)?.sync_all()
}

/// Live identity that is reloaded from its files.
#[derive(Debug)]
pub struct FileIdentity {
    pair: Pair,
    live: Arc<LiveIdentity>,
    last: (String, String),
}

impl FileIdentity {
    /// # Errors
    /// Fails when the files cannot be read or do not belong together.
    pub fn load(pair: Pair) -> Result<FileIdentity, PkiError> {
        let last = (read(&pair.cert)?, read(&pair.key)?);
        let live = LiveIdentity::from_pem(last.0.as_bytes(), last.1.as_bytes())?;
        Ok(FileIdentity { pair, live, last })
    }

    #[must_use]
    pub fn live(&self) -> Arc<LiveIdentity> {
        Arc::clone(&self.live)
    }

    #[must_use]
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Reloads the files. Returns whether they have changed.
    ///
    /// # Errors
    /// Fails when the new files cannot be used. The previous certificate then stays in use.
    pub fn refresh(&mut self) -> Result<bool, PkiError> {
        let now = (read(&self.pair.cert)?, read(&self.pair.key)?);
        if now == self.last {
            return Ok(false);
        }
        self.live.replace(now.0.as_bytes(), now.1.as_bytes())?;
        self.last = now;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    thread_local! {
        /// Directories that this thread has made durable.
        pub(super) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn a_written_file_and_its_new_directories_are_durable() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = dir.path().join("data/pki");
        let pair = Pair::new(&pki, "server");
        write_private(&pair.key, b"key").expect("written");
        let synced = SYNCED.take();
        assert_eq!(synced, [dir.path().to_owned(), dir.path().join("data"), pki.clone()]);
        // A partial file of another mode is left over from a crash.
        fs::write(pki.join("server.crt.partial"), b"half").expect("a partial file");
        write_public(&pair.cert, b"certificate").expect("written");
        assert_eq!(SYNCED.take(), std::slice::from_ref(&pki));
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!((mode(&pair.key), mode(&pair.cert)), (0o600, 0o644));
        assert_eq!((read(&pair.key).expect("a key"), fs::read_dir(&pki).expect("entries").count()), ("key".into(), 2));
    }
}
