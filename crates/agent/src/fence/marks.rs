//! Marks of the containers that a fence has stopped: empty files in the pod's directory, named after the containers.
//!
//! The exit code of such a container says nothing about its work. The mark outlives the process that makes it, because a
//! later agent has to report the exit. It is removed together with the pod's directory.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::pod_dir;

fn dir(data_dir: &Path, uid: &str) -> PathBuf {
    pod_dir(data_dir, uid).join("fenced")
}

/// Marks one container.
pub(super) async fn add(data_dir: &Path, uid: &str, id: &str) -> io::Result<()> {
    let dir = dir(data_dir, uid);
    tokio::fs::create_dir_all(&dir).await?;
    tokio::fs::write(dir.join(id), b"").await
}

/// Returns the ids of the marked containers of a pod.
pub(super) async fn of(data_dir: &Path, uid: &str) -> io::Result<BTreeSet<String>> {
    let mut entries = match tokio::fs::read_dir(dir(data_dir, uid)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut ids = BTreeSet::new();
    while let Some(entry) = entries.next_entry().await? {
        ids.insert(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn marks_are_kept_by_pod() {
        let data = tempfile::tempdir().expect("a directory");
        assert_eq!(of(data.path(), "a").await.expect("no directory is no error"), BTreeSet::new());
        add(data.path(), "a", "1").await.expect("marked");
        add(data.path(), "a", "1").await.expect("marked twice");
        add(data.path(), "b", "2").await.expect("marked");
        assert_eq!(of(data.path(), "a").await.expect("marks"), BTreeSet::from(["1".to_owned()]));
    }
}
