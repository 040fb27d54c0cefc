//! Checks of security contexts, of the pod and of its containers.

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};

use crate::check;

const SYSTEM_ADMIN: &str = "CAP_SYS_ADMIN";
const PROC_MOUNTS: &[&str] = &["Default", "Unmasked"];

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
