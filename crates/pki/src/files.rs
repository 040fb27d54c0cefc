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

/// Replaces the file atomically, so that a reader sees either the old or the new content, even after a crash.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let partial = path.with_extension("partial");
    let replace = || -> std::io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        // A partial file left by a crash may have another mode.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    replace().map_err(|source| PkiError::Write { path: path.to_owned(), source })
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
