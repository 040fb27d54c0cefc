//! What pods mount: directories of this node, and the content of ConfigMaps, Secrets and the pod itself.
//!
//! A pod's volumes live in `<data>/pods/<uid>/volumes/<name>`; `<data>/pods` is closed to everybody else.

mod atomic;
mod host_path;
pub(crate) mod objects;
mod payload;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume, VolumeMount};
use nix::mount::MsFlags;
use quorate_api::quantity::Quantity;

use crate::checkpoint::pod_dir;
use crate::cluster::ObjectRef;
use crate::env::{self, Facts, Referenced};
use crate::plan::pod_ref;
use crate::runtime::BindMount;

/// Why a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Payload { volume: String, source: payload::PayloadError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    HostPath { volume: String, source: host_path::HostPathError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {path}: {source}")]
    Io { volume: String, path: PathBuf, source: io::Error },
    #[error("volume \"{volume}\" is of a kind that this node does not support")]
    Unsupported { volume: String },
    #[error("the container mounts the volume \"{volume}\", which the pod does not have")]
    Unknown { volume: String },
    #[error("subPath \"{path}\" of volume \"{volume}\" leaves the volume")]
    Escape { volume: String, path: String },
}

fn volume_dir(data_dir: &Path, uid: &str, name: &str) -> PathBuf {
    pod_dir(data_dir, uid).join("volumes").join(name)
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// Objects whose content the pod's volumes show.
pub(crate) fn references(pod: &Pod) -> BTreeSet<ObjectRef> {
    let namespace = pod_ref(pod).namespace;
    volumes(pod).iter().flat_map(|volume| payload::references(&namespace, volume)).collect()
}

/// Whether any of the pod's volumes shows its labels or annotations.
pub(crate) fn show_metadata(pod: &Pod) -> bool {
    volumes(pod).iter().any(payload::shows_metadata)
}

/// Makes all volumes of a pod, or brings their content up to date. Doing it again changes nothing.
pub(crate) async fn prepare(data_dir: &Path, objects: &Referenced, facts: Facts<'_>) -> Result<(), VolumeError> {
    let pod = facts.pod;
    let uid = pod_ref(pod).uid;
    let group = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group);
    for volume in volumes(pod) {
        let dir = volume_dir(data_dir, &uid, &volume.name);
        let failed = |path: &Path| {
            let (volume, path) = (volume.name.clone(), path.to_owned());
            move |source| VolumeError::Io { volume, path, source }
        };
        if let Some(source) = &volume.empty_dir {
            if !tokio::fs::try_exists(&dir).await.map_err(failed(&dir))? {
                empty_dir(&dir, source, group).map_err(failed(&dir))?;
            }
        } else if let Some(source) = &volume.host_path {
            host_path::check(source).map_err(|source| VolumeError::HostPath { volume: volume.name.clone(), source })?;
        } else if let Some(sources) = payload::sources(volume) {
            let files = payload::files(&sources, objects, facts)
                .map_err(|source| VolumeError::Payload { volume: volume.name.clone(), source })?;
            atomic::write(&dir, &files, group).await.map_err(failed(&dir))?;
        } else {
            return Err(VolumeError::Unsupported { volume: volume.name.clone() });
        }
    }
    Ok(())
}

fn empty_dir(dir: &Path, source: &EmptyDirVolumeSource, group: Option<i64>) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
        let options = limit.map(|limit| format!("size={}", limit.value()));
        nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), options.as_deref())?;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
    if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
        std::os::unix::fs::chown(dir, None, Some(group))?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o2777))?;
    }
    Ok(())
}

/// Removes everything of a pod from the data directory.
pub(crate) async fn clean_up(data_dir: &Path, uid: &str) -> io::Result<()> {
    let dir = pod_dir(data_dir, uid);
    let mounts = tokio::fs::read_to_string("/proc/self/mounts").await?;
    let inside = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    for mount in inside.filter(|mount| mount.starts_with(&dir)) {
        nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH)?;
    }
    match tokio::fs::remove_dir_all(&dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Where a container's mounts come from on this machine.
pub(crate) fn bind_mounts(
    data_dir: &Path,
    pod: &Pod,
    container: &Container,
    variables: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<BindMount>, VolumeError> {
    let uid = pod_ref(pod).uid;
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let volume = volumes(pod)
            .iter()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| VolumeError::Unknown { volume: mount.name.clone() })?;
        let root = match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => volume_dir(data_dir, &uid, &volume.name),
        };
        let source = match sub_path(mount, variables) {
            Some(sub) => inside(&root, &sub, &mount.name, payload::sources(volume).is_none())?,
            None => root,
        };
        let payload = payload::sources(volume).is_some();
        Ok(BindMount {
            source,
            target: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true) || payload,
            propagation: match mount.mount_propagation.as_deref() {
                Some("Bidirectional") => "rshared",
                Some("HostToContainer") => "rslave",
                _ => "rprivate",
            },
        })
    });
    mounts.collect()
}

fn sub_path(mount: &VolumeMount, variables: &std::collections::BTreeMap<String, String>) -> Option<String> {
    let plain = mount.sub_path.clone().filter(|path| !path.is_empty());
    plain.or_else(|| mount.sub_path_expr.as_ref().map(|expression| env::expand(expression, variables)))
}

/// A path inside a volume, made if it may be, and checked not to leave the volume through links.
fn inside(root: &Path, sub: &str, volume: &str, may_create: bool) -> Result<PathBuf, VolumeError> {
    let escape = || VolumeError::Escape { volume: volume.to_owned(), path: sub.to_owned() };
    let io = |path: &Path| {
        let (volume, path) = (volume.to_owned(), path.to_owned());
        move |source| VolumeError::Io { volume, path, source }
    };
    if !Path::new(sub).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(escape());
    }
    let path = root.join(sub);
    if may_create && !path.exists() {
        std::fs::create_dir_all(&path).map_err(io(&path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(io(&path))?;
    }
    let real = path.canonicalize().map_err(io(&path))?;
    if real.starts_with(root.canonicalize().map_err(io(root))?) { Ok(real) } else { Err(escape()) }
}

#[cfg(test)]
mod tests;
