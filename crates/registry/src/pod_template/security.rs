//! Checks of security contexts, of the pod and of its containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};

use crate::check;

const SYSTEM_ADMIN: &str = "CAP_SYS_ADMIN";
const PROC_MOUNTS: &[&str] = &["Default", "Unmasked"];
const MAX_SYSCTL_BYTES: usize = 253;
/// The form of the name of a kernel parameter, as the error tells it.
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

pub fn pod(spec: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(context) = &spec.security_context else { return };
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path.child("shareProcessNamespace"), true, detail));
    }
    let path = path.child("securityContext");
    id("runAsUser", context.run_as_user, &path, errors);
    id("runAsGroup", context.run_as_group, &path, errors);
    id("fsGroup", context.fs_group, &path, errors);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        range(*group, path.child("supplementalGroups").index(index), errors);
    }
    sysctls(context.sysctls.as_deref().unwrap_or_default(), &path.child("sysctls"), errors);
}

/// Checks the names of kernel parameters, as Kubernetes' `ValidateSysctls` does.
fn sysctls(sysctls: &[core::Sysctl], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let (path, name) = (path.index(index).child("name"), sysctl.name.as_str());
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !is_sysctl(name) {
            let detail = format!("must have at most {MAX_SYSCTL_BYTES} characters and match regex {SYSCTL}");
            errors.push(FieldError::invalid(path, name, detail));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let is_alphanumeric = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_inner = |byte: &u8| is_alphanumeric(Some(byte)) || matches!(byte, b'-' | b'_');
    name.len() <= MAX_SYSCTL_BYTES
        && name
            .split(['.', '/'])
            .map(str::as_bytes)
            .all(|part| is_alphanumeric(part.first()) && is_alphanumeric(part.last()) && part.iter().all(is_inner))
}

pub fn container(context: &core::SecurityContext, path: &FieldPath, errors: &mut Vec<FieldError>) {
    id("runAsUser", context.run_as_user, path, errors);
    id("runAsGroup", context.run_as_group, path, errors);
    check::one_of_if_set(context.proc_mount.as_deref(), PROC_MOUNTS, path.child("procMount"), errors);
    if context.allow_privilege_escalation != Some(false) {
        return;
    }
    let path = path.child("allowPrivilegeEscalation");
    if context.privileged == Some(true) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path.clone(), false, detail));
    }
    let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref());
    if added.unwrap_or_default().iter().any(|capability| capability == SYSTEM_ADMIN) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(FieldError::invalid(path, false, detail));
    }
}

fn id(field: &str, id: Option<i64>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(id) = id {
        range(id, path.child(field), errors);
    }
}

fn range(id: i64, path: FieldPath, errors: &mut Vec<FieldError>) {
    if !(0..=i64::from(i32::MAX)).contains(&id) {
        errors.push(FieldError::invalid(path, id, "must be between 0 and 2147483647, inclusive"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernel_parameters_have_kubernetes_form() {
        for name in ["kernel.shmmax", "safe-and-unsafe", "net/ipv4.tcp_syncookies", "a"] {
            assert!(is_sysctl(name), "{name}");
        }
        for name in ["foo-", "bar..", ".a", "a b", "A.b", "", "a/", "_a"] {
            assert!(!is_sysctl(name), "{name}");
        }
        let sysctl = |name: &str| core::Sysctl { name: name.to_owned(), value: "1".to_owned() };
        let mut errors = Vec::new();
        sysctls(&[sysctl("a"), sysctl("foo-"), sysctl("a"), sysctl("")], &FieldPath::new("sysctls"), &mut errors);
        let paths: Vec<_> = errors.iter().map(|error| error.path.to_string()).collect();
        assert_eq!(paths, ["sysctls[1].name", "sysctls[2].name", "sysctls[3].name"]);
    }
}
