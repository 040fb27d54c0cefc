//! `backup`: saves the whole state of the quorum to one file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::session::Session;
use crate::transport::{ByteStream, Call};

/// Length of the SHA-256 at the end of the stream, which covers everything before it.
const CHECKSUM_BYTES: usize = 32;

/// Save the whole state of a running quorum to a file, from which `quorate restore` makes a new quorum
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The file to write; it must not exist
    file: PathBuf,
}

impl Backup {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if self.file.exists() {
            return Err(CliError::usage(format!("{} exists already; name another file", self.file.display())));
        }
        let mut partial = self.file.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let mut stream = session.transport.stream(&Call::get(RequestPath::raw("/quorum/backup"))).await?;
        let saved = save(&mut stream, &partial).await;
        let saved = saved.and_then(|size| {
            std::fs::rename(&partial, &self.file).map_err(|error| failed(&self.file, error))?;
            Ok(size)
        });
        match saved {
            Ok(size) => session.streams.line(format!("{} saved: {size} bytes", self.file.display())),
            Err(error) => {
                // Only the first error is reported.
                drop(std::fs::remove_file(&partial));
                Err(error)
            }
        }
    }
}

/// Writes the stream to a file, verifies its checksum, and syncs the file. Returns its length.
async fn save(stream: &mut ByteStream, path: &Path) -> Result<u64> {
    let mut file = File::create_new(path).map_err(|error| failed(path, error))?;
    let mut hasher = Sha256::new();
    let mut size = 0;
    // The last bytes received so far, which may be the checksum.
    let mut tail = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        file.write_all(&chunk).map_err(|error| failed(path, error))?;
        size += chunk.len() as u64;
        tail.extend_from_slice(&chunk);
        let body = tail.len().saturating_sub(CHECKSUM_BYTES);
        hasher.update(&tail[..body]);
        tail.drain(..body);
    }
    if tail != hasher.finalize()[..] {
        return Err(CliError::usage("the backup is damaged or incomplete; try again"));
    }
    file.sync_all().map_err(|error| failed(path, error))?;
    Ok(size)
}

fn failed(path: &Path, error: std::io::Error) -> CliError {
    CliError::io(format!("cannot write {}", path.display()), error)
}
