//! The names that a quota's `hard` list may have, and the kinds that each name counts.

/// Kinds with an older name besides `count/<resource>`.
const ALIASED: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
const POD_NAMES: [&str; 11] = [
    "count/pods",
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const SERVICE_NAMES: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];
const CLAIM_NAMES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// Stands between a storage class and one of [`CLAIM_NAMES`].
pub(super) const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Returns whether quotas never count a kind. Events have never been counted.
#[must_use]
pub fn is_ignored(group: &str, resource: &str) -> bool {
    matches!(group, "" | "events.k8s.io") && resource == "events"
}

/// Returns whether a name of a quota counts objects of a kind.
#[must_use]
pub fn tracks(group: &str, resource: &str, name: &str) -> bool {
    match (group, resource) {
        ("", "pods") => {
            POD_NAMES.contains(&name)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || extended_resource(name).is_some()
        }
        ("", "services") => SERVICE_NAMES.contains(&name),
        ("", "persistentvolumeclaims") => {
            let own = name.split_once(BY_CLASS).map_or(name, |(_, rest)| rest);
            name == "count/persistentvolumeclaims" || CLAIM_NAMES.contains(&own)
        }
        _ if is_ignored(group, resource) => false,
        _ => is_count_of(group, resource, name) || group.is_empty() && ALIASED.contains(&resource) && name == resource,
    }
}

/// Returns whether a name is `count/<resource>` or `count/<resource>.<group>` of a kind.
pub(super) fn is_count_of(group: &str, resource: &str, name: &str) -> bool {
    let Some(counted) = name.strip_prefix("count/").and_then(|counted| counted.strip_prefix(resource)) else {
        return false;
    };
    if group.is_empty() { counted.is_empty() } else { counted.strip_prefix('.') == Some(group) }
}

/// Returns whether this server can measure a name. The usage of other names stays as another controller wrote it.
pub(super) fn is_measured(name: &str) -> bool {
    name.starts_with("count/")
        || ALIASED.contains(&name)
        || ["pods", "services", "persistentvolumeclaims"].iter().any(|resource| tracks("", resource, name))
}

/// Returns the extended resource, such as a device, whose requests a name counts.
pub(super) fn extended_resource(name: &str) -> Option<&str> {
    let resource = name.strip_prefix("requests.")?;
    (resource.contains('/') && !resource.contains("kubernetes.io/") && !resource.contains(BY_CLASS)).then_some(resource)
}
