//! Fields of a pod's spec.

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig, PodSpec, ResourceRequirements};

use super::{Findings, any, container, security, volume};
use crate::specs;

pub(super) fn examine(pod: &Pod, findings: &mut Findings) {
    let Some(spec) = &pod.spec else { return };
    let PodSpec {
        // Honoured by the plan.
        active_deadline_seconds: _,
        readiness_gates: _,
        restart_policy: _,
        termination_grace_period_seconds: _,
        // Honoured in the sandbox, the hosts file and the containers.
        host_ipc: _,
        host_network: _,
        host_pid: _,
        hostname: _,
        hostname_override: _,
        set_hostname_as_fqdn: _,
        share_process_namespace: _,
        subdomain: _,
        // Added to a pod that runs, and examined when they are made.
        ephemeral_containers: _,
        // Used by the scheduler and the controllers. A pod on this node has been placed already.
        affinity: _,
        node_name: _,
        node_selector: _,
        preemption_policy: _,
        priority: _,
        priority_class_name: _,
        scheduler_name: _,
        scheduling_gates: _,
        scheduling_group: _,
        tolerations: _,
        topology_spread_constraints: _,
        // Every policy means the node's resolvers and the additions of `dnsConfig`, because the cluster has no DNS yet.
        dns_policy: _,
        // Honoured in the containers' environment.
        enable_service_links: _,
        // No pod gets a token, so no pod has more rights than it asked for.
        automount_service_account_token: _,
        service_account: _,
        service_account_name: _,
        // Images are pulled without credentials. The pull of an image that needs them fails with an event.
        image_pull_secrets: _,
        // Set by the API for a runtime class, which is refused, and counted by the scheduler.
        overhead: _,
        containers,
        dns_config,
        host_aliases,
        host_users,
        init_containers,
        os,
        resource_claims,
        resources,
        runtime_class_name,
        security_context,
        volumes,
    } = spec;
    if os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        findings.refuse_as("PodOSNotSupported", message.to_owned());
    }
    if let Some(PodDNSConfig { nameservers: _, options: _, searches: _ }) = dns_config {
        // Honoured in the sandbox.
    }
    for HostAlias { hostnames: _, ip: _ } in host_aliases.iter().flatten() {
        // Honoured in the hosts file.
    }
    findings.refuse_if(*host_users == Some(false), "spec.hostUsers");
    findings.refuse_if(any(resource_claims.as_ref()), "spec.resourceClaims");
    findings.refuse_if(runtime_class_name.as_ref().is_some_and(|name| !name.is_empty()), "spec.runtimeClassName");
    if resources.as_ref().is_some_and(is_set) {
        let message = "spec.resources: this node does not support resources of whole pods";
        findings.refuse_as("PodLevelResourcesNotSupported", message.to_owned());
    }
    let hostname = specs::hostname(pod);
    if hostname.len() > specs::MAX_HOSTNAME {
        let message = format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {hostname} is too long \
             ({} characters is the max, {} characters requested)",
            specs::MAX_HOSTNAME,
            hostname.len()
        );
        findings.refuse("spec.setHostnameAsFQDN", &message);
    }
    if let Some(context) = security_context {
        security::of_pod(spec, context, findings);
    }
    for (index, source) in volumes.iter().flatten().enumerate() {
        volume::examine(source, &format!("spec.volumes[{index}]"), findings);
    }
    for (list, name) in [(init_containers.as_deref(), "initContainers"), (Some(containers.as_slice()), "containers")] {
        for (index, container) in list.unwrap_or_default().iter().enumerate() {
            container::examine(pod, container, &format!("spec.{name}[{index}]"), findings);
        }
    }
}

fn is_set(resources: &ResourceRequirements) -> bool {
    let ResourceRequirements { claims, limits, requests } = resources;
    let any_of = |list: &Option<std::collections::BTreeMap<_, _>>| list.as_ref().is_some_and(|list| !list.is_empty());
    any(claims.as_ref()) || any_of(limits) || any_of(requests)
}
