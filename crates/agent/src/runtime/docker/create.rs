//! Converts specs into Docker's requests. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, PortBinding,
};

use super::pause;
use crate::runtime::{BindMount, ContainerSpec, Limits, SandboxSpec};

const CPU_PERIOD_US: i64 = 100_000;
/// OOM score adjustment of sandboxes. They are among the last to be killed, because the pod's network ends with them.
const SANDBOX_OOM_SCORE: i64 = -998;

pub(super) fn sandbox(
    spec: &SandboxSpec,
    network: &str,
    min_oom_score: i64,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    let key = |port: &crate::runtime::HostPort| format!("{}/{}", port.container_port, port.protocol);
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let binding = PortBinding {
            host_ip: Some(port.host_ip.clone()).filter(|ip| !ip.is_empty()),
            host_port: Some(port.host_port.to_string()),
        };
        bindings.entry(key(port)).or_default().get_or_insert_default().push(binding);
    }
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let mut options = vec!["no-new-privileges".to_owned()];
    if !(spec.shares_processes || spec.host_pid) {
        // A seccomp filter takes a sixth of the start time. The sandbox's program makes only four system calls, and no
        // other process can interfere with it unless the pod shares its process namespace.
        options.push("seccomp=unconfined".to_owned());
    }
    let host = HostConfig {
        network_mode: Some(if spec.host_network { "host".to_owned() } else { network.to_owned() }),
        ipc_mode: Some(if spec.host_ipc { "host" } else { "shareable" }.to_owned()),
        pid_mode: spec.host_pid.then(|| "host".to_owned()),
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        dns: some(&spec.dns),
        dns_search: some(&spec.dns_search),
        dns_options: some(&spec.dns_options),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        oom_score_adj: Some(SANDBOX_OOM_SCORE.max(min_oom_score)),
        cpu_shares: Some(2),
        readonly_rootfs: Some(true),
        security_opt: Some(options),
        cap_drop: Some(vec!["ALL".to_owned()]),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(format!("{}:{}", pause::IMAGE, pause::TAG)),
        hostname: (!spec.host_network).then(|| spec.hostname.clone()),
        exposed_ports: (!spec.ports.is_empty()).then(|| spec.ports.iter().map(key).collect()),
        labels: Some(labels),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

pub(super) fn container(
    spec: &ContainerSpec,
    user: Option<String>,
    min_oom_score: i64,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    let sandbox = format!("container:{}", spec.sandbox_id);
    let security = &spec.security;
    let mut mounts: Vec<Mount> = spec.mounts.iter().map(mount).collect();
    if let Some(file) = &spec.message_file {
        mounts.push(mount(&BindMount {
            source: file.clone(),
            target: spec.message_path.clone(),
            read_only: false,
            propagation: "rprivate",
        }));
    }
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    options.extend(security.seccomp.iter().map(|profile| format!("seccomp={profile}")));
    options.extend(security.app_armor.iter().map(|profile| format!("apparmor={profile}")));
    options.extend(security.se_linux.iter().map(|part| format!("label={part}")));
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let rotation = [("max-size", "10m"), ("max-file", "5")];
    let limits = update(&spec.limits);
    let host = HostConfig {
        network_mode: Some(sandbox.clone()),
        ipc_mode: Some(sandbox.clone()),
        pid_mode: match &spec.process_target {
            _ if spec.host_pid => Some("host".to_owned()),
            _ if spec.share_processes => Some(sandbox),
            target => target.as_ref().map(|id| format!("container:{id}")),
        },
        mounts: (!mounts.is_empty()).then_some(mounts),
        cpu_shares: limits.cpu_shares,
        cpu_quota: limits.cpu_quota,
        cpu_period: limits.cpu_period,
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        oom_score_adj: Some(spec.limits.oom_score_adj.max(min_oom_score)),
        privileged: Some(security.privileged),
        readonly_rootfs: Some(security.read_only_root),
        security_opt: some(&options),
        cap_add: some(&security.cap_add),
        cap_drop: some(&security.cap_drop),
        group_add: some(&security.groups),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(rotation.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: some(&spec.command),
        cmd: some(&spec.args),
        env: some(&spec.env),
        working_dir: spec.working_dir.clone(),
        user,
        stop_signal: spec.stop_signal.clone(),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        tty: Some(spec.tty),
        labels: Some(labels),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// Returns the limits of a container, as a change of a running one. The engine leaves zeros and absent values as they are.
pub(super) fn update(limits: &Limits) -> ContainerUpdateBody {
    let positive = |value: i64| (value > 0).then_some(value);
    ContainerUpdateBody {
        cpu_shares: positive(limits.cpu_shares),
        cpu_quota: positive(limits.cpu_quota),
        cpu_period: positive(limits.cpu_quota).map(|_| CPU_PERIOD_US),
        memory: positive(limits.memory_bytes),
        // The same limit for memory and swap together leaves no swap, which could exceed the memory limit.
        memory_swap: positive(limits.memory_bytes),
        ..ContainerUpdateBody::default()
    }
}

fn mount(mount: &BindMount) -> Mount {
    let propagation = match mount.propagation {
        "rshared" => MountBindOptionsPropagationEnum::RSHARED,
        "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
        _ => MountBindOptionsPropagationEnum::RPRIVATE,
    };
    Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.display().to_string()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }),
        ..Mount::default()
    }
}
