//! From a pod's spec to what the runtime is told. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};
use quorate_api::quantity::Quantity;

use crate::env;
use crate::machine::Machine;
use crate::plan;
use crate::runtime::{BindMount, ContainerSpec, HostPort, Limits, SandboxSpec, Security};

/// Processor time is shared out in periods of 100 ms.
const CPU_PERIOD_US: i128 = 100_000;
const MIN_CPU_SHARES: i128 = 2;

pub(crate) fn sandbox(pod: &Pod, attempt: u32) -> SandboxSpec {
    let spec = pod.spec.clone().unwrap_or_default();
    let reference = plan::pod_ref(pod);
    let dns = spec.dns_config.unwrap_or_default();
    let hostname = spec.hostname.filter(|name| !name.is_empty()).unwrap_or_else(|| reference.name.clone());
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
    let extra_hosts = spec
        .host_aliases
        .iter()
        .flatten()
        .flat_map(|alias| alias.hostnames.iter().flatten().map(move |name| format!("{name}:{}", alias.ip)));
    SandboxSpec {
        attempt,
        // Linux takes no longer host names.
        hostname: hostname.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned(),
        host_network,
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        shares_processes: spec.share_process_namespace.unwrap_or(false),
        ports: if host_network { Vec::new() } else { ports.collect() },
        extra_hosts: extra_hosts.collect(),
        dns: dns.nameservers.unwrap_or_default(),
        dns_search: dns.searches.unwrap_or_default(),
        dns_options: dns.options.unwrap_or_default().into_iter().filter_map(dns_option).collect(),
        sysctls: sysctls(spec.security_context.as_ref()),
        pod: reference,
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
    list.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
}

/// What has been found out about a container before it is started.
pub(crate) struct Prepared {
    pub attempt: u32,
    pub sandbox_id: String,
    pub variables: Vec<(String, String)>,
    pub mounts: Vec<BindMount>,
    pub message_file: Option<PathBuf>,
}

pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    init: bool,
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
        runs_to_completion: init && !plan::is_sidecar(container),
        image: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        env: prepared.variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: prepared.mounts,
        limits: limits(pod, container, machine),
        security: security(spec.and_then(|spec| spec.security_context.as_ref()), container.security_context.as_ref()),
        host_pid: spec.and_then(|spec| spec.host_pid).unwrap_or(false),
        share_processes: spec.and_then(|spec| spec.share_process_namespace).unwrap_or(false),
        message_file: prepared.message_file,
        message_path: container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
        message_from_logs: container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        stdin: container.stdin.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
    }
}

fn quantity(container: &Container, limits: bool, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let list = if limits { &resources.limits } else { &resources.requests };
    Quantity::parse(&list.as_ref()?.get(resource)?.0).ok()
}

fn limits(pod: &Pod, container: &Container, machine: &Machine) -> Limits {
    let limit_cpu = quantity(container, true, "cpu").map(|cpu| cpu.milli_value());
    let request_cpu = quantity(container, false, "cpu").map(|cpu| cpu.milli_value()).or(limit_cpu);
    let limit_memory = quantity(container, true, "memory").map(|memory| memory.value());
    let request_memory = quantity(container, false, "memory").map(|memory| memory.value()).or(limit_memory);
    let narrow = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    Limits {
        cpu_shares: narrow((request_cpu.unwrap_or(0) * 1024 / 1000).clamp(MIN_CPU_SHARES, 262_144)),
        cpu_quota: limit_cpu
            .filter(|milli| *milli > 0)
            .map_or(0, |milli| narrow((milli * CPU_PERIOD_US / 1000).max(1000))),
        memory_bytes: limit_memory.map_or(0, narrow),
        oom_score_adj: oom_score(plan::qos_class(pod), request_memory.unwrap_or(0), i128::from(machine.memory_bytes)),
    }
}

/// Who dies first when memory runs out: best effort before burstable before guaranteed, the more one uses beyond its
/// request the sooner.
fn oom_score(qos: &str, request: i128, machine_memory: i128) -> i64 {
    match qos {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = (1000 * request).checked_div(machine_memory).unwrap_or(0);
            i64::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

fn security(pod: Option<&PodSecurityContext>, own: Option<&SecurityContext>) -> Security {
    let user = own.and_then(|own| own.run_as_user).or_else(|| pod?.run_as_user);
    let group = own.and_then(|own| own.run_as_group).or_else(|| pod?.run_as_group);
    let must_not_be_root = own.and_then(|own| own.run_as_non_root).or_else(|| pod?.run_as_non_root).unwrap_or(false);
    let seccomp = own.and_then(|own| own.seccomp_profile.as_ref()).or_else(|| pod?.seccomp_profile.as_ref());
    let mut groups: Vec<String> =
        pod.and_then(|pod| pod.supplemental_groups.as_ref()).into_iter().flatten().map(i64::to_string).collect();
    groups.extend(pod.and_then(|pod| pod.fs_group).map(|group| group.to_string()));
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    Security {
        user: match (user, group) {
            (Some(user), Some(group)) => Some(format!("{user}:{group}")),
            (Some(user), None) => Some(user.to_string()),
            (None, Some(group)) => Some(format!("0:{group}")),
            (None, None) => None,
        },
        groups,
        must_not_be_root: must_not_be_root && user.is_none_or(|user| user == 0),
        privileged: own.and_then(|own| own.privileged).unwrap_or(false),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        unconfined: seccomp.is_some_and(|profile| profile.type_ == "Unconfined"),
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

/// The pull policy, by the API's rule when it is not given: a moving tag is pulled always.
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
