//! Host ports and their conflicts.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;

use crate::requests::is_sidecar;

const ANY_ADDRESS: &str = "0.0.0.0";

/// A port that a pod uses on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Arc<str>,
    /// `0.0.0.0` when the pod names no address.
    pub address: Arc<str>,
}

impl HostPort {
    /// Returns the host ports of the pod's containers and sidecars, sorted.
    #[must_use]
    pub fn of_pod(spec: &PodSpec) -> Vec<HostPort> {
        let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
        let mut ports: Vec<HostPort> = spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                let host_port = port.host_port.filter(|&number| number > 0)?;
                Some(HostPort {
                    port: host_port,
                    protocol: Arc::from(port.protocol.as_deref().unwrap_or("TCP")),
                    address: Arc::from(port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or(ANY_ADDRESS)),
                })
            })
            .collect();
        ports.sort();
        ports
    }

    /// Returns whether both use the same port and protocol, on the same address or on all addresses.
    #[must_use]
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || is_any(&self.address) || is_any(&other.address))
    }
}

fn is_any(address: &str) -> bool {
    address == ANY_ADDRESS || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(port: i32, protocol: &str, address: &str) -> HostPort {
        HostPort { port, protocol: Arc::from(protocol), address: Arc::from(address) }
    }

    #[test]
    fn ports_conflict_on_the_same_address_or_on_any() {
        let base = port(8080, "TCP", "127.0.0.1");
        for (other, conflicts) in [
            (port(8080, "TCP", "127.0.0.1"), true),
            (port(8080, "TCP", "0.0.0.0"), true),
            (port(8080, "TCP", "::"), true),
            (port(8080, "TCP", "127.0.0.2"), false),
            (port(8080, "UDP", "127.0.0.1"), false),
            (port(8081, "TCP", "127.0.0.1"), false),
        ] {
            assert_eq!(base.conflicts_with(&other), conflicts, "{other:?}");
            assert_eq!(other.conflicts_with(&base), conflicts, "{other:?} the other way round");
        }
    }

    #[test]
    fn only_containers_and_sidecars_use_host_ports() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081}]}],
            "initContainers": [
                {"name": "i", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "s", "restartPolicy": "Always",
                    "ports": [{"containerPort": 2, "hostPort": 2, "hostIP": "10.0.0.1", "protocol": "UDP"}]},
            ],
        }))
        .expect("a pod spec");
        assert_eq!(HostPort::of_pod(&spec), vec![port(2, "UDP", "10.0.0.1"), port(8081, "TCP", "0.0.0.0")]);
    }
}
