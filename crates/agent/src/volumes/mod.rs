//! Volumes of pods: directories of this node, and the content of ConfigMaps, Secrets and the pod itself.
//!
//! A pod's volumes are in `<data>/pods/<uid>/volumes/<name>`. No other user may enter `<data>/pods`. Volumes that show
//! Secrets or the pod's own fields are memory file systems, like memory volumes. Parts of volumes that containers mount
//! by `subPath` are mounted in `<data>/pods/<uid>/volume-subpaths/<volume>/<container>/<index>`.
//!
//! An agent that is not root may not mount file systems, and runs pods with restrictions: the content of Secrets is on
//! disk, in the closed directory; memory volumes are refused; `subPath` is refused except in volumes that no container
//! can write to.

mod atomic;
mod host_path;
mod mounts;
pub(crate) mod objects;
mod payload;
mod sub_path;
mod visible;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume, VolumeMount};
use quorate_api::quantity::Quantity;

use self::mounts::Memory;
use self::sub_path::SubPathError;
use crate::blocking::{self, HostCalls};
use crate::checkpoint::pod_dir;
use crate::cluster::ObjectRef;
use crate::env::{self, Facts, Referenced};
use crate::machine;
use crate::plan::pod_ref;
use crate::runtime::{BindMount, EngineProcess};

/// Directory below a pod's directory in which the parts of volumes that `subPath` names are mounted.
const SUB_PATHS: &str = "volume-subpaths";

/// Why a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Payload { volume: String, source: payload::PayloadError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    HostPath { volume: String, source: host_path::HostPathError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {path}: {source}")]
    Io { volume: String, path: PathBuf, source: io::Error },
    #[error("this node does not support the type of the volume \"{volume}\"")]
    Unsupported { volume: String },
    #[error("the container mounts the volume \"{volume}\", which the pod does not have")]
    Unknown { volume: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : the agent may not mount anything, so it cannot {what}")]
    MayNotMount { volume: String, what: &'static str },
    #[error("failed to prepare subPath \"{path}\" for volumeMount \"{volume}\" of container \"{container}\": {source}")]
    SubPath { volume: String, container: String, path: String, source: SubPathFailure },
}

/// Why a part of a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct SubPathFailure(SubPathError);

fn volume_dir(data_dir: &Path, uid: &str, name: &str) -> PathBuf {
    pod_dir(data_dir, uid).join("volumes").join(name)
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// Returns the objects whose content the pod's volumes show.
pub(crate) fn references(pod: &Pod) -> BTreeSet<ObjectRef> {
    let namespace = pod_ref(pod).namespace;
    volumes(pod).iter().flat_map(|volume| payload::references(&namespace, volume)).collect()
}

/// Whether any of the pod's volumes shows its labels or annotations.
pub(crate) fn show_metadata(pod: &Pod) -> bool {
    volumes(pod).iter().any(payload::shows_metadata)
}

/// Opens a file below `root` for reading, without following links that leave `root`.
pub(crate) fn open_beneath(root: &Path, path: &str) -> io::Result<std::fs::File> {
    sub_path::open_file(root, path).map_err(|error| match error {
        SubPathError::Io(error) => error,
        error => io::Error::other(error),
    })
}

/// Removes a directory of the agent with everything in it, except the content of mounts, which it unmounts.
///
/// # Errors
/// When something below stays mounted or cannot be removed.
pub fn remove_data(dir: &Path) -> io::Result<()> {
    mounts::remove_all(dir)
}

/// Whether the engine sees the volumes that the agent mounts below `data_dir`. An agent that may not mount has none.
pub(crate) async fn are_visible(data_dir: &Path, engine: EngineProcess) -> io::Result<bool> {
    if !machine::may_mount() {
        return Ok(true);
    }
    let data_dir = data_dir.to_owned();
    blocking::local(move || visible::is_seen(&data_dir, engine)).await?
}

/// Removes everything of a pod from the data directory.
pub(crate) async fn clean_up(data_dir: &Path, uid: &str) -> io::Result<()> {
    let dir = pod_dir(data_dir, uid);
    blocking::local(move || mounts::remove_all(&dir)).await?
}

/// Makes the volumes of this node's pods.
pub(crate) struct Volumes {
    data_dir: PathBuf,
    may_mount: bool,
    host: HostCalls,
}

impl Volumes {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Volumes { data_dir: data_dir.to_owned(), may_mount: machine::may_mount(), host: HostCalls::default() }
    }

    /// Makes all volumes of a pod, or updates their content. Idempotent.
    pub(crate) async fn prepare(&self, objects: &Referenced, facts: Facts<'_>) -> Result<(), VolumeError> {
        let pod = facts.pod;
        let uid = pod_ref(pod).uid;
        let group = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group);
        let group = group.and_then(|group| u32::try_from(group).ok());
        for volume in volumes(pod) {
            let dir = volume_dir(&self.data_dir, &uid, &volume.name);
            if let Some(source) = &volume.empty_dir {
                self.empty_dir(volume, dir, source, group).await?;
            } else if let Some(source) = &volume.host_path {
                self.host_path(volume, source).await?;
            } else if let Some(sources) = payload::sources(volume) {
                let files = payload::files(&sources, objects, facts)
                    .map_err(|source| VolumeError::Payload { volume: volume.name.clone(), source })?;
                let in_memory = self.may_mount && payload::lies_in_memory(volume);
                let make = {
                    let dir = dir.clone();
                    move || {
                        if in_memory {
                            Memory { mode: 0o755, group: None, size_bytes: None }.mount(&dir)?;
                        }
                        atomic::write(&dir, &files, group)
                    }
                };
                local(volume, dir, make).await?;
            } else {
                return Err(VolumeError::Unsupported { volume: volume.name.clone() });
            }
        }
        Ok(())
    }

    async fn empty_dir(
        &self,
        volume: &Volume,
        dir: PathBuf,
        source: &EmptyDirVolumeSource,
        group: Option<u32>,
    ) -> Result<(), VolumeError> {
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        if source.medium.as_deref() != Some("Memory") {
            let path = dir.clone();
            return local(volume, path, move || disk_dir(&dir, mode, group)).await;
        }
        if !self.may_mount {
            return Err(VolumeError::MayNotMount { volume: volume.name.clone(), what: "make a volume in memory" });
        }
        let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
        let size_bytes = limit.map(Quantity::value).filter(|bytes| *bytes > 0);
        let path = dir.clone();
        local(volume, path, move || Memory { mode, group, size_bytes }.mount(&dir)).await
    }

    async fn host_path(&self, volume: &Volume, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
        let failed = |source| VolumeError::HostPath { volume: volume.name.clone(), source };
        let path = PathBuf::from(&source.path);
        let wanted = source.clone();
        let checked = self.host.run(&path, move || host_path::check(&wanted)).await;
        checked.map_err(|source| failed(host_path::HostPathError::Io { path, source }))?.map_err(failed)
    }

    /// Returns the bind mounts of a container.
    pub(crate) async fn bind_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        variables: &BTreeMap<String, String>,
    ) -> Result<Vec<BindMount>, VolumeError> {
        let uid = pod_ref(pod).uid;
        let mut list = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let volume = volumes(pod)
                .iter()
                .find(|volume| volume.name == mount.name)
                .ok_or_else(|| VolumeError::Unknown { volume: mount.name.clone() })?;
            let root = match &volume.host_path {
                Some(source) => PathBuf::from(&source.path),
                None => volume_dir(&self.data_dir, &uid, &volume.name),
            };
            let is_payload = payload::sources(volume).is_some();
            let source = match sub_path(mount, variables) {
                Some(sub) => {
                    let place = part_dir(&pod_dir(&self.data_dir, &uid), volume, container, index);
                    self.part(volume, container, root, sub, place).await?
                }
                None => root,
            };
            list.push(BindMount {
                source,
                target: mount.mount_path.clone(),
                read_only: mount.read_only == Some(true) || is_payload,
                propagation: match mount.mount_propagation.as_deref() {
                    Some("Bidirectional") => "rshared",
                    Some("HostToContainer") => "rslave",
                    _ => "rprivate",
                },
            });
        }
        Ok(list)
    }

    /// Whether everything that the agent has mounted for a container is still mounted. After a reboot, a container that
    /// was made before would find plain directories instead.
    pub(crate) async fn in_place(&self, pod: &Pod, container: &Container) -> io::Result<bool> {
        if !self.may_mount {
            return Ok(true);
        }
        let dir = pod_dir(&self.data_dir, &pod_ref(pod).uid);
        let (mut parts, mut memory) = (Vec::new(), Vec::new());
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let Some(volume) = volumes(pod).iter().find(|volume| volume.name == mount.name) else { continue };
            if mount.sub_path.as_ref().is_some_and(|path| !path.is_empty()) || mount.sub_path_expr.is_some() {
                parts.push(part_dir(&dir, volume, container, index));
            }
            if lies_in_memory(volume) {
                memory.push(dir.join("volumes").join(&volume.name));
            }
        }
        if parts.is_empty() && memory.is_empty() {
            return Ok(true);
        }
        let look = move || {
            for dir in memory {
                if !dir.try_exists()? || !mounts::is_tmpfs(&dir)? {
                    return Ok(false);
                }
            }
            for dir in parts {
                if !mounts::is_mounted(&dir)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        blocking::local(look).await?
    }

    /// Returns the path that the runtime mounts instead of `sub` inside the volume.
    async fn part(
        &self,
        volume: &Volume,
        container: &Container,
        root: PathBuf,
        sub: String,
        place: PathBuf,
    ) -> Result<PathBuf, VolumeError> {
        let is_payload = payload::sources(volume).is_some();
        if !self.may_mount && !is_payload {
            // The checked file could be replaced before the runtime mounts it.
            return Err(VolumeError::MayNotMount { volume: volume.name.clone(), what: "mount a subPath of it safely" });
        }
        let may_mount = self.may_mount;
        let find = {
            let (root, sub) = (root.clone(), sub.clone());
            move || -> Result<PathBuf, SubPathError> {
                let found = sub_path::find(&root, &sub, !is_payload)?;
                if !may_mount {
                    return Ok(sub_path::path_of(&found)?);
                }
                sub_path::bind(&found, &place)?;
                Ok(place)
            }
        };
        let found = match &volume.host_path {
            Some(_) => self.host.run(&root, find).await,
            None => blocking::local(find).await,
        };
        found.unwrap_or_else(|error| Err(SubPathError::Io(error))).map_err(|source| VolumeError::SubPath {
            volume: volume.name.clone(),
            container: container.name.clone(),
            path: sub,
            source: SubPathFailure(source),
        })
    }
}

/// Returns the mount point of a part of a volume, below the pod's directory.
fn part_dir(pod_dir: &Path, volume: &Volume, container: &Container, index: usize) -> PathBuf {
    pod_dir.join(SUB_PATHS).join(&volume.name).join(&container.name).join(index.to_string())
}

/// Whether the agent keeps a volume in memory, if it may mount file systems.
fn lies_in_memory(volume: &Volume) -> bool {
    let is_memory = |source: &EmptyDirVolumeSource| source.medium.as_deref() == Some("Memory");
    payload::lies_in_memory(volume) || volume.empty_dir.as_ref().is_some_and(is_memory)
}

/// Runs the file calls that make a volume in the agent's own directory.
async fn local(
    volume: &Volume,
    path: PathBuf,
    make: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), VolumeError> {
    let made = blocking::local(make).await.and_then(|made| made);
    made.map_err(|source| VolumeError::Io { volume: volume.name.clone(), path, source })
}

/// Makes an empty directory that every user can write to. The final name is given last, so that a directory with this
/// name is complete and keeps the changes of containers.
fn disk_dir(dir: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if dir.try_exists()? {
        return Ok(());
    }
    let name = dir.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let new = dir.with_file_name(format!("..{name}"));
    mounts::remove_all(&new)?;
    std::fs::create_dir_all(&new)?;
    if group.is_some() {
        std::os::unix::fs::chown(&new, None, group)?;
    }
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(new, dir)
}

fn sub_path(mount: &VolumeMount, variables: &BTreeMap<String, String>) -> Option<String> {
    let plain = mount.sub_path.clone().filter(|path| !path.is_empty());
    plain.or_else(|| mount.sub_path_expr.as_ref().map(|expression| env::expand(expression, variables)))
}

#[cfg(test)]
mod tests;
