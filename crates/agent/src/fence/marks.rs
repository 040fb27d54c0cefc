//! Marks of the containers that a fence has stopped: empty files in the pod's directory, named after the containers.
//!
//! The exit code of such a container says nothing about its work. The mark outlives the process that makes it, because a
//! later agent has to report the exit. It is removed together with the pod's directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::checkpoint::pod_dir;

/// Directory of the marks of a pod.
pub(super) fn dir(data_dir: &Path, uid: &str) -> PathBuf {
    pod_dir(data_dir, uid).join("fenced")
}

/// Makes the directory of the marks of a pod.
#[cfg(test)]
pub(super) fn prepare(data_dir: &Path, uid: &str) -> io::Result<()> {
    std::fs::create_dir_all(dir(data_dir, uid))
}

/// Marks containers. Does not bring back the directory of a pod that was removed.
pub(super) fn add(data_dir: &Path, uid: &str, ids: &[String]) -> io::Result<()> {
    let dir = dir(data_dir, uid);
    match std::fs::create_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    ids.iter().try_for_each(|id| std::fs::write(dir.join(id), b""))
}

/// Returns the ids of the marked containers of a pod, and when each was marked last.
pub(super) fn of(data_dir: &Path, uid: &str) -> io::Result<BTreeMap<String, Timestamp>> {
    let entries = match std::fs::read_dir(dir(data_dir, uid)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let mark = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        let at = Timestamp::try_from(entry.metadata()?.modified()?).map_err(io::Error::other)?;
        Ok((entry.file_name().to_string_lossy().into_owned(), at))
    };
    entries.map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_by_pod() {
        let data = tempfile::tempdir().expect("a directory");
        let ids = |uid: &str| of(data.path(), uid).expect("marks").into_keys().collect::<Vec<_>>();
        assert!(ids("a").is_empty(), "no directory is no error");
        for uid in ["a", "b"] {
            prepare(data.path(), uid).expect("prepared");
        }
        add(data.path(), "a", &["1".to_owned()]).expect("marked");
        add(data.path(), "a", &["1".to_owned()]).expect("marked twice");
        add(data.path(), "b", &["2".to_owned()]).expect("marked");
        assert_eq!(ids("a"), ["1"]);
    }

    #[test]
    fn a_mark_does_not_bring_back_a_removed_pod() {
        let data = tempfile::tempdir().expect("a directory");
        let error = add(data.path(), "gone", &["1".to_owned()]).expect_err("the pod has no directory");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!data.path().join("pods").exists());
    }
}
