//! Turns a pod's spec into the specs of its sandbox and containers for the runtime. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile};
use quorate_api::quantity::Quantity;

use crate::admission;
use crate::env;
use crate::machine::Machine;
use crate::plan::{self, ContainerKind};
use crate::runtime::{BindMount, ContainerSpec, HostPort, Limits, SandboxSpec, Security};

/// Period of CPU quotas, in microseconds.
const CPU_PERIOD_US: i128 = 100_000;
const MIN_CPU_SHARES: i128 = 2;

/// Cluster domain in host names of pods with a `subdomain`. It becomes configuration together with the cluster's DNS.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Maximum length of a host name in Linux.
pub(crate) const MAX_HOSTNAME: usize = 64;

fn hostname_override(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.hostname_override.as_deref().filter(|name| !name.is_empty())
}

/// Returns the pod's host name without its domain.
pub(crate) fn short_hostname(pod: &Pod) -> String {
    if let Some(name) = hostname_override(pod) {
        return name.to_owned();
    }
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let name = given.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// Returns the domain of the pod's host name, which only pods with a `subdomain` have.
pub(crate) fn domain(pod: &Pod) -> Option<String> {
    if hostname_override(pod).is_some() {
        return None;
    }
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|name| !name.is_empty())?;
    Some(format!("{subdomain}.{}.svc.{CLUSTER_DOMAIN}", plan::pod_ref(pod).namespace))
}

/// Returns the host name that the pod's processes see.
pub(crate) fn hostname(pod: &Pod) -> String {
    let as_fqdn = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn).unwrap_or(false);
    let short = short_hostname(pod);
    match domain(pod).filter(|_| as_fqdn) {
        Some(domain) => format!("{short}.{domain}"),
        None => short,
    }
}

pub(crate) fn sandbox(pod: &Pod, attempt: u32) -> SandboxSpec {
    let hostname = hostname(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let dns = spec.dns_config.unwrap_or_default();
    let host_network = spec.host_network.unwrap_or(false);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        Some(HostPort {
            container_port: u16::try_from(port.container_port).ok()?,
            host_port: port.host_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?,
            host_ip: port.host_ip.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
        })
    });
    SandboxSpec {
        attempt,
        hostname,
        host_network,
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        shares_processes: spec.share_process_namespace.unwrap_or(false),
        ports: if host_network { Vec::new() } else { ports.collect() },
        dns: dns.nameservers.unwrap_or_default(),
        dns_search: dns.searches.unwrap_or_default(),
        dns_options: dns.options.unwrap_or_default().into_iter().filter_map(dns_option).collect(),
        sysctls: sysctls(spec.security_context.as_ref()),
        pod: plan::pod_ref(pod),
    }
}

fn dns_option(option: k8s_openapi::api::core::v1::PodDNSConfigOption) -> Option<String> {
    let name = option.name?;
    Some(match option.value {
        Some(value) => format!("{name}:{value}"),
        None => name,
    })
}

fn sysctls(context: Option<&PodSecurityContext>) -> BTreeMap<String, String> {
    let list = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    // A sysctl may be written with `/` or `.` as its separator; Docker knows only `.`.
    list.iter().map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone())).collect()
}

/// Inputs of a container's spec that were resolved before it is made.
pub(crate) struct Prepared {
    pub attempt: u32,
    pub sandbox_id: String,
    pub variables: Vec<(String, String)>,
    pub mounts: Vec<BindMount>,
    /// The content of the container's Localhost seccomp profile.
    pub seccomp_profile: Option<String>,
    pub message_file: Option<PathBuf>,
    /// Id of the container whose processes this one sees.
    pub process_target: Option<String>,
}

pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    kind: ContainerKind,
    prepared: Prepared,
    machine: &Machine,
) -> ContainerSpec {
    let by_name: BTreeMap<String, String> = prepared.variables.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| env::expand(text, &by_name)).collect()
    };
    let spec = pod.spec.as_ref();
    ContainerSpec {
        pod: plan::pod_ref(pod),
        name: container.name.clone(),
        attempt: prepared.attempt,
        sandbox_id: prepared.sandbox_id,
        runs_to_completion: kind == ContainerKind::Init && !plan::is_sidecar(container),
        image: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        env: prepared.variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: prepared.mounts,
        limits: limits(pod, container, machine),
        security: security(pod, container, prepared.seccomp_profile),
        host_pid: spec.and_then(|spec| spec.host_pid).unwrap_or(false),
        share_processes: spec.and_then(|spec| spec.share_process_namespace).unwrap_or(false),
        process_target: prepared.process_target,
        message_file: prepared.message_file,
        message_path: container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
        message_from_logs: container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
    }
}

fn quantity(container: &Container, limits: bool, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let list = if limits { &resources.limits } else { &resources.requests };
    Quantity::parse(&list.as_ref()?.get(resource)?.0).ok()
}

pub(crate) fn limits(pod: &Pod, container: &Container, machine: &Machine) -> Limits {
    let limit_cpu = quantity(container, true, "cpu").map(|cpu| cpu.milli_value());
    let request_cpu = quantity(container, false, "cpu").map(|cpu| cpu.milli_value()).or(limit_cpu);
    let limit_memory = quantity(container, true, "memory").map(|memory| memory.value());
    let narrow = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    Limits {
        cpu_shares: narrow((request_cpu.unwrap_or(0) * 1024 / 1000).clamp(MIN_CPU_SHARES, 262_144)),
        cpu_quota: limit_cpu
            .filter(|milli| *milli > 0)
            .map_or(0, |milli| narrow((milli * CPU_PERIOD_US / 1000).max(1000))),
        memory_bytes: limit_memory.map_or(0, narrow),
        oom_score_adj: oom_score(pod, container, i128::from(machine.memory_bytes)),
    }
}

/// Returns the OOM score adjustment. When memory runs out, the kernel kills best-effort containers before burstable
/// before guaranteed ones, and burstable ones with small requests first.
fn oom_score(pod: &Pod, container: &Container, machine_memory: i128) -> i64 {
    const PROTECTED: i64 = -997;
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.priority_class_name.as_deref()) == Some("system-node-critical") {
        return PROTECTED;
    }
    let burstable = |container: &Container| {
        let request = quantity(container, false, "memory").or_else(|| quantity(container, true, "memory"));
        let request = request.map_or(0, |memory| memory.value());
        let share = (1000 * request).checked_div(machine_memory).unwrap_or(0);
        i64::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
    };
    match plan::qos_class(pod) {
        "Guaranteed" => PROTECTED,
        "BestEffort" => 1000,
        // A sidecar is not killed before the main containers that it serves.
        _ if plan::is_sidecar(container) => {
            let mains = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
            mains.iter().map(burstable).fold(burstable(container), i64::min)
        }
        _ => burstable(container),
    }
}

/// Returns the seccomp profile of a container: its own, or else the pod's.
fn seccomp<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a SeccompProfile> {
    let own = container.security_context.as_ref().and_then(|own| own.seccomp_profile.as_ref());
    own.or_else(|| pod.spec.as_ref()?.security_context.as_ref()?.seccomp_profile.as_ref())
}

/// Returns the file of the container's seccomp profile, if the profile is of the type Localhost.
pub(crate) fn seccomp_file<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a str> {
    let profile = seccomp(pod, container).filter(|profile| profile.type_ == "Localhost")?;
    Some(profile.localhost_profile.as_deref().unwrap_or_default())
}

/// Returns Docker's name of the container's AppArmor profile. `None` stands for the engine's default profile.
fn app_armor(pod: &Pod, container: &Container) -> Option<String> {
    let profile = admission::app_armor(pod, container)?;
    match profile.type_.as_str() {
        "Unconfined" => Some("unconfined".to_owned()),
        "Localhost" => profile.localhost_profile,
        _ => None,
    }
}

fn se_linux(options: &SELinuxOptions) -> Vec<String> {
    let SELinuxOptions { level, role, type_, user } = options;
    let parts = [("user", user), ("role", role), ("type", type_), ("level", level)];
    let given = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}:{value}")).collect()
}

fn security(pod: &Pod, container: &Container, seccomp_profile: Option<String>) -> Security {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let user = own.and_then(|own| own.run_as_user).or_else(|| of_pod?.run_as_user);
    let group = own.and_then(|own| own.run_as_group).or_else(|| of_pod?.run_as_group);
    let non_root = own.and_then(|own| own.run_as_non_root).or_else(|| of_pod?.run_as_non_root);
    let labels = own.and_then(|own| own.se_linux_options.as_ref()).or_else(|| of_pod?.se_linux_options.as_ref());
    let mut groups: Vec<String> =
        of_pod.and_then(|pod| pod.supplemental_groups.as_ref()).into_iter().flatten().map(i64::to_string).collect();
    groups.extend(of_pod.and_then(|pod| pod.fs_group).map(|group| group.to_string()));
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    Security {
        user,
        group,
        groups,
        must_not_be_root: non_root.unwrap_or(false),
        privileged: own.and_then(|own| own.privileged).unwrap_or(false),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        seccomp: match seccomp_profile {
            Some(profile) => Some(profile),
            None => seccomp(pod, container)
                .is_some_and(|profile| profile.type_ == "Unconfined")
                .then(|| "unconfined".to_owned()),
        },
        app_armor: app_armor(pod, container),
        se_linux: labels.map(se_linux).unwrap_or_default(),
        cap_add: names(capabilities.and_then(|capabilities| capabilities.add.as_ref())),
        cap_drop: names(capabilities.and_then(|capabilities| capabilities.drop.as_ref())),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// Returns the pull policy. The API's default is `Always` for an image with the tag `latest` or without a tag, else
/// `IfNotPresent`.
pub(crate) fn pull_policy(container: &Container) -> PullPolicy {
    let image = container.image.as_deref().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let fixed = image.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if fixed => PullPolicy::IfNotPresent,
        _ => PullPolicy::Always,
    }
}

#[cfg(test)]
mod tests;
