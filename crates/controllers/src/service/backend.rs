//! A pod as the backend of a service: its addresses, ports, and readiness.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pod_state::{is_ready, is_terminal, is_terminating};

/// An IP family, named as EndpointSlices name their address type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(super) fn address_type(self) -> &'static str {
        match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        }
    }

    fn of(address: &str) -> Self {
        if address.contains(':') { Family::Ipv6 } else { Family::Ipv4 }
    }

    /// Returns the IP families of the service, the primary one first.
    pub(super) fn of_service(service: &Service) -> Vec<Family> {
        let spec = service.spec.as_ref();
        let listed = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
        let families: Vec<Family> =
            listed.iter().map(|family| if family == "IPv6" { Family::Ipv6 } else { Family::Ipv4 }).collect();
        if families.is_empty() {
            return vec![Family::of(spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default())];
        }
        families
    }
}

/// A backend port, as Endpoints and EndpointSlices record it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) port: i32,
    pub(super) protocol: String,
    pub(super) app_protocol: Option<String>,
}

/// Returns whether the pod can be a backend of any service: it has an address and has not ended.
pub(super) fn is_candidate(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).is_some_and(|ip| !ip.is_empty())
}

pub(super) fn address(pod: &Pod, family: Family) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    all.filter(|ip| !ip.is_empty()).find(|ip| Family::of(ip) == family)
}

/// Returns whether traffic should go to the pod.
pub(super) fn takes_traffic(pod: &Pod, service: &Service) -> bool {
    publishes_not_ready(service) || (is_ready(pod) && !is_terminating(pod))
}

pub(super) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

pub(super) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_ours = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|hostname| is_ours && !hostname.is_empty())
}

pub(super) fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Returns the service's ports on this pod, in a fixed order. A named port that the pod does not have is left out.
pub(super) fn ports(pod: &Pod, service: &Service) -> Vec<Port> {
    let listed = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<Port> = listed
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                port: target_port(pod, port)?,
                protocol: protocol(port.protocol.as_deref()).to_owned(),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
            let offered = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            offered
                .filter(|offered| offered.name.as_ref() == Some(name))
                .find(|offered| protocol(offered.protocol.as_deref()) == protocol(port.protocol.as_deref()))
                .map(|offered| offered.container_port)
        }
    }
}

/// Returns whether the init container is a sidecar, which keeps running beside the main containers.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}
