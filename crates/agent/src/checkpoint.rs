//! Copies of this node's pods on disk. An agent that starts while no master answers manages these pods.
//!
//! A hollow agent writes none: none of its containers needs a probe or a restart while no master answers, and a machine
//! that simulates many nodes would write a file for each change of each of their pods.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

/// Directory of one pod: its checkpoint, volumes and termination messages.
pub(crate) fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("pods").join(uid)
}

fn file(data_dir: &Path, uid: &str) -> PathBuf {
    pod_dir(data_dir, uid).join("pod.json")
}

/// Makes the data directory. It holds secrets, so no other user may enter it.
pub(crate) fn prepare(data_dir: &Path) -> io::Result<()> {
    let pods = data_dir.join("pods");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&pods)?;
    std::fs::set_permissions(pods, std::fs::Permissions::from_mode(0o700))
}

/// Writes the checkpoint of one pod, atomically replacing the previous one.
pub(crate) fn save(data_dir: &Path, uid: &str, pod: &Pod) -> io::Result<()> {
    let path = file(data_dir, uid);
    let parent = pod_dir(data_dir, uid);
    std::fs::create_dir_all(&parent)?;
    let new = parent.join("pod.json.new");
    std::fs::write(&new, serde_json::to_vec(pod).map_err(io::Error::other)?)?;
    std::fs::rename(new, path)
}

/// Lists the uids of all pods that have a directory.
pub(crate) async fn uids(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut entries = tokio::fs::read_dir(data_dir.join("pods")).await?;
    let mut uids = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        uids.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(uids)
}

/// Reads the checkpoints of all pods. An unreadable one is left out and logged.
pub(crate) async fn load(data_dir: &Path) -> io::Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for uid in uids(data_dir).await? {
        let path = file(data_dir, &uid);
        let read =
            tokio::fs::read(&path).await.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
        match read {
            Ok(pod) => pods.push(pod),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), error = %error, "cannot read a pod's checkpoint"),
        }
    }
    Ok(pods)
}
