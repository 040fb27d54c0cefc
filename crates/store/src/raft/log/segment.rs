//! Segments: the files of the log, with a header and then records.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{ALIGNMENT, HEADER_BYTES, Header, RecordKind};
use crate::platform::fs::{File, FileExt, OpenOptions};
use crate::platform::{fs, random};
use crate::raft::state::snapshot::sync_directory;

const FILE_HEADER_BYTES: usize = 32;
/// First bytes of a segment.
const MAGIC: [u8; 6] = *b"qrtlog";
/// Version of the format, in two digits; it follows the magic bytes.
const VERSION: [u8; 2] = *b"01";
/// Prefix of the name of a file that is not a complete segment yet.
const SPARE: &str = "spare-";
/// Size of the blocks in which zeros are skipped.
const BLOCK_BYTES: usize = 4096;
const READ_BYTES: usize = 1 << 20;

/// An open segment. Clones are the same file.
#[derive(Clone, Debug)]
pub struct Segment {
    pub number: u64,
    /// Random seed of every checksum in the segment, so that no bytes from a client can pass for a record.
    pub salt: u32,
    pub file: Arc<File>,
}

/// A file for a future segment.
#[derive(Debug)]
pub struct SpareFile {
    file: File,
    path: PathBuf,
}

impl SpareFile {
    /// Creates an empty file under a random name, since a thread of an earlier instance may still be creating one.
    fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("{SPARE}{:016x}", random::<u64>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(SpareFile { file, path })
    }

    /// Creates a file of `size_bytes` zeros, on disk. A sync of overwritten zeros is faster than one of a growing file.
    ///
    /// # Errors
    /// When there is no space, or `is_wanted` returns false; the file is then removed.
    pub fn of_zeros(directory: &Path, size_bytes: u64, is_wanted: impl Fn() -> bool) -> io::Result<Self> {
        let spare = SpareFile::create(directory)?;
        let filled = spare.fill(size_bytes, is_wanted);
        if filled.is_err() {
            fs::remove_file(&spare.path)?;
        }
        filled.map(|()| spare)
    }

    fn fill(&self, size_bytes: u64, is_wanted: impl Fn() -> bool) -> io::Result<()> {
        let zeros = vec![0; READ_BYTES];
        for at in (0..size_bytes).step_by(READ_BYTES) {
            if !is_wanted() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the log is closed"));
            }
            let length = usize::try_from(size_bytes - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            self.file.write_all_at(&zeros[..length], at)?;
            // Synced in small parts, so that syncs of the log on the same disk are not delayed.
            self.file.sync_data()?;
        }
        self.file.sync_all()
    }
}

/// Why a segment was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("cannot write a segment of the log: {0}")]
    Write(io::Error),
    #[error("cannot sync a segment of the log: {0}")]
    Sync(io::Error),
}

/// The end of a segment, as a scan finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Place after the last whole record.
    pub at: u64,
    pub tail: Tail,
}

/// The contents after the last whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, or zeros.
    Blank,
    /// The rest of a write that a crash interrupted.
    Torn,
    /// A later record says that this place had been synced.
    Damaged,
}

impl Segment {
    /// Creates a segment that begins with the record that `head` returns for its salt. It is created durably, and
    /// either as a whole or not at all.
    ///
    /// # Errors
    /// When the segment cannot be created. Errors of a sync are distinguished from those of a write.
    pub fn create(
        directory: &Path,
        number: u64,
        spare: Option<SpareFile>,
        head: impl FnOnce(u32) -> Vec<u8>,
    ) -> Result<Self, CreateError> {
        let salt = random();
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&u32::to_le_bytes(salt));
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.resize(FILE_HEADER_BYTES, 0);
        bytes.extend_from_slice(&head(salt));
        let SpareFile { file, path: made } = match spare {
            Some(spare) => spare,
            None => SpareFile::create(directory).map_err(CreateError::Write)?,
        };
        let place = || {
            file.write_all_at(&bytes, 0).map_err(CreateError::Write)?;
            file.sync_all().map_err(CreateError::Sync)?;
            fs::rename(&made, path(directory, number)).map_err(CreateError::Write)
        };
        if let Err(error) = place() {
            if let Err(error) = fs::remove_file(&made) {
                tracing::debug!(%error, "the file of an incomplete segment stays until the next start");
            }
            return Err(error);
        }
        sync_directory(directory).map_err(CreateError::Sync)?;
        Ok(Segment { number, salt, file: Arc::new(file) })
    }

    /// Opens a segment.
    ///
    /// # Errors
    /// When the file cannot be read, has another version, or is not a segment of this number.
    pub fn open(directory: &Path, number: u64) -> io::Result<Self> {
        let path = path(directory, number);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut header = [0; FILE_HEADER_BYTES];
        if file.metadata()?.len() < FILE_HEADER_BYTES as u64 {
            return Err(damaged(&path, 0));
        }
        file.read_exact_at(&mut header, 0)?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let is_whole = header[..6] == MAGIC && crc32fast::hash(&header[..20]) == word(20);
        if is_whole && header[6..8] != VERSION {
            return Err(of_other_version(&path, &header[6..8]));
        }
        if !is_whole || header[8..16] != number.to_le_bytes() || header[24..] != [0; 8] {
            return Err(damaged(&path, 0));
        }
        Ok(Segment { number, salt: word(16), file: Arc::new(file) })
    }

    /// Returns the place of the first record.
    #[must_use]
    pub fn first_record() -> u64 {
        FILE_HEADER_BYTES as u64
    }

    /// Passes every record and its place to `see`. The end of the last segment may be torn, by a crash during a write
    /// that was not acknowledged.
    ///
    /// # Errors
    /// When the segment cannot be read, or is damaged in a part that had been synced; and the errors of `see`.
    pub fn scan(
        &self,
        directory: &Path,
        is_last: bool,
        mut see: impl FnMut(RecordKind, u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<End> {
        let mut window = Window { file: &self.file, length: self.file.metadata()?.len(), bytes: Vec::new(), at: 0 };
        let mut at = Segment::first_record();
        while let Some(header) = self.header(&mut window, at)? {
            let record = window.get(at, header.record_bytes())?;
            let Some(payload) = header.payload(record, self.salt) else { break };
            see(header.kind, at, payload)?;
            at += header.record_bytes() as u64;
        }
        let tail = self.tail(&mut window, at)?;
        let is_whole = if is_last { tail != Tail::Damaged } else { tail == Tail::Blank };
        if is_whole { Ok(End { at, tail }) } else { Err(damaged(&path(directory, self.number), at)) }
    }

    fn header(&self, window: &mut Window<'_>, at: u64) -> io::Result<Option<Header>> {
        let header = Header::read(window.get(at, HEADER_BYTES)?);
        Ok(header.filter(|header| at + header.record_bytes() as u64 <= window.length))
    }

    /// Examines the contents after the last whole record, which ends at `place`.
    fn tail(&self, window: &mut Window<'_>, place: u64) -> io::Result<Tail> {
        let mut tail = Tail::Blank;
        let mut at = place;
        while at < window.length {
            let block = window.get(at, BLOCK_BYTES)?;
            if block.iter().all(|byte| *byte == 0) {
                // A header may begin in the last bytes of the block.
                at += (block.len().max(2 * HEADER_BYTES) - HEADER_BYTES) as u64;
                continue;
            }
            tail = Tail::Torn;
            if let Some(header) = self.header(window, at)?
                && u64::from(header.durable) > place
                && header.payload(window.get(at, header.record_bytes())?, self.salt).is_some()
            {
                return Ok(Tail::Damaged);
            }
            at += ALIGNMENT as u64;
        }
        Ok(tail)
    }

    /// Removes the file. A reader that has it open can still read it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(directory: &Path, number: u64) -> io::Result<()> {
        fs::remove_file(path(directory, number))
    }
}

/// Removes the files that did not become segments.
///
/// # Errors
/// When one cannot be removed.
pub fn clear_spares(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(SPARE)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Returns the numbers of the segments in a directory, in order.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:016x}.log"))
}

pub fn damaged(path: &Path, at: u64) -> io::Error {
    let problem = format!(
        "{} is damaged at byte {at}, in a part that had been synced: entries that others count on may be lost. Remove \
         this member from the quorum and let it join anew with an empty directory",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Returns the error for an intact segment of another version, which may be neither read nor changed.
fn of_other_version(path: &Path, version: &[u8]) -> io::Error {
    let problem = format!(
        "{} is of version {} of the log, and this program knows version {}. Start this member with the version of Quorate \
         that wrote it",
        path.display(),
        version.escape_ascii(),
        VERSION.escape_ascii()
    );
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A part of a file in memory.
struct Window<'a> {
    file: &'a File,
    length: u64,
    bytes: Vec<u8>,
    at: u64,
}

impl Window<'_> {
    /// Returns `count` bytes from `at` on, or fewer at the end of the file.
    fn get(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let end = (at + count as u64).min(self.length);
        let held = self.at..self.at + self.bytes.len() as u64;
        if at < held.start || end > held.end {
            let wanted = (count.max(READ_BYTES) as u64).min(self.length.saturating_sub(at));
            self.bytes.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
            self.at = at;
        }
        let offset = |place: u64| usize::try_from(place - self.at).map_err(io::Error::other);
        Ok(&self.bytes[offset(at)?..offset(end.max(at))?])
    }
}
