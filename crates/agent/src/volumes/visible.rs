//! Checks at the start of an agent that the engine sees the file systems that the agent mounts. In a mount namespace of
//! its own the agent would mount volumes that the engine, and so every container, sees as empty directories. If the check
//! itself fails, only an agent that is isolated for certain is refused.

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
            match probe(data_dir, &root) {
                Ok(true) => Ok(true),
                // Only an engine that lives tells anything, and a proxy in a container is not the engine.
                Ok(false) if !is_root_of_machine(&root) => {
                    tracing::warn!("cannot tell whether the container engine sees the volumes that this agent mounts");
                    without_engine()
                }
                Ok(false) => Ok(false),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot test whether the container engine sees the agent's mounts");
                    without_engine()
                }
            }
        }
        EngineProcess::OtherNamespace => shared(),
        EngineProcess::Unknown => without_engine(),
    }
}

/// Mounts a file system and looks for it in the tree of directories that another process sees at `root`.
fn probe(data_dir: &Path, root: &Path) -> io::Result<bool> {
    let dir = data_dir.canonicalize()?.join(PROBE);
    // A killed agent may have left its mount behind. The directory stays, because a full disk has no room for a new one.
    mounts::unmount_below(&dir)?;
    Memory { mode: 0o700, group: None, size_bytes: Some(4096) }.mount(&dir)?;
    let seen = looks_same(&dir, &root.join(dir.strip_prefix("/").map_err(io::Error::other)?));
    mounts::unmount_below(&dir)?;
    seen
}

/// Whether this is the root directory of the agent or of the first process. False if it cannot be looked at.
fn is_root_of_machine(root: &Path) -> bool {
    let same = |other: &str| looks_same(Path::new(other), root).unwrap_or(false);
    same("/") || same("/proc/1/root")
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

    fn own_process() -> EngineProcess {
        EngineProcess::Pid(i32::try_from(std::process::id()).expect("a pid"))
    }

    #[test]
    fn the_probes_directory_stays_for_an_agent_on_a_full_disk() {
        let data = tempfile::tempdir().expect("a directory");
        let dir = data.path().join(PROBE);
        for _ in 0..2 {
            assert!(is_seen(data.path(), own_process()).expect("an answer"));
            assert!(dir.is_dir() && !mounts::is_mounted(&dir).expect("the table can be read"));
        }
    }

    #[test]
    fn an_agent_that_cannot_make_the_probe_is_judged_without_it() {
        let data = tempfile::tempdir().expect("a directory");
        // No directory can be made at a file, as on a full disk.
        std::fs::write(data.path().join(PROBE), b"").expect("written");
        let expected = is_seen(data.path(), EngineProcess::Unknown).expect("an answer");
        assert_eq!(is_seen(data.path(), own_process()).expect("an answer"), expected);
    }

    #[test]
    fn an_engine_that_has_ended_tells_nothing() {
        let data = tempfile::tempdir().expect("a directory");
        let expected = is_seen(data.path(), EngineProcess::Unknown).expect("an answer");
        assert_eq!(is_seen(data.path(), EngineProcess::Pid(i32::MAX)).expect("an answer"), expected);
    }

    #[test]
    fn only_the_agent_and_the_first_process_have_the_root_of_the_machine() {
        assert!(is_root_of_machine(Path::new("/proc/self/root")));
        assert!(!is_root_of_machine(Path::new("/proc/self/root/proc")), "as of a proxy in a container");
        assert!(!is_root_of_machine(Path::new("/proc/2147483647/root")), "the process has ended");
    }

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
