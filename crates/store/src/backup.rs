//! Backups: the whole state at one moment as one stream, with a checksum at its end.
//!
//! A backup consists of a magic line, the length of the manifest (u32, little endian), the manifest, the bytes of the
//! files that it lists, zeros up to a multiple of 512 bytes, and the SHA-256 of everything before it. Padding and
//! checksum are placed as in etcd's snapshots, so that etcd's client can verify that it has received a whole backup.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_api::Revision;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::raft::codec;
use crate::raft::state::snapshot::{SnapshotDir, sync_directory};

const MAGIC: &[u8; 16] = b"quorate-backup1\n";
const BLOCK_BYTES: u64 = 512;
const CHECKSUM_BYTES: u64 = 32;
const MAX_MANIFEST_BYTES: u32 = 16 << 20;
const CHUNK_BYTES: usize = 256 << 10;
/// Number of chunks that are read ahead of the receiver.
const CHUNKS: usize = 4;

/// Metadata of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Id of the cluster that it was taken from.
    pub cluster: u64,
    /// Revision of the state.
    pub revision: Revision,
    files: Vec<BackupFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BackupFile {
    name: String,
    size: u64,
}

/// Reason why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("this is not a backup of this version")]
    NotABackup,
    #[error("the backup is damaged or cut off: {0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A checkpoint of the state, ready to be streamed. Dropping the backup removes its files.
#[derive(Debug)]
pub struct Backup {
    manifest: Manifest,
    encoded_manifest: Bytes,
    dir: SnapshotDir,
}

impl Backup {
    /// Creates a backup of the files in `dir`, which must not change any more.
    pub(crate) fn new(cluster: u64, revision: Revision, dir: SnapshotDir) -> io::Result<Self> {
        let files = dir.files()?.into_iter().map(|name| {
            let size = fs::metadata(dir.path().join(&name))?.len();
            Ok(BackupFile { name, size })
        });
        let manifest = Manifest { cluster, revision, files: files.collect::<io::Result<_>>()? };
        let encoded_manifest = codec::encode(&manifest).map_err(io::Error::other)?;
        Ok(Backup { manifest, encoded_manifest, dir })
    }

    #[must_use]
    pub fn revision(&self) -> Revision {
        self.manifest.revision
    }

    /// Size of the whole stream, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.body_bytes().next_multiple_of(BLOCK_BYTES) + CHECKSUM_BYTES
    }

    /// Size of the stream before the padding, in bytes.
    fn body_bytes(&self) -> u64 {
        let files: u64 = self.manifest.files.iter().map(|file| file.size).sum();
        MAGIC.len() as u64 + 4 + self.encoded_manifest.len() as u64 + files
    }

    /// Writes the stream to `sink`.
    ///
    /// # Errors
    /// When a file cannot be read, or `sink` fails.
    pub fn write(&self, sink: &mut impl FnMut(Bytes) -> io::Result<()>) -> io::Result<()> {
        let mut hasher = Sha256::new();
        let mut put = |bytes: Bytes| {
            hasher.update(&bytes);
            sink(bytes)
        };
        let length = u32::try_from(self.encoded_manifest.len()).map_err(io::Error::other)?;
        put([&MAGIC[..], &length.to_le_bytes(), &self.encoded_manifest].concat().into())?;
        for file in &self.manifest.files {
            let mut reader = File::open(self.dir.path().join(&file.name))?.take(file.size);
            let mut left = file.size;
            while left > 0 {
                let mut chunk = vec![0; usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES))];
                reader.read_exact(&mut chunk)?;
                left -= chunk.len() as u64;
                put(chunk.into())?;
            }
        }
        put(Bytes::from(vec![0; padding_after(self.body_bytes())]))?;
        sink(Bytes::copy_from_slice(&hasher.finalize()))
    }

    /// Returns the stream as a channel of chunks, which ends with an error when a file cannot be read.
    #[must_use]
    pub fn into_chunks(self) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        tokio::task::spawn_blocking(move || {
            let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the receiver of the backup is gone");
            let written = self.write(&mut |bytes| sender.blocking_send(Ok(bytes)).map_err(gone));
            if let Err(error) = written {
                tracing::debug!(%error, "a backup ended early");
                // Sending fails only when the receiver is gone, which needs no error.
                drop(sender.blocking_send(Err(error)));
            }
        });
        receiver
    }
}

fn padding_after(written: u64) -> usize {
    let padding = written.next_multiple_of(BLOCK_BYTES) - written;
    usize::try_from(padding).expect("less than a block")
}

/// Reads a backup to its end and writes its files durably into `target`, which must not exist.
///
/// # Errors
/// When the backup is damaged, or cannot be read or written. `target` is removed again.
pub fn unpack(source: impl Read, target: &Path) -> Result<Manifest, BackupError> {
    fs::create_dir(target)?;
    let unpacked = unpack_into(source, target);
    if unpacked.is_err()
        && let Err(error) = fs::remove_dir_all(target)
    {
        tracing::warn!(path = %target.display(), %error, "cannot remove the partly unpacked backup");
    }
    unpacked
}

fn unpack_into(source: impl Read, target: &Path) -> Result<Manifest, BackupError> {
    let mut source = Hashed { source, hasher: Sha256::new(), read: 0 };
    let mut magic = [0; MAGIC.len()];
    source.fill(&mut magic).map_err(|_| BackupError::NotABackup)?;
    if magic != *MAGIC {
        return Err(BackupError::NotABackup);
    }
    let mut length = [0; 4];
    source.fill(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_MANIFEST_BYTES {
        return Err(BackupError::Damaged("its manifest is too long"));
    }
    let mut encoded = vec![0; length as usize];
    source.fill(&mut encoded)?;
    let manifest: Manifest = codec::decode(&encoded).map_err(|_| BackupError::Damaged("its manifest is unreadable"))?;
    for file in &manifest.files {
        let mut out = File::create_new(path_of(target, &file.name)?)?;
        let mut left = file.size;
        let mut chunk = vec![0; CHUNK_BYTES];
        while left > 0 {
            let part = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            source.fill(&mut chunk[..part])?;
            out.write_all(&chunk[..part])?;
            left -= part as u64;
        }
        out.sync_all()?;
    }
    let mut padding = vec![0; padding_after(source.read)];
    source.fill(&mut padding)?;
    let expected = source.hasher.clone().finalize();
    let mut found = [0; 32];
    source.fill(&mut found)?;
    if found != *expected {
        return Err(BackupError::Damaged("its checksum does not match"));
    }
    if source.source.read(&mut [0])? != 0 {
        return Err(BackupError::Damaged("more data follows its end"));
    }
    sync_directory(target)?;
    Ok(manifest)
}

/// Returns the path of a file in `target`. Names that lead out of it are refused.
fn path_of(target: &Path, name: &str) -> Result<PathBuf, BackupError> {
    let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if is_plain { Ok(target.join(name)) } else { Err(BackupError::Damaged("a file has an invalid name")) }
}

/// A reader that hashes the bytes it reads.
struct Hashed<R> {
    source: R,
    hasher: Sha256,
    read: u64,
}

impl<R: Read> Hashed<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.source.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Damaged("it ends too early"),
            _ => BackupError::Io(error),
        })?;
        self.hasher.update(&*buffer);
        self.read += buffer.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(dir: &Path) -> Vec<u8> {
        let source = dir.join("source");
        fs::create_dir(&source).expect("a directory");
        fs::write(source.join("CURRENT"), b"MANIFEST-000005\n").expect("a file");
        fs::write(source.join("000007.sst"), vec![7; 3 * CHUNK_BYTES + 11]).expect("a file");
        fs::write(source.join("empty"), b"").expect("a file");
        let backup = Backup::new(9, Revision(42), SnapshotDir::adopt(source)).expect("a backup");
        let mut stream = Vec::new();
        backup
            .write(&mut |bytes| {
                stream.extend_from_slice(&bytes);
                Ok(())
            })
            .expect("written");
        assert_eq!(stream.len() as u64, backup.size_bytes());
        assert_eq!(stream.len() as u64 % BLOCK_BYTES, CHECKSUM_BYTES, "the size that etcd's client expects");
        stream
    }

    #[test]
    fn an_unpacked_backup_has_the_same_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let stream = example(dir.path());
        let target = dir.path().join("target");
        let manifest = unpack(&stream[..], &target).expect("it is whole");
        assert_eq!((manifest.cluster, manifest.revision), (9, Revision(42)));
        assert_eq!(fs::read(target.join("CURRENT")).expect("a file"), b"MANIFEST-000005\n");
        assert_eq!(fs::read(target.join("000007.sst")).expect("a file"), vec![7; 3 * CHUNK_BYTES + 11]);
        assert_eq!(fs::read(target.join("empty")).expect("a file"), b"");
    }

    #[test]
    fn incomplete_and_damaged_backups_are_refused_and_leave_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let stream = example(dir.path());
        let target = dir.path().join("target");
        for length in [0, 5, 19, 25, 600, CHUNK_BYTES, stream.len() - 33, stream.len() - 1] {
            assert!(unpack(&stream[..length], &target).is_err(), "cut off at {length}");
            assert!(!target.exists());
        }
        for place in (0..stream.len()).step_by(4099).chain([0, 17, 30, stream.len() - 1]) {
            let mut damaged = stream.clone();
            damaged[place] ^= 1;
            assert!(unpack(&damaged[..], &target).is_err(), "a bit at {place}");
            assert!(!target.exists());
        }
        let longer = [&stream[..], b"x"].concat();
        assert!(unpack(&longer[..], &target).is_err());
    }

    #[test]
    fn file_names_cannot_leave_the_target() {
        for name in ["", ".", "..", "../x", "/etc/passwd", "a/b"] {
            assert!(path_of(Path::new("/t"), name).is_err(), "{name:?}");
        }
    }
}
