//! `/etc/hosts` of a pod's containers. Like the kubelet, the agent mounts one file of its own instead of Docker's.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, HostAlias, Pod};

use crate::checkpoint::pod_dir;
use crate::plan::pod_ref;
use crate::runtime::BindMount;
use crate::specs;

const TARGET: &str = "/etc/hosts";
/// Maximum size of the node's own file that pods on the host network get, in bytes. The rest is cut off.
const NODE_FILE_LIMIT: u64 = 1 << 20;

fn aliases(pod: &Pod) -> &[HostAlias] {
    pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default()
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

fn file(data_dir: &Path, pod: &Pod) -> PathBuf {
    pod_dir(data_dir, &pod_ref(pod).uid).join("etc-hosts")
}

/// Whether the agent mounts the file into this container. A pod on the host network without aliases sees the node's
/// file, and a container with a volume at this path sees the volume.
fn is_managed(pod: &Pod, container: &Container) -> bool {
    let own = container.volume_mounts.iter().flatten().any(|mount| mount.mount_path.trim_end_matches('/') == TARGET);
    !own && (!host_network(pod) || !aliases(pod).is_empty())
}

/// Writes the pod's file and returns its mount, or `None` for a container that does not get the file. The pod's
/// addresses are not known before its sandbox runs; [`update`] adds them.
pub(crate) async fn mount(
    data_dir: &Path,
    pod: &Pod,
    container: &Container,
    ips: &[String],
) -> io::Result<Option<BindMount>> {
    if !is_managed(pod, container) {
        return Ok(None);
    }
    let path = file(data_dir, pod);
    write(pod, path.clone(), ips).await?;
    Ok(Some(BindMount { source: path, target: TARGET.to_owned(), read_only: false, propagation: "rprivate" }))
}

/// Writes the file again before a container starts, when the addresses are known.
pub(crate) async fn update(data_dir: &Path, pod: &Pod, container: &Container, ips: &[String]) -> io::Result<()> {
    if is_managed(pod, container) { write(pod, file(data_dir, pod), ips).await } else { Ok(()) }
}

async fn write(pod: &Pod, path: PathBuf, ips: &[String]) -> io::Result<()> {
    let pod_part = if host_network(pod) { None } else { Some(managed(pod, ips)) };
    let entries = entries(aliases(pod));
    let write = move || {
        let mut content = match pod_part {
            Some(content) => content.into_bytes(),
            None => node_part()?,
        };
        content.extend(entries.into_bytes());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Containers have this file mounted, so it is overwritten in place, and cut to its length afterwards.
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.write_all(&content)?;
        file.set_len(u64::try_from(content.len()).map_err(io::Error::other)?)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

fn node_part() -> io::Result<Vec<u8>> {
    let mut content = b"# Kubernetes-managed hosts file (host network).\n".to_vec();
    std::fs::File::open(TARGET)?.take(NODE_FILE_LIMIT).read_to_end(&mut content)?;
    Ok(content)
}

fn managed(pod: &Pod, ips: &[String]) -> String {
    let mut content = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    let name = specs::short_hostname(pod);
    let names = match specs::domain(pod) {
        Some(domain) => format!("{name}.{domain}\t{name}"),
        None => name,
    };
    for ip in ips {
        content.push_str(&format!("{ip}\t{names}\n"));
    }
    content
}

fn entries(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let metadata = json!({ "name": "web-0", "namespace": "shop", "uid": "u1" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("a well-formed pod")
    }

    async fn shown(pod: &Pod, ips: &[String]) -> Option<String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let mount = mount(dir.path(), pod, container, &[]).await.expect("the file is written")?;
        update(dir.path(), pod, container, ips).await.expect("the file is written again");
        assert_eq!(mount.target, "/etc/hosts");
        Some(std::fs::read_to_string(mount.source).expect("the file is there"))
    }

    #[tokio::test]
    async fn each_alias_is_one_line_with_all_its_names() {
        let pod = pod(json!({
            "subdomain": "shops", "containers": [{ "name": "c" }],
            "hostAliases": [{ "ip": "10.9.8.7", "hostnames": ["db", "db.local"] }, { "ip": "::9", "hostnames": ["six"] }],
        }));
        let content = shown(&pod, &["10.0.0.5".to_owned()]).await.expect("the pod has a file");
        assert!(content.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{content}");
        let expected = "10.0.0.5\tweb-0.shops.shop.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n\
                        10.9.8.7\tdb\tdb.local\n::9\tsix\n";
        assert!(content.ends_with(expected), "{content}");
    }

    #[tokio::test]
    async fn pods_and_containers_with_a_file_of_their_own_keep_it() {
        let ip = ["10.0.0.5".to_owned()];
        let on_host = pod(json!({ "hostNetwork": true, "containers": [{ "name": "c" }] }));
        assert_eq!(shown(&on_host, &ip).await, None);
        let own = [{ json!({ "name": "v", "mountPath": "/etc/hosts" }) }];
        let mounts = pod(json!({ "containers": [{ "name": "c", "volumeMounts": own }] }));
        assert_eq!(shown(&mounts, &ip).await, None);
        let aliases = json!([{ "ip": "10.9.8.7", "hostnames": ["db"] }]);
        let on_host = pod(json!({ "hostNetwork": true, "hostAliases": aliases, "containers": [{ "name": "c" }] }));
        let content = shown(&on_host, &ip).await.expect("aliases need a file");
        assert!(content.starts_with("# Kubernetes-managed hosts file (host network).\n"), "{content}");
        assert!(content.ends_with("\n# Entries added by HostAliases.\n10.9.8.7\tdb\n"), "{content}");
    }
}
