//! Fields of the security contexts of pods and containers.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, PodSpec, SELinuxOptions, SeccompProfile, SecurityContext,
    WindowsSecurityContextOptions,
};

use super::Findings;

/// Sysctls that affect only the pod's own namespaces. All of them are namespaced since Linux 4.15.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
/// Prefix of the annotations for AppArmor, which are older than the field.
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn of_pod(spec: &PodSpec, context: &PodSecurityContext, findings: &mut Findings) {
    let PodSecurityContext {
        // Honoured in the containers' specs.
        fs_group: _,
        run_as_group: _,
        run_as_non_root: _,
        run_as_user: _,
        supplemental_groups: _,
        // Bounds the time of a recursive change of owner. Only volumes of the agent, made for each pod, have an owner.
        fs_group_change_policy: _,
        // Chooses how volumes get their SELinux label.
        se_linux_change_policy: _,
        // Examined for each container, together with its own profiles.
        app_armor_profile: _,
        seccomp_profile: _,
        se_linux_options,
        supplemental_groups_policy,
        sysctls,
        windows_options,
    } = context;
    let path = "spec.securityContext";
    se_linux(se_linux_options.as_ref(), path, findings);
    windows(windows_options.as_ref(), path, findings);
    if supplemental_groups_policy.as_deref() == Some("Strict") {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        findings.refuse_as("SupplementalGroupsPolicyNotSupported", message.to_owned());
    }
    for sysctl in sysctls.iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        let shared =
            if name.starts_with("net.") { spec.host_network == Some(true) } else { spec.host_ipc == Some(true) };
        let why = if !SAFE_SYSCTLS.contains(&name.as_str()) {
            "not allowlisted"
        } else if shared && name.starts_with("net.") {
            "not allowed with host net enabled"
        } else if shared {
            "not allowed with host ipc enabled"
        } else {
            continue;
        };
        findings.refuse_as("SysctlForbidden", format!("forbidden sysctl: {name:?} {why}"));
    }
}

pub(super) fn of_container(context: &SecurityContext, path: &str, findings: &mut Findings) {
    let SecurityContext {
        // Honoured in the container's spec.
        allow_privilege_escalation: _,
        capabilities: _,
        privileged: _,
        read_only_root_filesystem: _,
        run_as_group: _,
        run_as_non_root: _,
        run_as_user: _,
        // Examined together with the pod's profiles.
        app_armor_profile: _,
        seccomp_profile: _,
        proc_mount,
        se_linux_options,
        windows_options,
    } = context;
    findings.refuse_unless(proc_mount.as_deref(), &["Default"], &format!("{path}.procMount"));
    se_linux(se_linux_options.as_ref(), path, findings);
    windows(windows_options.as_ref(), path, findings);
}

/// Examines the profiles of a container, which the container or its pod may set.
pub(super) fn effective_profiles(pod: &Pod, container: &Container, path: &str, findings: &mut Findings) {
    if let Some(profile) = app_armor(pod, container) {
        app_armor_profile(&profile, path, findings);
    }
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.seccomp_profile.as_ref());
    let own = container.security_context.as_ref().and_then(|own| own.seccomp_profile.as_ref());
    if let Some(profile) = own.or(of_pod) {
        seccomp_profile(profile, path, findings);
    }
}

/// Returns the AppArmor profile of a container: its own, or else the one of its annotation, or else the pod's.
pub(crate) fn app_armor(pod: &Pod, container: &Container) -> Option<AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|own| own.app_armor_profile.clone());
    let annotation = || {
        let value = pod.metadata.annotations.as_ref()?.get(&format!("{APP_ARMOR_ANNOTATION}{}", container.name))?;
        let profile = |type_: &str| AppArmorProfile { type_: type_.to_owned(), localhost_profile: None };
        Some(match value.as_str() {
            "" => return None,
            "runtime/default" => profile("RuntimeDefault"),
            "unconfined" => profile("Unconfined"),
            other => match other.strip_prefix("localhost/") {
                Some(name) => AppArmorProfile { localhost_profile: Some(name.to_owned()), ..profile("Localhost") },
                None => profile(other),
            },
        })
    };
    own.or_else(annotation).or_else(|| pod.spec.as_ref()?.security_context.as_ref()?.app_armor_profile.clone())
}

fn app_armor_profile(profile: &AppArmorProfile, path: &str, findings: &mut Findings) {
    let AppArmorProfile { localhost_profile, type_ } = profile;
    let refuse = |findings: &mut Findings, why: &str| {
        findings.refuse_as("AppArmor", format!("{path}: Cannot enforce AppArmor: {why}"));
    };
    let named = localhost_profile.as_ref().is_some_and(|name| !name.is_empty());
    match type_.as_str() {
        "Unconfined" => {}
        "RuntimeDefault" | "Localhost" if !findings.capabilities.app_armor => {
            refuse(findings, "AppArmor is not enabled on the host");
        }
        "RuntimeDefault" => {}
        "Localhost" if named => {}
        other => refuse(findings, &format!("invalid AppArmor profile type: {other:?}")),
    }
}

fn seccomp_profile(profile: &SeccompProfile, path: &str, findings: &mut Findings) {
    let SeccompProfile { localhost_profile, type_ } = profile;
    let named = localhost_profile.as_ref().is_some_and(|name| !name.is_empty());
    let field = format!("{path}.securityContext.seccompProfile");
    match type_.as_str() {
        "Unconfined" => {}
        "RuntimeDefault" | "Localhost" if !findings.capabilities.seccomp => {
            findings.refuse(&field, "the container engine of this node filters no system calls");
        }
        "RuntimeDefault" => {}
        "Localhost" if named => {}
        other => findings.refuse(&field, &format!("this node does not support {other:?}")),
    }
}

fn se_linux(options: Option<&SELinuxOptions>, path: &str, findings: &mut Findings) {
    let Some(SELinuxOptions { level, role, type_, user }) = options else { return };
    let is_set = [level, role, type_, user].into_iter().flatten().any(|part| !part.is_empty());
    if is_set && !findings.capabilities.se_linux {
        findings.refuse(&format!("{path}.seLinuxOptions"), "SELinux is not enabled on this node");
    }
}

fn windows(options: Option<&WindowsSecurityContextOptions>, path: &str, findings: &mut Findings) {
    let Some(options) = options else { return };
    let WindowsSecurityContextOptions {
        gmsa_credential_spec,
        gmsa_credential_spec_name,
        host_process,
        run_as_user_name,
    } = options;
    let texts = [gmsa_credential_spec, gmsa_credential_spec_name, run_as_user_name];
    let is_set = texts.into_iter().flatten().any(|text| !text.is_empty()) || *host_process == Some(true);
    findings.refuse_if(is_set, &format!("{path}.windowsOptions"));
}
