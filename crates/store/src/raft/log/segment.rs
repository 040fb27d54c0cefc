//! A segment: one file of the log, a header and then records.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{ALIGNMENT, HEADER_BYTES, Header, Kind};
use crate::raft::snapshot::sync_directory;

const FILE_HEADER_BYTES: usize = 32;
const FORMAT: [u8; 8] = *b"qrtlog01";
/// A segment has this name until it is complete.
const UNBORN: &str = "segment.new";
const READ_BYTES: usize = 1 << 20;

/// An open segment. Clones are the same file.
#[derive(Clone, Debug)]
pub struct Segment {
    pub number: u64,
    /// Begins every checksum in here: no bytes that a client sends look like a record of this segment.
    pub salt: u32,
    pub file: Arc<File>,
}

/// Why a segment was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("cannot write a segment of the log: {0}")]
    Write(io::Error),
    #[error("cannot sync a segment of the log: {0}")]
    Sync(io::Error),
}

/// What was found at the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// After the last whole record.
    pub at: u64,
    /// Something follows that is no record.
    pub is_torn: bool,
}

impl Segment {
    /// Makes a segment that begins with the record that `head` seals for its salt. It is there, durably, all of it or
    /// not at all.
    ///
    /// # Errors
    /// When it cannot be made. Errors of a sync are told from those of a write.
    pub fn create(directory: &Path, number: u64, head: impl FnOnce(u32) -> Vec<u8>) -> Result<Self, CreateError> {
        let salt = rand::random();
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&FORMAT);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&u32::to_le_bytes(salt));
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.resize(FILE_HEADER_BYTES, 0);
        bytes.extend_from_slice(&head(salt));
        let unborn = directory.join(UNBORN);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unborn);
        let file = file.map_err(CreateError::Write)?;
        file.write_all_at(&bytes, 0).map_err(CreateError::Write)?;
        file.sync_all().map_err(CreateError::Sync)?;
        std::fs::rename(&unborn, path(directory, number)).map_err(CreateError::Write)?;
        sync_directory(directory).map_err(CreateError::Sync)?;
        Ok(Segment { number, salt, file: Arc::new(file) })
    }

    /// # Errors
    /// When it cannot be read, or is none of ours.
    pub fn open(directory: &Path, number: u64) -> io::Result<Self> {
        let path = path(directory, number);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut header = [0; FILE_HEADER_BYTES];
        if file.metadata()?.len() < FILE_HEADER_BYTES as u64 {
            return Err(damaged(&path, 0));
        }
        file.read_exact_at(&mut header, 0)?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let is_ours = header[..8] == FORMAT
            && header[8..16] == number.to_le_bytes()
            && crc32fast::hash(&header[..20]) == word(20)
            && header[24..] == [0; 8];
        if !is_ours {
            return Err(damaged(&path, 0));
        }
        Ok(Segment { number, salt: word(16), file: Arc::new(file) })
    }

    /// Where its first record begins.
    #[must_use]
    pub fn first_record() -> u64 {
        FILE_HEADER_BYTES as u64
    }

    /// Shows every record to `see`, with its place. The end may be torn if this is the last segment, for that is what a
    /// crash leaves of a write that nobody was told of.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged before what had been synced; and what `see` says.
    pub fn scan(
        &self,
        directory: &Path,
        is_last: bool,
        mut see: impl FnMut(Kind, u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<End> {
        let mut window = Window { file: &self.file, length: self.file.metadata()?.len(), bytes: Vec::new(), at: 0 };
        let mut at = Segment::first_record();
        while let Some(header) = self.header(&mut window, at)? {
            let record = window.get(at, header.record_bytes())?;
            let Some(payload) = header.payload(record, self.salt) else { break };
            see(header.kind, at, payload)?;
            at += header.record_bytes() as u64;
        }
        let is_torn = at < window.length;
        if is_torn && (!is_last || self.was_synced(&mut window, at)?) {
            return Err(damaged(&path(directory, self.number), at));
        }
        Ok(End { at, is_torn })
    }

    fn header(&self, window: &mut Window<'_>, at: u64) -> io::Result<Option<Header>> {
        let header = Header::read(window.get(at, HEADER_BYTES)?);
        Ok(header.filter(|header| at + header.record_bytes() as u64 <= window.length))
    }

    /// Whether a record behind `place` tells that more had been synced than is there before it.
    fn was_synced(&self, window: &mut Window<'_>, place: u64) -> io::Result<bool> {
        let mut at = place + ALIGNMENT as u64;
        while at + HEADER_BYTES as u64 <= window.length {
            if let Some(header) = self.header(window, at)?
                && u64::from(header.durable) > place
                && header.payload(window.get(at, header.record_bytes())?, self.salt).is_some()
            {
                return Ok(true);
            }
            at += ALIGNMENT as u64;
        }
        Ok(false)
    }

    /// Removes the file. Who has it open may read on.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(directory: &Path, number: u64) -> io::Result<()> {
        std::fs::remove_file(path(directory, number))
    }
}

/// The numbers of the segments in a directory, in order.
///
/// # Errors
/// When it cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
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

/// A part of a file in memory.
struct Window<'a> {
    file: &'a File,
    length: u64,
    bytes: Vec<u8>,
    at: u64,
}

impl Window<'_> {
    /// The bytes from `at` on: `count`, or as many as there are.
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
