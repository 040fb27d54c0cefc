//! Changes the version in the newest file of a member's log, as if an older or newer release had written it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

const LOG: &str = "store/log";
/// Length of the header, which starts with `qrtlog` and two digits; its checksum follows.
const COVERED_BYTES: usize = 20;
const DIGITS: std::ops::Range<usize> = 6..8;
const OURS: &[u8] = b"01";
const OTHER: &[u8] = b"02";

/// Writes a different version, or the current one again. Does nothing for a member without a log.
///
/// # Errors
/// When the file cannot be read or written.
pub fn set(data: &Path, is_other: bool) -> anyhow::Result<()> {
    let Some(newest) = newest(&data.join(LOG))? else { return Ok(()) };
    let file = OpenOptions::new().read(true).write(true).open(&newest)?;
    write(&file, if is_other { OTHER } else { OURS })
        .with_context(|| format!("cannot change the version in {}", newest.display()))
}

fn write(file: &File, version: &[u8]) -> anyhow::Result<()> {
    let mut header = [0; COVERED_BYTES + 4];
    file.read_exact_at(&mut header, 0)?;
    header[DIGITS].copy_from_slice(version);
    let checksum = crc32fast::hash(&header[..COVERED_BYTES]);
    header[COVERED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&header, 0)?;
    Ok(file.sync_all()?)
}

fn newest(log: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !log.exists() {
        return Ok(None);
    }
    let entries = fs::read_dir(log)?.collect::<Result<Vec<_>, _>>()?;
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    Ok(entries.into_iter().map(|entry| entry.path()).filter(is_segment).max())
}
