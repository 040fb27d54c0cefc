//! Checks at the start of an agent that the engine sees the file systems that the agent mounts. In a mount namespace of
//! its own the agent would mount volumes that the engine, and so every container, sees as empty directories.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::mounts::{self, Memory};
use crate::runtime::EngineProcess;

/// Name of the directory in the data directory at which the check mounts a file system.
const PROBE: &str = "mount-probe";

/// Whether the engine sees what is mounted below `data_dir`.
pub(super) fn is_seen(data_dir: &Path, engine: EngineProcess) -> io::Result<bool> {
    let shared = || Ok(is_shared(&std::fs::read("/proc/self/mountinfo")?, &data_dir.canonicalize()?));
    // Without an engine to compare with, only an agent that is isolated for certain is refused.
    let without_engine = || Ok(is_in_namespace_of_init()? || shared()?);
    match engine {
        EngineProcess::Pid(pid) => {
            let root = Path::new("/proc").join(pid.to_string()).join("root");
            match root.symlink_metadata().and_then(|_| probe(data_dir, &root)) {
                // The engine has just ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => without_engine(),
                // The agent may not look at the engine's process.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => shared(),
                seen => seen,
            }
        }
        EngineProcess::OtherNamespace => shared(),
        EngineProcess::Unknown => without_engine(),
    }
}

/// Mounts a file system and looks for it in the tree of directories that another process sees at `root`.
fn probe(data_dir: &Path, root: &Path) -> io::Result<bool> {
    let dir = data_dir.canonicalize()?.join(PROBE);
    // A killed agent may have left its probe behind.
    mounts::remove_all(&dir)?;
    Memory { mode: 0o700, group: None, size_bytes: Some(4096) }.mount(&dir)?;
    let seen = looks_same(&dir, &root.join(dir.strip_prefix("/").map_err(io::Error::other)?));
    mounts::remove_all(&dir)?;
    seen
}

fn looks_same(own: &Path, theirs: &Path) -> io::Result<bool> {
    let own = std::fs::metadata(own)?;
    match std::fs::metadata(theirs) {
        Ok(theirs) => Ok((own.dev(), own.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_in_namespace_of_init() -> io::Result<bool> {
    match std::fs::read_link("/proc/1/ns/mnt") {
        Ok(init) => Ok(init == std::fs::read_link("/proc/self/ns/mnt")?),
        // The agent may not look, so nothing is certain.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the mount that contains `dir` belongs to a peer group, so that other namespaces see what is mounted there.
fn is_shared(mountinfo: &[u8], dir: &Path) -> bool {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let mounts = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(4);
        let point = mounts::unescape(fields.next()?);
        // The optional fields end with a hyphen.
        let mut optional = fields.skip(1).take_while(|field| *field != b"-");
        dir.starts_with(&point)
            .then(|| (point.components().count(), optional.any(|field| field.starts_with(b"shared:"))))
    });
    // A later mount at the same point covers the earlier one.
    mounts.max_by_key(|(depth, _)| *depth).is_some_and(|(_, shared)| shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_contains_the_directory_decides() {
        let table = b"21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            22 21 8:2 / /var rw,noatime master:1 - ext4 /dev/sda2 rw\n\
            23 22 8:3 / /var/lib\\040x rw shared:7 master:1 - ext4 /dev/sda3 rw\n\
            24 21 0:5 / /srv rw shared:4 - tmpfs none rw\n\
            25 24 0:6 / /srv rw - tmpfs none rw\n";
        assert!(is_shared(table, Path::new("/data")));
        assert!(is_shared(table, Path::new("/variable")), "a name that only begins alike");
        assert!(!is_shared(table, Path::new("/var/lib")), "a slave passes nothing on");
        assert!(is_shared(table, Path::new("/var/lib x/agent")));
        assert!(!is_shared(table, Path::new("/srv/x")), "the later mount covers the earlier one");
        assert!(!is_shared(b"", Path::new("/data")));
    }
}
