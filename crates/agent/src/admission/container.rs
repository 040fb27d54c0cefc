//! Fields of a container.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, Lifecycle, LifecycleHandler, Pod, Probe,
    ResourceRequirements, VolumeMount,
};
use quorate_api::quantity::Quantity;

use super::{Findings, any, security};

pub(super) fn examine(pod: &Pod, container: &Container, path: &str, findings: &mut Findings) {
    let Container {
        // Honoured by the plan.
        image_pull_policy: _,
        name: _,
        restart_policy: _,
        // Honoured in the container's spec.
        args: _,
        command: _,
        image: _,
        stdin: _,
        stdin_once: _,
        termination_message_path: _,
        termination_message_policy: _,
        tty: _,
        working_dir: _,
        // Honoured by the plan when the pod is resized.
        resize_policy: _,
        env,
        env_from,
        lifecycle,
        liveness_probe,
        ports,
        readiness_probe,
        resources,
        restart_policy_rules,
        security_context,
        startup_probe,
        volume_devices,
        volume_mounts,
    } = container;
    for (index, variable) in env.iter().flatten().enumerate() {
        let EnvVar { name: _, value: _, value_from } = variable;
        if let Some(source) = value_from {
            variable_source(source, &format!("{path}.env[{index}].valueFrom"), findings);
        }
    }
    for source in env_from.iter().flatten() {
        let EnvFromSource { config_map_ref: _, prefix: _, secret_ref: _ } = source;
    }
    for port in ports.iter().flatten() {
        // A port with a host port is opened on the node; other ports are only informational.
        let ContainerPort { container_port: _, host_ip: _, host_port: _, name: _, protocol: _ } = port;
    }
    for probe in [liveness_probe, readiness_probe, startup_probe].into_iter().flatten() {
        supervision(probe);
    }
    if let Some(Lifecycle { post_start, pre_stop, stop_signal: _ }) = lifecycle {
        for hook in [post_start, pre_stop].into_iter().flatten() {
            let LifecycleHandler { exec: _, http_get: _, sleep: _, tcp_socket: _ } = hook;
        }
    }
    if let Some(resources) = resources {
        requirements(resources, &format!("{path}.resources"), findings);
    }
    findings.refuse_if(any(restart_policy_rules.as_ref()), &format!("{path}.restartPolicyRules"));
    findings.refuse_if(any(volume_devices.as_ref()), &format!("{path}.volumeDevices"));
    for (index, mount) in volume_mounts.iter().flatten().enumerate() {
        let VolumeMount {
            // Honoured in the container's mounts.
            mount_path: _,
            mount_propagation: _,
            name: _,
            read_only: _,
            sub_path: _,
            sub_path_expr: _,
            recursive_read_only,
        } = mount;
        let supported = ["Disabled", "IfPossible"];
        let field = format!("{path}.volumeMounts[{index}].recursiveReadOnly");
        findings.refuse_unless(recursive_read_only.as_deref(), &supported, &field);
    }
    if let Some(context) = security_context {
        security::of_container(context, &format!("{path}.securityContext"), findings);
    }
    security::effective_profiles(pod, container, path, findings);
}

/// Lists the fields of a probe, all of which are honoured: the times by the plan, the actions by the prober.
fn supervision(probe: &Probe) {
    let Probe {
        exec: _,
        failure_threshold: _,
        grpc: _,
        http_get: _,
        initial_delay_seconds: _,
        period_seconds: _,
        success_threshold: _,
        tcp_socket: _,
        termination_grace_period_seconds: _,
        timeout_seconds: _,
    } = probe;
}

fn variable_source(source: &EnvVarSource, path: &str, findings: &mut Findings) {
    let EnvVarSource {
        // Honoured in the container's environment.
        config_map_key_ref: _,
        field_ref: _,
        resource_field_ref: _,
        secret_key_ref: _,
        file_key_ref,
    } = source;
    findings.refuse_if(file_key_ref.is_some(), &format!("{path}.fileKeyRef"));
}

/// Examines resources. The container's cgroups limit CPU and memory. The scheduler uses requests, and counts resources
/// with a domain in their name, for which the node does nothing.
fn requirements(resources: &ResourceRequirements, path: &str, findings: &mut Findings) {
    let ResourceRequirements { claims, limits, requests } = resources;
    findings.refuse_if(any(claims.as_ref()), &format!("{path}.claims"));
    let not_zero = |quantity: &str| Quantity::parse(quantity).is_ok_and(|quantity| !quantity.is_zero());
    for (list, name) in [(limits, "limits"), (requests, "requests")] {
        for (resource, quantity) in list.iter().flatten().filter(|(_, quantity)| not_zero(&quantity.0)) {
            let field = format!("{path}.{name}[{resource}]");
            findings.refuse_if(resource.starts_with("hugepages-"), &field);
            if resource == "ephemeral-storage" && name == "limits" {
                findings.leave_unenforced(&format!("{field}={}", quantity.0));
            }
        }
    }
}
