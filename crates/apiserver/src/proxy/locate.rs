//! The backend that an object's name stands for, as in Kubernetes: `name`, `name:port` or `scheme:name:port`.

use std::net::{IpAddr, SocketAddr};

use quorate_api::address::is_global_unicast;
use quorate_api::{GroupVersionResource, Status};
use quorate_registry::Backend;
use quorate_store::Consistency;
use rand::Rng;
use serde_json::Value;

use crate::api::Api;
use crate::metadata::field;
use crate::nodes::NodeAddress;
use crate::pipeline::admission::PODS;
use crate::pipeline::read;
use crate::route::Target;

const SERVICES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "services");
const ENDPOINTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "endpoints");

/// The server that a request is passed on to.
pub(super) enum Destination {
    /// The node's own API.
    Node(NodeAddress),
    Pod(PodPort),
}

/// A port of a pod.
pub(super) struct PodPort {
    /// The API of the pod's node.
    pub node: NodeAddress,
    pub namespace: String,
    pub pod: String,
    pub address: SocketAddr,
    pub is_tls: bool,
}

impl Destination {
    /// Returns the backend's address, as in the `Host` header.
    pub fn host(&self) -> String {
        match self {
            Destination::Node(node) => node.host(),
            Destination::Pod(pod) => pod.address.to_string(),
        }
    }
}

/// Finds the backend of a request.
///
/// # Errors
/// See [`proxy`](super::proxy).
pub(super) async fn find(api: &Api, target: &Target, backend: Backend) -> Result<Destination, Status> {
    let kind = match backend {
        Backend::Node => "node",
        Backend::Pod => "pod",
        Backend::Service => "service",
    };
    let name = Name::parse(target.name())
        .ok_or_else(|| Status::bad_request(format!("invalid {kind} request {:?}", target.name())))?;
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let found = match backend {
        Backend::Node => return node(api, &name).await.map(Destination::Node),
        Backend::Pod => pod(api, namespace, &name).await?,
        Backend::Service => service(api, namespace, &name).await?,
    };
    Ok(Destination::Pod(found))
}

/// The parts of a name in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name<'a> {
    is_tls: bool,
    name: &'a str,
    /// Empty if the path gives none.
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let is_valid = !name.is_empty() && matches!(scheme, "" | "http" | "https");
        is_valid.then_some(Name { is_tls: scheme == "https", name, port })
    }
}

async fn object(
    api: &Api,
    resource: &GroupVersionResource,
    namespace: &str,
    name: &str,
    consistency: Consistency,
) -> Result<Value, Status> {
    let served = api.catalog().find(&resource.group, &resource.version, &resource.resource).cloned()?;
    let kv = read::key(api.store(), &served.key(Some(namespace), name), consistency).await?;
    let kv = kv.ok_or_else(|| Status::not_found(resource, name))?;
    serde_json::from_slice(&kv.value).map_err(Status::internal)
}

/// Nodes serve no other port to the masters than that of their API.
async fn node(api: &Api, name: &Name<'_>) -> Result<NodeAddress, Status> {
    let address = NodeAddress::find(api, name.name).await?;
    if !name.port.is_empty() && name.port != address.port.to_string() {
        let (asked, node, port) = (name.port, name.name, address.port);
        let message =
            format!("port {asked} of node {node} cannot be proxied to: only {port}, the port of its API, can");
        return Err(Status::bad_request(message));
    }
    Ok(address)
}

async fn pod(api: &Api, namespace: &str, name: &Name<'_>) -> Result<PodPort, Status> {
    let pod = object(api, &PODS, namespace, name.name, Consistency::Linearizable).await?;
    let port = match name.port {
        "" => first_port(&pod).unwrap_or(if name.is_tls { 443 } else { 80 }),
        port => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            let id = format!("{}:{port}", name.name);
            Status::bad_request(format!("invalid pod request {id:?}: the port must be a number from 1 to 65535"))
        })?,
    };
    let ip = addresses(&pod).next().and_then(|ip| ip.parse().ok());
    let ip = ip.filter(|ip| is_global_unicast(*ip)).ok_or_else(|| Status::bad_request("address not allowed"))?;
    pod_port(api, namespace, &pod, SocketAddr::new(ip, port), name.is_tls).await
}

async fn pod_port(
    api: &Api,
    namespace: &str,
    pod: &Value,
    address: SocketAddr,
    is_tls: bool,
) -> Result<PodPort, Status> {
    let node =
        NodeAddress::find(api, field(&pod["spec"], "nodeName")).await.map_err(|error| unreachable(&error.message))?;
    let pod = field(&pod["metadata"], "name").to_owned();
    Ok(PodPort { node, namespace: namespace.to_owned(), pod, address, is_tls })
}

/// Returns the status of a backend that cannot be reached, in Kubernetes' words.
pub(super) fn unreachable(why: &str) -> Status {
    Status::unavailable(format!("error trying to reach service: {why}"))
}

/// Returns the first port that a container of the pod declares.
fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.filter_map(|container| container["ports"].get(0)?["containerPort"].as_u64());
    ports.next().and_then(|port| u16::try_from(port).ok())
}

fn addresses(pod: &Value) -> impl Iterator<Item = &str> {
    pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|ip| ip["ip"].as_str())
}

/// Chooses one of the service's ready pods.
async fn service(api: &Api, namespace: &str, name: &Name<'_>) -> Result<PodPort, Status> {
    let service = object(api, &SERVICES, namespace, name.name, Consistency::Linearizable).await?;
    let port = port_name(&service, name)?;
    let unavailable =
        |why: &str| Status::unavailable(format!("no endpoints available for service {:?}{why}", name.name));
    let endpoints = match object(api, &ENDPOINTS, namespace, name.name, Consistency::Local).await {
        Err(status) if status.code == 404 => return Err(unavailable("")),
        endpoints => endpoints?,
    };
    let mut ready = ready(&endpoints, port);
    let has_endpoints = !ready.is_empty();
    while !ready.is_empty() {
        let (address, port) = ready.swap_remove(rand::rng().random_range(0..ready.len()));
        if let Some((pod, ip)) = backing_pod(api, namespace, address).await? {
            return pod_port(api, namespace, &pod, SocketAddr::new(ip, port), name.is_tls).await;
        }
    }
    Err(unavailable(if has_endpoints { ": none of them is a pod of its namespace" } else { "" }))
}

/// Returns the name of the port that is asked for by its name or number. A service with one port needs neither.
fn port_name<'a>(service: &'a Value, name: &Name<'a>) -> Result<&'a str, Status> {
    let ports = || service["spec"]["ports"].as_array().into_iter().flatten();
    if let Ok(number) = name.port.parse::<u64>() {
        let found = ports().find(|port| port["port"].as_u64() == Some(number));
        return found
            .map(|port| field(port, "name"))
            .ok_or_else(|| Status::unavailable(format!("no service port {number} found for service {:?}", name.name)));
    }
    match (name.port, ports().next()) {
        ("", Some(only)) if ports().count() == 1 => Ok(field(only, "name")),
        (port, _) => Ok(port),
    }
}

/// Returns the ready addresses of a named port.
fn ready<'a>(endpoints: &'a Value, port: &str) -> Vec<(&'a Value, u16)> {
    let list = |value: &'a Value| value.as_array().into_iter().flatten();
    let mut ready = Vec::new();
    for subset in list(&endpoints["subsets"]) {
        let number = list(&subset["ports"]).find(|found| field(found, "name") == port);
        let number = number.and_then(|found| found["port"].as_u64()).and_then(|number| u16::try_from(number).ok());
        if let Some(number) = number {
            ready.extend(list(&subset["addresses"]).map(|address| (address, number)));
        }
    }
    ready
}

/// Returns the pod behind an endpoint's address; `None` if the pod does not have that address. A writer of endpoints must
/// not choose the destination of requests.
async fn backing_pod(api: &Api, namespace: &str, address: &Value) -> Result<Option<(Value, IpAddr)>, Status> {
    let reference = &address["targetRef"];
    let (name, ip) = (field(reference, "name"), field(address, "ip"));
    if name.is_empty() || field(reference, "kind") != "Pod" || field(reference, "namespace") != namespace {
        return Ok(None);
    }
    let pod = match object(api, &PODS, namespace, name, Consistency::Local).await {
        Err(status) if status.code == 404 => return Ok(None),
        pod => pod?,
    };
    let parsed = ip.parse().ok().filter(|ip| is_global_unicast(*ip)).filter(|_| addresses(&pod).any(|own| own == ip));
    Ok(parsed.map(|ip| (pod, ip)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let name = |is_tls, name, port| Some(Name { is_tls, name, port });
        let cases = [
            ("a", name(false, "a", "")),
            ("a:", name(false, "a", "")),
            ("a:80", name(false, "a", "80")),
            ("http:a:web", name(false, "a", "web")),
            ("https:a:", name(true, "a", "")),
            (":a:80", name(false, "a", "80")),
            ("ftp:a:80", None),
            (":80", None),
            ("", None),
            ("http:a:80:1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Name::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_service_port_is_found_by_name_and_number() {
        let two = json!({ "spec": { "ports": [{ "name": "web", "port": 80 }, { "name": "tls", "port": 443 }] } });
        let one = json!({ "spec": { "ports": [{ "name": "web", "port": 80 }] } });
        let find = |service, port| port_name(service, &Name { is_tls: false, name: "s", port }).map_err(|e| e.message);
        assert_eq!(find(&two, "tls"), Ok("tls"));
        assert_eq!(find(&two, "443"), Ok("tls"));
        assert_eq!(find(&two, ""), Ok(""));
        assert_eq!(find(&one, ""), Ok("web"));
        assert_eq!(find(&two, "81"), Err("no service port 81 found for service \"s\"".to_owned()));
    }

    #[test]
    fn ready_addresses_come_with_the_port_of_their_subset() {
        let endpoints = json!({ "subsets": [
            { "addresses": [{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2" }], "ports": [{ "name": "web", "port": 8080 }] },
            { "addresses": [{ "ip": "10.0.0.3" }], "ports": [{ "name": "web", "port": 8081 }, { "port": 1 }] },
            { "notReadyAddresses": [{ "ip": "10.0.0.4" }], "ports": [{ "name": "web", "port": 8080 }] },
        ]});
        let found =
            |port| ready(&endpoints, port).iter().map(|(a, p)| format!("{}:{p}", field(a, "ip"))).collect::<Vec<_>>();
        assert_eq!(found("web"), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8081"]);
        assert_eq!((found(""), found("tls")), (vec!["10.0.0.3:1".to_owned()], vec![]));
    }

    #[test]
    fn pods_have_unicast_addresses() {
        let is_allowed = |ip: &str| is_global_unicast(ip.parse().expect("an address"));
        assert!(["10.0.0.1", "172.17.0.2", "8.8.8.8", "fd00::1"].into_iter().all(is_allowed));
        assert!(
            !["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::1", "fe80::1"]
                .into_iter()
                .any(is_allowed)
        );
    }
}
