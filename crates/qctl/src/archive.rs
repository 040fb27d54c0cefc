//! The tar archives of `cp`: packs local files under the name that they get in the container, and unpacks a container's
//! archive below the local target, which no entry can leave.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{CliError, Result};

/// Size of a piece of an archive, in bytes.
const PIECE_BYTES: usize = 32 * 1024;

/// Writes an archive into a channel.
pub struct PieceWriter(pub mpsc::Sender<Result<Bytes>>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an archive from a channel.
pub struct PieceReader {
    pieces: std::sync::mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl PieceReader {
    #[must_use]
    pub fn new(pieces: std::sync::mpsc::Receiver<Bytes>) -> Self {
        PieceReader { pieces, current: Bytes::new() }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.recv() {
                Ok(piece) => self.current = piece,
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// Packs a file or directory, as `name`. Only empty directories are entries of their own, so that unpacking does not
/// change the mode of a directory that exists.
///
/// # Errors
/// When a file cannot be read, or nobody reads the archive any more.
pub fn pack(source: &Path, name: &Path, writer: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(PIECE_BYTES, writer));
    archive.follow_symlinks(false);
    // Not every tar knows sparse files.
    archive.sparse(false);
    add(&mut archive, source, name)?;
    let failed = |source| CliError::io("packing the archive", source);
    archive.into_inner().and_then(|mut writer| writer.flush()).map_err(failed)
}

fn add(archive: &mut tar::Builder<impl Write>, source: &Path, name: &Path) -> Result<()> {
    let failed = |error| CliError::io(format!("packing {}", source.display()), error);
    let is_directory = fs::symlink_metadata(source).map_err(failed)?.is_dir();
    let mut names = Vec::new();
    if is_directory {
        for entry in fs::read_dir(source).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort();
    }
    if names.is_empty() {
        return archive.append_path_with_name(source, name).map_err(failed);
    }
    names.into_iter().try_for_each(|entry| add(archive, &source.join(&entry), &name.join(&entry)))
}

/// The place of an archive's entry.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Below the target; empty for the target itself.
    Below(PathBuf),
    Outside,
    /// The entry is not below the path that was asked for.
    Foreign,
}

/// Returns the components of a path of the container without its roots and dots. A shell in the container would resolve
/// `..` at the beginning, and tar removes it from the names of entries.
fn components(path: &Path) -> impl Iterator<Item = &OsStr> {
    let normal = path.components().skip_while(|component| !matches!(component, Component::Normal(_)));
    normal.filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    })
}

/// Decides where an entry goes if `asked` is the path in the container that was asked for.
fn place(asked: &Path, entry: &Path) -> Place {
    // An entry must not climb out of the target, by however many detours.
    if entry.components().any(|component| component == Component::ParentDir) {
        return Place::Outside;
    }
    let mut names = components(entry);
    for expected in components(&clean(asked)) {
        if names.next() != Some(expected) {
            return Place::Foreign;
        }
    }
    Place::Below(names.collect())
}

/// Resolves the `..` of a path as far as its own components allow.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for name in components(path) {
        if name != ".." {
            cleaned.push(name);
        } else if !cleaned.pop() {
            tracing::debug!(path = %path.display(), "the path leaves its beginning");
        }
    }
    cleaned
}

/// Unpacks an archive of the container's path `asked` to the local path `target`. Returns warnings about skipped entries.
/// `hint` is added to the first one about a symbolic link.
///
/// # Errors
/// When the archive is damaged, holds something else, or a file cannot be written.
pub fn unpack(reader: impl Read, asked: &Path, target: &Path, hint: &str) -> Result<Vec<String>> {
    let damaged = |source| CliError::io("reading the container's archive", source);
    let mut warnings = Vec::new();
    let mut hint = Some(hint);
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        let below = match place(asked, &name) {
            Place::Below(below) => below,
            Place::Foreign => return Err(CliError::usage("tar contents corrupted")),
            Place::Outside => {
                warnings.push(format!("warning: file {name:?} is outside target destination, skipping"));
                continue;
            }
        };
        let path = if below.as_os_str().is_empty() { target.to_owned() } else { target.join(&below) };
        if passes_a_link(target, &below) {
            warnings.push(format!("warning: file {path:?} is behind a symbolic link, skipping"));
            continue;
        }
        let failed = |source| CliError::io(format!("writing {}", path.display()), source);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&path).map_err(failed)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        if kind.is_symlink() {
            let link = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
            let hint = hint.take().unwrap_or_default();
            warnings.push(format!("warning: skipping symlink: {path:?} -> {link:?}{hint}"));
        } else if kind.is_hard_link() {
            let link = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
            match place(asked, &link) {
                Place::Below(other) if !passes_a_link(target, &other) => {
                    fs::copy(target.join(other), &path).map_err(failed)?;
                }
                _ => warnings.push(format!("warning: skipping link: {path:?} -> {link:?}")),
            }
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            if path.is_dir() {
                let example = path.join(name.file_name().unwrap_or_default());
                return Err(CliError::usage(format!(
                    "{} is a directory; name the file to write, such as {}",
                    path.display(),
                    example.display()
                )));
            }
            let mut file = File::create(&path).map_err(failed)?;
            io::copy(&mut entry, &mut file).map_err(failed)?;
        } else {
            warnings.push(format!("warning: skipping {path:?}, which is no file"));
        }
    }
    // The sender must not fail because the padding after the end is not read.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(warnings)
}

/// Whether one of the path's components below the target is a symbolic link, which may lead out of it.
fn passes_a_link(target: &Path, below: &Path) -> bool {
    let mut path = target.to_owned();
    below.components().any(|component| {
        path.push(component);
        fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink())
    })
}

#[cfg(test)]
mod tests;
